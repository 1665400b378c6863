//! A data directory that was written by the last release with journal format 1: today's daemon returns every event of
//! it unchanged, knows the usage, and its calls continue.
//!
//! The directory and what that release answered about it are in `tests/fixtures/format-1`; its README says how they
//! were made.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::daemon::Daemon;
use crate::support::llm::{MockLlm, Step};
use crate::support::model::assert_dense;
use crate::support::ws::{ingest, subscribe, subscriber, turn};
use crate::support::{Json, PATIENCE, eventually, json, shared};

const CALLS: [&str; 3] = ["c_done", "c_failing", "c_open"];
const USAGE: &str = "/v1/usage?group_by=call,analysis,outcome,code";

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/format-1")
}

fn config(mock: &MockLlm) -> String {
    let rest = "
[analyses.summary]
every_n_turns = 2
debounce_ms = 10
[journal]
retention_days = 0
[ingest]
idle_timeout_ms = 3600000
";
    format!("{}{rest}", mock.config(""))
}

/// A model that refuses requests of the analyses that must fail.
async fn mock() -> MockLlm {
    let mock = MockLlm::start().await;
    mock.script(
        |asked| {
            if asked.prompt().contains("refuse this") { Step::Status(400) } else { Step::Answer(Duration::ZERO) }
        },
    );
    mock
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("folder");
    for item in std::fs::read_dir(from).expect("folder").flatten() {
        let to = to.join(item.file_name());
        if item.path().is_dir() {
            copy_folder(&item.path(), &to);
        } else {
            std::fs::copy(item.path(), to).expect("copied");
        }
    }
}

async fn text_of(daemon: &Daemon, path: &str) -> String {
    let reply = daemon.get(path).await;
    assert_eq!(reply.status, 200, "GET {path}: {}", reply.text());
    reply.text()
}

/// The events in an answer of `GET …/events`, unchanged.
fn events_in(answer: &str) -> &str {
    let (events, _) = answer.rsplit_once("],\"next_after\"").expect("an answer with events");
    events
}

/// Checks that every member of `old` is in `new` with the same value; `new` may have more.
fn assert_holds(old: &Json, new: &Json, at: &str) {
    match (old, new) {
        (Json::Object(old), Json::Object(new)) => {
            for (key, value) in old {
                let newer = new.get(key).unwrap_or_else(|| panic!("{at}/{key} is missing"));
                assert_holds(value, newer, &format!("{at}/{key}"));
            }
        }
        (Json::Array(old), Json::Array(new)) => {
            assert_eq!(old.len(), new.len(), "{at}");
            for (index, (old, new)) in old.iter().zip(new).enumerate() {
                assert_holds(old, new, &format!("{at}/{index}"));
            }
        }
        _ => assert_eq!(old, new, "{at}"),
    }
}

fn answer(name: &str) -> String {
    std::fs::read_to_string(fixture().join("answers").join(name)).expect("an answer of the release before")
}

fn answer_json(name: &str) -> Json {
    serde_json::from_str(&answer(name)).expect("json")
}

