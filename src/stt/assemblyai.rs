//! AssemblyAI Universal-Streaming v3 (`wss://streaming.assemblyai.com/v3/ws`).
//!
//! Accepts everything that the models of the vendor's Python package 1.8.2 accept, including numbers and booleans
//! written as strings, and tolerates a missing field if the turn is usable without it. A frame's `utterance` is never
//! used: the vendor fills it at utterance boundaries only.

use std::fmt;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use super::wire::{self, Flag, Label, Natural, Said, Says, Score, Text};
use super::{DecodeError, Decoder, Dialect};
use crate::base::text;
use crate::types::{EndScope, Final, Revision, SttEvent, TurnKey, Word};

pub(super) struct AssemblyAi;

impl Dialect for AssemblyAi {
    fn name(&self) -> &'static str {
        "assemblyai"
    }

    fn example(&self) -> &'static str {
        r#"{"type":"Turn","turn_order":0,"turn_is_formatted":true,"end_of_turn":true,"transcript":"Hello there.","end_of_turn_confidence":1,"words":[{"start":160,"end":420,"text":"Hello","confidence":0.97,"word_is_final":true,"speaker":"A"},{"start":440,"end":800,"text":"there.","confidence":0.99,"word_is_final":true,"speaker":"A"}],"speaker_label":"A"}"#
    }

    fn expects(&self) -> &'static str {
        "messages whose \"type\" is \"Begin\", \"Turn\", \"Termination\", …"
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        Box::new(AssemblyAiDecoder)
    }

    fn names_turns(&self) -> bool {
        true
    }

    fn needs(&self) -> &'static [&'static str] {
        &[
            "type",
            "turn_order",
            "end_of_turn",
            "transcript",
            "words[].text",
            "revisions[].turn_order",
            "revisions[].words[].text",
            "error",
        ]
    }
}

struct AssemblyAiDecoder;

/// Messages that carry no turn.
const SILENT: [&str; 4] = ["Heartbeat", "Warning", "LLMGatewayResponse", "LlmGatewayResponse"];

#[derive(Deserialize)]
struct TurnFrame<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    turn_order: Int,
    turn_is_formatted: Option<Flag>,
    end_of_turn: Flag,
    #[serde(borrow)]
    transcript: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "wire::list")]
    words: Vec<WordField<'a>>,
    #[serde(borrow, default)]
    language_code: Option<Text<'a>>,
    speaker_label: Option<Label>,
}

impl Says for TurnFrame<'_> {
    const TEXT: &'static str = "transcript";
    fn says(&self) -> bool {
        self.transcript.is_some() || !self.words.is_empty()
    }
}

#[derive(Deserialize)]
struct WordField<'a> {
    start: Option<Natural>,
    end: Option<Natural>,
    #[serde(borrow)]
    text: Text<'a>,
    #[serde(default)]
    confidence: Option<Score>,
    speaker: Option<Label>,
}

#[derive(Deserialize)]
struct RevisionFrame<'a> {
    #[serde(borrow, default, deserialize_with = "wire::list")]
    revisions: Vec<RevisionItem<'a>>,
}

#[derive(Deserialize)]
struct RevisionItem<'a> {
    turn_order: Int,
    speaker_label: Option<Label>,
    #[serde(borrow, default, deserialize_with = "wire::list")]
    words: Vec<WordField<'a>>,
}

#[derive(Deserialize)]
struct BeginFrame {
    id: Option<Label>,
}

#[derive(Deserialize)]
struct SilenceFrame {
    start_ms: Option<Natural>,
    end_ms: Option<Natural>,
}

#[derive(Deserialize)]
struct ErrorFrame<'a> {
    #[serde(default)]
    error_code: Option<Label>,
    #[serde(borrow)]
    error: Text<'a>,
}

