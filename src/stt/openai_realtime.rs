//! OpenAI Realtime transcription sessions (`wss://api.openai.com/v1/realtime?intent=transcription`).
//!
//! Each item is a turn. Messages may arrive in any order. A turn's times come from the messages of the voice detection,
//! or from the segments of a diarizing model, which also give its words with their speakers. A segment that arrives
//! after its item's transcript sends the turn again with the added words.
//!
//! Turns are sent in the order of speech, which `previous_item_id` gives: a transcript waits in [`Items`] for the items
//! before it whose transcripts are still to come.
//!
//! In a session with a model, the model's answer is a turn too, with the label `assistant`: the transcript of its audio
//! (`response.output_audio_transcript.delta` and `.done`, `response.audio_transcript.*` in the API's beta) or its text
//! (`response.output_text.*`, `response.text.*`). Source: OpenAI's API reference of Realtime server events. `.done` is
//! sent for an interrupted answer too.

mod items;

use serde::Deserialize;

use self::items::{Item, Items, Segment, Transcript, key};
use super::held::Session;
use super::wire::{self, Label, Natural, Real, Reported, Seconds, Text};
use super::{DecodeError, Decoder, Dialect};
use crate::types::{Carry, SttEvent};

/// A partial is not extended further once it has this many bytes.
const MAX_PARTIAL_BYTES: usize = 64 << 10;

/// The speaker label of the model.
const ASSISTANT: &str = "assistant";

/// Messages that carry no turn.
const SILENT: [&str; 11] = [
    "session.updated",
    "transcription_session.updated",
    "conversation.created",
    "conversation.item.done",
    "conversation.item.retrieved",
    "conversation.item.truncated",
    "input_audio_buffer.cleared",
    "input_audio_buffer.dtmf_event_received",
    "rate_limits.updated",
    "output_audio_buffer.started",
    "output_audio_buffer.stopped",
];

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

    fn decoder_from(&self, carry: &Carry) -> Box<dyn Decoder> {
        Box::new(OpenAiDecoder { items: Items::resume(&carry.held), ..OpenAiDecoder::default() })
    }

    fn names_turns(&self) -> bool {
        true
    }

    fn needs(&self) -> &'static [&'static str] {
        &["type", "item_id", "transcript", "id", "text", "start", "end", "delta"]
    }
}

#[derive(Default)]
struct OpenAiDecoder {
    session: Session,
    items: Items,
    /// Changes that [`Items::version`] counted in earlier sessions.
    changes: u64,
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

/// The end of a part of the model's speech.
#[derive(Deserialize)]
struct Spoken<'a> {
    #[serde(borrow)]
    item_id: Text<'a>,
    content_index: Option<Natural>,
    #[serde(borrow)]
    transcript: Text<'a>,
}

/// The end of a part of the model's written text.
#[derive(Deserialize)]
struct Written<'a> {
    #[serde(borrow)]
    item_id: Text<'a>,
    content_index: Option<Natural>,
    #[serde(borrow)]
    text: Text<'a>,
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

/// `input_audio_buffer.timeout_triggered`: nobody spoke after the model did.
#[derive(Deserialize)]
struct Waited {
    audio_start_ms: Option<Natural>,
    audio_end_ms: Option<Natural>,
}

/// `input_audio_buffer.committed`, `conversation.item.deleted`.
#[derive(Deserialize)]
struct ItemFrame<'a> {
    #[serde(borrow)]
    item_id: Text<'a>,
    #[serde(borrow)]
    previous_item_id: Option<Text<'a>>,
}

/// `conversation.item.created`, `conversation.item.added`.
#[derive(Deserialize)]
struct Added<'a> {
    #[serde(borrow)]
    previous_item_id: Option<Text<'a>>,
    #[serde(borrow)]
    item: Option<AddedItem<'a>>,
}

#[derive(Deserialize)]
struct AddedItem<'a> {
    #[serde(borrow)]
    id: Option<Text<'a>>,
    #[serde(borrow)]
    role: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "wire::list")]
    content: Vec<Content<'a>>,
}

#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
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
    session: Option<SessionField<'a>>,
}

