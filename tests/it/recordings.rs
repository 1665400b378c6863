//! Every recording through the real binary, twice with one journal: nothing is lost, each turn occurs once, in order
//! and in its final form; and an insight covers the turns that its prompt contained.

use std::time::Duration;

use crate::support::daemon::{Daemon, run};
use crate::support::llm::MockLlm;
use crate::support::model::{assert_dense, assert_turns, offset_of, turns_of};
use crate::support::producer::{Fleet, Producer};
use crate::support::recording::{self, Recording};
use crate::support::watcher::Watcher;
use crate::support::{Json, PATIENCE, json, shared};

/// Runs `sidetone replay … --json`; returns its summary.
async fn replay(daemon: &Daemon, path: &str) -> (Json, String) {
    let url = daemon.url();
    let output = run(&["replay", path, "--to", &url, "--speed", "max", "--concurrency", "20", "--json"]).await;
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned());
    assert!(output.status.success(), "replay: {}\n{stdout}\n{stderr}", output.status);
    let last = stdout.lines().last().unwrap_or_default();
    (serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {last}")), stdout + &stderr)
}

fn id_of(name: &str, suffix: &str) -> String {
    name.chars()
        .map(|character| if character.is_ascii_alphanumeric() || "_~:-.".contains(character) { character } else { '_' })
        .chain(suffix.chars())
        .collect()
}

/// Checks everything that must be true of a completed call that was fed `recording`.
async fn check_call(daemon: &Daemon, call: &str, recording: &Recording) {
    let events = daemon.events(call).await;
    assert_dense(call, &events);
    assert_eq!(events[0]["type"], "call.started", "{call}");
    assert_eq!(events.last().expect("events")["type"], "call.completed", "{call}");
    let turns = daemon.turns(call).await;
    let expected = turns_of(recording.frames.iter().map(|(_, frame)| frame));
    assert_turns(call, &turns, &expected, offset_of(&events));
    let finals = events.iter().filter(|event| event["type"] == "turn.final").count();
    assert_eq!(finals, expected.len(), "{call}: one turn.final for each turn");
}

