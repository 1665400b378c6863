//! Full disks, torn files, long calls, and files that grow.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::Target;
use crate::support::daemon::{Daemon, free_port};
use crate::support::disk::SmallDisk;
use crate::support::ws::{Client, ingest, turn};
use crate::support::{Json, PATIENCE, eventually, http, json, shared};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_one_call_have_a_limit_and_cost_what_they_are() {
    let target = Target::start("").await;
    let before = target.journal_bytes();
    let report = target
        .during(async {
            for number in 0..1_000 {
                let (mut client, _) =
                    ingest(&target.daemon, &format!("call_id=many&stream_id=s_{number}&results=none")).await;
                client.send(&turn(0, "agent", "Hello.")).await;
                client.acked(0).await;
                client.drop_now();
            }
        })
        .await;
    let bytes = target.journal_bytes() - before;
    println!("{bytes} bytes for 1,000 streams");
    // If the call's entry were written completely each time, it alone would need 20 MB.
    assert!(bytes < 4_000_000, "{bytes} bytes");
    let mut client = Client::connect(&target.daemon.ws("/v1/ingest?call_id=many&stream_id=s_1000")).await;
    let error = client.of_type("error").await;
    assert_eq!((&error["code"], &error["fatal"]), (&json!("too_many_streams"), &json!(true)), "{error}");
    assert!(error["message"].to_string().contains("1000 (limits.streams_per_call)"), "{error}");
    assert_eq!(client.close_code().await, 4429);
    // A known stream reconnects.
    ingest(&target.daemon, "call_id=many&stream_id=s_7&results=none").await;
    report.assert_bounded();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vendor_sessions_behind_one_producer_meet_the_limit_too() {
    let target = Target::start("[limits]\nstreams_per_call = 5\n").await;
    let (mut client, _) = ingest(&target.daemon, "call_id=c1&stream_id=s_1&dialect=assemblyai&results=none").await;
    for number in 0..10 {
        client.send(&json!({"type":"Begin","id":format!("v_{number}"),"expires_at":1})).await;
        let words = json!({"type":"Turn","turn_order":0,"turn_is_formatted":false,"end_of_turn":true,
                           "transcript":format!("number {number}"),"words":[]});
        client.send(&words).await;
    }
    let error = client.of_type("error").await;
    assert_eq!(error["code"], "too_many_streams", "{error}");
    assert_eq!(client.close_code().await, 4429);
    let shown = target.daemon.get_json("/v1/calls/c1").await;
    assert_eq!(shown["streams"].as_array().map(Vec::len), Some(5), "{shown}");
    let texts: Vec<Json> = target.daemon.turns("c1").await.iter().map(|turn| turn["text"].clone()).collect();
    assert_eq!(texts, ["number 0", "number 1", "number 2", "number 3", "number 4"], "what came later is not mixed in");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_analysis_that_fails_at_once_writes_one_failure_a_second() {
    let config = format!(
        "[ingest]\nanalyses = [\"summary\", \"sentiment\", \"sentiment_turn\"]\n\
         [endpoints.gone]\nprovider = \"openai_compatible\"\nbase_url = \"http://127.0.0.1:{}/v1\"\n\
         [models.gone]\ncandidates = [\"gone/m\"]\n[routes.gone]\nvariants = [{{name = \"a\", model = \"gone\"}}]\n\
         [analyses.summary]\nroute = \"gone\"\nevery_n_turns = 1\n\
         [analyses.sentiment]\nroute = \"gone\"\ninterval_ms = 1\n\
         [analyses.sentiment_turn]\nroute = \"gone\"\n",
        free_port()
    );
    let target = Target::start(&config).await;
    let (mut client, _) = ingest(&target.daemon, "call_id=c1&stream_id=s_1&results=none").await;
    let began = Instant::now();
    let mut said = 0;
    let report = target
        .during(async {
            while began.elapsed() < Duration::from_secs(5) {
                client.send(&turn(said, "agent", &format!("Sentence number {said}."))).await;
                client.acked(said).await;
                said += 1;
                // Also requested by hand, again and again.
                target.daemon.post("/v1/calls/c1/analyses/summary", &json!({})).await;
            }
        })
        .await;
    let events = target.daemon.events("c1").await;
    let most = began.elapsed().as_secs() as usize + 2;
    for name in ["summary", "sentiment", "sentiment_turn"] {
        let failed = |event: &&Json| event["type"] == "insight.failed" && event["analysis"] == name;
        let count = events.iter().filter(failed).count();
        println!("{name}: {count} failures in {:?}, {said} turns", began.elapsed());
        assert!((1..=most).contains(&count), "{name}: {count} failures in {:?}", began.elapsed());
    }
    report.assert_bounded();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_turn_has_its_failure_although_they_are_paced() {
    let _machine = shared().await;
    let config = format!(
        "[ingest]\nanalyses = [\"sentiment_turn\"]\nlinger_ms = 0\n\
         [endpoints.gone]\nprovider = \"openai_compatible\"\nbase_url = \"http://127.0.0.1:{}/v1\"\n\
         [models.gone]\ncandidates = [\"gone/m\"]\n[routes.gone]\nvariants = [{{name = \"a\", model = \"gone\"}}]\n\
         [analyses.sentiment_turn]\nroute = \"gone\"\n",
        free_port()
    );
    let daemon = Daemon::start(&config).await;
    let (mut client, _) = ingest(&daemon, "call_id=c1&stream_id=s_1&results=none").await;
    for order in 0..4 {
        client.send(&turn(order, "agent", &format!("Sentence number {order}."))).await;
    }
    client.send(&json!({"type":"end","scope":"call"})).await;
    client.of_type("call.completed").await;
    let events = daemon.events("c1").await;
    let failed = events.iter().filter(|event| event["type"] == "insight.failed");
    let mut turns: Vec<u64> = failed.map(|event| event["turn"].as_u64().expect("a turn")).collect();
    turns.sort_unstable();
    assert_eq!(turns, [0, 1, 2, 3], "each once");
    assert_eq!(events.last().map(|event| &event["type"]), Some(&json!("call.completed")), "and before the end");
}

/// Writes to a file on `disk` until it is full.
fn fill(disk: &SmallDisk) -> PathBuf {
    use std::io::Write as _;
    let path = disk.path().join("ballast");
    let mut file = std::fs::File::options().create(true).append(true).open(&path).expect("open ballast");
    for size in [1 << 20, 1 << 12, 1 << 8, 1] {
        let block = vec![0_u8; size];
        while file.write_all(&block).is_ok() {}
    }
    path
}

fn on(disk: &SmallDisk, more: &str) -> String {
    format!("{more}\n[storage]\ndir = {:?}\n", disk.path().join("journal").display().to_string())
}

/// Sends turns until the journal accepts no more; returns how many were sent.
async fn say_until_full(client: &mut Client, disk: &SmallDisk) -> u64 {
    let mut sent = 0;
    loop {
        fill(disk);
        for _ in 0..16 {
            client.send(&turn(sent, "agent", &"more and more of the same ".repeat(20))).await;
            sent += 1;
        }
        let full = |frame: &Json| frame["type"] == "error" && frame["code"] == "journal_unavailable";
        while let Some(frame) = client.recv_within(Duration::from_millis(5)).await {
            if full(&frame) {
                return sent;
            }
        }
        assert!(sent < 20_000, "no error although the disk is full");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_disk_is_reported_to_idle_producers_and_fails_posted_recordings() {
    let _machine = shared().await;
    let Some(disk) = SmallDisk::mount("24m") else { return };
    let home = tempfile::tempdir().expect("folder");
    let daemon = Daemon::start_in(&on(&disk, "[ingest]\nanalyses = []\nfinal_timeout_ms = 100\n"), home.path()).await;
    let (mut quiet, _) = ingest(&daemon, "call_id=quiet&stream_id=s_1&results=none").await;
    quiet.send(&turn(0, "agent", "Hello.")).await;
    quiet.acked(0).await;
    let (mut loud, _) = ingest(&daemon, "call_id=loud&stream_id=s_1&results=none").await;
    let sent = say_until_full(&mut loud, &disk).await;
    let error = quiet.of_type("error").await;
    assert_eq!((&error["code"], &error["temporary"]), (&json!("journal_unavailable"), &json!(true)), "{error}");
    let newcomer = Client::try_connect(&daemon.ws("/v1/ingest?call_id=quiet&stream_id=s_2"), &Default::default()).await;
    let error = newcomer.expect("connected").of_type("error").await;
    assert_eq!(error["code"], "journal_unavailable", "one that comes now is told as well");
    // The disk stays full until the answer came: a call that waits for the disk does not complete.
    let posted = daemon.post("/v1/transcripts", &json!({"turns":[{"speaker":"a","text":"Hello."}]})).await;
    assert_eq!(posted.status, 503, "{}", posted.text());
    assert!(posted.text().contains("is not complete after 30 s"), "{}", posted.text());
    std::fs::remove_file(disk.path().join("ballast")).expect("free the disk");
    loud.acked(sent - 1).await;
    assert_eq!(daemon.turns("loud").await.len() as u64, sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_disk_is_full_what_is_durable_is_read() {
    let _machine = shared().await;
    let Some(disk) = SmallDisk::mount("24m") else { return };
    let home = tempfile::tempdir().expect("folder");
    let daemon = Daemon::start_in(&on(&disk, "[ingest]\nanalyses = []\n"), home.path()).await;
    let (mut quiet, _) = ingest(&daemon, "call_id=quiet&stream_id=s_1&results=none").await;
    quiet.send(&turn(0, "agent", "Hello.")).await;
    quiet.acked(0).await;
    let (mut loud, _) = ingest(&daemon, "call_id=loud&stream_id=s_1&results=none").await;
    loud.send(&turn(0, "agent", "Hello.")).await;
    loud.acked(0).await;
    let sent = say_until_full(&mut loud, &disk).await;
    // More than a session buffers: its queue is full, and its socket is not read.
    for order in sent..sent + 800 {
        loud.send(&turn(order, "agent", &"more and more of the same ".repeat(20))).await;
    }
    // The disk stays full until all of these are answered: a call that waits for the disk does not complete.
    let calls = daemon.get_json("/v1/calls").await["calls"].clone();
    let ids: Vec<&Json> = calls.as_array().expect("calls").iter().map(|call| &call["call_id"]).collect();
    assert_eq!(ids, ["loud", "quiet"], "{calls}");
    let shown = daemon.get_json("/v1/calls/loud").await;
    let events = daemon.events("loud").await;
    let turns = daemon.turns("loud").await;
    let finals = events.iter().filter(|event| event["type"] == "turn.final").count();
    assert_eq!((turns.len(), &shown["turns"]), (finals, &json!(finals)), "all three say what is durable");
    let mut reader = Client::connect(&daemon.ws("/v1/subscribe")).await;
    reader.send(&json!({"id":"1","type":"subscribe","calls":["loud"]})).await;
    let snapshot = reader.of_type("snapshot").await;
    assert_eq!(snapshot["seq"], events.last().expect("events")["seq"]);
    std::fs::remove_file(disk.path().join("ballast")).expect("free the disk");
    loud.acked(sent + 799).await;
    assert_eq!(daemon.turns("loud").await.len() as u64, sent + 800);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn start_on_a_full_disk_serves_stored_calls_and_recovers() {
    let _machine = shared().await;
    let Some(disk) = SmallDisk::mount("24m") else { return };
    let home = tempfile::tempdir().expect("folder");
    let config = on(&disk, "[ingest]\nanalyses = []\n");
    let mut daemon = Daemon::start_in(&config, home.path()).await;
    let (mut client, _) = ingest(&daemon, "call_id=c1&stream_id=s_1&results=none").await;
    client.send(&turn(0, "agent", "Hello.")).await;
    client.acked(0).await;
    drop(client);
    daemon.kill9();
    let ballast = fill(&disk);
    daemon.up().await;
    let ready = daemon.get("/readyz").await;
    assert_eq!(ready.status, 503, "{}", ready.text());
    assert_eq!(daemon.get("/healthz").await.status, 200);
    assert_eq!(daemon.turns("c1").await.len(), 1);
    std::fs::remove_file(ballast).expect("free the disk");
    eventually("ready", PATIENCE, || async { (daemon.get("/readyz").await.status == 200).then_some(()) }).await;
    let (mut client, _) = ingest(&daemon, "call_id=c1&stream_id=s_1&results=none").await;
    client.send(&turn(1, "agent", "Goodbye.")).await;
    client.acked(1).await;
    daemon.restart().await;
    assert_eq!(daemon.turns("c1").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn truncated_directory_loses_no_call() {
    let _machine = shared().await;
    let mut daemon = Daemon::start("[ingest]\nanalyses = [\"summary\"]\nlinger_ms = 0\nidle_timeout_ms = 200\n").await;
    let say = async |daemon: &Daemon, call: &str, meta: &str| {
        let (mut client, _) = ingest(daemon, &format!("call_id={call}&stream_id=s_1&results=none&meta={meta}")).await;
        for order in 0..5 {
            client.send(&turn(order, "agent", &format!("Sentence number {order}."))).await;
        }
        client.acked(4).await;
        client
    };
    let mut over = say(&daemon, "over", "%7B%22team%22%3A%22a%22%7D").await;
    over.send(&json!({"type":"end","scope":"call"})).await;
    over.of_type("call.completed").await;
    let open = say(&daemon, "open", "%7B%22team%22%3A%22b%22%7D").await;
    open.drop_now();
    let before: Vec<Vec<Json>> = vec![daemon.turns("over").await, daemon.turns("open").await];
    daemon.kill9();
    // Everything except the header and half a line.
    let path = daemon.dir.join("journal/directory.log");
    std::fs::File::options().write(true).open(path).and_then(|file| file.set_len(40)).expect("torn");
    daemon.up().await;
    assert_eq!(vec![daemon.turns("over").await, daemon.turns("open").await], before);
    let shown = daemon.get_json("/v1/calls/over").await;
    assert_eq!((&shown["state"], &shown["meta"]), (&json!("completed"), &json!({"team":"a"})), "{shown}");
    assert!(shown["insights"]["summary"].is_object(), "{shown}");
    // The directory is restored from the logs when a timer of the call is due.
    let listed = async |state: &str| daemon.get_json(&format!("/v1/calls?state={state}")).await["calls"].clone();
    eventually("both are completed", PATIENCE, || async {
        (listed("completed").await.as_array().map(Vec::len) == Some(2)).then_some(())
    })
    .await;
    assert_eq!(listed("open").await, json!([]));
    let ends = |events: Vec<Json>| events.iter().filter(|event| event["type"] == "call.completed").count();
    assert_eq!((ends(daemon.events("over").await), ends(daemon.events("open").await)), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_that_is_locked_at_the_start_is_waited_for() {
    let _machine = shared().await;
    let mut daemon = Daemon::start("").await;
    assert_eq!(daemon.get("/readyz").await.status, 200);
    daemon.kill9();
    let other = Connection::open(daemon.dir.join("journal/ledger/ledger.sqlite")).expect("the ledger");
    other.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE").expect("locked");
    daemon.up().await;
    let ready = daemon.get("/readyz").await;
    assert_eq!(ready.status, 503, "{}", ready.text());
    assert!(ready.text().contains("ledger_unavailable"), "{}", ready.text());
    assert_eq!(daemon.get("/v1/usage").await.status, 503);
    let (mut client, _) = ingest(&daemon, "call_id=c1&stream_id=s_1&results=none").await;
    client.send(&turn(0, "agent", "Hello.")).await;
    client.acked(0).await;
    other.execute_batch("ROLLBACK").expect("unlocked");
    drop(other);
    eventually("ready", PATIENCE, || async { (daemon.get("/readyz").await.status == 200).then_some(()) }).await;
    assert_eq!(daemon.get("/v1/usage").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreadable_state_file_error_says_what_to_do() {
    let _machine = shared().await;
    let mut daemon = Daemon::start("").await;
    daemon.kill9();
    std::fs::write(daemon.dir.join("journal/state"), b"\xff\xfe\0garbage").expect("written");
    drop(daemon.spawn());
    assert!(!daemon.ended(PATIENCE).await.success());
    let log = daemon.log();
    assert!(log.contains("journal/state is damaged") && log.contains("delete this file"), "{log}");
    std::fs::remove_file(daemon.dir.join("journal/state")).expect("deleted");
    daemon.up().await;
}

/// A call with this many turns, the last of them corrected; its producer is still connected.
async fn long_call(daemon: &Daemon, call: &str, turns: u64) -> Client {
    let (mut client, _) = ingest(daemon, &format!("call_id={call}&stream_id=s_1&results=none")).await;
    for order in 0..turns {
        client.send(&turn(order, "agent", &format!("Sentence number {order} of a call that does not end."))).await;
        if order % 1_000 == 999 {
            client.acked(order).await;
            client.seen.clear();
        }
    }
    client.send(&json!({"type":"revise","turn_order":3,"text":"Corrected."})).await;
    client.acked_frames(turns + 1).await;
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_call_is_shown_and_taken_up_again_while_others_go_on() {
    const TURNS: u64 = 30_000;
    let mut target = Target::start("[ingest]\nanalyses = []\nlinger_ms = 0\n").await;
    let mut over = long_call(&target.daemon, "over", TURNS).await;
    over.send(&json!({"type":"end","scope":"call"})).await;
    over.of_type("call.completed").await;
    drop(long_call(&target.daemon, "open", TURNS).await);
    target.daemon.restart().await;
    let daemon = &target.daemon;
    let report = target
        .during(async {
            for _ in 0..3 {
                let calls = daemon.get_json("/v1/calls").await;
                let turns = calls["calls"].as_array().expect("calls").iter().map(|call| &call["turns"]);
                assert_eq!(turns.filter(|turns| **turns == json!(TURNS)).count(), 2, "{calls}");
            }
            for call in ["over", "open"] {
                let shown = daemon.get_json(&format!("/v1/calls/{call}")).await;
                assert_eq!((&shown["turns"], &shown["streams"][0]["stream_id"]), (&json!(TURNS), &json!("s_1")));
                let last = daemon.get_json(&format!("/v1/calls/{call}/turns?from={}", TURNS - 1)).await;
                assert_eq!((&last["turns"][0]["turn"], &last["next"]), (&json!(TURNS - 1), &Json::Null), "{last}");
                let early = daemon.get_json(&format!("/v1/calls/{call}/turns?from=2&to=9&limit=2")).await;
                assert_eq!(early["turns"][1]["text"], "Corrected.", "{early}");
                assert_eq!(early["next"], 3);
            }
            // Its producer reconnects, so the call is rebuilt.
            let (mut client, welcome) = ingest(daemon, "call_id=open&stream_id=s_1&results=none").await;
            assert_eq!(welcome["acked"], TURNS - 1);
            client.send(&turn(TURNS, "agent", "Goodbye.")).await;
            client.acked(TURNS).await;
        })
        .await;
    let all = target.daemon.turns("over").await;
    let numbers: Vec<u64> = all.iter().filter_map(|turn| turn["turn"].as_u64()).collect();
    assert_eq!(numbers, (0..TURNS).collect::<Vec<_>>(), "pages hold every turn once");
    report.assert_bounded();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_end_at_their_bytes() {
    let _machine = shared().await;
    let daemon = Daemon::start("[ingest]\nanalyses = []\n").await;
    let (mut client, _) = ingest(&daemon, "call_id=c1&stream_id=s_1&results=none").await;
    for order in 0..40 {
        client.send(&turn(order, "agent", &"x".repeat(60_000))).await;
    }
    client.acked(39).await;
    let first = http::request(daemon.port, "GET", "/v1/calls/c1/turns?limit=5000", &[], None).await;
    assert!(first.body.len() < 1_200_000, "{} bytes", first.body.len());
    assert_eq!(daemon.turns("c1").await.len(), 40, "what follows is on the next pages");
}
