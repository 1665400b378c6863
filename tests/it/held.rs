//! Words that are final although their turn has not ended: they become a turn after `ingest.held_ms` or when the call
//! ends, and later words of that turn revise it.

use std::time::Duration;

use crate::support::daemon::Daemon;
use crate::support::ws::{Client, ingest, turn};
use crate::support::{Json, PATIENCE, eventually, json, shared};

/// Long enough that the timer never fires in a test.
const NEVER: &str = "[ingest]\nheld_ms = 600000\nlinger_ms = 100\n";
/// The timer fires soon.
const SOON: &str = "[ingest]\nheld_ms = 150\nlinger_ms = 100\n";

/// A vendor's messages about one turn, in two halves.
struct Case {
    dialect: &'static str,
    /// Final words without an end.
    first: Vec<Json>,
    /// The turn that these words form.
    half: &'static str,
    /// Later words of the same turn, and its end.
    rest: Vec<Json>,
    /// The fields that change with them.
    changed: &'static str,
    whole: &'static str,
}

fn deepgram(text: &str, start: f64, speech_final: bool) -> Json {
    json!({"type":"Results","channel_index":[0,1],"start":start,"duration":1.0,"is_final":true,"speech_final":speech_final,
           "channel":{"alternatives":[{"transcript":text,"confidence":0.9,"words":[]}]}})
}

fn speechmatics(text: &str, start: f64) -> Json {
    json!({"message":"AddTranscript","metadata":{"start_time":start,"end_time":start + 1.0,"transcript":format!("{text} ")},
           "results":[{"type":"word","start_time":start,"end_time":start + 1.0,"alternatives":[{"content":text}]}]})
}

fn soniox(tokens: &[(&str, u64)]) -> Json {
    let token = |(text, start_ms): &(&str, u64)| json!({"text":text,"start_ms":start_ms,"end_ms":start_ms + 90,"is_final":true});
    json!({"tokens": tokens.iter().map(token).collect::<Vec<_>>(), "final_audio_proc_ms": 1})
}

fn segment(id: &str, text: &str, start: f64) -> Json {
    json!({"type":"conversation.item.input_audio_transcription.segment","item_id":"item_1","content_index":0,
           "id":id,"text":text,"speaker":"A","start":start,"end":start + 1.0})
}

fn cases() -> Vec<Case> {
    let words = json!([{"text":"I","start":0.1,"end":0.2,"type":"word"},{"text":"want","start":0.2,"end":0.4,"type":"word"},
                       {"text":"out.","start":0.4,"end":0.7,"type":"word"}]);
    vec![
        Case {
            dialect: "deepgram",
            first: vec![deepgram("I want", 0.0, false), deepgram("to", 1.0, false)],
            half: "I want to",
            rest: vec![deepgram("cancel.", 2.0, true)],
            changed: "text",
            whole: "I want to cancel.",
        },
        Case {
            dialect: "speechmatics",
            first: vec![speechmatics("I", 0.0), speechmatics("want", 1.0)],
            half: "I want",
            rest: vec![speechmatics("out.", 2.0), json!({"message":"EndOfUtterance","metadata":{}})],
            changed: "text",
            whole: "I want out.",
        },
        Case {
            dialect: "soniox",
            first: vec![soniox(&[("I", 0)]), soniox(&[(" want", 100), (" to can", 200)])],
            half: "I want to can",
            rest: vec![soniox(&[("cel.", 300)]), json!({"tokens":[{"text":"<end>","is_final":true}]})],
            changed: "text",
            whole: "I want to cancel.",
        },
        Case {
            dialect: "elevenlabs",
            first: vec![json!({"message_type":"committed_transcript","text":"I want out."})],
            half: "I want out.",
            rest: vec![
                json!({"message_type":"committed_transcript_with_timestamps","text":"I want out.","words":words}),
            ],
            changed: "times",
            whole: "I want out.",
        },
        Case {
            dialect: "openai_realtime",
            first: vec![segment("seg_1", "I want", 0.0), segment("seg_2", "to", 1.0)],
            half: "I want to",
            rest: vec![
                segment("seg_3", "cancel.", 2.0),
                json!({"type":"conversation.item.input_audio_transcription.completed","item_id":"item_1","content_index":0,
                       "transcript":"I want to cancel."}),
            ],
            changed: "text",
            whole: "I want to cancel.",
        },
    ]
}

impl Case {
    fn query(&self) -> String {
        format!("call_id={0}&stream_id=s_1&dialect={0}&analyses=", self.dialect)
    }

