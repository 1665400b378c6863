//! The bill: it contains every attempt, can be grouped in every way, and is shown as a table, CSV and JSON; an unknown
//! cost is never shown as zero.

use std::time::Duration;

use crate::support::daemon::{Daemon, run};
use crate::support::llm::{MockLlm, Step};
use crate::support::{Json, PATIENCE, eventually, json, shared};

const GROUPS: [&str; 18] = [
    "endpoint",
    "route",
    "variant",
    "model",
    "vendor_model",
    "key",
    "call",
    "analysis",
    "outcome",
    "code",
    "why",
    "status",
    "number",
    "request",
    "hour",
    "day",
    "month",
    "none",
];

fn ask(model: &str) -> Json {
    json!({"model":model,"messages":[{"role":"user","content":"Hello."}]})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sums_by_anything_in_every_form() {
    let _machine = shared().await;
    let mock = MockLlm::start().await;
    let config = format!(
        "[endpoints.priced]\nprovider = \"openai_compatible\"\nbase_url = \"{0}\"\n\
         prices = [{{ model = \"*\", input = 1, output = 2 }}, {{ model = \"*\", from = \"2999-01-01\", input = 9, output = 9 }}]\n\
         [endpoints.free]\nprovider = \"openai_compatible\"\nbase_url = \"{0}\"\n\
         [models.m]\ncandidates = [\"priced/bad\", \"free/good\"]\nretries = 0\n\
         [routes.r]\nvariants = [{{ name = \"x\", model = \"m\" }}]\n",
        mock.base_url()
    );
    let daemon = Daemon::start(&config).await;
    mock.script(|asked| if asked.body["model"] == "bad" { Step::Status(500) } else { Step::Answer(Duration::ZERO) });
    let answer = daemon.post("/v1/chat/completions", &ask("r")).await.json();
    assert_eq!((&answer["sidetone"]["attempts"], &answer["sidetone"]["cost_usd"]), (&json!(2), &Json::Null));
    let answer = daemon.post("/v1/chat/completions", &ask("priced/good")).await.json();
    assert!(answer["sidetone"]["cost_usd"].as_f64().is_some_and(|cost| cost > 0.0 && cost < 0.001), "{answer}");
    // A client that disconnects in the middle has a row too.
    mock.script(|_| Step::Stall);
    let body = ask("priced/slow");
    tokio::select! {
        _ = daemon.post("/v1/chat/completions", &body) => panic!("nobody answers"),
        () = eventually("the vendor is asked", PATIENCE, || async { (mock.open() > 0).then_some(()) }) => {}
    }

    let rows = eventually("all four rows are complete", PATIENCE, || async {
        let rows = daemon.get_json("/v1/usage?group_by=endpoint,outcome,vendor_model").await["rows"].clone();
        let rows = rows.as_array().expect("rows").clone();
        (rows.len() == 4 && rows.iter().all(|row| row["outcome"] != "begun")).then_some(rows)
    })
    .await;
    let row = |endpoint: &str, outcome: &str| {
        let found = rows.iter().find(|row| row["endpoint"] == endpoint && row["outcome"] == outcome);
        found.cloned().unwrap_or_else(|| panic!("{endpoint} {outcome}: {rows:?}"))
    };
    for (outcome, code) in [("failed", "priced"), ("aborted", "priced")] {
        let row = row(code, outcome);
        assert_eq!((&row["cost_usd"], &row["tokens"]["input"]), (&Json::Null, &Json::Null), "{row}");
        assert_eq!(row["unpriced"], 1);
    }
    let free = row("free", "ok");
    assert!(free["tokens"]["input"].is_u64() && free["cost_usd"].is_null(), "tokens known, price not: {free}");
    assert_eq!(free["tokens"]["reasoning"], Json::Null, "what the vendor does not tell is not zero: {free}");
    assert!(row("priced", "ok")["cost_usd"].as_f64().is_some_and(|cost| cost > 0.0));

    let url = daemon.url();
    for group in GROUPS {
        let rows = daemon.get_json(&format!("/v1/usage?group_by={group}")).await["rows"].clone();
        let attempts: u64 = rows.as_array().expect("rows").iter().filter_map(|row| row["attempts"].as_u64()).sum();
        assert_eq!(attempts, 4, "{group}: {rows}");
    }
    let everything = daemon.get_json("/v1/usage?from=2020-01-01&to=2020-01-02&group_by=none").await;
    assert_eq!(everything["rows"][0]["attempts"], 0);
    let reply = daemon.get("/v1/usage?group_by=colour").await;
    assert!(reply.status == 400 && reply.text().contains("vendor_model"), "{}", reply.text());

    let said = |output: std::process::Output| {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let csv = said(run(&["usage", "--to", &url, "--group-by", "endpoint,outcome", "--format", "csv"]).await);
    let head = "endpoint,outcome,attempts,input,cached,cache_write,output,reasoning,cost_usd,unpriced";
    assert_eq!(csv.lines().next(), Some(head));
    assert!(csv.lines().any(|line| line == "priced,failed,1,,,,,,,1"), "{csv}");
    let table = said(run(&["usage", "--to", &url, "--group-by", "route"]).await);
    assert!(table.lines().any(|line| line.starts_with('r') && line.contains(" 2 ")), "{table}");
    let as_json = said(run(&["usage", "--to", &url, "--format", "json", "--from", "2020-01-01"]).await);
    let parsed: Json = serde_json::from_str(&as_json).expect("JSON");
    assert_eq!(parsed["rows"].as_array().map(Vec::len), Some(2));
    let changes = said(run(&["usage", "--to", &url, "--changes", "--format", "csv"]).await);
    for (kind, name) in [("endpoint", "free"), ("model", "m"), ("route", "r"), ("price", "priced/* from 2999-01-01")] {
        assert!(changes.lines().any(|line| line.contains(&format!(",{kind},{name}"))), "{kind} {name}: {changes}");
    }
}
