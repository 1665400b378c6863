//! The producer of `replay` against a scripted daemon that drops connections, refuses them and returns: every frame
//! takes effect once, in order.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::*;
use crate::base::ws::{Incoming, ServerSocket, Utf8Bytes};
use crate::cli::scripted;
use crate::hub::testing::insight;
use crate::protocol::event::encode;
use crate::protocol::{self, ErrorCode, ErrorFrame, Event, Reconnect, Stamp, ingest, tag};
use crate::recording::{self, Header};
use crate::types::{CallId, JsonMap, StreamId};

/// Behaviour of the daemon on one connection.
#[derive(Clone, Copy)]
struct Act {
    /// Number of frames to read.
    read: usize,
    /// Number of the read frames that take effect.
    cover: usize,
    /// Set if they are acknowledged.
    ack: bool,
    then: Then,
}

#[derive(Clone, Copy)]
enum Then {
    Drop,
    Close(u16),
    AskToLeave,
    Refuse,
    Complete,
}

#[derive(Default)]
struct State {
    connections: usize,
    applied: Vec<String>,
    covered: Option<u64>,
}

struct Daemon {
    target: Target,
    state: Arc<Mutex<State>>,
}

impl Daemon {
    async fn start(script: Vec<Act>) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let (talking, asked) = (Arc::clone(&state), Arc::clone(&state));
        let target = scripted::daemon(
            move |number, socket| {
                let (state, act) = (Arc::clone(&talking), script[number]);
                async move { converse(socket, &state, act).await }
            },
            move |path| path.ends_with("/turns").then(|| listed(&asked)),
        )
        .await;
        Self { target, state }
    }

    async fn play(&self, frames: usize) -> (CallReport, Result<()>) {
        let recording = recording(frames);
        let meter = Meter::new(0, "frames", true);
        let play = Play {
            target: &self.target,
            call_id: "c",
            recording: &recording,
            dialect: stt::dialect("sidetone").expect("dialect"),
            variants: &[],
            analyses: &[],
            meta: None,
            speed: Speed::Max,
            patience: Duration::from_secs(5),
            meter: &meter,
        };
        Box::pin(call::play(play)).await
    }

    fn applied(&self) -> Vec<String> {
        self.state.lock().expect("lock").applied.clone()
    }
}

