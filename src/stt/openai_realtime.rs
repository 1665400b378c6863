//! OpenAI Realtime transcription sessions (`wss://api.openai.com/v1/realtime?intent=transcription`).
//!
//! An item is a turn. Messages may come in any order; a turn's times come from the voice detection's messages, or from the
//! segments of a diarizing model, whose speakers the transcript's words take over. A segment that comes after its item's
//! transcript says the turn again, with what it adds.
//!
//! In a session with a model, what the model says is a turn too, with the label `assistant`: the transcript of its audio
//! (`response.output_audio_transcript.delta` and `.done`, `response.audio_transcript.*` in the API's beta) or its text
//! (`response.output_text.*`, `response.text.*`), from OpenAI's API reference of Realtime server events. `.done` comes for an
//! interrupted answer too.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::wire::{self, Label, Natural, Real, Reported, Seconds, Text};
use super::{DecodeError, Decoder, Dialect};
use crate::types::{Final, SttEvent, TurnKey, Word};

/// Items remembered, finished ones included. More are never in the air at once.
const MAX_ITEMS: usize = 64;
/// Text of a partial kept for one item.
const MAX_PARTIAL_BYTES: usize = 64 << 10;

/// The label of what the model says.
const ASSISTANT: &str = "assistant";

/// Messages that say nothing of turns.
const SILENT: [&str; 16] = [
    "session.updated",
    "transcription_session.updated",
    "conversation.created",
    "conversation.item.created",
    "conversation.item.added",
    "conversation.item.done",
    "conversation.item.retrieved",
    "conversation.item.truncated",
    "conversation.item.deleted",
    "input_audio_buffer.committed",
    "input_audio_buffer.cleared",
    "input_audio_buffer.timeout_triggered",
    "input_audio_buffer.dtmf_event_received",
    "rate_limits.updated",
    "output_audio_buffer.started",
    "output_audio_buffer.stopped",
];

/// The dialect.
pub(super) struct OpenAiRealtime;

impl Dialect for OpenAiRealtime {
    fn name(&self) -> &'static str {
        "openai_realtime"
    }

    fn example(&self) -> &'static str {
        r#"{"type":"conversation.item.input_audio_transcription.completed","event_id":"event_1","item_id":"item_003","content_index":0,"transcript":"Hello, how are you?","usage":{"type":"duration","seconds":2}}"#
    }

    fn expects(&self) -> &'static str {
        "events whose \"type\" is \"session.created\", \"conversation.item.input_audio_transcription.completed\", …"
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        Box::new(OpenAiDecoder::default())
    }

    fn names_turns(&self) -> bool {
        true
    }

    fn needs(&self) -> &'static [&'static str] {
        &["text", "type", "item_id", "transcript", "id", "text", "start", "end", "delta"]
    }
}

#[derive(Default)]
struct OpenAiDecoder {
    /// Oldest first.
    items: Vec<Item>,
}

#[derive(Default)]
struct Item {
    id: String,
    partial: String,
    start_ms: Option<u64>,
    end_ms: Option<u64>,
    /// In order of time.
    segments: Vec<Segment>,
    transcript: Option<Transcript>,
    /// What the model says in it, by content part; empty where it is not the model's.
    answer: BTreeMap<u64, String>,
    /// Its turn has been said: by its transcript, or without, where none will come.
    done: bool,
}

struct Transcript {
    text: String,
    language: Option<String>,
    confidence: Option<f32>,
}

struct Segment {
    id: String,
    text: String,
    speaker: Option<String>,
    start_ms: u64,
    end_ms: u64,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow)]
    item_id: Text<'a>,
    #[serde(borrow)]
    delta: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Completed<'a> {
    #[serde(borrow)]
    item_id: Text<'a>,
    #[serde(borrow)]
    transcript: Text<'a>,
    #[serde(borrow, default, deserialize_with = "wire::list")]
    languages: Vec<Language<'a>>,
    #[serde(default, deserialize_with = "wire::list")]
    logprobs: Vec<LogProb>,
}

/// The end of a part of what the model says.
#[derive(Deserialize)]
struct Answered<'a> {
    #[serde(borrow)]
    item_id: Text<'a>,
    content_index: Option<Natural>,
    #[serde(borrow, alias = "text")]
    transcript: Text<'a>,
}

#[derive(Deserialize)]
struct LogProb {
    logprob: Real,
}

#[derive(Deserialize)]
struct Language<'a> {
    #[serde(borrow)]
    code: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct SegmentFrame<'a> {
    #[serde(borrow)]
    item_id: Text<'a>,
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    text: Text<'a>,
    speaker: Option<Label>,
    start: Seconds,
    end: Seconds,
}

