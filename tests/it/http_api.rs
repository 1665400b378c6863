//! The plain HTTP API: calls, turns, events, running an analysis now, erasing, health, version, metrics, and the error
//! messages.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::support::daemon::{Daemon, binary, run};
use crate::support::llm::{MockLlm, Step};
use crate::support::ws::{Client, encode, ingest, subscribe, subscriber, turn};
use crate::support::{Json, PATIENCE, eventually, json, shared};

async fn finished_call(daemon: &Daemon, call: &str, turns: u64) {
    let (mut client, _) = ingest(daemon, &format!("call_id={call}&stream_id=s_1&results=none")).await;
    for order in 0..turns {
        client.send(&turn(order, "agent", &format!("Sentence {order} is fine."))).await;
    }
    client.send(&json!({"type":"end","scope":"call"})).await;
    client.of_type("call.completed").await;
}

fn assert_problem(reply: &crate::support::http::Reply, status: u16, words: &[&str]) {
    assert_eq!(reply.status, status, "{}", reply.text());
    assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{}", reply.text());
    let problem = reply.json();
    assert_eq!(problem["status"], status);
    assert!(problem["title"].is_string() && problem["detail"].is_string(), "{problem}");
    for word in words {
        assert!(problem["detail"].as_str().is_some_and(|text| text.contains(word)), "{word}: {problem}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_listed_in_pages() {
    let _machine = shared().await;
    let daemon = Daemon::start("[ingest]\nlinger_ms = 50\n").await;
    for number in 0..7 {
        finished_call(&daemon, &format!("c{number}"), 2).await;
    }
    let (mut open, _) = ingest(&daemon, &format!("call_id=open&meta={}", encode(r#"{"team":"x"}"#))).await;
    open.send(&turn(0, "agent", "Hello.")).await;
    open.acked(0).await;
    let mut names = Vec::new();
    let mut path = "/v1/calls?limit=3".to_owned();
    loop {
        let page = daemon.get_json(&path).await;
        let calls = page["calls"].as_array().expect("calls");
        assert!(calls.len() <= 3);
        for call in calls {
            assert!(call["started_at"].as_str().is_some_and(|at| at.ends_with('Z')), "{call}");
            assert!(call["turns"].is_u64() && call["meta"].is_object() && call["insights"].is_object(), "{call}");
            names.push(call["call_id"].as_str().unwrap_or_default().to_owned());
        }
        match page["next"].as_str() {
            Some(next) => path = format!("/v1/calls?limit=3&after={next}"),
            None => break,
        }
    }
    names.sort();
    assert_eq!(names, ["c0", "c1", "c2", "c3", "c4", "c5", "c6", "open"]);
    let open_ones = daemon.get_json("/v1/calls?state=open").await;
    assert_eq!(open_ones["calls"].as_array().map(Vec::len), Some(1));
    assert_eq!(open_ones["calls"][0]["meta"], json!({"team":"x"}));
    assert_problem(&daemon.get("/v1/calls?state=sleeping").await, 400, &["state", "open", "completed"]);
    assert_problem(&daemon.get("/v1/calls?limit=0").await, 400, &["limit"]);
    assert_problem(&daemon.get("/v1/calls/nowhere").await, 404, &[]);
    assert_problem(&daemon.get("/v1/calls/nowhere/turns").await, 404, &[]);
    assert_problem(&daemon.get("/v1/calls/c0/events?after=x").await, 400, &["after"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_call_its_turns_and_its_events() {
    let _machine = shared().await;
    let daemon = Daemon::start("[ingest]\nlinger_ms = 50\n").await;
    finished_call(&daemon, "c1", 12).await;
    let view = daemon.get_json("/v1/calls/c1").await;
    assert_eq!((&view["call_id"], &view["state"], &view["turns"]), (&json!("c1"), &json!("completed"), &json!(12)));
    let streams = view["streams"].as_array().expect("streams");
    assert_eq!(streams.len(), 1);
    assert_eq!((&streams[0]["stream_id"], &streams[0]["dialect"]), (&json!("s_1"), &json!("sidetone")));
    assert_eq!(view["insights"]["summary"]["provenance"]["endpoint"], "local");
    assert_eq!(view["insights"]["summary"]["degraded"], true, "the embedded provider says what it is");
    let some = daemon.get_json("/v1/calls/c1/turns?from=3&to=5").await;
    let ordinals: Vec<u64> =
        some["turns"].as_array().expect("turns").iter().filter_map(|turn| turn["turn"].as_u64()).collect();
    assert_eq!(ordinals, [3, 4, 5]);
    let events = daemon.events("c1").await;
    let later = daemon.get_json("/v1/calls/c1/events?after=4").await;
    assert_eq!(later["events"][0], events[4]);
    // The frames of a subscription are the same, byte for byte.
    let mut client = subscriber(&daemon).await;
    let resume = json!({"calls":["c1"],"resume":{"c1":{"epoch":events[0]["epoch"],"seq":0}}});
    subscribe(&mut client, resume).await;
    for stored in &events {
        let mut frame = client.recv().await.expect("an event");
        frame.as_object_mut().expect("an object").shift_remove("subscription");
        assert_eq!(frame.to_string(), stored.to_string(), "same fields in the same order");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_analysis_can_be_run_now() {
    let _machine = shared().await;
    let mock = MockLlm::start().await;
    mock.script(|_| Step::Answer(Duration::from_millis(100)));
    let config = format!("{}\n[ingest]\nlinger_ms = 50\nanalyses = [\"summary\"]\n", mock.config(""));
    let daemon = Daemon::start(&config).await;
    let (mut client, _) = ingest(&daemon, "call_id=c1&stream_id=s_1").await;
    client.send(&turn(0, "agent", "Hello.")).await;
    client.acked(0).await;
    let head = daemon.events("c1").await.len();
    let reply = daemon.post("/v1/calls/c1/analyses/summary", &json!({})).await;
    assert_eq!(reply.status, 202, "{}", reply.text());
    let accepted = reply.json();
    assert_eq!(accepted["analysis"], "summary");
    assert!(accepted["after_seq"].as_u64().is_some_and(|seq| seq >= 1 && seq <= head as u64), "{accepted}");
    let insight = client.of_type("insight.updated").await;
    assert_eq!(insight["insight"]["trigger"], "manual");
    assert!(insight["seq"].as_u64() > accepted["after_seq"].as_u64());
    let reply = daemon.post("/v1/calls/c1/analyses/summary?wait_ms=30000", &json!({})).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let waited = reply.json();
    let insight = if waited["insight"].is_object() { &waited["insight"] } else { &waited };
    assert_eq!((&insight["analysis"], &insight["covers"]["to"]), (&json!("summary"), &json!(0)), "{waited}");
    let reply = daemon.post("/v1/calls/c1/analyses/summary?wait_ms=1", &json!({})).await;
    assert_eq!(reply.status, 202, "not within 1 ms: {}", reply.text());
    assert_problem(&daemon.post("/v1/calls/c1/analyses/moood", &json!({})).await, 404, &["moood", "summary"]);
    assert_problem(&daemon.post("/v1/calls/nowhere/analyses/summary", &json!({})).await, 404, &[]);
    // Also for a completed call: events continue after call.completed.
    client.send(&json!({"type":"end","scope":"call"})).await;
    client.of_type("call.completed").await;
    let reply = daemon.post("/v1/calls/c1/analyses/sentiment?wait_ms=30000", &json!({})).await;
    assert_eq!(reply.status, 200, "{}; {:?}", reply.text(), daemon.events("c1").await.last());
    let last = daemon.events("c1").await.pop().expect("events");
    assert_eq!(last["type"], "insight.updated", "{last}");
    let insight = &last["insight"];
    assert_eq!((&insight["trigger"], &insight["status"]), (&json!("manual"), &json!("final")), "{insight}");
    assert_eq!(insight["latency_ms"]["debounce"], 0, "asked for by hand, it waited for nothing: {insight}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_completed_call_can_be_erased() {
    let _machine = shared().await;
    let mut daemon = Daemon::start("[ingest]\nlinger_ms = 50\n").await;
    finished_call(&daemon, "c1", 3).await;
    let (mut open, _) = ingest(&daemon, "call_id=open&stream_id=s_1").await;
    open.send(&turn(0, "agent", "Hello.")).await;
    open.acked(0).await;
    assert_problem(&daemon.delete("/v1/calls/open").await, 409, &[]);
    assert_problem(&daemon.delete("/v1/calls/nowhere").await, 404, &[]);
    let reply = daemon.delete("/v1/calls/c1").await;
    assert!((200..300).contains(&reply.status), "{} {}", reply.status, reply.text());
    for restart in [false, true] {
        if restart {
            daemon.restart().await;
        }
        for path in ["/v1/calls/c1", "/v1/calls/c1/turns", "/v1/calls/c1/events"] {
            assert_eq!(daemon.get(path).await.status, 404, "{path}, restart: {restart}");
        }
        let listed = daemon.get_json("/v1/calls").await;
        assert_eq!(listed["calls"].as_array().map(Vec::len), Some(1), "{listed}");
    }
    assert_eq!(daemon.get_json("/v1/calls/open").await["state"], "open");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_version_and_metrics() {
    let _machine = shared().await;
    let daemon = Daemon::start("[ingest]\nlinger_ms = 50\n").await;
    finished_call(&daemon, "c1", 3).await;
    assert_eq!(daemon.get("/healthz").await.status, 200);
    assert_eq!(daemon.get("/readyz").await.status, 200);
    let version = daemon.get_json("/version").await;
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"), "{version}");
    let metrics = daemon.get("/metrics").await.text();
    for name in ["sidetone_queue_depth", "sidetone_queue_wait_seconds", "sidetone_queue_dropped_total"] {
        assert!(metrics.contains(name), "{name} is missing");
    }
    let depths = metrics.lines().filter(|line| line.starts_with("sidetone_queue_depth{"));
    for line in depths {
        let depth: f64 = line.rsplit(' ').next().and_then(|text| text.parse().ok()).expect("a number");
        assert!(depth >= 0.0, "{line}");
    }
    for (name, line) in metrics
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| Some((line.split(['{', ' ']).next()?, line)))
    {
        assert!(name.starts_with("sidetone_"), "{line}");
    }
    let page = daemon.get("/").await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    assert_problem(&daemon.get("/nowhere").await, 404, &[]);
    let reply = daemon.delete("/healthz").await;
    assert_eq!(reply.header("allow"), Some("GET,HEAD"));
    assert_problem(&reply, 405, &["GET, HEAD"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_line_names_the_port_that_was_chosen() {
    let _machine = shared().await;
    use std::io::BufRead as _;
    let dir = tempfile::tempdir().expect("folder");
    let daemon = Daemon::prepare("", dir.path());
    let mut child = std::process::Command::new(binary())
        .args(["serve", "--listen", "127.0.0.1:0", "--config"])
        .arg(daemon.config_path())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("start");
    let mut line = String::new();
    std::io::BufReader::new(child.stdout.take().expect("stdout")).read_line(&mut line).expect("a line");
    let port: u16 = line
        .trim_end()
        .strip_prefix("listening on http://127.0.0.1:")
        .and_then(|port| port.parse().ok())
        .unwrap_or_else(|| panic!("{line:?}"));
    assert_ne!(port, 0);
    let mut client = Client::connect(&format!("ws://127.0.0.1:{port}/v1/ingest?call_id=c1")).await;
    client.of_type("welcome").await;
    let _ = child.kill();
    let _ = child.wait();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_loopback_is_served() {
    let _machine = shared().await;
    let dir = tempfile::tempdir().expect("folder");
    let daemon = Daemon::prepare("", dir.path());
    let config = daemon.config_path().display().to_string();
    let args = ["serve", "--config", &config, "--listen", "0.0.0.0:0"];
    let output = tokio::time::timeout(PATIENCE, run(&args)).await.expect("refused at once");
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("loopback"), "a sentence that says why: {said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_names_every_problem_at_once() {
    let _machine = shared().await;
    let dir = tempfile::tempdir().expect("folder");
    let file = dir.path().join("bad.toml");
    std::fs::write(
        &file,
        "[ingest]\nlinger_ms = \"soon\"\nshoes = 2\n[journal]\ndurability = \"hope\"\n[limits]\nopen_calls = 0\n\
         [endpoints.x]\nprovider = \"pigeon\"\n[models.m]\ncandidates = [\"nowhere/x\"]\n\
         [analyses.summary]\nevery_n_turns = -1\n[kitchen]\nsink = 1\n[[sink]]\nkind = \"bucket\"\n",
    )
    .expect("write");
    let path = file.display().to_string();
    let output = run(&["check", "--config", &path]).await;
    assert_eq!(output.status.code(), Some(1));
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    for start in [
        "ingest.linger_ms: ",
        "ingest.shoes: ",
        "journal.durability: ",
        "limits.open_calls: ",
        "endpoints.x.provider: ",
        "models.m.candidates",
        "analyses.summary.every_n_turns: ",
        "kitchen: ",
        "sink[0].kind: ",
    ] {
        assert!(said.lines().any(|line| line.starts_with(start)), "{start} is missing:\n{said}");
    }
    let torn = dir.path().join("torn.toml");
    std::fs::write(&torn, "[ingest]\nlinger_ms = 5\nidle_timeout_ms\n").expect("write");
    let output = run(&["check", "--config", &torn.display().to_string()]).await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.code() == Some(1) && said.lines().count() == 1, "{said}");
    assert!(said.contains("torn.toml: line 3, column "), "{said}");
    let good = Daemon::prepare("[ingest]\nlinger_ms = 5\n", dir.path()).config_path().display().to_string();
    let output = run(&["check", "--config", &good]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // The daemon reports the same errors, and does not start.
    let output = run(&["serve", "--config", &path, "--listen", "127.0.0.1:0"]).await;
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("ingest.linger_ms: "));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_per_turn_analysis_answers_each_turn_once() {
    let _machine = shared().await;
    let mock = MockLlm::start().await;
    // Every fifth request fails permanently: such a turn gets one failure instead.
    mock.script(|asked| if asked.number % 5 == 0 { Step::Status(400) } else { Step::Answer(Duration::from_millis(3)) });
    let config = format!("{}\n[ingest]\nlinger_ms = 50\nanalyses = [\"sentiment_turn\"]\n", mock.config(""));
    let daemon = Daemon::start(&config).await;
    finished_call(&daemon, "c1", 40).await;
    let events = daemon.events("c1").await;
    let about = |turn: u64| -> Vec<&Json> {
        events
            .iter()
            .filter(|event| {
                event["insight"]["turn"] == turn || (event["type"] == "insight.failed" && event["turn"] == turn)
            })
            .collect()
    };
    let mut failed = 0;
    for turn in 0..40 {
        let about = about(turn);
        assert_eq!(about.len(), 1, "turn {turn}: {about:?}");
        if about[0]["type"] == "insight.failed" {
            failed += 1;
        } else {
            assert_eq!(about[0]["insight"]["rev"], 1);
            assert_eq!(about[0]["insight"]["covers"]["turns"].as_u64().map(|turns| turns >= 1), Some(true));
        }
    }
    assert!(failed > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_whose_turns_were_corrected_meanwhile_is_refused_and_asked_for_again() {
    let _machine = shared().await;
    let mock = MockLlm::start().await;
    let asked = AtomicU64::new(0);
    mock.script(move |_| {
        let first = asked.fetch_add(1, Ordering::Relaxed) == 0;
        Step::Answer(Duration::from_secs(if first { 3 } else { 0 }))
    });
    let config = format!(
        "{}\n[ingest]\nanalyses = [\"summary\"]\n\
         [analyses.summary]\nevery_n_turns = 1\ndebounce_ms = 0\non_revision = \"refuse\"\n",
        mock.config("")
    );
    let daemon = Daemon::start(&config).await;
    let (mut client, _) = ingest(&daemon, "call_id=c1&stream_id=s_1").await;
    client.send(&turn(0, "agent", "Hello.")).await;
    eventually("the question is out", Duration::from_secs(30), || async { (mock.count() == 1).then_some(()) }).await;
    client.send(&json!({"type":"revise","turn_order":0,"speaker":"customer"})).await;
    let insight = client.of_type("insight.updated").await["insight"].take();
    assert_eq!((&insight["rev"], &insight["trigger"]), (&json!(1), &json!("retry")), "{insight}");
    assert_eq!(insight["covers"]["revision"], 2, "the correction is in it: {insight}");
    assert_eq!(mock.count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_breaks_its_schema_is_repaired_once_then_fails() {
    let _machine = shared().await;
    let mock = MockLlm::start().await;
    let config = format!(
        "{}\n[ingest]\nlinger_ms = 50\nanalyses = [\"summary\"]\nfinal_timeout_ms = 1500\n[analyses.summary]\nevery_n_turns = 1\n",
        mock.config("")
    );
    let daemon = Daemon::start(&config).await;
    let (mut client, _) = ingest(&daemon, "call_id=c1&stream_id=s_1").await;
    client.send(&turn(0, "agent", "Hello.")).await;
    let good = client.of_type("insight.updated").await;
    mock.script(|_| Step::Say("{\"wrong\":true}".to_owned(), Duration::ZERO));
    let before = mock.count();
    client.send(&turn(1, "agent", "The parcel is late.")).await;
    let failed = client.of_type("insight.failed").await;
    assert_eq!(failed["code"], "schema_mismatch", "{failed}");
    assert_eq!(failed["last_good_rev"], good["insight"]["rev"]);
    let asked: Vec<_> = mock.asked().into_iter().filter(|asked| asked.number > before).collect();
    let repairs: Vec<bool> = asked.iter().map(|asked| !asked.text_of("assistant").is_empty()).collect();
    // On a slow machine, the analysis runs again by now.
    assert_eq!(
        (repairs[..2].to_vec(), repairs.get(2).unwrap_or(&false)),
        (vec![false, true], &false),
        "one repair round"
    );
    let view = daemon.get_json("/v1/calls/c1").await;
    assert_eq!(view["insights"]["summary"]["id"], good["insight"]["id"], "the last good one is kept");
    // One round is enough if the second answer is valid.
    let broken = std::sync::atomic::AtomicBool::new(true);
    mock.script(move |asked| {
        if asked.prompt().contains("And again.") && broken.swap(false, std::sync::atomic::Ordering::Relaxed) {
            Step::Say("not even json".to_owned(), Duration::ZERO)
        } else {
            Step::Answer(Duration::ZERO)
        }
    });
    client.send(&turn(2, "agent", "And again.")).await;
    let repaired = client.until("an insight of turn 2", |frame| frame["insight"]["covers"]["to"] == 2).await;
    assert_eq!(repaired["insight"]["provenance"]["attempts"], 2, "{repaired}");
}
