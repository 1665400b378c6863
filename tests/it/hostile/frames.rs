//! Oversized content, implausible numbers, and input that must not be dropped silently.

use std::path::Path;
use std::time::Duration;

use super::Target;
use crate::support::daemon::Daemon;
use crate::support::llm::{MockLlm, Step};
use crate::support::vendor::{self, Dialect, Vendor};
use crate::support::ws::{Client, ingest, subscribe, subscriber, turn};
use crate::support::{Json, PATIENCE, eventually, json, shared};

/// Usual message limit of clients (Python's `websockets`), bytes.
const FRAME_BYTES: usize = 1 << 20;

/// Length of the longest frame received, bytes.
fn longest(client: &Client) -> usize {
    client.seen.iter().map(|frame| frame.to_string().len()).max().unwrap_or(0)
}

/// Creates an analysis in `folder` whose schema accepts any object. Returns its configuration section.
fn analysis(folder: &Path, name: &str, prompt: &str, more: &str) -> String {
    let dir = folder.join(name);
    std::fs::create_dir(&dir).expect("folder");
    std::fs::write(dir.join("v1.j2"), prompt).expect("prompt");
    std::fs::write(dir.join("schema.json"), r#"{"type":"object"}"#).expect("schema");
    format!("[analyses.{name}]\ndir = {:?}\n{more}\n", dir.display().to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_over_a_limit_is_refused_and_the_limit_named() {
    let target = Target::start("").await;
    let label = "x".repeat(257);
    let word = |speaker: &str| json!({"text":"x","start_ms":0,"end_ms":1,"speaker":speaker});
    let with = |key: &str, value: Json| {
        let mut frame = turn(0, "agent", "Short.");
        frame[key] = value;
        frame
    };
    let refused = [
        ("limits.turn_bytes", with("text", json!("x".repeat(65_537)))),
        ("limits.turn_bytes", with("text", json!("\u{1}".repeat(60_000)))),
        ("limits.turn_bytes", with("words", json!(vec![word("A"); 9_000]))),
        ("limits.label_bytes", with("speaker", json!(label))),
        ("limits.label_bytes", with("language", json!(label))),
        ("limits.label_bytes", with("words", json!([word(&label)]))),
        ("limits.turn_bytes", json!({"type":"partial","turn_order":1,"text":"x".repeat(65_537)})),
        ("limits.label_bytes", json!({"type":"partial","turn_order":1,"text":"x","speaker":label})),
        ("limits.turn_bytes", json!({"type":"revise","turn_order":0,"text":"x".repeat(65_537)})),
        ("limits.meta_bytes", json!({"type":"meta","meta":{"note":"x".repeat(16_384)}})),
    ];
    let report = target
        .during(async {
            let mut reader = subscriber(&target.daemon).await;
            let wanted = json!({"calls":["c1"],"wait":true,"include":["turns","words","partials"]});
            subscribe(&mut reader, wanted).await;
            let (mut client, _) = ingest(&target.daemon, "call_id=c1&stream_id=s_1").await;
            for (limit, frame) in &refused {
                client.send(frame).await;
                let error = client.of_type("error").await;
                assert_eq!((&error["code"], &error["fatal"]), (&json!("bad_field"), &json!(false)), "{error}");
                assert!(error["message"].as_str().is_some_and(|message| message.contains(limit)), "{limit}: {error}");
            }
            // The largest turn that is accepted fits into one frame.
            let mut most = turn(1, &"x".repeat(256), &"x".repeat(65_536));
            most["words"] = json!(vec![word("A"); 6_800]);
            client.send(&most).await;
            client.acked(1).await;
            let shown = reader.of_type("turn.final").await;
            assert_eq!(shown["turn"]["words"].as_array().map(Vec::len), Some(6_800));
            assert!(longest(&reader) < FRAME_BYTES, "{}", longest(&reader));
            // Meta that grows with each reconnect.
            for round in 0..4 {
                let meta = crate::support::ws::encode(&json!({ format!("k{round}"): "x".repeat(6_000) }).to_string());
                let (mut next, _) =
                    ingest(&target.daemon, &format!("call_id=c1&stream_id=m_{round}&meta={meta}")).await;
                if round >= 2 {
                    let error = next.of_type("error").await;
                    assert!(error["message"].to_string().contains("limits.meta_bytes"), "{error}");
                }
            }
            let meta = target.daemon.get_json("/v1/calls/c1").await["meta"].clone();
            assert_eq!(meta.as_object().map(serde_json::Map::len), Some(2));
            // The stream ends although the reason is refused.
            client.send(&json!({"type":"end","reason":label})).await;
            let error = client.of_type("error").await;
            assert!(error["message"].to_string().contains("limits.label_bytes"), "{error}");
            assert_eq!(reader.of_type("stream.ended").await["reason"], Json::Null);
        })
        .await;
    report.assert_bounded();
    // What was refused is not stored.
    assert!(target.journal_bytes() < 4 << 20, "{} bytes", target.journal_bytes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn insight_over_its_limit_fails_and_names_it() {
    let mock = MockLlm::start().await;
    mock.script(|_| Step::Say(json!({ "all": "x".repeat(300 << 10) }).to_string(), Duration::ZERO));
    let folder = tempfile::tempdir().expect("folder");
    let mine = analysis(folder.path(), "mine", "{{ transcript }}", "route = \"mocked\"\nevery_n_turns = 1");
    let target = Target::start(&format!("{}{mine}", mock.config(""))).await;
    let report = target
        .during(async {
            let mut reader = subscriber(&target.daemon).await;
            subscribe(&mut reader, json!({"calls":["c1"],"wait":true,"include":["deltas"]})).await;
            let (mut client, _) = ingest(&target.daemon, "call_id=c1&stream_id=s_1&analyses=mine").await;
            client.send(&turn(0, "agent", "Hello.")).await;
            let failed = client.of_type("insight.failed").await;
            assert_eq!(
                (&failed["analysis"], &failed["code"]),
                (&json!("mine"), &json!("insight_too_large")),
                "{failed}"
            );
            assert!(failed["message"].to_string().contains("limits.insight_bytes"), "{failed}");
            reader.of_type("insight.failed").await;
            assert!(longest(&reader) < FRAME_BYTES, "{}", longest(&reader));
        })
        .await;
    report.assert_bounded();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn welcome_and_snapshot_of_a_call_with_many_insights_stay_under_1_mib() {
    const TURNS: u64 = 150;
    let mock = MockLlm::start().await;
    mock.keep(false);
    mock.script(|_| Step::Say(json!({ "all": "x".repeat(8_000) }).to_string(), Duration::ZERO));
    let folder = tempfile::tempdir().expect("folder");
    let mine = analysis(folder.path(), "mine", "{{ text }}", "route = \"mocked\"\nscope = \"turn\"");
    let target = Target::start(&format!("{}{mine}", mock.config(""))).await;
    let (mut client, _) = ingest(&target.daemon, "call_id=c1&stream_id=s_1&analyses=mine").await;
    for order in 0..TURNS {
        client.send(&turn(order, "agent", "Hello.")).await;
        client.of_type("insight.updated").await;
    }
    let report = target
        .during(async {
            for _ in 0..10 {
                let (client, welcome) = ingest(&target.daemon, "call_id=c1&stream_id=s_2").await;
                assert!(longest(&client) < FRAME_BYTES, "{}", longest(&client));
                assert_eq!(welcome["insights_omitted"], json!(["mine"]));
                let shown = welcome["insights"]["mine"]["turns"].as_object().expect("turns");
                let newest: Vec<u64> = shown.keys().map(|turn| turn.parse().expect("a number")).collect();
                assert_eq!(newest, (TURNS - newest.len() as u64..TURNS).collect::<Vec<_>>(), "the newest, in order");
                let mut reader = subscriber(&target.daemon).await;
                subscribe(&mut reader, json!({"calls":["c1"]})).await;
                let snapshot = reader.of_type("snapshot").await;
                assert!(longest(&reader) < FRAME_BYTES, "{}", longest(&reader));
                assert_eq!(snapshot["state"]["insights_omitted"], json!(["mine"]));
            }
        })
        .await;
    report.assert_bounded();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn implausible_times_and_turn_numbers_are_refused() {
    let _machine = shared().await;
    let daemon = Daemon::start("").await;
    let (mut client, _) = ingest(&daemon, "call_id=c1&stream_id=s_1").await;
    let with = |key: &str, value: u64| {
        let mut frame = turn(0, "agent", "Short.");
        frame[key] = json!(value);
        frame
    };
    let late = json!([{"text":"x","start_ms":0,"end_ms":10_000_000_000_001_u64}]);
    let mut worded = turn(0, "agent", "Short.");
    worded["words"] = late;
    for (expected, frame) in [
        (
            "turn.turn_order: expected an integer from 0 to 1000000000, found 1000000001",
            with("turn_order", 1_000_000_001),
        ),
        (
            "turn.end_ms: expected an integer from 0 to 10000000000000, found 10000000000001",
            with("end_ms", 10_000_000_000_001),
        ),
        ("turn.words[0].end_ms: expected an integer from 0 to 10000000000000", worded),
    ] {
        client.send(&frame).await;
        let error = client.of_type("error").await;
        assert!(error["message"].as_str().is_some_and(|message| message.starts_with(expected)), "{error}");
    }
    for offset in ["18446744073709551615", "10000000000001"] {
        let mut refused = Client::connect(&daemon.ws(&format!("/v1/ingest?call_id=c2&offset_ms={offset}"))).await;
        assert_eq!(refused.close_code().await, 4400);
        let said = refused.seen[0]["message"].to_string();
        assert!(said.contains("offset_ms: expected an integer from 0 to 10000000000000"), "{said}");
    }
    // The highest allowed values survive a restart.
    let (mut far, _) = ingest(&daemon, "call_id=c3&stream_id=s_1&offset_ms=10000000000000").await;
    let mut last = with("start_ms", 10_000_000_000_000);
    last["end_ms"] = json!(10_000_000_000_000_u64);
    far.send(&last).await;
    far.acked(0).await;
    let mut daemon = daemon;
    daemon.restart().await;
    assert_eq!(daemon.turns("c3").await[0]["start_ms"], 20_000_000_000_000_u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vendor_that_reports_2_to_the_64_tokens_does_not_break_usage() {
    let _machine = shared().await;
    let answer = r#"{"choices":[{"index":0,"message":{"content":"fine"},"finish_reason":"stop"}],
        "usage":{"prompt_tokens":18446744073709551615,"completion_tokens":18446744073709551615,"total_tokens":1}}"#;
    let vendor = Vendor::start(Dialect::OpenAi, move |_| vendor::reply(200, "", answer)).await;
    let prices = "prices = [{ model = \"*\", input = 1.0, output = 1.0 }]";
    let config = vendor.endpoint("e", prices) + "[models.m]\ncandidates = [\"e/v\"]\n[limits]\nusd_per_day = 10\n";
    let mut daemon = Daemon::start(&config).await;
    let body = json!({"model":"m","max_tokens":10,"messages":[{"role":"user","content":"hello"}]});
    for _ in 0..3 {
        let reply = daemon.post("/v1/chat/completions", &body).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    for start in 0..2 {
        let usage = daemon.get_json("/v1/usage?group_by=endpoint").await;
        let row = &usage["rows"][0];
        assert_eq!((&row["attempts"], &row["unpriced"]), (&json!(3), &json!(3)), "{usage}");
        assert_eq!((&row["tokens"]["input"], &row["cost_usd"]), (&Json::Null, &Json::Null), "{usage}");
        if start == 0 {
            let counted = daemon.metric("sidetone_gateway_implausible_counts_total", &["endpoint=\"e\""]).await;
            assert_eq!(counted, 6.0);
            // The daily cap reads the ledger at start-up.
            daemon.restart().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transcript_with_a_turn_over_a_limit_is_refused_whole() {
    let target = Target::start("").await;
    let long = "x".repeat(65_537);
    let said = |text: &str| json!({"speaker":"agent","text":text});
    let report = target
        .during(async {
            for (body, expected) in [
                (json!({"turns":[said("Hello."), said(&long), said("Bye.")]}), "turns[1]: turn.text: 65537 bytes"),
                (
                    json!({"dialect":"sidetone","recording":[turn(0, "agent", "Hello."), turn(1, "agent", &long)]}),
                    "recording[1]: turn.text: 65537 bytes",
                ),
                (json!({"turns":[{"speaker":"x".repeat(257),"text":"Hello."}]}), "limits.label_bytes"),
                (json!({"turns":[said("Hello.")],"meta":{"note":"x".repeat(20_000)}}), "limits.meta_bytes"),
            ] {
                let reply = target.daemon.post("/v1/transcripts", &body).await;
                assert_eq!(reply.status, 400, "{}", reply.text());
                assert!(reply.json()["detail"].to_string().contains(expected), "{expected}: {}", reply.text());
            }
            let body = json!({"call_id":"whole","turns":[said("Hello."), said(&long[1..])],"analyses":[]});
            let reply = target.daemon.post("/v1/transcripts", &body).await;
            assert_eq!((reply.status, &reply.json()["turns"]), (200, &json!(2)), "{}", reply.text());
        })
        .await;
    report.assert_bounded();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_calls_counts_open_calls_only_and_after_a_restart_too() {
    let _machine = shared().await;
    let mut daemon = Daemon::start("[limits]\nopen_calls = 3\n[ingest]\nlinger_ms = 0\nanalyses = []\n").await;
    let open = async |daemon: &Daemon, call: &str| {
        let mut client = Client::connect(&daemon.ws(&format!("/v1/ingest?call_id={call}&stream_id=s_1"))).await;
        let first = client.recv().await.expect("a frame");
        (client, first)
    };
    for round in 0..4 {
        // Completed calls do not count, although they are still in memory.
        let (mut client, first) = open(&daemon, &format!("over{round}")).await;
        assert_eq!(first["type"], "welcome", "{first}");
        client.send(&json!({"type":"end","scope":"call"})).await;
        client.of_type("call.completed").await;
    }
    let mut held = Vec::new();
    for call in ["a", "b", "c"] {
        let (client, first) = open(&daemon, call).await;
        assert_eq!(first["type"], "welcome", "{first}");
        held.push(client);
    }
    for start in 0..2 {
        let (mut refused, first) = open(&daemon, "d").await;
        assert!(first["message"].to_string().contains("limits.open_calls"), "{first}");
        assert_eq!(refused.close_code().await, 4429);
        if start == 0 {
            held.clear();
            // Nobody touches the open calls after the restart.
            daemon.restart().await;
        }
    }
    let (mut known, first) = open(&daemon, "a").await;
    assert_eq!(first["type"], "welcome", "{first}");
    known.send(&json!({"type":"end","scope":"call"})).await;
    known.of_type("call.completed").await;
    let (_client, first) = open(&daemon, "d").await;
    assert_eq!(first["type"], "welcome", "{first}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recordings_of_different_streams_never_share_a_file() {
    let _machine = shared().await;
    let folder = tempfile::tempdir().expect("folder");
    let dir = folder.path().join("recordings");
    let daemon = Daemon::start(&format!("[record]\ndir = {:?}\n", dir.display().to_string())).await;
    let long = "x".repeat(128);
    let streams = [("a.b", "c"), ("a", "b.c"), ("a", "b"), (&*long, &*long), (&*long, "b")];
    for (call, stream) in streams {
        let (mut client, _) = ingest(&daemon, &format!("call_id={call}&stream_id={stream}&analyses=")).await;
        client.send(&turn(0, "agent", &format!("{call} {stream}"))).await;
        client.acked(0).await;
    }
    let files = eventually("a file a stream", PATIENCE, || async {
        let files: Vec<String> = std::fs::read_dir(&dir)
            .ok()?
            .map(|entry| std::fs::read_to_string(entry.expect("entry").path()).expect("a recording"))
            .filter(|text| text.lines().count() == 2)
            .collect();
        (files.len() == streams.len()).then_some(files)
    })
    .await;
    for (call, stream) in streams {
        let said = format!("\"{call} {stream}\"");
        assert_eq!(files.iter().filter(|text| text.contains(&said)).count(), 1, "{said}");
    }
    assert_eq!(daemon.metric("sidetone_record_dropped_frames_total", &[]).await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn out_of_descriptors_is_logged_once_and_recovers() {
    const LINE: &str = "connections cannot be accepted";
    let _machine = shared().await;
    let home = tempfile::tempdir().expect("folder");
    let limit = "ulimit -n 96 && exec \"$@\"";
    let mut daemon = Daemon::prepare("", home.path()).under(&["sh", "-c", limit, "sh"]);
    daemon.up().await;
    let mut held = Vec::new();
    for _ in 0..128 {
        held.push(tokio::net::TcpStream::connect(("127.0.0.1", daemon.port)).await.expect("connect"));
    }
    eventually("the log tells of it", PATIENCE, || async { daemon.log().contains(LINE).then_some(()) }).await;
    // About 40 further attempts fail meanwhile (one every 50 ms).
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(daemon.log().matches(LINE).count(), 1, "{}", daemon.stderr_tail());
    drop(held);
    eventually("connections are accepted again", PATIENCE, || async {
        (daemon.get("/healthz").await.status == 200).then_some(())
    })
    .await;
    assert_eq!(daemon.log().matches(LINE).count(), 1, "{}", daemon.stderr_tail());
}