    async fn send(client: &mut Client, frames: &[Json]) {
        for frame in frames {
            assert!(client.send(frame).await);
        }
    }

    async fn texts(&self, daemon: &Daemon) -> Vec<String> {
        let turns = daemon.turns(self.dialect).await;
        turns.iter().map(|turn| turn["text"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Waits until the call has exactly these turns.
    async fn shows(&self, daemon: &Daemon, text: &str) {
        let what = format!("{}: {text:?}", self.dialect);
        let texts = eventually(&what, PATIENCE, || async {
            if daemon.get(&format!("/v1/calls/{}", self.dialect)).await.status != 200 {
                return None;
            }
            let texts = self.texts(daemon).await;
            texts.iter().any(|found| found == text).then_some(texts)
        })
        .await;
        assert_eq!(texts, [text], "{}", self.dialect);
    }

    /// The released words became the turn's first version, and the rest revised it: one turn, never two.
    async fn revised(&self, daemon: &Daemon) {
        let last = eventually(&format!("{} is revised", self.dialect), PATIENCE, || async {
            let events = daemon.events(self.dialect).await;
            events.into_iter().rfind(|event| event["type"] == "turn.revised")
        })
        .await;
        let changed = last["changed"].as_array().expect("changed");
        assert!(changed.iter().any(|name| name == self.changed), "{}: {last}", self.dialect);
        self.shows(daemon, self.whole).await;
        let finals = daemon.events(self.dialect).await.iter().filter(|event| event["type"] == "turn.final").count();
        assert_eq!(finals, 1, "{}", self.dialect);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn held_words_become_a_turn_after_held_ms_and_are_acknowledged() {
    let _machine = shared().await;
    let daemon = Daemon::start(SOON).await;
    for case in cases() {
        let (mut client, _) = ingest(&daemon, &case.query()).await;
        Case::send(&mut client, &case.first).await;
        client.acked_frames(case.first.len() as u64).await;
        case.shows(&daemon, case.half).await;
        Case::send(&mut client, &case.rest).await;
        case.revised(&daemon).await;
        client.acked_frames((case.first.len() + case.rest.len()) as u64).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_of_held_words_are_not_acknowledged_before_held_ms() {
    let _machine = shared().await;
    let daemon = Daemon::start(NEVER).await;
    for case in cases() {
        let (mut client, _) = ingest(&daemon, &case.query()).await;
        Case::send(&mut client, &case.first).await;
        Case::send(&mut client, &[json!({"type":"meta","meta":{"seen":true}})]).await;
        eventually("the meta is there", PATIENCE, || async {
            let call = daemon.get_json(&format!("/v1/calls/{}", case.dialect)).await;
            (call["meta"]["seen"] == true).then_some(())
        })
        .await;
        assert_eq!(case.texts(&daemon).await, [""; 0], "{}", case.dialect);
        assert!(client.seen_of("ack").iter().all(|ack| ack["frames"] == 0), "{}", case.dialect);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_producers_words_are_a_turn_which_its_next_connection_revises() {
    let _machine = shared().await;
    let daemon = Daemon::start(NEVER).await;
    for case in cases() {
        let (mut client, _) = ingest(&daemon, &case.query()).await;
        Case::send(&mut client, &case.first).await;
        client.close().await;
        case.shows(&daemon, case.half).await;
        let (mut client, welcome) = ingest(&daemon, &case.query()).await;
        assert_eq!(welcome["frames"], case.first.len(), "{}", case.dialect);
        Case::send(&mut client, &case.rest).await;
        case.revised(&daemon).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn superseded_connection_publishes_its_held_words_first() {
    let _machine = shared().await;
    let daemon = Daemon::start(NEVER).await;
    for case in cases() {
        let (mut older, _) = ingest(&daemon, &case.query()).await;
        Case::send(&mut older, &case.first).await;
        let (mut newer, welcome) = ingest(&daemon, &case.query()).await;
        assert_eq!(older.close_code().await, 4409);
        case.shows(&daemon, case.half).await;
        assert_eq!(welcome["frames"], case.first.len(), "{}", case.dialect);
        Case::send(&mut newer, &case.rest).await;
        case.revised(&daemon).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_after_held_ms_loses_and_duplicates_no_words() {
    let _machine = shared().await;
    for ends in [false, true] {
        let mut daemon = Daemon::start(SOON).await;
        for case in cases() {
            let (mut client, _) = ingest(&daemon, &case.query()).await;
            Case::send(&mut client, &case.first).await;
            client.acked_frames(case.first.len() as u64).await;
            if ends {
                // The turn ends without a further word, and no event reports that.
                let end = json!({"type":"UtteranceEnd","channel":[0,1],"last_word_end":2.0});
                if case.dialect == "deepgram" {
                    Case::send(&mut client, &[end]).await;
                    client.acked_frames(case.first.len() as u64 + 1).await;
                }
            }
            drop(client);
        }
        daemon.kill9();
        daemon.restart().await;
        for case in cases() {
            let (mut client, welcome) = ingest(&daemon, &case.query()).await;
            let ended = ends && case.dialect == "deepgram";
            assert_eq!(welcome["frames"], case.first.len() + usize::from(ended), "{}", case.dialect);
            Case::send(&mut client, &case.rest).await;
            if ended {
                client.acked(1).await;
                assert_eq!(case.texts(&daemon).await, [case.half, "cancel."]);
            } else {
                case.revised(&daemon).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn held_words_become_a_turn_at_the_end_of_the_call_and_of_the_daemon() {
    let _machine = shared().await;
    let mut daemon = Daemon::start(NEVER).await;
    for case in cases() {
        // The end of another stream ends the call: this one's decoder gets no end.
        let (mut client, _) = ingest(&daemon, &case.query()).await;
        Case::send(&mut client, &case.first).await;
        let other = format!("call_id={}&stream_id=s_2&analyses=", case.dialect);
        let (mut other, _) = ingest(&daemon, &other).await;
        Case::send(&mut client, &[json!({"type":"meta","meta":{"seen":true}})]).await;
        eventually("the words are there", PATIENCE, || async {
            let call = daemon.get_json(&format!("/v1/calls/{}", case.dialect)).await;
            (call["meta"]["seen"] == true).then_some(())
        })
        .await;
        other.send(&turn(0, "agent", "Goodbye.")).await;
        other.send(&json!({"type":"end","scope":"call"})).await;
        daemon.completed(case.dialect, PATIENCE).await;
        let texts = case.texts(&daemon).await;
        assert!(texts.iter().any(|text| text == case.half) && texts.len() == 2, "{}: {texts:?}", case.dialect);
    }
    let mut open = Vec::new();
    for case in cases() {
        let query = case.query().replace("call_id=", "call_id=stop_");
        let (mut client, _) = ingest(&daemon, &query).await;
        Case::send(&mut client, &case.first).await;
        Case::send(&mut client, &[json!({"type":"meta","meta":{"seen":true}})]).await;
        open.push((case, client));
    }
    for (case, _) in &open {
        eventually("the words are there", PATIENCE, || async {
            let call = daemon.get_json(&format!("/v1/calls/stop_{}", case.dialect)).await;
            (call["meta"]["seen"] == true).then_some(())
        })
        .await;
    }
    daemon.sigterm();
    assert!(daemon.ended(Duration::from_secs(30)).await.success());
    daemon.restart().await;
    for (case, _) in open {
        let turns = daemon.turns(&format!("stop_{}", case.dialect)).await;
        assert_eq!(turns.len(), 1, "{}", case.dialect);
        assert_eq!(turns[0]["text"], case.half);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn realtime_turns_keep_their_order_and_wait_at_most_held_ms() {
    let _machine = shared().await;
    let daemon = Daemon::start(SOON).await;
    let committed = |id: &str, previous: Json| json!({"type":"input_audio_buffer.committed","item_id":id,"previous_item_id":previous});
    let completed = |id: &str, text: &str| json!({"type":"conversation.item.input_audio_transcription.completed","item_id":id,"content_index":0,"transcript":text});
    let (mut client, _) = ingest(&daemon, "call_id=order&dialect=openai_realtime&analyses=").await;
    let frames = [
        committed("a", Json::Null),
        committed("b", json!("a")),
        committed("c", json!("b")),
        completed("c", "Thank you."),
        completed("b", "No, keep it."),
        json!({"type":"conversation.item.input_audio_transcription.failed","item_id":"a","content_index":0,
               "error":{"type":"transcription_error","message":"no"}}),
        committed("d", json!("c")),
        committed("e", json!("d")),
        completed("e", "Bye."),
    ];
    Case::send(&mut client, &frames).await;
    let turns =
        eventually("what failed blocks nobody, and what never comes only until the clock", PATIENCE, || async {
            let turns = daemon.turns("order").await;
            (turns.len() == 3).then_some(turns)
        })
        .await;
    let texts: Vec<&str> = turns.iter().filter_map(|turn| turn["text"].as_str()).collect();
    assert_eq!(texts, ["No, keep it.", "Thank you.", "Bye."]);
    client.acked_frames(frames.len() as u64).await;
}
