//! Zoom Realtime Media Streams: the transcript messages (`msg_type` 17) of its media socket.
//!
//! Each is a final sentence. Its `timestamp` is wall-clock time, which has no known zero in the stream, so turns get
//! their arrival time. The speaker label is the participant's name, or the participant's number if there is no name.

use serde::Deserialize;

use super::wire::{self, Label, Text};
use super::{DecodeError, Decoder, Dialect};
use crate::types::{EndScope, Final, SttEvent, TurnKey};

/// `MEDIA_DATA_TRANSCRIPT`.
const TRANSCRIPT: u64 = 17;
/// `STREAM_STATE_UPDATE`, and its state `TERMINATED`.
const STREAM_STATE: (u64, u64) = (8, 4);
/// `SESSION_STATE_UPDATE`, and its state `STOPPED`.
const SESSION_STATE: (u64, u64) = (9, 5);
/// Responses to the signaling and data handshakes.
const HANDSHAKES: [u64; 2] = [2, 4];
/// The highest known message type.
const LAST_KNOWN: u64 = 18;

pub(super) struct Zoom;

impl Dialect for Zoom {
    fn name(&self) -> &'static str {
        "zoom"
    }

    fn example(&self) -> &'static str {
        r#"{"msg_type":17,"content":{"user_id":16778240,"user_name":"Ana Ruiz","timestamp":1790221526007,"data":"Hello there."}}"#
    }

    fn expects(&self) -> &'static str {
        "messages whose \"msg_type\" is 17 (a transcript) or another number of the protocol"
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        Box::new(ZoomDecoder)
    }

    fn names_turns(&self) -> bool {
        false
    }

    fn needs(&self) -> &'static [&'static str] {
        &["msg_type", "content", "content.data"]
    }
}

struct ZoomDecoder;

#[derive(Deserialize)]
struct Message<'a> {
    msg_type: Option<Label>,
    state: Option<Label>,
    status_code: Option<Label>,
    reason: Option<Label>,
    rtms_stream_id: Option<Label>,
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct TranscriptMessage<'a> {
    #[serde(borrow)]
    content: Content<'a>,
}

#[derive(Deserialize)]
struct Content<'a> {
    user_id: Option<Label>,
    #[serde(borrow)]
    user_name: Option<Text<'a>>,
    #[serde(borrow)]
    data: Text<'a>,
    #[serde(borrow)]
    language: Option<Text<'a>>,
}

impl Decoder for ZoomDecoder {
    fn read(&mut self, frame: &str, out: &mut Vec<SttEvent>) -> Result<(), DecodeError> {
        let message: Message<'_> = wire::parse("message", frame)?;
        let Some(Label(kind)) = message.msg_type else {
            let Some(kind) = message.kind else {
                return Err(wire::bad_field("msg_type", "a message type such as 17", None));
            };
            out.push(wire::other(kind.as_str(), frame)?);
            return Ok(());
        };
        let number = |label: &Option<Label>| label.as_ref().and_then(|Label(text)| text.parse::<u64>().ok());
        let state = number(&message.state);
        match kind.parse::<u64>() {
            Ok(TRANSCRIPT) => out.push(turn(wire::parse::<TranscriptMessage<'_>>("transcript", frame)?.content)),
            Ok(kind) if [STREAM_STATE, SESSION_STATE].iter().any(|over| kind == over.0 && state == Some(over.1)) => {
                let reason = message.reason.map_or_else(|| "terminated".to_owned(), |Label(reason)| reason);
                out.push(SttEvent::End { reason: Some(reason), scope: EndScope::Stream });
            }
            Ok(kind) if HANDSHAKES.contains(&kind) => match message.status_code {
                Some(Label(code)) if code != "0" && code != "STATUS_OK" => {
                    let message = message.reason.map(|Label(reason)| reason).unwrap_or_default();
                    out.push(SttEvent::VendorError { code, message });
                }
                _ if kind == HANDSHAKES[1] => {
                    let vendor_session = message.rtms_stream_id.map(|Label(id)| id);
                    out.push(SttEvent::Begin { vendor_session });
                }
                _ => {}
            },
            Ok(1..=LAST_KNOWN) => {}
            _ => out.push(SttEvent::Unknown { kind: format!("msg_type {kind}") }),
        }
        Ok(())
    }
}

fn turn(content: Content<'_>) -> SttEvent {
    let name = content.user_name.map(Text::into_string).filter(|name| !name.is_empty());
    SttEvent::Final(Box::new(Final {
        key: TurnKey::Next,
        formatted: true,
        text: content.data.as_str().trim().to_owned(),
        speaker: name.or(content.user_id.map(|Label(id)| id)),
        words: Vec::new(),
        start_ms: None,
        end_ms: None,
        language: content.language.map(Text::into_string),
        confidence: None,
    }))
}
