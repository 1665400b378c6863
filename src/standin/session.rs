//! One session of the stand-in: plays a script, reads the client's messages and simulates the fault.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::fault::{Fault, FaultKind, error_text};
use super::script::{Kind, Script, Step};
use super::{Options, Pace};
use crate::base::time::millis;
use crate::base::ws::{Incoming, ServerSocket, Utf8Bytes, WsError};

/// Reason in every close frame that follows an `Error` frame.
const SEE_ERROR: &str = "See Error message for details";
/// Number of frames sent in one batch at [`Pace::Max`], before the client is read again.
const BATCH: usize = 64;
/// Recorded frames up to this far past the current position are still sent after `Terminate`, as the vendor still
/// transcribes the audio it has.
const HORIZON: Duration = Duration::from_millis(2_000);
/// A recorded `Termination` is delayed by this long, so that the client's `Terminate` can come first.
const TERMINATE_WAIT: Duration = Duration::from_millis(1_000);
/// Delay of every frame with [`FaultKind::Slow`].
const SLOWNESS: Duration = Duration::from_millis(1_000);
/// The vendor's heartbeat interval.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Number of messages with too little audio that are tolerated in a session (about a second of them).
const SHORT_MESSAGES: u32 = 50;
/// Allowed audio per message, in ms.
const AUDIO_MS: std::ops::RangeInclusive<u64> = 50..=1000;

enum End {
    Gone,
    Drop,
    Close(u16, &'static str),
    Error(u16, String),
}

struct Session<'a> {
    socket: ServerSocket,
    script: &'a Script,
    options: &'a Options,
    fault: Option<Fault>,
    partials: bool,
    heartbeat: bool,
    /// Bytes of audio per ms; 0 if the format does not determine it.
    bytes_per_ms: u64,
    start: Instant,
    /// Bytes of audio received so far.
    audio: u64,
    short_messages: u32,
    next: usize,
    started: HashSet<i64>,
    ended: HashSet<i64>,
    /// The turn of the newest partial or final.
    open: Option<i64>,
    beats: u32,
    stalled: bool,
}

/// Plays `script` on `socket` until the session ends.
pub(super) async fn run(
    socket: ServerSocket,
    script: &Script,
    options: &Options,
    fault: Option<Fault>,
    query: &HashMap<String, String>,
    credential: Option<&str>,
) {
    let flag = |name: &str| query.get(name).and_then(|value| value.to_ascii_lowercase().parse::<bool>().ok());
    let rate = query.get("sample_rate").and_then(|rate| rate.parse::<u64>().ok()).unwrap_or(0);
    let bytes_per_ms = match query.get("encoding").map_or("pcm_s16le", String::as_str) {
        "pcm_s16le" => rate * 2 / 1000,
        "pcm_mulaw" => rate / 1000,
        _ => 0,
    };
    let mut session = Session {
        socket,
        script,
        options,
        fault,
        partials: flag("include_partial_turns").unwrap_or(true),
        heartbeat: options.extras || flag("session_heartbeat").unwrap_or(false),
        bytes_per_ms,
        start: Instant::now(),
        audio: 0,
        short_messages: 0,
        next: 0,
        started: HashSet::new(),
        ended: HashSet::new(),
        open: None,
        beats: 0,
        stalled: fault.is_some_and(|fault| fault.kind == FaultKind::Mute),
    };
    let end = match (&options.key, credential) {
        (Some(_), None) => End::Error(1008, "Unauthorized Connection: Missing Authorization header".to_owned()),
        (Some(key), Some(given)) if key != given => End::Error(1008, error_text(1008).to_owned()),
        _ => session.play().await,
    };
    let mut socket = session.socket;
    match end {
        End::Gone | End::Drop => {}
        End::Close(code, reason) => socket.close(code, reason).await,
        End::Error(code, text) => {
            let frame = json!({"type": "Error", "error_code": code, "error": text});
            if socket.send([Utf8Bytes::from(frame.to_string())]).await.is_ok() {
                socket.close(code, SEE_ERROR).await;
            }
        }
    }
}