#[derive(Deserialize)]
struct SessionField<'a> {
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
                let item = self.items.get(delta.item_id.as_str(), out);
                if let Some(text) = delta.delta.filter(|_| !item.said() && item.partial.len() < MAX_PARTIAL_BYTES) {
                    item.partial.push_str(text.as_str());
                    let (key, text) = (key(&item.id), item.partial.clone());
                    out.push(SttEvent::Partial { key, speaker: None, text });
                }
            }
            "conversation.item.input_audio_transcription.completed" => {
                let completed: Completed<'_> = wire::parse(what, frame)?;
                let language = completed.languages.into_iter().find_map(|one| one.code);
                let transcript = Transcript {
                    text: completed.transcript.into_string(),
                    language: language.map(Text::into_string),
                    confidence: confidence(&completed.logprobs),
                };
                self.items.complete(completed.item_id.as_str(), transcript, out);
            }
            "response.output_audio_transcript.delta"
            | "response.audio_transcript.delta"
            | "response.output_text.delta"
            | "response.text.delta" => {
                let delta: Delta<'_> = wire::parse(what, frame)?;
                let item = self.items.get(delta.item_id.as_str(), out);
                if let Some(text) = delta.delta.filter(|_| !item.said() && item.partial.len() < MAX_PARTIAL_BYTES) {
                    item.partial.push_str(text.as_str());
                    let (key, text) = (key(&item.id), item.partial.clone());
                    out.push(SttEvent::Partial { key, speaker: Some(ASSISTANT.to_owned()), text });
                }
            }
            "response.output_audio_transcript.done" | "response.audio_transcript.done" => {
                let Spoken { item_id, content_index, transcript } = wire::parse(what, frame)?;
                let index = content_index.map_or(0, |index| index.0);
                self.items.answer(item_id.as_str(), index, transcript.into_string(), ASSISTANT, out)?;
            }
            "response.output_text.done" | "response.text.done" => {
                let Written { item_id, content_index, text } = wire::parse(what, frame)?;
                let index = content_index.map_or(0, |index| index.0);
                self.items.answer(item_id.as_str(), index, text.into_string(), ASSISTANT, out)?;
            }
            "conversation.item.input_audio_transcription.segment" => {
                let segment: SegmentFrame<'_> = wire::parse(what, frame)?;
                let (start_ms, end_ms) = (segment.start.ms(), segment.end.ms().max(segment.start.ms()));
                let (text, speaker) = (segment.text.into_string(), segment.speaker.map(|Label(speaker)| speaker));
                let id = segment.id.into_string();
                let segment = (segment.item_id, Segment { id, text, speaker, start_ms, end_ms });
                self.items.segment(segment.0.as_str(), segment.1, out);
            }
            "conversation.item.input_audio_transcription.failed" => {
                let error: ErrorFrame<'_> = wire::parse(what, frame)?;
                if let Some(id) = &error.item_id {
                    out.push(SttEvent::Partial { key: key(id.as_str()), speaker: None, text: String::new() });
                    // No transcript will come: the item's segments, if any, are all there is.
                    self.items.give_up(id.as_str(), out);
                }
                out.push(vendor_error(error.error));
            }
            "conversation.item.deleted" => {
                let deleted: ItemFrame<'_> = wire::parse(what, frame)?;
                self.items.give_up(deleted.item_id.as_str(), out);
            }
            "input_audio_buffer.committed" => {
                let committed: ItemFrame<'_> = wire::parse(what, frame)?;
                let previous = committed.previous_item_id.as_ref().map(Text::as_str);
                self.items.place(committed.item_id.as_str(), previous, true, out);
            }
            "conversation.item.created" | "conversation.item.added" => {
                let added: Added<'_> = wire::parse(what, frame)?;
                if let Some(AddedItem { id: Some(id), role, content }) = added.item {
                    let user = role.is_none_or(|role| role.as_str() == "user");
                    let audio = |part: Content<'_>| part.kind.is_some_and(|kind| kind.as_str() == "input_audio");
                    let previous = added.previous_item_id.as_ref().map(Text::as_str);
                    self.items.place(id.as_str(), previous, user && content.into_iter().any(audio), out);
                }
            }
            "error" => out.push(vendor_error(wire::parse::<ErrorFrame<'_>>(what, frame)?.error)),
            "input_audio_buffer.speech_started" | "input_audio_buffer.speech_stopped" => {
                let speech: Speech<'_> = wire::parse(what, frame)?;
                let item: &mut Item = self.items.get(speech.item_id.as_str(), out);
                item.start_ms = speech.audio_start_ms.map(|start| start.0).or(item.start_ms);
                item.end_ms = speech.audio_end_ms.map(|end| end.0).or(item.end_ms);
                let started = what == "speech_started";
                out.push(if started { SttEvent::SpeechStarted } else { SttEvent::Silence { span: None } });
            }
            "input_audio_buffer.timeout_triggered" => {
                let Waited { audio_start_ms, audio_end_ms } = wire::parse(what, frame)?;
                let span = audio_start_ms.zip(audio_end_ms).map(|(start, end)| (start.0, end.0));
                out.push(SttEvent::Silence { span });
            }
            "session.created" | "transcription_session.created" => {
                let frame: SessionFrame<'_> = wire::parse(what, frame)?;
                let id = frame.session.and_then(|session| session.id);
                let known = self.session.0.is_some();
                if self.session.begins(id.as_ref().map(Text::as_str)) && known {
                    // Items of the earlier session do not continue.
                    self.finish(out);
                    self.changes += 1 + self.items.version();
                    self.items = Items::default();
                }
                out.push(SttEvent::Begin { vendor_session: id.map(Text::into_string) });
            }
            silent if SILENT.contains(&silent) || silent.starts_with("response.") => {}
            other => self.own(wire::other(other, frame)?, out),
        }
        Ok(())
    }

    fn holding(&self) -> bool {
        self.items.holding()
    }

    fn carry(&self) -> Carry {
        Carry { held: self.items.held(), ..Carry::default() }
    }

    fn carry_version(&self) -> u64 {
        self.changes + self.items.version()
    }

    fn finish(&mut self, out: &mut Vec<SttEvent>) {
        self.items.finish(out);
    }
}

/// The geometric mean of the tokens' probabilities: the exponential of their mean logarithm.
fn confidence(tokens: &[LogProb]) -> Option<f32> {
    #[expect(clippy::cast_precision_loss, reason = "a turn has few tokens")]
    let mean = tokens.iter().map(|token| token.logprob.0).sum::<f64>() / tokens.len() as f64;
    (!tokens.is_empty()).then(|| wire::probability(mean))
}

fn vendor_error(error: Option<Reported>) -> SttEvent {
    error.and_then(|error| error.0).unwrap_or_default().event("error")
}
