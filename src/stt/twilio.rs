//! Twilio ConversationRelay: what the caller says, as `prompt` messages.
//!
//! They carry neither times nor a speaker: it is always the caller. What the agent says is not in this stream.

use serde::Deserialize;

use super::wire::{self, Flag, Text};
use super::{DecodeError, Decoder, Dialect};
use crate::types::{Final, SttEvent, TurnKey};

/// The dialect.
pub(super) struct Twilio;

impl Dialect for Twilio {
    fn name(&self) -> &'static str {
        "twilio"
    }

    fn example(&self) -> &'static str {
        r#"{"type":"prompt","voicePrompt":"Hi, I would like to change my booking.","lang":"en-US","last":true}"#
    }

    fn open(&self) -> Box<dyn Decoder> {
        Box::new(TwilioDecoder)
    }

    fn names_turns(&self) -> bool {
        false
    }

    fn needs(&self) -> &'static [&'static str] {
        &["type", "voicePrompt", "last"]
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
            return Err(wire::bad_field("type", "a message type such as \"prompt\"", None));
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