impl Decoder for AssemblyAiDecoder {
    fn read(&mut self, frame: &str, out: &mut Vec<SttEvent>) -> Result<(), DecodeError> {
        // Nearly every frame is a Turn. Its `type` may come last, so the frame is parsed in one pass on the assumption
        // that it is one.
        if frame.contains(r#""Turn""#)
            && let Ok(Said(turn)) = serde_json::from_str::<Said<TurnFrame<'_>>>(frame)
            && turn.kind.as_str() == "Turn"
        {
            out.push(event(turn));
            return Ok(());
        }
        let Some(kind) = wire::kind("type", frame)? else {
            // The error format of an older API, still parsed by both of the vendor's packages.
            if let Ok(error) = wire::parse::<ErrorFrame<'_>>("Error", frame) {
                out.push(vendor_error(error));
                return Ok(());
            }
            return Err(wire::bad_field("type", "a message type such as \"Turn\"", None));
        };
        match kind.as_str() {
            "Turn" => out.push(event(wire::parse::<Said<TurnFrame<'_>>>("Turn", frame)?.0)),
            "Begin" => {
                let begin: BeginFrame = wire::parse("Begin", frame)?;
                out.push(SttEvent::Begin { vendor_session: begin.id.map(|Label(id)| id) });
            }
            "SpeakerRevision" => {
                let message: RevisionFrame<'_> = wire::parse("SpeakerRevision", frame)?;
                out.extend(message.revisions.into_iter().map(revision));
            }
            "Termination" => {
                out.push(SttEvent::End { reason: Some("Termination".to_owned()), scope: EndScope::Stream });
            }
            "Error" => out.push(vendor_error(wire::parse("Error", frame)?)),
            "SpeechStarted" => out.push(SttEvent::SpeechStarted),
            "Silence" => {
                let SilenceFrame { start_ms, end_ms } = wire::parse("Silence", frame)?;
                out.push(SttEvent::Silence { span: start_ms.zip(end_ms).map(|(start, end)| (start.0, end.0)) });
            }
            silent if SILENT.contains(&silent) => {}
            other => out.push(wire::other(other, frame)?),
        }
        Ok(())
    }
}

fn event(turn: TurnFrame<'_>) -> SttEvent {
    let key = key(turn.turn_order);
    let speaker = turn.speaker_label.map(|Label(speaker)| speaker);
    let fields = turn.words;
    if !turn.end_of_turn.0 {
        return SttEvent::Partial { key, speaker, text: partial_text(turn.transcript, &fields) };
    }
    let text = wire::text_or_words(turn.transcript, fields.iter().map(|word| word.text.as_str()));
    let words = words(fields);
    let (start_ms, end_ms) = wire::span(&words);
    SttEvent::Final(Box::new(Final {
        key,
        formatted: turn.turn_is_formatted.is_some_and(|formatted| formatted.0),
        text,
        speaker,
        words,
        start_ms,
        end_ms,
        language: turn.language_code.map(Text::into_string),
        confidence: None,
    }))
}

/// In Universal-Streaming the `transcript` of a partial holds only the words that are final. If the words contain more
/// text, they are used instead.
fn partial_text(transcript: Option<Text<'_>>, words: &[WordField<'_>]) -> String {
    let solid = |text: &str| text.bytes().filter(|byte| !byte.is_ascii_whitespace()).count();
    let transcript = transcript.unwrap_or_default();
    let spoken: usize = words.iter().map(|word| solid(word.text.as_str())).sum();
    if spoken <= solid(transcript.as_str()) {
        return transcript.into_string();
    }
    text::join(words.iter().map(|word| word.text.as_str()))
}

fn words(fields: Vec<WordField<'_>>) -> Vec<Word> {
    fields
        .into_iter()
        .filter_map(|word| {
            let start_ms = word.start.or(word.end)?.0;
            Some(Word {
                text: word.text.into_string(),
                start_ms,
                end_ms: word.end.map_or(start_ms, |Natural(end)| end.max(start_ms)),
                speaker: word.speaker.map(|Label(speaker)| speaker),
                confidence: word.confidence.map(|score| score.0),
            })
        })
        .collect()
}

fn revision(item: RevisionItem<'_>) -> SttEvent {
    SttEvent::Revise(Box::new(Revision {
        key: key(item.turn_order),
        speaker: item.speaker_label.map(|Label(speaker)| speaker),
        text: None,
        words: words(item.words),
    }))
}

fn vendor_error(frame: ErrorFrame<'_>) -> SttEvent {
    let code = frame.error_code.map_or_else(|| "error".to_owned(), |Label(code)| code);
    SttEvent::VendorError { code, message: frame.error.into_string() }
}

fn key(turn_order: Int) -> TurnKey {
    TurnKey::Vendor(turn_order.0.to_string())
}

/// An integer as pydantic accepts it: also `12.0`, `"12"` and `true`.
#[derive(Debug, Clone, Copy)]
struct Int(i64);

/// Largest magnitude up to which an `f64` represents every integer exactly. A larger number is neither a time nor a
/// turn number.
const MAX_EXACT: i64 = 1 << 53;

fn whole(value: f64) -> Option<i64> {
    #[expect(clippy::cast_precision_loss, reason = "2^53 is exact")]
    let exact = value.fract() == 0.0 && value.abs() <= MAX_EXACT as f64;
    #[expect(clippy::cast_possible_truncation, reason = "checked")]
    exact.then_some(value as i64)
}

struct ReadInt;

impl Visitor<'_> for ReadInt {
    type Value = Int;
    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an integer")
    }
    fn visit_i64<E: Error>(self, value: i64) -> Result<Int, E> {
        if !(-MAX_EXACT..=MAX_EXACT).contains(&value) {
            return Err(E::invalid_value(Unexpected::Signed(value), &self));
        }
        Ok(Int(value))
    }
    fn visit_u64<E: Error>(self, value: u64) -> Result<Int, E> {
        match i64::try_from(value) {
            Ok(value) if value <= MAX_EXACT => Ok(Int(value)),
            _ => Err(E::invalid_value(Unexpected::Unsigned(value), &self)),
        }
    }
    fn visit_f64<E: Error>(self, value: f64) -> Result<Int, E> {
        whole(value).map(Int).ok_or_else(|| E::invalid_value(Unexpected::Float(value), &self))
    }
    fn visit_bool<E: Error>(self, value: bool) -> Result<Int, E> {
        Ok(Int(i64::from(value)))
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<Int, E> {
        let number = text.trim().parse::<f64>().ok().and_then(whole);
        number.map(Int).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

impl<'de> Deserialize<'de> for Int {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ReadInt)
    }
}

#[cfg(test)]
mod tests;
