//! Bundles as clients see them: several analyses in one request, separate insights, and a bill that adds up.

use std::time::Duration;

use crate::support::daemon::Daemon;
use crate::support::llm::{Asked, MockLlm, Step, minimal};
use crate::support::ws::{Client, ingest, turn};
use crate::support::{Json, json, ledger, shared};

/// Pico-dollars.
fn pico(usd: &Json) -> i64 {
    (usd.as_f64().expect("a cost") * 1e12).round() as i64
}

/// The smallest valid value for each member of a bundle's schema, except that `members` have the given values.
fn answer(asked: &Asked, members: &[(&str, Json)]) -> String {
    let schema = &asked.body["response_format"]["json_schema"]["schema"];
    let mut answer = minimal(schema, schema);
    for (member, value) in members {
        answer[*member] = value.clone();
    }
    answer.to_string()
}

async fn insight_of(client: &mut Client, analysis: &str, to: u64) -> Json {
    let found = |frame: &Json| frame["insight"]["analysis"] == analysis && frame["insight"]["covers"]["to"] == to;
    client.until(&format!("{analysis} up to turn {to}"), found).await["insight"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn analyses_of_a_route_are_one_request_with_separate_insights_and_one_bill() {
    let _machine = shared().await;
    let mock = MockLlm::start().await;
    // In the second answer, the part of one analysis is invalid, also after the repair, and the value of another
    // analysis is unchanged.
    mock.script(|asked| {
        let members = match asked.number {
            2 => vec![("sentiment", json!("fine")), ("summary", Json::Null)],
            3 => vec![("sentiment", json!({"overall": 1}))],
            _ => Vec::new(),
        };
        Step::Say(answer(asked, &members), Duration::ZERO)
    });
    let config = format!(
        "[endpoints.e]\nprovider = \"openai_compatible\"\nbase_url = \"{}\"\n\
         prices = [{{ model = \"*\", input = 1.37, output = 7.7 }}]\n\
         [models.m]\ncandidates = [\"e/v\"]\n[routes.live]\nvariants = [{{ name = \"a\", model = \"m\" }}]\n\
         [gateway]\ndefault_route = \"live\"\n[ingest]\nlinger_ms = 50\n\
         [analyses.summary]\nevery_n_turns = 1\n[analyses.sentiment]\nevery_n_turns = 1\n\
         [analyses.action_items]\nevery_n_turns = 1\n",
        mock.base_url()
    );
    let daemon = Daemon::start(&config).await;
    let names = ["action_items", "sentiment", "summary"];
    let (mut client, _) = ingest(&daemon, "call_id=c1").await;
    client.send(&turn(0, "agent", "How can I help?")).await;
    let mut insights = Vec::new();
    for name in names {
        insights.push(insight_of(&mut client, name, 0).await);
    }
    assert_eq!(mock.count(), 1, "three analyses, one request");
    let first = mock.asked_number(1).expect("asked");
    assert_eq!(first.schema_name(), "answers");
    assert_eq!(first.body["response_format"]["json_schema"]["schema"]["required"], json!(names));

    // One analysis has an invalid part: only this analysis fails.
    client.send(&turn(1, "customer", "My card was stolen.")).await;
    insight_of(&mut client, "action_items", 1).await;
    let summary = insight_of(&mut client, "summary", 1).await;
    assert_eq!((&summary["rev"], &summary["value"]), (&json!(2), &insights[2]["value"]), "null: it is unchanged");
    assert_eq!((&summary["changes"], &summary["provenance"]["attempts"]), (&json!([]), &json!(2)), "{summary}");
    let failed = client.of_type("insight.failed").await;
    assert_eq!((&failed["analysis"], &failed["code"]), (&json!("sentiment"), &json!("schema_mismatch")), "{failed}");
    let asked = mock.asked();
    let schema = |asked: &Asked| asked.body["response_format"].clone();
    assert_eq!(schema(&asked[1]), schema(&asked[0]), "the schema stays the same");

    // The analysis is asked again and succeeds. Then the call ends, and no model is asked.
    insight_of(&mut client, "sentiment", 1).await;
    let before = mock.count();
    client.send(&json!({"type":"end","scope":"call"})).await;
    let completed = client.of_type("call.completed").await;
    assert_eq!((&completed["missing"], mock.count()), (&json!({}), before), "all results stand: {completed}");
    let events = daemon.events("c1").await;
    let insights: Vec<&Json> =
        events.iter().filter(|event| event["type"] == "insight.updated").map(|event| &event["insight"]).collect();
    for name in names {
        let last = insights.iter().rfind(|insight| insight["analysis"] == name).expect("an insight");
        assert_eq!((&last["status"], &last["provenance"]["attempts"]), (&json!("final"), &json!(0)), "{last}");
        assert_eq!(completed["final"][name], last["rev"]);
    }

    // The costs of the insights add up to the bill: the ledger has one row per request, and its sums are divided among
    // the analyses.
    let rows = ledger::settled(&daemon.dir, usize::try_from(before).expect("few"), |_| true).await;
    let billed: i64 = rows.iter().filter_map(|row| row.cost_pico).sum();
    assert_eq!(rows.len() as u64, before, "one row for each request");
    let bundled = rows.iter().filter(|row| row.analysis.as_deref() == Some("action_items+sentiment+summary"));
    assert_eq!(bundled.count() as u64, before, "{rows:?}");
    let costs: i64 = insights.iter().map(|insight| pico(&insight["provenance"]["cost_usd"])).sum();
    assert_eq!(costs, billed);
    let usage = daemon.get_json("/v1/usage?group_by=analysis").await["rows"].clone();
    let usage = usage.as_array().expect("rows");
    assert_eq!(usage.iter().map(|row| row["analysis"].as_str().expect("a name")).collect::<Vec<_>>(), names);
    assert_eq!(usage.iter().map(|row| pico(&row["cost_usd"])).sum::<i64>(), billed);
    assert_eq!(usage.iter().filter_map(|row| row["attempts"].as_u64()).sum::<u64>(), before);
    let tokens = |rows: &[Json]| rows.iter().filter_map(|row| row["tokens"]["input"].as_u64()).sum::<u64>();
    assert_eq!(tokens(usage), rows.iter().filter_map(|row| row.input).sum::<u64>());
}
