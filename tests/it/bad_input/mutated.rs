//! Frames of live sockets, changed at random.

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use crate::support::daemon::Daemon;
use crate::support::recording::made_up;
use crate::support::ws::{ingest, subscribe, subscriber, turn};
use crate::support::{Json, json, knob, shared};

/// Any JSON of moderate size.
fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        ".{0,12}".prop_map(Json::from),
        prop::sample::select(vec!["turn", "end", "revise", "meta", "call", "é\u{0}\n", "18446744073709551616"])
            .prop_map(Json::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::btree_map(".{0,8}", inner, 0..4).prop_map(|map| Json::Object(map.into_iter().collect())),
        ]
    })
}

/// One change of a valid frame.
#[derive(Debug, Clone)]
enum Mutation {
    Replace(usize, Json),
    Remove(usize),
    Add(String, Json),
    Cut(usize),
    Insert(usize, String),
    Flip(usize, u8),
    Wrap,
    Any(Json),
}

fn any_mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        4 => (any::<usize>(), any_json()).prop_map(|(key, value)| Mutation::Replace(key, value)),
        2 => any::<usize>().prop_map(Mutation::Remove),
        1 => (".{0,8}", any_json()).prop_map(|(key, value)| Mutation::Add(key, value)),
        1 => any::<usize>().prop_map(Mutation::Cut),
        1 => (any::<usize>(), ".{1,6}").prop_map(|(at, text)| Mutation::Insert(at, text)),
        1 => (any::<usize>(), any::<u8>()).prop_map(|(at, bits)| Mutation::Flip(at, bits)),
        1 => Just(Mutation::Wrap),
        1 => any_json().prop_map(Mutation::Any),
    ]
}