/// Checks that the final summary covers every turn with text.
async fn check_final_summary(daemon: &Daemon, call: &str) {
    let view = daemon.get_json(&format!("/v1/calls/{call}")).await;
    let summary = &view["insights"]["summary"];
    let turns = daemon.turns(call).await;
    let with_text: Vec<&Json> = turns.iter().filter(|turn| turn["text"] != "").collect();
    assert_eq!(summary["status"], "final", "{call}: {summary}");
    assert_eq!(summary["covers"]["from"], with_text.first().map_or(Json::Null, |turn| turn["turn"].clone()), "{call}");
    assert_eq!(summary["covers"]["to"], with_text.last().map_or(Json::Null, |turn| turn["turn"].clone()), "{call}");
    assert_eq!(summary["covers"]["turns"], with_text.len(), "{call}: {}", summary["covers"]);
    let completed = daemon.events(call).await.pop().expect("events");
    assert_eq!(completed["final"]["summary"], summary["rev"], "{call}: {completed}");
    assert_eq!(completed["missing"], json!({}), "{call}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_recording_twice_against_one_journal() {
    let _machine = shared().await;
    let Some(recordings) = recording::all() else { return };
    let folder = recording::folder().expect("folder").display().to_string();
    let daemon = Daemon::start("").await;
    for suffix in ["", ".2"] {
        let (summary, said) = replay(&daemon, &folder).await;
        println!("replay{suffix}: {summary}");
        let turns: usize = recordings.iter().map(|one| turns_of(one.frames.iter().map(|(_, frame)| frame)).len()).sum();
        assert_eq!(summary["calls"], recordings.len());
        assert_eq!(summary["turns"], turns);
        assert_eq!(summary["lost"], 0);
        assert!(summary["insights"].as_u64().is_some_and(|insights| insights >= recordings.len() as u64));
        assert!(said.contains("labels.jsonl"), "what is no recording is named");
        for recording in &recordings {
            let call = id_of(&recording.name, suffix);
            check_call(&daemon, &call, recording).await;
            check_final_summary(&daemon, &call).await;
        }
    }
    let listed = daemon.get_json("/v1/calls?state=completed&limit=200").await;
    assert_eq!(listed["calls"].as_array().expect("calls").len(), recordings.len() * 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_line_loses_only_that_line() {
    let _machine = shared().await;
    let folder = tempfile::tempdir().expect("folder");
    let whole = recording::made_up("whole", 5, 1);
    let file = whole.write(folder.path());
    let lines = std::fs::read_to_string(&file).expect("read");
    let at = lines.lines().position(|line| line.contains("\"at_ms\"")).expect("a frame") + 1;
    let mut lines: Vec<&str> = lines.lines().collect();
    lines.insert(at, "{\"at_ms\":5,\"mess\u{0}secret");
    let damaged = folder.path().join("damaged.jsonl");
    std::fs::write(&damaged, lines.join("\n") + "\n").expect("write");
    let daemon = Daemon::start("").await;
    let (summary, said) = replay(&daemon, &damaged.display().to_string()).await;
    assert_eq!((&summary["turns"], &summary["lost"], &summary["skipped"]), (&json!(5), &json!(0), &json!(1)));
    let place = format!("{}:{}: ", damaged.display(), at + 1);
    assert!(said.contains(&place) && !said.contains("secret"), "{said}");
    check_call(&daemon, "damaged", &whole).await;
    let (summary, _) = replay(&daemon, &file.display().to_string()).await;
    assert_eq!(summary.get("skipped"), None, "only where something was");
    // An unreadable header hides the dialect of the frames: nothing is replayed.
    std::fs::write(&damaged, format!("{{\"recording\":{{\"dialect\":5}}}}\n{}\n", lines.join("\n"))).expect("write");
    let output = run(&["replay", &damaged.display().to_string(), "--to", &daemon.url(), "--speed", "max"]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("line 1: the header is not"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replay_without_a_daemon_is_an_error() {
    let _machine = shared().await;
    let folder = tempfile::tempdir().expect("folder");
    let file = recording::made_up("quiet", 3, 1).write(folder.path());
    let port = crate::support::daemon::free_port();
    let path = file.display().to_string();
    let url = format!("http://127.0.0.1:{port}");
    let args = ["replay", &path, "--to", &url, "--speed", "max"];
    let output = tokio::time::timeout(PATIENCE, run(&args)).await.expect("replay gives up by itself");
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The text without characters that escaping may change.
fn bare(text: &str) -> String {
    text.chars().filter(|character| character.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// Checks one rolling insight against the prompt that made it.
fn check_coverage(mock: &MockLlm, insight: &Json, events: &[Json]) {
    let number = insight["provenance"]["usage"]["output"].as_u64().expect("usage");
    let asked = mock.asked_number(number).unwrap_or_else(|| panic!("no request {number}"));
    let covers = &insight["covers"];
    let (from, to) = (covers["verbatim_from"].as_u64().expect("from"), covers["to"].as_u64().expect("to"));
    // A turn may have been different when the prompt was made: any of its versions is accepted.
    let versions = |turn: u64| -> Vec<String> {
        let all = events.iter().filter(|event| event["turn"]["turn"] == turn);
        all.map(|event| bare(event["turn"]["text"].as_str().unwrap_or_default())).collect()
    };
    let prompt = asked.prompt();
    let lines: Vec<String> = prompt.lines().map(bare).collect();
    let (mut at, mut matched, mut first) = (0, 0, None);
    for turn in from..=to {
        let versions = versions(turn);
        if versions.iter().any(String::is_empty) {
            continue;
        }
        let found = lines[at..].iter().position(|line| versions.iter().any(|version| line.ends_with(version)));
        let Some(step) = found else {
            panic!("turn {turn} of {covers} is not in the prompt (request {number}):\n{prompt}");
        };
        first.get_or_insert(at + step);
        at += step + 1;
        matched += 1;
    }
    assert_eq!(covers["turns"], matched, "{covers}");
    assert_eq!(at - first.unwrap_or(at), matched, "one line a turn and nothing between them: {covers}\n{prompt}");
    for version in versions(to + 1) {
        let later = lines[at..].iter().any(|line| version.len() > 20 && line.ends_with(&version));
        assert!(!later, "turn {} is in the prompt, but {covers} does not say so", to + 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_insight_covers_what_its_prompt_held() {
    let _machine = shared().await;
    let mock = MockLlm::start().await;
    mock.script(|asked| crate::support::llm::Step::Answer(Duration::from_millis(asked.number % 7)));
    let config = format!(
        "{}\n[ingest]\nanalyses = [\"summary\", \"sentiment\"]\nlinger_ms = 50\n\
         [analyses.summary]\nevery_n_turns = 1\ndebounce_ms = 0\n[analyses.sentiment]\nevery_n_turns = 3\n",
        mock.config("")
    );
    let daemon = Daemon::start(&config).await;
    let watcher = Watcher::start(daemon.port, json!({}));
    let recordings =
        recording::some(&["abcd", "hvb", "dialogsum", "meld-dev-00", "earnings21-4366522", "qmsum-IS1006a"]);
    let fleet = std::sync::Arc::new(Fleet::default());
    let mut feeding = tokio::task::JoinSet::new();
    for recording in &recordings {
        let producer = Producer::assemblyai(daemon.port, &recording.name, recording.texts(), &fleet);
        feeding.spawn(producer.run(Duration::from_secs(120)));
    }
    while let Some(outcome) = feeding.join_next().await {
        let outcome = outcome.expect("join");
        assert!(outcome.completed.is_some(), "errors: {:?}", outcome.errors);
    }
    let mut checked = 0;
    for recording in &recordings {
        check_call(&daemon, &recording.name, recording).await;
        check_final_summary(&daemon, &recording.name).await;
        let events = daemon.events(&recording.name).await;
        // A result that is still valid at the end is published again without a request.
        let asked = |event: &&Json| event["insight"]["provenance"]["attempts"] != 0;
        for event in events.iter().filter(|event| event["type"] == "insight.updated").filter(asked) {
            check_coverage(&mock, &event["insight"], &events);
            checked += 1;
        }
    }
    println!("{checked} insights of {} calls checked against their prompts", recordings.len());
    assert!(checked >= recordings.len() * 4);
    watcher.assert_faultless();
}
