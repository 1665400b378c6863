//! SIGKILL, many times, at any moment: acknowledged data exists once, published events are seen once, and every call
//! completes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::support::daemon::Daemon;
use crate::support::llm::{MockLlm, Step};
use crate::support::model::{assert_dense, assert_turns, offset_of, turns_of};
use crate::support::producer::{Fleet, Outcome, Producer};
use crate::support::recording::{self, Recording};
use crate::support::sink::SocketSink;
use crate::support::watcher::Watcher;
use crate::support::{Chance, PATIENCE, eventually, json, knob, seed, shared};

/// Counts that the test prints.
#[derive(Debug, Default)]
struct Kills {
    /// All kills.
    all: usize,
    /// Kills while a frame was unacknowledged and an LLM request open.
    counted: usize,
    /// Those of `counted` at the first such moment after a start.
    early: usize,
    /// Those of `early` within 100 ms of the start.
    within_100_ms: usize,
    /// Kills that were attempted within 100 ms of a start, whatever they interrupted.
    tries: usize,
    /// Connections cut while a frame was unacked.
    unacked: u64,
    /// LLM requests cut.
    cut_requests: u64,
}

/// Kills the daemon once both conditions are true, or after `patience`, and counts what the kill interrupted; `early`
/// means that the daemon was just started.
async fn strike(
    daemon: &mut Daemon,
    fleet: &Fleet,
    mock: &MockLlm,
    started: Instant,
    early: bool,
    patience: Duration,
    kills: &mut Kills,
) {
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline && !(fleet.unacked.load(Ordering::SeqCst) > 0 && mock.open() > 0) {
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    let (unacked, cut_off) = (fleet.dropped_unacked.load(Ordering::SeqCst), mock.cut_off());
    let since = started.elapsed();
    daemon.kill9();
    kills.all += 1;
    // Wait until every connection is seen to be gone: then it is known which frames each of them had unacknowledged.
    eventually("all producers see the kill", PATIENCE, || async {
        (fleet.connected.load(Ordering::SeqCst) == 0 && mock.open() == 0).then_some(())
    })
    .await;
    let unacked = fleet.dropped_unacked.load(Ordering::SeqCst) - unacked;
    let cut = mock.cut_off() - cut_off;
    kills.unacked += unacked;
    kills.cut_requests += cut;
    if unacked > 0 && cut > 0 {
        kills.counted += 1;
        kills.early += usize::from(early);
        kills.within_100_ms += usize::from(early && since < Duration::from_millis(100));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn daemon_killed_many_times_loses_nothing() {
    let _machine = shared().await;
    let (wanted, wanted_early) = (knob("KILLS", 25), knob("EARLY_KILLS", 10));
    let mut chance = Chance(seed("daemon_killed_many_times_loses_nothing"));
    let mock = MockLlm::start().await;
    mock.keep(false);
    mock.script(|asked| Step::Answer(Duration::from_millis(20 + asked.number % 60)));
    let sink = SocketSink::start();
    let config = format!(
        "{}\n[ingest]\nanalyses = [\"summary\", \"sentiment\"]\nlinger_ms = 50\n\
         [analyses.summary]\nevery_n_turns = 1\n[analyses.sentiment]\nevery_n_turns = 2\n\
         [[sink]]\nkind = \"websocket\"\nurl = \"{}\"\n",
        mock.config(""),
        sink.url()
    );
    let mut daemon = Daemon::start(&config).await;
    let watcher = Watcher::start(daemon.port, json!({}));
    let sources = recording::some(&["earnings21", "qmsum", "hvb", "abcd"]);
    let fleet = Arc::new(Fleet::default());
    fleet.pace_us.store(1000, Ordering::Relaxed);

    // Six calls at a time; when one ends, the next recording begins.
    let mut calls: Vec<(String, Recording)> = Vec::new();
    let mut feeding = tokio::task::JoinSet::new();
    let mut outcomes: Vec<(String, Outcome)> = Vec::new();
    let mut begin = |feeding: &mut tokio::task::JoinSet<(String, Outcome)>, port: u16| {
        let recording = sources[calls.len() % sources.len()].clone();
        let call = format!("{}-{}", recording.name, calls.len());
        let producer = Producer::assemblyai(port, &call, recording.texts(), &fleet);
        calls.push((call.clone(), recording));
        feeding.spawn(async move { (call, producer.run(Duration::from_secs(3600)).await) });
    };
    for _ in 0..6 {
        begin(&mut feeding, daemon.port);
    }
    eventually("the subscriber has a cursor", PATIENCE, || async {
        watcher.seen.lock().unwrap().cursor.is_some().then_some(())
    })
    .await;

    let mut kills = Kills::default();
    let mut started = Instant::now();
    // Within 100 ms of a start there may be nothing to interrupt, on a slow machine never. So this many are tried;
    // after that, the first moment at which there is something counts.
    let most_tries = 8 * wanted_early;
    let wants_tries = |kills: &Kills| kills.within_100_ms < wanted_early && kills.tries < most_tries;
    // Between the check and the kill an ack or an answer may come: such a kill interrupted nothing, and another one is
    // needed.
    let most = most_tries + 4 * (wanted + wanted_early);
    while (kills.counted < wanted || kills.early < wanted_early || wants_tries(&kills)) && kills.all < most {
        // Kill either right after the start, or in the middle of work.
        let is_try = wants_tries(&kills);
        let early = (kills.early < wanted_early || is_try) && chance.below(2) == 0;
        let patience = if early && is_try { Duration::from_millis(90) } else { PATIENCE };
        kills.tries += usize::from(early && is_try);
        if !early {
            tokio::time::sleep(Duration::from_millis(100 + chance.below(150) as u64)).await;
        }
        strike(&mut daemon, &fleet, &mock, started, early, patience, &mut kills).await;
        daemon.up().await;
        started = Instant::now();
        while let Some(ended) = feeding.try_join_next() {
            outcomes.push(ended.expect("join"));
            begin(&mut feeding, daemon.port);
        }
    }
    fleet.pace_us.store(0, Ordering::Relaxed);
    while let Some(ended) = feeding.join_next().await {
        outcomes.push(ended.expect("join"));
    }
    println!(
        "kills: {kills:?}; connections {}, dropped {}, frames sent {}, resent {}; LLM requests {}",
        outcomes.iter().map(|(_, outcome)| outcome.connections).sum::<u64>(),
        fleet.dropped.load(Ordering::SeqCst),
        fleet.sent.load(Ordering::Relaxed),
        fleet.resent.load(Ordering::Relaxed),
        mock.count()
    );
    for (call, outcome) in &outcomes {
        assert!(outcome.completed.is_some(), "{call} did not complete; errors: {:?}", outcome.errors);
    }
    let mut heads = Vec::new();
    for (call, recording) in &calls {
        let events = daemon.events(call).await;
        assert_dense(call, &events);
        let completions = events.iter().filter(|event| event["type"] == "call.completed").count();
        assert_eq!(completions, 1, "{call}");
        let expected = turns_of(recording.frames.iter().map(|(_, frame)| frame));
        assert_turns(call, &daemon.turns(call).await, &expected, offset_of(&events));
        heads.push((call.clone(), events));
    }
    for (call, events) in &heads {
        eventually(&format!("the subscriber has all of {call}"), PATIENCE, || async {
            (watcher.count(call) >= events.len()).then_some(())
        })
        .await;
        let seen = watcher.seen.lock().unwrap();
        for (saw, stored) in seen.events[call].iter().zip(events) {
            assert_eq!(
                (&saw["seq"], &saw["type"], &saw["at"]),
                (&stored["seq"], &stored["type"], &stored["at"]),
                "{call}"
            );
        }
        assert_eq!(seen.events[call].len(), events.len(), "{call}: each event once");
    }
    watcher.assert_faultless();
    for (call, events) in &heads {
        eventually(&format!("the sink has all of {call}"), PATIENCE, || async {
            sink.missing(call, events.len() as u64).is_empty().then_some(())
        })
        .await;
    }
    let twice: u64 = sink.events.lock().unwrap().values().flat_map(|seqs| seqs.values()).map(|times| times - 1).sum();
    println!(
        "{} calls; the sink had {twice} events more than once; subscriber connections {}",
        heads.len(),
        watcher.seen.lock().unwrap().connections
    );
    assert!(kills.counted >= wanted, "{kills:?}");
    assert!(kills.early >= wanted_early, "{kills:?}");
}