impl Session<'_> {
    async fn play(&mut self) -> End {
        loop {
            let due = self.due();
            let heartbeat = self.start + HEARTBEAT * (self.beats + 1);
            tokio::select! {
                incoming = self.socket.recv() => {
                    let ended = match incoming {
                        Ok(incoming) => self.incoming(incoming).await,
                        Err(error) => Some(broken(&error)),
                    };
                    if let Some(end) = ended {
                        return end;
                    }
                }
                () = wait(due), if due.is_some() => {
                    if let Some(end) = self.step().await {
                        return end;
                    }
                }
                () = sleep_until(heartbeat), if self.heartbeat && !self.stalled => {
                    self.beats += 1;
                    let beat = self.beat();
                    if let Err(error) = self.socket.send([beat]).await {
                        return broken(&error);
                    }
                }
            }
        }
    }

    /// When the next frame is to be sent; `None` if nothing is to be sent for now.
    fn due(&self) -> Option<Instant> {
        let step = self.script.steps.get(self.next).filter(|_| !self.stalled)?;
        let due = match self.options.pace {
            Pace::Max => self.start,
            Pace::Clock(speed) => self.start + step.at.div_f64(speed.max(0.001)),
            // `Begin` needs no audio.
            Pace::Audio if step.kind == Kind::Begin || self.heard() >= step.at => self.start,
            Pace::Audio => return None,
        };
        let slow = self.fault.is_some_and(|fault| fault.kind == FaultKind::Slow);
        let late = if slow { SLOWNESS } else { Duration::ZERO };
        let wait = if step.kind == Kind::Termination { TERMINATE_WAIT } else { Duration::ZERO };
        Some(due + late + wait)
    }

    /// Length of the audio received so far.
    fn heard(&self) -> Duration {
        Duration::from_millis(self.audio.checked_div(self.bytes_per_ms).unwrap_or(0))
    }

    /// Current position in the recording.
    fn position(&self) -> Duration {
        match self.options.pace {
            Pace::Audio => self.heard(),
            Pace::Clock(speed) => self.start.elapsed().mul_f64(speed),
            Pace::Max => Duration::MAX / 2,
        }
    }

    /// Returns true if the session sends nothing more. A stall counts as soon as its number of turns has ended, before
    /// the next frame is due.
    fn is_mute(&self) -> bool {
        let stalls = |fault: Fault| fault.kind == FaultKind::Stall && self.ended.len() >= fault.after_turns;
        self.stalled || self.fault.is_some_and(stalls)
    }

    /// Sends the frames that are due.
    async fn step(&mut self) -> Option<End> {
        let mut frames = Vec::new();
        let now = Instant::now();
        while frames.len() < BATCH && self.due().is_some_and(|due| due <= now) {
            if let Some(fault) = self.fault.filter(|fault| self.ended.len() >= fault.after_turns) {
                match self.apply_fault(fault, &mut frames).await {
                    Ok(()) => {}
                    Err(end) => return Some(end),
                }
                if self.stalled {
                    break;
                }
            }
            let Some(step) = self.script.steps.get(self.next) else { break };
            self.next += 1;
            if step.kind == Kind::Termination {
                return Some(self.terminate(frames).await);
            }
            self.add(step, &mut frames);
        }
        self.socket.send(frames).await.err().map(|error| broken(&error))
    }

    async fn apply_fault(&mut self, fault: Fault, frames: &mut Vec<Utf8Bytes>) -> Result<(), End> {
        if fault.kind == FaultKind::Slow {
            return Ok(());
        }
        self.socket.send(frames.drain(..)).await.map_err(|error| broken(&error))?;
        match fault.kind {
            FaultKind::Drop => Err(End::Drop),
            FaultKind::Cut => Err(End::Close(1000, "")),
            FaultKind::Error(code) => Err(End::Error(code, error_text(code).to_owned())),
            FaultKind::Stall | FaultKind::Mute | FaultKind::Refuse => {
                self.stalled = true;
                Ok(())
            }
            FaultKind::Garble => {
                self.fault = None;
                let garbage = [r#"{"type":"Turn","turn_order":"#, r#"{"type":"Turn","turn_order":"x"}"#, "null", ""];
                self.socket.send(garbage.map(Utf8Bytes::from_static)).await.map_err(|error| broken(&error))?;
                let bytes = bytes::Bytes::from_static(&[0xff, 0x00, 0xc3, 0x28]);
                self.socket.send_binary(bytes).await.map_err(|error| broken(&error))
            }
            FaultKind::Slow => Ok(()),
        }
    }

    fn add(&mut self, step: &Step, frames: &mut Vec<Utf8Bytes>) {
        match step.kind {
            Kind::Begin if self.options.fresh_ids => {
                let mut begin: serde_json::Value = serde_json::from_str(&step.text).unwrap_or_else(|_| json!({}));
                begin["type"] = json!("Begin");
                begin["id"] = json!(fresh_id());
                frames.push(Utf8Bytes::from(begin.to_string()));
                return;
            }
            Kind::Partial(turn) | Kind::Final(turn) => {
                if self.started.insert(turn) && self.options.extras {
                    let at = millis(step.at);
                    let frame = json!({"type": "SpeechStarted", "timestamp": at, "confidence": 0.95});
                    frames.push(Utf8Bytes::from(frame.to_string()));
                }
                self.open = Some(turn);
                if let Kind::Final(turn) = step.kind {
                    self.ended.insert(turn);
                } else if !self.partials {
                    return;
                }
            }
            _ => {}
        }
        frames.push(step.text.clone());
    }

    async fn incoming(&mut self, incoming: Incoming) -> Option<End> {
        match incoming {
            Incoming::Binary(bytes) => self.audio(bytes.len() as u64),
            Incoming::Text(text) => {
                let message: Result<serde_json::Value, _> = serde_json::from_str(&text);
                let Ok(message) = message else {
                    return Some(End::Error(3006, format!("{}: Invalid JSON", error_text(3006))));
                };
                match message["type"].as_str().unwrap_or("") {
                    "Terminate" => {
                        if self.is_mute() {
                            return None;
                        }
                        let frames = self.rest();
                        Some(self.terminate(frames).await)
                    }
                    "ForceEndpoint" => {
                        let frames = self.rest_of_turn();
                        self.socket.send(frames).await.err().map(|error| broken(&error))
                    }
                    "KeepAlive" | "UpdateConfiguration" => None,
                    other => Some(End::Error(3006, format!("Invalid Message Type: {other}"))),
                }
            }
            Incoming::Ping | Incoming::Pong => None,
            Incoming::Closed { .. } => Some(End::Gone),
        }
    }

    fn audio(&mut self, bytes: u64) -> Option<End> {
        self.audio += bytes;
        let ms = bytes.checked_div(self.bytes_per_ms)?;
        if AUDIO_MS.contains(&ms) {
            return None;
        }
        self.short_messages += 1;
        (ms > *AUDIO_MS.end() || self.short_messages > SHORT_MESSAGES).then(|| {
            let text =
                format!("Input Duration Error: Input Duration Violation: {ms}.0 ms. Expected between 50 and 1000 ms");
            End::Error(3007, text)
        })
    }

    /// The frames that the vendor would still send for the audio it has: those due within [`HORIZON`], and the rest of
    /// the open turn.
    fn rest(&mut self) -> Vec<Utf8Bytes> {
        let horizon = self.position().saturating_add(HORIZON);
        let mut frames = Vec::new();
        while let Some(step) = self.script.steps.get(self.next).filter(|step| step.at <= horizon) {
            if step.kind == Kind::Termination {
                break;
            }
            self.next += 1;
            self.add(step, &mut frames);
        }
        frames.append(&mut self.rest_of_turn());
        frames
    }

    fn rest_of_turn(&mut self) -> Vec<Utf8Bytes> {
        let mut frames = Vec::new();
        let Some(open) = self.open else { return frames };
        while let Some(step) = self.script.steps.get(self.next) {
            if step.kind != Kind::Partial(open) && step.kind != Kind::Final(open) {
                break;
            }
            self.next += 1;
            self.add(step, &mut frames);
        }
        frames
    }

    /// Sends the last messages: `frames`, a revision if extras are wanted, and `Termination`.
    async fn terminate(&mut self, mut frames: Vec<Utf8Bytes>) -> End {
        if self.options.extras {
            frames.extend(self.revision());
        }
        let recorded = self.script.steps.last().filter(|step| step.kind == Kind::Termination);
        let all = self.next + 1 >= self.script.steps.len();
        frames.push(match recorded.filter(|_| all) {
            Some(step) => step.text.clone(),
            None => {
                let audio = self.heard().as_secs();
                let session = self.start.elapsed().as_secs();
                let frame = json!({
                    "type": "Termination", "audio_duration_seconds": audio, "session_duration_seconds": session,
                });
                Utf8Bytes::from(frame.to_string())
            }
        });
        match self.socket.send(frames).await {
            Ok(()) => End::Close(1000, "Session Ended"),
            Err(error) => broken(&error),
        }
    }

    /// Repeats the speaker labels of the first labelled turn: a revision that changes nothing.
    fn revision(&self) -> Option<Utf8Bytes> {
        let finals = self.script.steps[..self.next].iter().filter(|step| matches!(step.kind, Kind::Final(_)));
        let turn = finals
            .filter_map(|step| serde_json::from_str::<serde_json::Value>(&step.text).ok())
            .find(|turn| turn["speaker_label"].is_string())?;
        let frame = json!({"type": "SpeakerRevision", "revisions": [{
            "turn_order": turn["turn_order"], "speaker_label": turn["speaker_label"], "words": turn["words"],
        }]});
        Some(Utf8Bytes::from(frame.to_string()))
    }

    fn beat(&self) -> Utf8Bytes {
        let session = millis(self.start.elapsed());
        let audio = millis(self.heard());
        let frame = json!({
            "type": "Heartbeat", "total_audio_received_ms": audio, "total_duration_ms": session,
            "realtime_factor": 1.0, "max_speech_probability": 0.9,
        });
        Utf8Bytes::from(frame.to_string())
    }
}

async fn wait(due: Option<Instant>) {
    match due {
        Some(due) if due > Instant::now() => sleep_until(due).await,
        Some(_) => {}
        None => std::future::pending().await,
    }
}

fn broken(error: &WsError) -> End {
    match error {
        WsError::TooLarge { .. } => End::Error(3006, format!("{}: message too large", error_text(3006))),
        _ => End::Gone,
    }
}

/// A random session id in the vendor's format.
fn fresh_id() -> String {
    let bits: u128 = rand::random();
    let hex = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