#[derive(Deserialize)]
struct Speech<'a> {
    #[serde(borrow)]
    item_id: Text<'a>,
    audio_start_ms: Option<Natural>,
    audio_end_ms: Option<Natural>,
}

#[derive(Deserialize)]
struct ErrorFrame<'a> {
    #[serde(borrow)]
    item_id: Option<Text<'a>>,
    error: Option<Reported>,
}

#[derive(Deserialize)]
struct SessionFrame<'a> {
    #[serde(borrow)]
    session: Option<Session<'a>>,
}

#[derive(Deserialize)]
struct Session<'a> {
    #[serde(borrow)]
    id: Option<Text<'a>>,
}

impl Decoder for OpenAiDecoder {
    fn read(&mut self, frame: &str, out: &mut Vec<SttEvent>) -> Result<(), DecodeError> {
        let Some(kind) = wire::kind("type", frame)? else {
            return Err(wire::bad_field(
                "type",
                "a message type such as \"conversation.item.input_audio_transcription.completed\"",
                None,
            ));
        };
        let what = kind.as_str().rsplit('.').next().unwrap_or_default();
        match kind.as_str() {
            "conversation.item.input_audio_transcription.delta" => {
                let delta: Delta<'_> = wire::parse(what, frame)?;
                let item = self.item(delta.item_id.as_str(), out);
                if let Some(text) = delta.delta.filter(|_| !item.done && item.partial.len() < MAX_PARTIAL_BYTES) {
                    item.partial.push_str(text.as_str());
                    let (key, text) = (key(&item.id), item.partial.clone());
                    out.push(SttEvent::Partial { key, speaker: None, text });
                }
            }
            "conversation.item.input_audio_transcription.completed" => {
                let completed: Completed<'_> = wire::parse(what, frame)?;
                let item = self.item(completed.item_id.as_str(), out);
                let language = completed.languages.into_iter().find_map(|one| one.code);
                item.transcript = Some(Transcript {
                    text: completed.transcript.into_string(),
                    language: language.map(Text::into_string),
                    confidence: confidence(&completed.logprobs),
                });
                out.push(item.turn());
            }
            "response.output_audio_transcript.delta"
            | "response.audio_transcript.delta"
            | "response.output_text.delta"
            | "response.text.delta" => {
                let delta: Delta<'_> = wire::parse(what, frame)?;
                let item = self.item(delta.item_id.as_str(), out);
                if let Some(text) = delta.delta.filter(|_| !item.done && item.partial.len() < MAX_PARTIAL_BYTES) {
                    item.partial.push_str(text.as_str());
                    let (key, text) = (key(&item.id), item.partial.clone());
                    out.push(SttEvent::Partial { key, speaker: Some(ASSISTANT.to_owned()), text });
                }
            }
            "response.output_audio_transcript.done"
            | "response.audio_transcript.done"
            | "response.output_text.done"
            | "response.text.done" => {
                let answered: Answered<'_> = wire::parse(what, frame)?;
                let item = self.item(answered.item_id.as_str(), out);
                let index = answered.content_index.map_or(0, |index| index.0);
                item.answer.insert(index, answered.transcript.into_string());
                let text = item.answer.values().map(|part| part.trim()).collect::<Vec<_>>().join(" ");
                item.transcript = Some(Transcript { text, language: None, confidence: None });
                out.push(item.turn());
            }
            "conversation.item.input_audio_transcription.segment" => {
                let segment: SegmentFrame<'_> = wire::parse(what, frame)?;
                let item = self.item(segment.item_id.as_str(), out);
                if item.segments.iter().all(|other| other.id != segment.id.as_str()) {
                    let (start_ms, end_ms) = (segment.start.ms(), segment.end.ms().max(segment.start.ms()));
                    let place =
                        item.segments.partition_point(|other| (other.start_ms, other.end_ms) <= (start_ms, end_ms));
                    let (text, speaker) = (segment.text.into_string(), segment.speaker.map(|Label(speaker)| speaker));
                    item.segments
                        .insert(place, Segment { id: segment.id.into_string(), text, speaker, start_ms, end_ms });
                    if item.done {
                        out.push(item.turn());
                    }
                }
            }
            "conversation.item.input_audio_transcription.failed" => {
                let error: ErrorFrame<'_> = wire::parse(what, frame)?;
                if let Some(id) = &error.item_id {
                    out.push(SttEvent::Partial { key: key(id.as_str()), speaker: None, text: String::new() });
                    // Its segments, if there are any, are all that there will be.
                    let item = self.item(id.as_str(), out);
                    out.extend(item.abandon());
                }
                out.push(vendor_error(error.error));
            }
            "error" => out.push(vendor_error(wire::parse::<ErrorFrame<'_>>(what, frame)?.error)),
            "input_audio_buffer.speech_started" | "input_audio_buffer.speech_stopped" => {
                let speech: Speech<'_> = wire::parse(what, frame)?;
                let item = self.item(speech.item_id.as_str(), out);
                item.start_ms = speech.audio_start_ms.map(|start| start.0).or(item.start_ms);
                item.end_ms = speech.audio_end_ms.map(|end| end.0).or(item.end_ms);
            }
            "session.created" | "transcription_session.created" => {
                let frame: SessionFrame<'_> = wire::parse(what, frame)?;
                let id = frame.session.and_then(|session| session.id);
                out.push(SttEvent::Begin { vendor_session: id.map(Text::into_string) });
            }
            silent if SILENT.contains(&silent) || silent.starts_with("response.") => {}
            other => self.own(wire::other(other, frame)?, out),
        }
        Ok(())
    }

    fn holding(&self) -> bool {
        self.items.iter().any(Item::holds)
    }

    fn finish(&mut self, out: &mut Vec<SttEvent>) {
        out.extend(self.items.iter_mut().filter_map(Item::abandon));
    }
}

impl OpenAiDecoder {
    /// The item of that id; the oldest makes room for a new one.
    fn item(&mut self, id: &str, out: &mut Vec<SttEvent>) -> &mut Item {
        let index = self.items.iter().position(|item| item.id == id).unwrap_or_else(|| {
            if self.items.len() == MAX_ITEMS {
                out.extend(self.items.remove(0).abandon());
            }
            self.items.push(Item { id: id.to_owned(), ..Item::default() });
            self.items.len() - 1
        });
        &mut self.items[index]
    }
}

impl Item {
    fn holds(&self) -> bool {
        !self.done && !self.segments.is_empty()
    }

    /// The turn, as far as it is known; without a transcript, its text is that of its segments.
    fn turn(&mut self) -> SttEvent {
        self.done = true;
        self.partial = String::new();
        let (text, language, confidence) = match &self.transcript {
            Some(said) => (said.text.clone(), said.language.clone(), said.confidence),
            None => (self.segments.iter().map(|segment| segment.text.trim()).collect::<Vec<_>>().join(" "), None, None),
        };
        let words: Vec<Word> = self.segments.iter().flat_map(words).collect();
        let (first, last) = wire::span(&words);
        let start_ms = first.or(self.start_ms);
        SttEvent::Final(Box::new(Final {
            key: key(&self.id),
            // What is put together from segments gives way to a transcript, never the other way round.
            formatted: self.transcript.is_some(),
            text,
            speaker: wire::common_speaker(&words).or_else(|| (!self.answer.is_empty()).then(|| ASSISTANT.to_owned())),
            words,
            start_ms,
            end_ms: last.or(self.end_ms.map(|end| end.max(start_ms.unwrap_or(0)))),
            language,
            confidence,
        }))
    }

    /// Its transcript will not come: its segments are all there is.
    fn abandon(&mut self) -> Option<SttEvent> {
        self.holds().then(|| self.turn())
    }
}

/// A segment's words, its time shared out by their lengths.
fn words(segment: &Segment) -> Vec<Word> {
    let total: usize = segment.text.split_whitespace().map(|word| word.chars().count()).sum();
    let at =
        |chars: usize| segment.start_ms + (segment.end_ms - segment.start_ms) * chars as u64 / (total as u64).max(1);
    let mut before = 0;
    segment
        .text
        .split_whitespace()
        .map(|text| {
            let start_ms = at(before);
            before += text.chars().count();
            let (text, speaker) = (text.to_owned(), segment.speaker.clone());
            Word { text, start_ms, end_ms: at(before), speaker, confidence: None }
        })
        .collect()
}

/// The mean probability of the tokens, as logarithms have it.
fn confidence(tokens: &[LogProb]) -> Option<f32> {
    #[expect(clippy::cast_precision_loss, reason = "a turn has few tokens")]
    let mean = tokens.iter().map(|token| token.logprob.0).sum::<f64>() / tokens.len() as f64;
    (!tokens.is_empty()).then(|| wire::probability(mean))
}

fn key(item_id: &str) -> TurnKey {
    TurnKey::Vendor(item_id.to_owned())
}

fn vendor_error(error: Option<Reported>) -> SttEvent {
    error.and_then(|error| error.0).unwrap_or_default().event("error")
}