/// Requested paths, and the names of the files with their answers.
fn asked() -> Vec<(String, String)> {
    let mut asked = vec![("/v1/calls?limit=100".to_owned(), "calls.json".to_owned())];
    for call in CALLS {
        asked.push((format!("/v1/calls/{call}"), format!("{call}.json")));
        asked.push((format!("/v1/calls/{call}/turns?limit=1000"), format!("{call}.turns.json")));
    }
    asked
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_of_the_release_before_is_served_to_the_byte_and_its_calls_go_on() {
    let _machine = shared().await;
    let dir = tempfile::tempdir().expect("folder");
    copy_folder(&fixture().join("data"), &dir.path().join("journal"));
    let mock = mock().await;
    let mut daemon = Daemon::start_in(&config(&mock), dir.path()).await;
    assert!(daemon.log().contains("the journal is migrated from format 1 to 2"), "{}", daemon.log());
    for call in CALLS {
        let old = answer(&format!("{call}.events.json"));
        let new = text_of(&daemon, &format!("/v1/calls/{call}/events?limit=5000")).await;
        assert_eq!(events_in(&new), events_in(&old), "{call}");
    }
    for (path, name) in asked() {
        assert_holds(&answer_json(&name), &daemon.get_json(&path).await, &path);
    }
    assert_holds(&answer_json("usage.json"), &daemon.get_json(USAGE).await, USAGE);

    // A subscriber resumes at its position, without a snapshot.
    let old: Json = answer_json("c_open.events.json");
    let old = old["events"].as_array().expect("events");
    let (epoch, head) = (&old[0]["epoch"], old.len() as u64);
    let mut watcher = subscriber(&daemon).await;
    let resume = json!({"calls":["c_open"],"include":["turns","words"],"resume":{"c_open":{"epoch":epoch,"seq":2}}});
    let subscribed = subscribe(&mut watcher, resume).await;
    assert_eq!(subscribed["calls"]["c_open"]["recovered"], true, "{subscribed}");
    assert_eq!(&subscribed["calls"]["c_open"]["epoch"], epoch, "{subscribed}");
    for event in &old[2..] {
        let mut pushed = watcher.recv().await.expect("an event");
        let frame = pushed.as_object_mut().expect("an object");
        assert!(frame.remove("subscription").is_some(), "{event}");
        if let Some(turn) = frame.get_mut("turn").and_then(Json::as_object_mut) {
            assert!(turn.remove("words").is_none_or(|words| words[0]["text"].is_string()), "{event}");
        }
        assert_eq!(pushed, *event);
    }

    // The producer continues at its position, and ends the call.
    let (mut producer, welcome) = ingest(&daemon, "call_id=c_open&stream_id=s_2&results=all").await;
    assert_eq!(&welcome["epoch"], epoch, "{welcome}");
    assert_eq!(welcome["acked"], 2, "{welcome}");
    let next = 3;
    producer.send(&turn(next, "agent", "After the upgrade.")).await;
    producer.acked(next).await;
    let event = watcher.of_type("turn.final").await;
    assert_eq!((&event["seq"], &event["turn"]["text"]), (&json!(head + 1), &json!("After the upgrade.")), "{event}");
    producer.send(&json!({"type":"end","scope":"call"})).await;
    daemon.completed("c_open", PATIENCE).await;
    let events = daemon.events("c_open").await;
    assert_dense("c_open", &events);
    assert_eq!(events[..old.len()], *old);

    // A start with a migrated folder changes nothing.
    daemon.restart().await;
    assert_eq!(daemon.log().matches("the journal is migrated from format 1 to 2").count(), 1, "{}", daemon.log());
    assert_eq!(daemon.events("c_open").await, events);
    let old = answer("c_done.events.json");
    let new = text_of(&daemon, "/v1/calls/c_done/events?limit=5000").await;
    assert_eq!(events_in(&new), events_in(&old));
}

/// Waits until each turn of the call has its result, and one summary was attempted.
async fn settled(daemon: &Daemon, call: &str) {
    eventually(&format!("{call} is settled"), PATIENCE, || async {
        let events = daemon.events(call).await;
        let count = |wanted: &dyn Fn(&Json) -> bool| events.iter().filter(|event| wanted(event)).count();
        let turns = count(&|event| event["type"] == "turn.final");
        let results = count(&|event| event["insight"]["turn"].is_u64() || event["turn"].is_u64());
        let of_summary = |event: &Json| event["insight"]["analysis"] == "summary" || event["analysis"] == "summary";
        (results >= turns && count(&of_summary) > 0).then_some(())
    })
    .await;
}

fn words(text: &str, start_ms: u64) -> Json {
    let words = text.split(' ').zip(0_u64..).map(|(word, place)| {
        let start_ms = start_ms + place * 200;
        json!({"text":word,"start_ms":start_ms,"end_ms":start_ms + 180,"confidence":0.9})
    });
    words.collect()
}

fn spoken(order: u64, speaker: &str, text: &str) -> Json {
    let mut frame = turn(order, speaker, text);
    frame["words"] = words(text, order * 1000);
    frame
}

const QUERY: &str = "analyses=summary,sentiment_turn&results=all";

/// A call of two streams, with words, revisions and metadata, which completes.
async fn whole_call(daemon: &Daemon) {
    let meta = "meta=%7B%22customer%22%3A%22Ms.%20Shah%22%7D";
    let (mut agent, _) = ingest(daemon, &format!("call_id=c_done&stream_id=s_1&{QUERY}&{meta}")).await;
    let (mut customer, _) = ingest(daemon, &format!("call_id=c_done&stream_id=s_2&{QUERY}")).await;
    agent.send(&spoken(0, "agent", "Thanks for calling, how can I help?")).await;
    agent.acked(0).await;
    customer.send(&spoken(0, "customer", "My order \"42\" did not arrive, größer als {\"turn\":{.")).await;
    customer.acked(0).await;
    agent.send(&spoken(1, "agent", "I am sorry, let me look.")).await;
    agent.send(&json!({"type":"revise","turn_order":1,"text":"I am sorry, let me have a look."})).await;
    agent.send(&json!({"type":"meta","meta":{"order":42}})).await;
    agent.acked_frames(4).await;
    customer.send(&json!({"type":"revise","turn_order":0,"speaker":"Ms. Shah"})).await;
    customer.send(&spoken(1, "Ms. Shah", "Thank you.")).await;
    customer.acked(1).await;
    settled(daemon, "c_done").await;
    customer.send(&json!({"type":"end","reason":"hangup"})).await;
    eventually("the stream has ended", PATIENCE, || async {
        let events = daemon.events("c_done").await;
        events.iter().any(|event| event["type"] == "stream.ended").then_some(())
    })
    .await;
    agent.send(&json!({"type":"end","scope":"call"})).await;
    daemon.completed("c_done", PATIENCE).await;
}

/// Writes the fixture with the binary that `SIDETONE_OLD_BINARY` names.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "writes the fixture, with a binary of the release before"]
async fn write_the_fixture() {
    let binary =
        std::env::var("SIDETONE_OLD_BINARY").expect("SIDETONE_OLD_BINARY names the binary of the release before");
    let dir = tempfile::tempdir().expect("folder");
    let mock = mock().await;
    let mut daemon = Daemon::prepare(&config(&mock), dir.path()).with_binary(Path::new(&binary));
    daemon.up().await;
    whole_call(&daemon).await;
    // Its analyses fail.
    let (mut failing, _) = ingest(&daemon, &format!("call_id=c_failing&stream_id=s_1&{QUERY}")).await;
    for order in 0..2 {
        failing.send(&spoken(order, "customer", "Please refuse this.")).await;
    }
    failing.acked(1).await;
    settled(&daemon, "c_failing").await;
    // The first stream is lost, and another one replaces it; then the daemon is killed, and the end of the log torn.
    let (mut lost, _) = ingest(&daemon, &format!("call_id=c_open&stream_id=s_1&{QUERY}")).await;
    lost.send(&spoken(0, "customer", "Is anyone there?")).await;
    lost.acked(0).await;
    lost.drop_now();
    let (mut next, _) = ingest(&daemon, &format!("call_id=c_open&stream_id=s_2&{QUERY}")).await;
    next.send(&spoken(0, "customer", "Hello again.")).await;
    next.acked(0).await;
    settled(&daemon, "c_open").await;
    next.send(&spoken(1, "agent", "Welcome back.")).await;
    next.acked(1).await;
    daemon.kill9();
    let log = find(&dir.path().join("journal/calls"), "c_open.log");
    let file = std::fs::File::options().write(true).open(&log).expect("log");
    file.set_len(file.metadata().expect("log").len() - 9).expect("cut");
    daemon.up().await;
    let (mut next, welcome) = ingest(&daemon, &format!("call_id=c_open&stream_id=s_2&{QUERY}")).await;
    for order in welcome["acked"].as_u64().map_or(0, |acked| acked + 1)..3 {
        next.send(&spoken(order, "agent", "Welcome back once more.")).await;
    }
    next.acked(2).await;
    settled(&daemon, "c_open").await;
    assert!(daemon.log().contains("torn tail"), "{}", daemon.log());
    drop((failing, next));
    stop(&mut daemon).await;
    // Its answers about calls that do not change any more.
    daemon.up().await;
    let answers = fixture().join("answers");
    std::fs::create_dir_all(&answers).expect("folder");
    let write = |name: &str, text: &str| std::fs::write(answers.join(name), text).expect("written");
    let mut kinds = std::collections::BTreeSet::new();
    for call in CALLS {
        let text = text_of(&daemon, &format!("/v1/calls/{call}/events?limit=5000")).await;
        let parsed: Json = serde_json::from_str(&text).expect("json");
        kinds.extend(parsed["events"].as_array().expect("events").iter().map(|event| event["type"].to_string()));
        write(&format!("{call}.events.json"), &text);
    }
    assert_eq!(kinds.len(), 10, "all kinds but call.failed: {kinds:?}");
    for (path, name) in asked() {
        write(&name, &text_of(&daemon, &path).await);
    }
    write("usage.json", &text_of(&daemon, USAGE).await);
    stop(&mut daemon).await;
    copy_folder(&dir.path().join("journal"), &fixture().join("data"));
}

async fn stop(daemon: &mut Daemon) {
    daemon.sigterm();
    assert!(daemon.ended(PATIENCE).await.success(), "{}", daemon.stderr_tail());
}

fn find(below: &Path, name: &str) -> PathBuf {
    let shards = std::fs::read_dir(below).expect("shards").flatten();
    let mut files = shards.map(|shard| shard.path().join(name)).filter(|path| path.exists());
    files.next().expect("the file")
}
