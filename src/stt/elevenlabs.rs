//! ElevenLabs Scribe realtime (`wss://api.elevenlabs.io/v1/speech-to-text/realtime`). The discriminator is
//! `message_type`.
//!
//! A commit may be reported up to three times: as `committed_transcript`, then with timestamps, then with speakers. A
//! `segment_index`, if present, identifies the turn. Without it, only one of the first two reports is used; the
//! session's configuration or the first pair of reports shows which.

use serde::Deserialize;

use super::held::{Session, Unnamed};
use super::wire::{self, Failure, Flag, Label, Real, Reported, Said, Says, Seconds, Text};
use super::{DecodeError, Decoder, Dialect};
use crate::types::{Carry, Final, SttEvent, TurnKey, Word};

/// The vendor's error types. A type that is not listed counts as an error if the message has an `error` and nothing
/// else, because add-ons report their own errors beside other content.
const ERRORS: [&str; 14] = [
    "error",
    "auth_error",
    "chunk_size_exceeded",
    "commit_throttled",
    "input_error",
    "insufficient_audio_activity",
    "invalid_request",
    "queue_overflow",
    "quota_exceeded",
    "rate_limited",
    "resource_exhausted",
    "session_time_limit_exceeded",
    "transcriber_error",
    "unaccepted_terms",
];

pub(super) struct ElevenLabs;

impl Dialect for ElevenLabs {
    fn name(&self) -> &'static str {
        "elevenlabs"
    }

    fn example(&self) -> &'static str {
        r#"{"message_type":"committed_transcript_with_timestamps","text":"Hello there.","language_code":"en","words":[{"text":"Hello","start":0.1,"end":0.5,"type":"word","logprob":-0.02},{"text":" ","start":0.5,"end":0.6,"type":"spacing","logprob":0},{"text":"there.","start":0.6,"end":1.0,"type":"word","logprob":-0.04}]}"#
    }

    fn expects(&self) -> &'static str {
        "messages whose \"message_type\" is \"session_started\", \"committed_transcript\", …"
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        Box::new(ElevenLabsDecoder::default())
    }

    fn decoder_from(&self, carry: &Carry) -> Box<dyn Decoder> {
        let waiting = carry.held.first().map(|last| Box::new(Final { key: ended(), ..last.clone() }));
        Box::new(ElevenLabsDecoder {
            session: Session(carry.session.clone()),
            finals: Unnamed::resume(&carry.ends),
            waiting,
            ..ElevenLabsDecoder::default()
        })
    }

    fn names_turns(&self) -> bool {
        false
    }

    fn needs(&self) -> &'static [&'static str] {
        &["message_type", "text", "segment_index", "from_speaker_id", "to_speaker_id"]
    }
}

/// Commits without an index all belong to one channel, which has no name.
const CHANNEL: &str = "";

fn ended() -> TurnKey {
    TurnKey::Ended(CHANNEL.to_owned())
}

#[derive(Default)]
struct ElevenLabsDecoder {
    session: Session,
    /// Used if no message named the session.
    finals: Unnamed,
    /// Number of changes of `waiting`.
    changes: u64,
    /// `Some(true)` if commits are repeated with timestamps; `None` until known.
    timestamps: Option<bool>,
    /// A commit that waits for its repetition with timestamps, or for a message that shows that none will come.
    waiting: Option<Box<Final>>,
}

#[derive(Deserialize)]
struct Partial<'a> {
    #[serde(borrow)]
    text: Text<'a>,
}

#[derive(Deserialize)]
struct Commit<'a> {
    #[serde(borrow)]
    text: Option<Text<'a>>,
    segment_index: Option<Label>,
    #[serde(borrow)]
    language_code: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "wire::list")]
    words: Vec<WordField<'a>>,
}

impl Says for Commit<'_> {
    const TEXT: &'static str = "text";
    fn says(&self) -> bool {
        self.text.is_some() || self.words.iter().any(|word| word.text.is_some())
    }
}

