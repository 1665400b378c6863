//! A producer after a crash of the daemon: `welcome.frames` may be below the last `ack.frames`, because frames without
//! an effect are not in the journal. The greater of the two counts; the documentation says so, and this project's
//! clients follow it.

use std::path::Path;

use crate::support::daemon::{Daemon, run};
use crate::support::producer::{Fleet, Producer};
use crate::support::relay::Relay;
use crate::support::ws::{Client, ingest, turn};
use crate::support::{Json, PATIENCE, eventually, json, shared};

/// Number of frames of [`frames`] that the daemon has received when it is killed.
const BEFORE: usize = 6;

/// One turn, the same five times again, then two more turns and the end.
fn frames() -> Vec<Json> {
    let first = turn(0, "agent", "Thank you for calling.");
    let rest =
        [turn(1, "customer", "My order is late."), turn(2, "agent", "It comes tomorrow."), json!({"type":"end"})];
    vec![first; BEFORE].into_iter().chain(rest).collect()
}

/// Plays `frames` through a relay that stops after [`BEFORE`] of them, kills the daemon once these are acknowledged, and
/// starts it again. Checks that the first frame after the crash is the first that no `ack` covered.
async fn survives_a_kill<F: Future<Output = ()>>(call: &str, play: impl FnOnce(String) -> F) {
    let mut daemon = Daemon::start("[ingest]\nlinger_ms = 50\nanalyses = []\n").await;
    let relay = Relay::start(daemon.port, BEFORE).await;
    let played = async {
        tokio::time::timeout(PATIENCE, play(format!("http://{}", relay.address))).await.expect("it ends in time");
    };
    let killed = async {
        eventually("the frames are acknowledged", PATIENCE, || async {
            relay.connections().first()?.acked().filter(|acked| *acked == BEFORE as u64)
        })
        .await;
        daemon.restart().await;
    };
    tokio::join!(played, killed);
    let connections = relay.connections();
    let after: Vec<_> = connections.iter().skip(1).filter(|connection| connection.is_welcomed()).collect();
    let welcome = after[0].received.iter().find(|frame| frame["type"] == "welcome").expect("welcome");
    assert!(welcome["frames"].as_u64() < Some(BEFORE as u64), "nothing was lost that was acknowledged: {welcome}");
    assert_eq!(
        after[0].sent[0],
        frames()[BEFORE].to_string(),
        "the first frame that no ack covered: {:?}",
        after[0].sent
    );
    let turns = daemon.turns(call).await;
    let texts: Vec<&str> = turns.iter().filter_map(|turn| turn["text"].as_str()).collect();
    assert_eq!(texts, ["Thank you for calling.", "My order is late.", "It comes tomorrow."]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replay_after_a_kill_sends_from_the_greater_of_ack_and_welcome() {
    let _machine = shared().await;
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("late.jsonl");
    let mut lines =
        vec![json!({"recording":{"version":1,"dialect":"sidetone","title":"late","license":"none"}}).to_string()];
    lines.extend(frames().iter().map(|frame| json!({"at_ms":0,"message":frame}).to_string()));
    std::fs::write(&file, lines.join("\n")).expect("write");
    survives_a_kill("late", async |url| {
        let file = file.display().to_string();
        let output = run(&["replay", &file, "--to", &url, "--speed", "max", "--json"]).await;
        let printed = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{printed}");
    })
    .await;
}

/// The producer that other tests use behaves as the protocol requires, and not better.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_producer_after_a_kill_sends_from_the_greater_of_ack_and_welcome() {
    let _machine = shared().await;
    survives_a_kill("late", async |url| {
        let port = url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
        let producer = Producer {
            port,
            call: "late".to_owned(),
            stream: "s_1".to_owned(),
            dialect: "sidetone".to_owned(),
            query: String::new(),
            frames: frames().iter().map(Json::to_string).collect(),
            window: 100,
            fleet: std::sync::Arc::new(Fleet::default()),
        };
        let outcome = producer.run(PATIENCE).await;
        assert!(outcome.completed.is_some(), "{:?}", outcome.errors);
    })
    .await;
}

/// Partials alone are acknowledged too, so that a producer need not keep them until the next turn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_partials_are_acknowledged_without_a_turn() {
    let _machine = shared().await;
    let daemon = Daemon::start("").await;
    let (mut client, _): (Client, Json) = ingest(&daemon, "call_id=c1&stream_id=s_1&analyses=").await;
    for count in 0..200 {
        client.send(&json!({"type":"partial","turn_order":0,"text":"word ".repeat(1 + count % 7)})).await;
    }
    let ack = client.acked_frames(128).await;
    assert!(ack["turn_order"].is_null(), "{ack}");
}

/// Every section of the documentation that names `welcome.frames` as the place to resend from.
fn sections_about_resending() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![root.join("README.md")];
    let pages = std::fs::read_dir(root.join("src/docs")).into_iter().flatten().flatten().map(|entry| entry.path());
    files.extend(pages.filter(|path| path.extension().is_some_and(|ending| ending == "md")));
    let texts = files.iter().map(|file| std::fs::read_to_string(file).expect("read"));
    let sections = texts.flat_map(|text| text.split("\n## ").map(str::to_owned).collect::<Vec<_>>());
    sections.filter(|section| section.contains("`welcome.frames`") && section.contains("resend")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documentation_says_to_resend_from_the_greater_of_ack_and_welcome() {
    let sections = sections_about_resending();
    assert!(!sections.is_empty(), "the protocol of a reconnect is documented");
    for section in sections {
        let plain = section.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            plain.contains("may be below the last `ack.frames`") && plain.contains("greater of the two"),
            "{section}"
        );
    }
    // The page as the binary prints it.
    let output = run(&["help", "feeding"]).await;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && printed.contains("greater of the two"), "{printed}");
}
