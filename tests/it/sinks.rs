//! Sinks: at least once over restarts, filters, signatures, retries, dead letters.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::support::daemon::Daemon;
use crate::support::sink::{HookSink, Posted, SocketSink};
use crate::support::ws::{encode, ingest, turn};
use crate::support::{Json, PATIENCE, eventually, json, shared};

async fn feed(daemon: &Daemon, call: &str, turns: u64, meta: &Json) {
    let query = format!("call_id={call}&stream_id=s_1&meta={}", encode(&meta.to_string()));
    let (mut client, _) = ingest(daemon, &query).await;
    for order in 0..turns {
        client.send(&turn(order, "agent", &format!("Sentence {order}."))).await;
    }
    client.send(&json!({"type":"end","scope":"call"})).await;
    client.of_type("call.completed").await;
}

/// The position of the daemon's only sink, from its file.
fn stored_order(daemon: &Daemon) -> u64 {
    let files = std::fs::read_dir(daemon.dir.join("journal/sinks")).into_iter().flatten().flatten();
    let stored = files.filter(|file| file.path().extension().is_some_and(|extension| extension == "json"));
    let positions = stored.filter_map(|file| std::fs::read(file.path()).ok());
    positions.filter_map(|bytes| serde_json::from_slice::<Json>(&bytes).ok()?["order"].as_u64()).max().unwrap_or(0)
}