#[derive(Deserialize)]
struct WordField<'a> {
    #[serde(borrow)]
    text: Option<Text<'a>>,
    start: Option<Seconds>,
    end: Option<Seconds>,
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    speaker_id: Option<Label>,
    logprob: Option<Real>,
}

#[derive(Deserialize)]
struct Merged {
    from_speaker_id: Label,
    to_speaker_id: Label,
}

#[derive(Deserialize)]
struct Started<'a> {
    #[serde(borrow)]
    session_id: Option<Text<'a>>,
    config: Option<Config>,
}

#[derive(Deserialize)]
struct Config {
    include_timestamps: Option<Flag>,
}

#[derive(Deserialize)]
struct ErrorFrame {
    error: Option<Reported>,
}

impl ErrorFrame {
    fn reported(self) -> Option<Failure> {
        self.error?.0
    }
}

/// A message with an error and nothing else.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BareError<'a> {
    #[serde(rename = "message_type")]
    _kind: serde::de::IgnoredAny,
    #[serde(borrow)]
    error: Text<'a>,
}

impl Decoder for ElevenLabsDecoder {
    fn read(&mut self, frame: &str, out: &mut Vec<SttEvent>) -> Result<(), DecodeError> {
        let Some(kind) = wire::kind("message_type", frame)? else {
            if let Some(event) = wire::own(frame)? {
                self.own(event, out);
                return Ok(());
            }
            return Err(wire::bad_field("message_type", "a message type such as \"committed_transcript\"", None));
        };
        let timestamped = kind.as_str() == "committed_transcript_with_timestamps";
        let before = self.changes;
        let (timestamps, waiting) = (self.timestamps, self.waiting.take());
        self.changes += u64::from(waiting.is_some());
        if waiting.is_some() && !timestamped && timestamps.is_none() {
            self.timestamps = Some(false);
        }
        let mut events = Vec::new();
        if let Err(error) = self.message(kind.as_str(), frame, &mut events) {
            (self.changes, self.timestamps, self.waiting) = (before, timestamps, waiting);
            return Err(error);
        }
        if matches!(events.as_slice(), [SttEvent::Unknown { .. }]) {
            // An unknown message tells nothing about the waiting commit.
            (self.changes, self.timestamps, self.waiting) = (before, timestamps, waiting);
            out.append(&mut events);
            return Ok(());
        }
        let again = |waiting: &Final| {
            timestamped
                && events.iter().any(|event| matches!(event, SttEvent::Final(turn) if turn.text == waiting.text))
        };
        let waiting = waiting.filter(|waiting| !again(waiting));
        let begins = kind.as_str() == "session_started";
        if timestamps == Some(true) && !timestamped && !begins && self.waiting.is_none() {
            // The repetition is still to come.
            self.waiting = waiting;
        } else {
            out.extend(waiting.map(SttEvent::Final));
        }
        for event in events {
            self.finals.add(event, self.session.0.is_some(), out);
        }
        Ok(())
    }

    fn holding(&self) -> bool {
        self.waiting.is_some()
    }

    fn carry(&self) -> Carry {
        let held = |last: &Final| Final { key: TurnKey::Held(CHANNEL.to_owned()), ..last.clone() };
        let held: Vec<_> = self.waiting.as_deref().map(held).into_iter().collect();
        let session = self.session.0.clone().filter(|_| !held.is_empty());
        Carry { held, ends: self.finals.ends(), session, closed: false }
    }

    fn carry_version(&self) -> u64 {
        self.changes + self.finals.version()
    }

    fn finish(&mut self, out: &mut Vec<SttEvent>) {
        self.changes += 1;
        out.extend(self.waiting.take().map(SttEvent::Final));
    }
}

