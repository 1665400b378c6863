//! Twilio: the caller's speech as `prompt` messages of ConversationRelay, or the speech of both sides of a call as
//! callbacks of real-time transcription.
//!
//! A prompt has neither times nor a speaker: it is always the caller's. That stream does not contain the agent's
//! speech. Callbacks are the form fields that Twilio posts, given as one JSON object: `TranscriptionEvent` is their
//! type, and `TranscriptionData` is JSON in a string (Twilio's TwiML reference of `<Transcription>`). Their speaker
//! label is the track.

use serde::Deserialize;
use serde_json::Value;

use super::wire::{self, Flag, Label, Score, Text};
use super::{DecodeError, Decoder, Dialect};
use crate::base::surrogates;
use crate::types::{EndScope, Final, SttEvent, TurnKey};

pub(super) struct Twilio;

impl Dialect for Twilio {
    fn name(&self) -> &'static str {
        "twilio"
    }

    fn example(&self) -> &'static str {
        r#"{"type":"prompt","voicePrompt":"Hi, I would like to change my booking.","lang":"en-US","last":true}"#
    }

    fn expects(&self) -> &'static str {
        "messages whose \"type\" is \"setup\", \"prompt\", … or whose \"TranscriptionEvent\" is \"transcription-content\""
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        Box::new(TwilioDecoder)
    }

    fn names_turns(&self) -> bool {
        false
    }

    fn needs(&self) -> &'static [&'static str] {
        &["TranscriptionEvent", "TranscriptionData", "Final", "type", "voicePrompt", "last"]
    }
}

struct TwilioDecoder;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Prompt<'a> {
    #[serde(borrow)]
    voice_prompt: Text<'a>,
    #[serde(borrow)]
    lang: Option<Text<'a>>,
    last: Option<Flag>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Setup<'a> {
    #[serde(borrow)]
    session_id: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct ErrorFrame<'a> {
    #[serde(borrow)]
    description: Option<Text<'a>>,
}

impl Decoder for TwilioDecoder {
    fn read(&mut self, frame: &str, out: &mut Vec<SttEvent>) -> Result<(), DecodeError> {
        let Some(kind) = wire::kind("type", frame)? else {
            if let Some(event) = wire::kind("TranscriptionEvent", frame)? {
                out.push(callback(event.as_str(), frame)?);
                return Ok(());
            }
            return Err(wire::bad_field("type", "a message type such as \"prompt\", or a `TranscriptionEvent`", None));
        };
        out.push(match kind.as_str() {
            "prompt" => prompt(wire::parse("prompt", frame)?),
            "setup" => {
                let setup: Setup<'_> = wire::parse("setup", frame)?;
                SttEvent::Begin { vendor_session: setup.session_id.map(Text::into_string) }
            }
            "error" => {
                let error: ErrorFrame<'_> = wire::parse("error", frame)?;
                let message = error.description.map(Text::into_string).unwrap_or_default();
                SttEvent::VendorError { code: "error".to_owned(), message }
            }
            "interrupt" | "dtmf" | "info" => return Ok(()),
            other => wire::other(other, frame)?,
        });
        Ok(())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Callback<'a> {
    #[serde(borrow)]
    transcription_sid: Option<Text<'a>>,
    #[serde(borrow)]
    track: Option<Text<'a>>,
    /// `"true"` or `"false"`, because form fields are text.
    r#final: Option<Flag>,
    #[serde(borrow)]
    language_code: Option<Text<'a>>,
    transcription_data: Option<Value>,
    #[serde(borrow)]
    transcription_error: Option<Text<'a>>,
    transcription_error_code: Option<Label>,
}

/// A callback of real-time transcription.
fn callback(event: &str, frame: &str) -> Result<SttEvent, DecodeError> {
    let callback: Callback<'_> = wire::parse(event, frame)?;
    Ok(match event {
        "transcription-started" => {
            SttEvent::Begin { vendor_session: callback.transcription_sid.map(Text::into_string) }
        }
        "transcription-stopped" => {
            SttEvent::End { reason: Some("transcription-stopped".to_owned()), scope: EndScope::Stream }
        }
        "transcription-error" => SttEvent::VendorError {
            code: callback.transcription_error_code.map_or_else(|| "error".to_owned(), |Label(code)| code),
            message: callback.transcription_error.map(Text::into_string).unwrap_or_default(),
        },
        "transcription-content" => {
            let data = match callback.transcription_data {
                Some(Value::String(text)) => surrogates::from_str(&text).unwrap_or(Value::Null),
                Some(data) => data,
                None => Value::Null,
            };
            let missing = || wire::bad_field("TranscriptionData", "JSON with a \"transcript\"", None);
            let text = data.get("transcript").and_then(|text| Text::deserialize(text).ok()).ok_or_else(missing)?;
            let (text, speaker) = (text.as_str().trim().to_owned(), callback.track.map(Text::into_string));
            if callback.r#final == Some(Flag(false)) {
                return Ok(SttEvent::Partial { key: TurnKey::Next, speaker, text });
            }
            let confidence = data.get("confidence").and_then(|score| Score::deserialize(score).ok());
            let confidence = confidence.map(|Score(score)| score);
            SttEvent::Final(Box::new(Final {
                key: TurnKey::Next,
                formatted: true,
                text,
                speaker,
                words: Vec::new(),
                start_ms: None,
                end_ms: None,
                language: callback.language_code.map(Text::into_string),
                confidence,
            }))
        }
        other => SttEvent::Unknown { kind: other.to_owned() },
    })
}

fn prompt(prompt: Prompt<'_>) -> SttEvent {
    let text = prompt.voice_prompt.into_string();
    if prompt.last == Some(Flag(false)) {
        return SttEvent::Partial { key: TurnKey::Next, speaker: None, text };
    }
    SttEvent::Final(Box::new(Final {
        key: TurnKey::Next,
        formatted: true,
        text,
        speaker: None,
        words: Vec::new(),
        start_ms: None,
        end_ms: None,
        language: prompt.lang.map(Text::into_string),
        confidence: None,
    }))
}