fn recording(turns: usize) -> Recording {
    let frame =
        |index| format!(r#"{{"type":"turn","turn_order":{index},"text":"word {index}","start_ms":0,"end_ms":1}}"#);
    Recording {
        header: Header { dialect: "sidetone".into(), ..Header::default() },
        frames: (0..turns).map(|index| recording::Frame { at: Duration::ZERO, message: frame(index).into() }).collect(),
        ..Recording::default()
    }
}

/// The turns that took effect, as `GET …/turns` lists them.
fn listed(state: &Mutex<State>) -> Value {
    let applied = state.lock().expect("lock").applied.clone();
    let frames = applied.iter().filter_map(|frame| serde_json::from_str::<Value>(frame).ok());
    let turns: Vec<Value> = frames
        .filter(|frame| frame["type"] == "turn")
        .enumerate()
        .map(|(ordinal, frame)| {
            json!({"turn": ordinal, "stream_id": "s_1", "turn_order": frame["turn_order"], "text": frame["text"]})
        })
        .collect();
    json!({"turns": turns, "next": null})
}

fn frame(frame: &impl serde::Serialize) -> Utf8Bytes {
    Utf8Bytes::from(protocol::text(frame))
}

async fn converse(mut socket: ServerSocket, state: &Mutex<State>, act: Act) {
    let covered = {
        let mut state = state.lock().expect("lock");
        state.connections += 1;
        state.covered.replace(0)
    };
    let (call_id, stream_id) = (CallId::parse("c").expect("id"), StreamId::parse("s_1").expect("id"));
    let welcome = ingest::Welcome {
        tag: tag::Welcome,
        version: protocol::VERSION,
        call_id: call_id.clone(),
        epoch: "e".into(),
        stream_id: stream_id.clone(),
        acked: None,
        frames: covered,
        insights: Default::default(),
        insights_omitted: Default::default(),
    };
    socket.send([frame(&welcome)]).await.expect("welcome");
    let mut frames = Vec::new();
    while frames.len() < act.read {
        match socket.recv().await {
            Ok(Incoming::Text(text)) => frames.push(text.to_string()),
            _ => break,
        }
    }
    {
        let mut state = state.lock().expect("lock");
        state.applied.extend(frames.into_iter().take(act.cover));
        state.covered = Some(act.cover as u64);
    }
    if act.ack {
        let ack = ingest::Ack { tag: tag::Ack, stream_id, frames: act.cover as u64, turn_order: None };
        let _ = socket.send([frame(&ack)]).await;
    }
    match act.then {
        Then::Drop => drop(socket),
        Then::Close(code) => socket.close(code, "scripted").await,
        Then::AskToLeave => {
            let _ = socket.send([frame(&Reconnect::new(10, 200))]).await;
            while let Ok(Incoming::Text(_) | Incoming::Ping | Incoming::Pong) = socket.recv().await {}
        }
        Then::Refuse => {
            let _ = socket.send([frame(&ErrorFrame::new(ErrorCode::BadParameter, "scripted").fatal())]).await;
            socket.close(4400, "scripted").await;
        }
        Then::Complete => {
            let completed = Event::CallCompleted { r#final: JsonMap::new(), missing: JsonMap::new(), cost_usd: None };
            for (seq, event) in [(8, insight("summary", 1, None)), (9, completed)] {
                let stamp = Stamp { call_id: call_id.clone(), seq, at: "2026-01-01T00:00:00.000Z".into() };
                let text = String::from_utf8(encode(&stamp, &event)).expect("text");
                let _ = socket.send([Utf8Bytes::from(text)]).await;
            }
            socket.close(1000, "done").await;
        }
    }
}

/// The frames that must have taken effect: each once and in order, followed by the end that the recording did not have.
fn whole(turns: usize) -> Vec<String> {
    let mut frames: Vec<String> = recording(turns).frames.iter().map(|frame| frame.message.to_string()).collect();
    frames.push(r#"{"type":"end"}"#.to_owned());
    frames
}

#[tokio::test]
async fn what_a_drop_did_not_cover_is_sent_again_and_nothing_else() {
    let daemon = Daemon::start(vec![
        Act { read: 7, cover: 5, ack: true, then: Then::Drop },
        Act { read: 4, cover: 4, ack: false, then: Then::Close(1001) },
        Act { read: 0, cover: 0, ack: false, then: Then::Close(1013) },
        Act { read: 5, cover: 3, ack: true, then: Then::AskToLeave },
        Act { read: 9, cover: 9, ack: true, then: Then::Complete },
    ])
    .await;
    let (report, result) = daemon.play(20).await;
    result.expect("played");
    assert_eq!(daemon.applied(), whole(20));
    assert_eq!((report.lost, report.turns, report.reconnects, report.insights), (0, 20, 4, 1));
    assert!(report.resent > 0);
    assert_eq!(report.insight_times["summary"].len(), 1);
}

#[tokio::test]
async fn a_refusal_ends_it_and_what_was_sent_counts_as_lost() {
    let daemon = Daemon::start(vec![Act { read: 3, cover: 1, ack: true, then: Then::Refuse }]).await;
    let (report, result) = daemon.play(3).await;
    let error = result.expect_err("refused").to_string();
    assert!(error.contains("bad_parameter: scripted"), "{error}");
    assert_eq!((report.turns, report.lost), (1, 2));
}

#[tokio::test]
async fn codes_that_mean_never_are_not_answered_by_another_connection() {
    let daemon = Daemon::start(vec![Act { read: 1, cover: 1, ack: false, then: Then::Close(4409) }]).await;
    let (_, result) = daemon.play(1).await;
    assert!(result.expect_err("superseded").to_string().contains("4409"));
    assert_eq!(daemon.state.lock().expect("lock").connections, 1);
}

#[test]
fn speeds_scale_time() {
    let at = Duration::from_secs(10);
    assert_eq!("2".parse::<Speed>().expect("speed").scale(at), Duration::from_secs(5));
    assert_eq!("0.5x".parse::<Speed>().expect("speed").scale(at), Duration::from_secs(20));
    assert_eq!("max".parse::<Speed>().expect("speed").scale(at), Duration::ZERO);
    for bad in ["0", "-1", "nan", "inf", "fast", ""] {
        assert!(bad.parse::<Speed>().is_err(), "{bad}");
    }
}

#[test]
fn calls_are_named_after_their_file() {
    let names = |jobs: Vec<Job>| -> Vec<String> { jobs.into_iter().map(|job| job.wanted_id).collect() };
    let paths = [PathBuf::from("a/two words.jsonl"), PathBuf::from("b.c.jsonl")];
    assert_eq!(names(jobs(&paths, None, None)), ["two_words", "b.c"]);
    assert_eq!(names(jobs(&paths, Some(2), None)), ["two_words-1", "two_words-2", "b.c-1", "b.c-2"]);
    assert_eq!(names(jobs(&paths[..1], Some(1), Some("x"))), ["x-1"]);
    let long = suffixed(&"x".repeat(128), ".12");
    assert!(id::check(&long).is_ok() && long.ends_with("x.12"), "{long}");
}