impl ElevenLabsDecoder {
    fn message(&mut self, kind: &str, frame: &str, out: &mut Vec<SttEvent>) -> Result<(), DecodeError> {
        match kind {
            "partial_transcript" => {
                let partial: Partial<'_> = wire::parse("partial_transcript", frame)?;
                let text = partial.text.into_string();
                out.push(SttEvent::Partial { key: TurnKey::Next, speaker: None, text });
            }
            "committed_transcript" => {
                let Said(commit): Said<Commit<'_>> = wire::parse("committed_transcript", frame)?;
                if commit.segment_index.is_some() {
                    named(commit, out);
                } else {
                    match self.timestamps {
                        // Kept even if a repetition is expected: it may never come.
                        None | Some(true) => {
                            self.changes += 1;
                            self.waiting = Some(Box::new(turn(commit)));
                        }
                        Some(false) => out.push(SttEvent::Final(Box::new(turn(commit)))),
                    }
                }
            }
            "committed_transcript_with_timestamps" => {
                let Said(commit): Said<Commit<'_>> = wire::parse("committed_transcript_with_timestamps", frame)?;
                self.timestamps = Some(true);
                if commit.segment_index.is_some() {
                    named(commit, out);
                } else {
                    out.push(SttEvent::Final(Box::new(turn(commit))));
                }
            }
            "diarized_transcript" => {
                let Said(commit): Said<Commit<'_>> = wire::parse("diarized_transcript", frame)?;
                if commit.segment_index.is_none() {
                    return Err(wire::bad_field("diarized_transcript.segment_index", "an integer", None));
                }
                named(commit, out);
            }
            "speakers_merged" => {
                let merged: Merged = wire::parse("speakers_merged", frame)?;
                out.push(SttEvent::MergeSpeakers { from: merged.from_speaker_id.0, to: merged.to_speaker_id.0 });
            }
            "session_started" => {
                let started: Started<'_> = wire::parse("session_started", frame)?;
                self.finals.clear();
                self.session.begins(started.session_id.as_ref().map(Text::as_str));
                self.timestamps =
                    started.config.and_then(|config| config.include_timestamps).map(|Flag(timestamps)| timestamps);
                out.push(SttEvent::Begin { vendor_session: started.session_id.map(Text::into_string) });
            }
            "warning" | "committed_transcript_entities" => {}
            error if ERRORS.contains(&error) => {
                let message: ErrorFrame = wire::parse(error, frame)?;
                out.push(message.reported().unwrap_or_default().event(error));
            }
            other => out.push(match serde_json::from_str::<BareError<'_>>(frame) {
                Ok(BareError { error, .. }) => {
                    SttEvent::VendorError { code: other.to_owned(), message: error.into_string() }
                }
                Err(_) => SttEvent::Unknown { kind: other.to_owned() },
            }),
        }
        Ok(())
    }
}

/// Appends a commit with an index. Its partial, which has no index, is removed.
fn named(commit: Commit<'_>, out: &mut Vec<SttEvent>) {
    out.push(SttEvent::Partial { key: TurnKey::Next, speaker: None, text: String::new() });
    out.push(SttEvent::Final(Box::new(turn(commit))));
}

fn turn(commit: Commit<'_>) -> Final {
    let said = commit.words.iter().filter_map(|word| Some(word.text.as_ref()?.as_str()));
    let text = wire::text_or_words(commit.text, said).trim().to_owned();
    let words: Vec<Word> = commit
        .words
        .into_iter()
        .filter(|word| word.kind.as_ref().is_none_or(|kind| kind.as_str() != "spacing"))
        .filter_map(|word| {
            let (start_ms, end_ms) = wire::word_times(word.start, word.end)?;
            Some(Word {
                text: word.text?.as_str().trim().to_owned(),
                start_ms,
                end_ms,
                speaker: word.speaker_id.map(|Label(speaker)| speaker),
                confidence: word.logprob.map(|Real(logprob)| wire::probability(logprob)),
            })
        })
        .collect();
    let (start_ms, end_ms) = wire::span(&words);
    Final {
        key: commit.segment_index.map_or_else(ended, |Label(index)| TurnKey::Vendor(index)),
        formatted: true,
        text,
        speaker: wire::common_speaker(&words),
        words,
        start_ms,
        end_ms,
        language: commit.language_code.map(Text::into_string),
        confidence: None,
    }
}
