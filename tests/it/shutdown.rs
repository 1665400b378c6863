//! SIGTERM: work in progress is finished, every client is notified, the exit code is 0, and no call ends because of it.

use std::time::{Duration, Instant};

use crate::support::daemon::{Daemon, binary};
use crate::support::llm::{MockLlm, Step};
use crate::support::ws::{ingest, subscribe, subscriber, turn};
use crate::support::{PATIENCE, eventually, json, shared};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_tells_everyone_and_ends_no_call() {
    let _machine = shared().await;
    let mock = MockLlm::start().await;
    mock.script(|_| Step::Answer(Duration::from_millis(400)));
    let config = format!(
        "{}\n[ingest]\nanalyses = [\"summary\"]\nlinger_ms = 50\n[analyses.summary]\nevery_n_turns = 1\n\
         [shutdown]\ndeadline_ms = 300000\n",
        mock.config("")
    );
    let mut daemon = Daemon::start(&config).await;
    let mut reader = subscriber(&daemon).await;
    subscribe(&mut reader, json!({"calls":["c1"],"wait":true})).await;
    let (mut producer, welcome) = ingest(&daemon, "call_id=c1&stream_id=s_1").await;
    producer.send(&turn(0, "agent", "The parcel is late.")).await;
    producer.acked(0).await;
    eventually("an LLM request is open", PATIENCE, || async { (mock.open() > 0).then_some(()) }).await;
    let begun = Instant::now();
    daemon.sigterm();
    let told = producer.of_type("reconnect").await;
    assert!(told["after_ms"].is_u64() && told["grace_ms"].is_u64(), "{told}");
    assert_eq!(producer.close_code().await, 1001);
    assert_eq!(reader.close_code().await, 1001);
    assert_eq!(reader.seen_of("reconnect").len(), 1, "{:?}", reader.seen.last());
    let status = daemon.ended(PATIENCE).await;
    assert_eq!(status.code(), Some(0), "{}", daemon.stderr_tail());
    println!("ended after {:?}", begun.elapsed());

    daemon.up().await;
    let view = daemon.get_json("/v1/calls/c1").await;
    assert_eq!(view["state"], "open", "a shutdown ends no call: {view}");
    let events = daemon.events("c1").await;
    let answered = events.iter().any(|event| event["type"] == "insight.updated" || event["type"] == "insight.failed");
    assert!(answered, "the open job finished or was marked: {events:?}");
    // The subscriber gets the events that it missed before its socket closed when it resumes.
    let mut seen: Vec<u64> = reader.seen.iter().filter_map(|frame| frame["seq"].as_u64()).collect();
    let (epoch, last) = (events[0]["epoch"].clone(), *seen.last().expect("an event"));
    let mut reader = subscriber(&daemon).await;
    let resume = json!({"calls":["c1"],"resume":{"c1":{"epoch":epoch,"seq":last}}});
    let answer = subscribe(&mut reader, resume).await;
    assert_eq!(answer["calls"]["c1"]["recovered"], true, "{answer}");
    while seen.len() < events.len() {
        seen.push(reader.recv().await.expect("an event")["seq"].as_u64().expect("seq"));
    }
    assert_eq!(seen, (1..=events.len() as u64).collect::<Vec<u64>>());
    let (mut producer, again) = ingest(&daemon, "call_id=c1&stream_id=s_1").await;
    assert_eq!((&again["epoch"], &again["acked"]), (&welcome["epoch"], &json!(0)));
    producer.send(&turn(1, "agent", "It came after all.")).await;
    producer.send(&json!({"type":"end","scope":"call"})).await;
    let completed = producer.of_type("call.completed").await;
    assert_eq!(completed["call_id"], "c1");
    let covers = daemon.get_json("/v1/calls/c1").await["insights"]["summary"]["covers"].clone();
    assert_eq!((&covers["from"], &covers["to"]), (&json!(0), &json!(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_keeps_its_deadline_when_the_llm_does_not() {
    let _machine = shared().await;
    let mock = MockLlm::start().await;
    mock.script(|_| Step::Stall);
    let config = format!(
        "{}\n[ingest]\nanalyses = [\"summary\"]\n[analyses.summary]\nevery_n_turns = 1\n[shutdown]\ndeadline_ms = 1500\n",
        mock.config("header_timeout_ms = 120000\ntotal_timeout_ms = 120000")
    );
    let mut daemon = Daemon::start(&config).await;
    let (mut producer, _) = ingest(&daemon, "call_id=c1&stream_id=s_1").await;
    producer.send(&turn(0, "agent", "The parcel is late.")).await;
    producer.acked(0).await;
    // A reader that never reads must not delay the shutdown either.
    let _stuck = subscriber(&daemon).await;
    eventually("an LLM request is open", PATIENCE, || async { (mock.open() > 0).then_some(()) }).await;
    let begun = Instant::now();
    daemon.sigterm();
    let status = daemon.ended(PATIENCE).await;
    assert_eq!(status.code(), Some(0));
    // The request itself could take two minutes.
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    mock.script(|_| Step::Answer(Duration::ZERO));
    daemon.up().await;
    // The aborted job runs again once the call is used, without a new turn.
    let (_producer, _) = ingest(&daemon, "call_id=c1&stream_id=s_1").await;
    eventually("the insight comes after the restart", PATIENCE, || async {
        let view = daemon.get_json("/v1/calls/c1").await;
        (view["insights"]["summary"]["covers"]["to"] == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replay_and_watch_live_through_a_restart() {
    let _machine = shared().await;
    let mut daemon = Daemon::start("[ingest]\nlinger_ms = 50\n").await;
    let folder = tempfile::tempdir().expect("folder");
    let file = crate::support::recording::made_up("long", 150, 3).write(folder.path());
    let log = folder.path().join("watch.ndjson");
    let mut watch = std::process::Command::new(binary())
        .args(["watch", "--to", &daemon.url(), "--json"])
        .stdout(std::fs::File::create(&log).expect("log"))
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("start watch");
    let (path, url) = (file.display().to_string(), daemon.url());
    // 60 to 100 s of speech in about 3 s.
    let replaying = tokio::spawn(async move {
        crate::support::daemon::run(&["replay", &path, "--to", &url, "--speed", "60", "--json"]).await
    });
    let turns = |daemon: &Daemon| {
        let port = daemon.port;
        async move {
            let reply = crate::support::http::request(port, "GET", "/v1/calls/long", &[], None).await;
            (reply.status == 200).then(|| reply.json()["turns"].as_u64().unwrap_or(0))
        }
    };
    for enough in [30, 70] {
        eventually("turns", PATIENCE, || async { turns(&daemon).await.filter(|turns| *turns >= enough) }).await;
        if enough == 30 {
            daemon.restart().await;
        } else {
            daemon.sigterm();
            daemon.ended(PATIENCE).await;
            daemon.up().await;
        }
    }
    let output = replaying.await.expect("join");
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{stdout}\n{}", String::from_utf8_lossy(&output.stderr));
    let summary: crate::support::Json =
        serde_json::from_str(stdout.lines().last().unwrap_or_default()).expect("a summary");
    assert_eq!((&summary["turns"], &summary["lost"]), (&json!(150), &json!(0)), "{summary}");
    let stored = daemon.events("long").await;
    eventually("watch has it all", PATIENCE, || async {
        std::fs::read_to_string(&log).expect("log").contains("call.completed").then_some(())
    })
    .await;
    let _ = watch.kill();
    let _ = watch.wait();
    let text = std::fs::read_to_string(&log).expect("log");
    let seqs: Vec<u64> = text
        .lines()
        .map(|line| {
            serde_json::from_str::<crate::support::Json>(line).unwrap_or_else(|error| panic!("{error}: {line}"))
        })
        .filter(|frame| frame["call_id"] == "long" && frame["type"] != "snapshot")
        .filter_map(|frame| frame["seq"].as_u64())
        .collect();
    assert_eq!(seqs, (1..=stored.len() as u64).collect::<Vec<u64>>(), "watch prints each seq once over restarts");
}

/// `timeout`, `npm run` and others send a signal both to the daemon and to its group: it comes twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_that_is_echoed_is_one_and_a_later_one_ends_at_once() {
    let _machine = shared().await;
    let mock = MockLlm::start().await;
    mock.script(|_| Step::Stall);
    let config = format!(
        "{}\n[ingest]\nanalyses = [\"summary\"]\n[analyses.summary]\nevery_n_turns = 1\ndebounce_ms = 0\n\
         [shutdown]\ndeadline_ms = 2000\n",
        mock.config("")
    );
    let mut daemon = Daemon::start(&config).await;
    let (mut producer, _) = ingest(&daemon, "call_id=c1&stream_id=s_1").await;
    producer.send(&turn(0, "agent", "The parcel is late.")).await;
    eventually("an LLM request is open", PATIENCE, || async { (mock.open() > 0).then_some(()) }).await;
    // Two different signals, because the system merges two equal ones.
    daemon.sigterm();
    daemon.sigint();
    producer.of_type("reconnect").await;
    assert_eq!(producer.close_code().await, 1001);
    let status = daemon.ended(PATIENCE).await;
    assert_eq!(status.code(), Some(0), "{}", daemon.stderr_tail());

    let mut daemon = Daemon::start(&config.replace("deadline_ms = 2000", "deadline_ms = 300000")).await;
    let (mut producer, _) = ingest(&daemon, "call_id=c1&stream_id=s_1").await;
    let open = mock.open();
    producer.send(&turn(0, "agent", "The parcel is late.")).await;
    eventually("another is open", PATIENCE, || async { (mock.open() > open).then_some(()) }).await;
    daemon.sigterm();
    producer.of_type("reconnect").await;
    let impatience = async {
        while daemon.runs() {
            daemon.sigint();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, impatience).await.expect("a later signal ends it");
    assert_eq!(daemon.ended(PATIENCE).await.code(), Some(1), "{}", daemon.stderr_tail());
}