fn mutate(frame: &Json, mutation: &Mutation) -> String {
    let mut frame = frame.clone();
    let key_at = |frame: &Json, index: usize| -> Option<String> {
        let object = frame.as_object()?;
        object.keys().nth(index.checked_rem(object.len())?).cloned()
    };
    let floor = |text: &str, at: usize| {
        let mut at = at % (text.len() + 1);
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    match mutation {
        Mutation::Replace(index, value) => {
            if let Some(key) = key_at(&frame, *index) {
                frame[key] = value.clone();
            }
        }
        Mutation::Remove(index) => {
            if let (Some(key), Some(object)) = (key_at(&frame, *index), frame.as_object_mut()) {
                object.remove(&key);
            }
        }
        Mutation::Add(key, value) => frame[key.as_str()] = value.clone(),
        Mutation::Cut(at) => {
            let text = frame.to_string();
            return text[..floor(&text, *at)].to_owned();
        }
        Mutation::Insert(at, more) => {
            let mut text = frame.to_string();
            text.insert_str(floor(&text, *at), more);
            return text;
        }
        Mutation::Flip(at, bits) => {
            let mut bytes = frame.to_string().into_bytes();
            let at = at % bytes.len();
            bytes[at] ^= bits;
            return String::from_utf8_lossy(&bytes).into_owned();
        }
        Mutation::Wrap => frame = json!([frame]),
        Mutation::Any(value) => frame = value.clone(),
    }
    frame.to_string()
}

/// Returns true if a mutated frame may validly end the stream or the call.
fn ends_something(text: &str) -> bool {
    text.contains("\"type\":\"end\"") || text.contains("Termination")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mutated_ingest_frames_lose_no_valid_turn() {
    let _machine = shared().await;
    let count = knob("MUTATED", 3000);
    let mut daemon = Daemon::start("[ingest]\nlinger_ms = 50\nanalyses = [\"summary\"]\n").await;
    let mut runner = TestRunner::deterministic();
    let bad_ones = any_mutation();
    let recording = made_up("seed", 4, 5);
    let vendor: Vec<Json> = recording.frames.iter().map(|(_, frame)| frame.clone()).collect();
    let ours = vec![
        turn(900_000, "agent", "A good turn to begin with."),
        json!({"type":"turn","turn_order":900_001,"text":"x","start_ms":1,"end_ms":2,"language":"en","confidence":0.5,
               "words":[{"text":"x","start_ms":1,"end_ms":2,"speaker":"A","confidence":1}]}),
        json!({"type":"partial","turn_order":900_002,"text":"I wanted to"}),
        json!({"type":"revise","turn_order":900_000,"speaker":"customer"}),
        json!({"type":"meta","meta":{"customer":"Ms. Shah"}}),
    ];
    for (dialect, seeds) in [("sidetone", &ours), ("assemblyai", &vendor)] {
        let call = format!("c_{dialect}");
        let (mut client, _) =
            ingest(&daemon, &format!("call_id={call}&stream_id=s_1&dialect={dialect}&results=none")).await;
        let mut good: Vec<String> = Vec::new();
        let mut frames = 0;
        for number in 0..count {
            let seed = &seeds[number % seeds.len()];
            let mutation = bad_ones.new_tree(&mut runner).expect("a mutation").current();
            let text = mutate(seed, &mutation);
            if !ends_something(&text) {
                assert!(client.send_text(&text).await, "the socket stays open: {text}");
                frames += 1;
            }
            if number % 25 == 0 {
                let said = format!("Good sentence number {number} of {dialect}.");
                let order = number as u64;
                let frame = if dialect == "sidetone" {
                    turn(order, "agent", &said)
                } else {
                    let words: Vec<Json> = said
                        .split(' ')
                        .enumerate()
                        .map(|(index, word)| {
                            let start = order * 10_000 + index as u64 * 300;
                            json!({"text":word,"start":start,"end":start + 250,"confidence":1.0,"word_is_final":true})
                        })
                        .collect();
                    crate::support::recording::turn_frame(1_000_000 + order, true, true, &words, "A")
                };
                client.send(&frame).await;
                frames += 1;
                good.push(said);
            }
            if number % 200 == 0 {
                client.acked_frames(frames).await;
            }
        }
        // Frames that change something are acknowledged: the last one does.
        client.send(&json!({"type":"meta","meta":{"last":dialect}})).await;
        client.acked_frames(frames + u64::from(dialect == "sidetone")).await;
        assert!(client.closed.is_none(), "{:?}", client.closed);
        let turns = daemon.turns(&call).await;
        let texts: Vec<&str> = turns.iter().filter_map(|turn| turn["text"].as_str()).collect();
        for said in &good {
            assert_eq!(texts.iter().filter(|text| *text == said).count(), 1, "{said:?} is there once");
        }
        let errors = client.seen_of("error");
        assert!(errors.len() > count / 8, "only {} errors for {count} mutated frames", errors.len());
        for error in &errors {
            let code = error["code"].as_str().unwrap_or_default();
            assert!(["bad_json", "bad_field", "unknown_type", "unknown_turn"].contains(&code), "{error}");
            assert_eq!((&error["fatal"], &error["temporary"]), (&json!(false), &json!(false)), "{error}");
            assert!(error["message"].as_str().is_some_and(|text| text.len() > 10), "{error}");
        }
        println!("{dialect}: {frames} frames, {} errors, {} turns", errors.len(), turns.len());
        client.send(&json!({"type":"end","scope":"call"})).await;
        client.of_type("call.completed").await;
    }
    assert!(daemon.runs());
    let panics = std::fs::read_to_string(daemon.dir.join("stderr")).expect("stderr");
    assert!(!panics.contains("panicked"), "{panics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mutated_subscribe_frames_affect_no_other_socket() {
    let _machine = shared().await;
    let count = knob("MUTATED", 3000) / 2;
    let mut daemon = Daemon::start("").await;
    let (mut producer, _) = ingest(&daemon, "call_id=c1&stream_id=s_1&results=none").await;
    producer.send(&turn(0, "agent", "Hello.")).await;
    producer.acked(0).await;
    let mut good = subscriber(&daemon).await;
    subscribe(&mut good, json!({"calls":["c1"]})).await;
    let seeds = [
        json!({"id":"1","type":"subscribe","calls":["c1"],"match":{"team":"x"},"wait":true,"analyses":["summary"],
               "include":["turns","partials"],"resume":{"c1":{"epoch":"e","seq":1}},"delivery":{"summary":"latest"}}),
        json!({"id":"2","type":"unsubscribe","subscription":"sub_1"}),
        json!({"id":"3","type":"ping"}),
        json!({"id":"4","type":"subscribe","calls":"*","resume":{"cursor":"x"}}),
    ];
    let mut runner = TestRunner::deterministic();
    let bad_ones = any_mutation();
    let (mut client, mut sockets, mut errors) = (subscriber(&daemon).await, 1, 0);
    for number in 0..count {
        let mutation = bad_ones.new_tree(&mut runner).expect("a mutation").current();
        let text = mutate(&seeds[number % seeds.len()], &mutation);
        client.send_text(&text).await;
        // Each frame is followed by a ping: everything that comes before the pong answers the frame.
        client.send(&json!({"id":"after","type":"ping"})).await;
        loop {
            match client.recv().await {
                Some(frame) if frame["type"] == "pong" && frame["id"] == "after" => break,
                Some(frame) => errors += usize::from(frame["type"] == "error"),
                None => {
                    // Input that is not a frame may close the socket with the right code.
                    let code = client.closed.as_ref().map_or(0, |(code, _)| *code);
                    assert!([4400, 4429].contains(&code), "{text}: {:?}", client.closed);
                    client = subscriber(&daemon).await;
                    sockets += 1;
                    break;
                }
            }
        }
        client.seen.clear();
    }
    println!("{count} mutated frames: {errors} errors, {sockets} sockets");
    assert!(errors > count / 8);
    producer.send(&turn(1, "agent", "Still here.")).await;
    good.until("turn 1", |frame| frame["turn"]["turn"] == 1).await;
    assert!(daemon.runs());
    let panics = std::fs::read_to_string(daemon.dir.join("stderr")).expect("stderr");
    assert!(!panics.contains("panicked"), "{panics}");
}