async fn has_all(sink: &SocketSink, daemon: &Daemon, call: &str) {
    let head = daemon.events(call).await.len() as u64;
    eventually(&format!("the sink has all of {call}"), PATIENCE, || async {
        sink.missing(call, head).is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_sink_gets_everything_over_restarts_of_either_side() {
    let _machine = shared().await;
    let sink = SocketSink::start();
    let config = format!("[ingest]\nlinger_ms = 50\n[[sink]]\nkind = \"websocket\"\nurl = \"{}\"\n", sink.url());
    let mut daemon = Daemon::start(&config).await;
    feed(&daemon, "c1", 20, &json!({})).await;
    has_all(&sink, &daemon, "c1").await;
    for frame in sink.frames.lock().unwrap().iter().filter(|frame| frame["seq"].is_u64()) {
        assert!(frame["type"].is_string() && frame["at"].is_string(), "the frames of a subscription: {frame}");
    }
    eventually("the position behind c1 is stored", PATIENCE, || async {
        (stored_order(&daemon) >= daemon.events("c1").await.len() as u64).then_some(())
    })
    .await;
    // The sink is unreachable: events of this time are delivered later.
    sink.refuse();
    feed(&daemon, "c2", 20, &json!({})).await;
    sink.accept();
    has_all(&sink, &daemon, "c2").await;
    // The daemon is killed while the sink is unreachable: its position is kept.
    sink.refuse();
    feed(&daemon, "c3", 20, &json!({})).await;
    daemon.restart().await;
    sink.accept();
    has_all(&sink, &daemon, "c3").await;
    // Orders have a gap where the daemon was restarted: the gap counts as read.
    eventually("nothing is behind", PATIENCE, || async {
        (daemon.metric("sidetone_sink_behind_events", &[]).await == 0.0).then_some(())
    })
    .await;
    let events = sink.events.lock().unwrap();
    let again = events["c1"].values().filter(|times| **times > 1).count();
    assert!(
        again * 4 < events["c1"].len(),
        "what was long delivered does not come again: {again} of {}",
        events["c1"].len()
    );
}

fn signed(posted: &Posted, secret: &[u8]) -> bool {
    let header = posted.headers.iter().find(|(name, _)| name.contains("signature"));
    let Some((_, value)) = header else { return false };
    // `sha256=HEX` of the body, or of `TIMESTAMP.BODY` if the value or another header contains a time.
    let mut candidates = vec![posted.body.clone()];
    for (name, text) in &posted.headers {
        if name.contains("timestamp") {
            candidates.push([text.as_bytes(), b".", &posted.body].concat());
        }
    }
    if let Some(time) = value.split(',').find_map(|part| part.trim().strip_prefix("t=")) {
        candidates.push([time.as_bytes(), b".", &posted.body].concat());
    }
    candidates.iter().any(|body| {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("any key");
        mac.update(body);
        value.contains(&hex::encode(mac.finalize().into_bytes()))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_is_signed_and_retried_and_dead_letters_are_kept() {
    let _machine = shared().await;
    let hook = HookSink::start();
    let config = format!(
        "[ingest]\nlinger_ms = 50\nanalyses = [\"summary\"]\n\
         [[sink]]\nkind = \"webhook\"\nurl = \"{}\"\nsecret = \"env:HOOK_SECRET\"\n",
        hook.url()
    );
    let dir = tempfile::tempdir().expect("folder");
    let mut daemon = Daemon::prepare(&config, dir.path()).with_env("HOOK_SECRET", "a secret of some length");
    daemon.up().await;
    // Busy at first: events refused with 503 are sent again.
    let refused = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let count = std::sync::Arc::clone(&refused);
    hook.script(move |_| if count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < 2 { 503 } else { 200 });
    feed(&daemon, "c1", 5, &json!({})).await;
    let events = daemon.events("c1").await;
    let delivered = |hook: &HookSink| {
        let posted = hook.posted.lock().unwrap().clone();
        let fine = posted.into_iter().filter(|posted| posted.status == 200);
        fine.flat_map(|posted| bodies(&posted))
            .filter_map(|frame| frame["seq"].as_u64())
            .collect::<std::collections::BTreeSet<u64>>()
    };
    eventually("all events were posted", PATIENCE, || async { (delivered(&hook).len() == events.len()).then_some(()) })
        .await;
    for posted in hook.posted.lock().unwrap().iter() {
        assert!(signed(posted, b"a secret of some length"), "{:?}", posted.headers);
        assert_eq!(posted.header("content-type").map(|kind| kind.starts_with("application/json")), Some(true));
    }
    // One event is refused permanently: the others continue, and it is counted and stored.
    hook.script(|body| if body.to_string().contains("Sentence 2.") { 400 } else { 200 });
    hook.posted.lock().unwrap().clear();
    feed(&daemon, "c2", 5, &json!({})).await;
    eventually("the last event was posted", PATIENCE, || async {
        let posted = hook.posted.lock().unwrap().clone();
        posted.iter().flat_map(bodies).any(|frame| frame["type"] == "call.completed").then_some(())
    })
    .await;
    eventually("a dead letter is counted", PATIENCE, || async {
        (daemon.metric("sidetone_sink_dead_letters", &[]).await >= 1.0).then_some(())
    })
    .await;
    let kept = find_file_with(&daemon.dir, "Sentence 2.", "dead");
    assert!(kept, "the dead letter is kept in a file");
    daemon.restart().await;
    hook.posted.lock().unwrap().clear();
    feed(&daemon, "c3", 5, &json!({})).await;
    eventually("what came after a restart was posted, and nothing is behind", PATIENCE, || async {
        let posted = hook.posted.lock().unwrap().clone();
        let over =
            posted.iter().flat_map(bodies).any(|frame| frame["call_id"] == "c3" && frame["type"] == "call.completed");
        (over && daemon.metric("sidetone_sink_behind_events", &[]).await == 0.0).then_some(())
    })
    .await;
}

fn bodies(posted: &Posted) -> Vec<Json> {
    match serde_json::from_slice(&posted.body) {
        Ok(Json::Array(frames)) => frames,
        Ok(frame) if frame["events"].is_array() => frame["events"].as_array().cloned().unwrap_or_default(),
        Ok(frame) => vec![frame],
        Err(_) => Vec::new(),
    }
}

/// Returns true if a file whose path contains `name` contains `text`.
fn find_file_with(folder: &std::path::Path, text: &str, name: &str) -> bool {
    std::fs::read_dir(folder).is_ok_and(|entries| {
        entries.filter_map(Result::ok).any(|entry| {
            let path = entry.path();
            if path.is_dir() {
                return find_file_with(&path, text, name);
            }
            path.display().to_string().contains(name)
                && std::fs::read(&path).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(text))
        })
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sinks_filter_as_subscribers_do_and_a_dead_one_harms_nobody() {
    let _machine = shared().await;
    let (all, some) = (SocketSink::start(), SocketSink::start());
    let nowhere = crate::support::daemon::free_port();
    let config = format!(
        "[ingest]\nlinger_ms = 50\n\
         [[sink]]\nkind = \"websocket\"\nurl = \"{}\"\n\
         [[sink]]\nkind = \"websocket\"\nurl = \"{}\"\ncalls = [\"c2\"]\nanalyses = [\"summary\"]\ninclude = []\n\
         [[sink]]\nkind = \"webhook\"\nurl = \"http://127.0.0.1:{nowhere}/\"\n",
        all.url(),
        some.url()
    );
    let daemon = Daemon::start(&config).await;
    feed(&daemon, "c1", 3, &json!({})).await;
    feed(&daemon, "c2", 3, &json!({})).await;
    has_all(&all, &daemon, "c1").await;
    has_all(&all, &daemon, "c2").await;
    eventually("the filtered sink has the end of c2", PATIENCE, || async {
        let frames = some.frames.lock().unwrap();
        frames.iter().any(|frame| frame["type"] == "call.completed").then_some(())
    })
    .await;
    let frames = some.frames.lock().unwrap().clone();
    for frame in frames.iter().filter(|frame| frame["seq"].is_u64()) {
        assert_eq!(frame["call_id"], "c2", "{frame}");
        assert_ne!(frame["type"], "turn.final", "{frame}");
        assert!(frame["insight"].is_null() || frame["insight"]["analysis"] == "summary", "{frame}");
    }
    assert_eq!(daemon.get("/readyz").await.status, 200);
}
