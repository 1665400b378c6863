//! The `error` frame, on the sockets of producers and subscribers alike.
//!
//! Knows no socket; the code that finds an error writes its message.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ErrorCode;
use super::tag;
use crate::base::measure;
use crate::types::{CallId, Seq};

/// Longest message of an `error` frame or of `insight.failed`, bytes: a vendor's error page must not fill a frame.
pub const MAX_MESSAGE_BYTES: usize = 4 * 1024;
/// Message to a client whose key was revoked.
pub const REVOKED: &str = "the key that opened this socket was revoked; reconnect with another key";

/// `error`. The daemon writes its own codes; a client reads any text as the code (`ErrorFrame<String>`), because a later
/// daemon may have more of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "Error"))]
pub struct ErrorFrame<C = ErrorCode> {
    /// The `id` of the client's frame that it answers, if that has one: a string or a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Box<Value>>,
    #[serde(rename = "type")]
    pub tag: tag::Error,
    /// The call, if the frame replaces an event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_id: Option<CallId>,
    /// The event's position, if the frame replaces an event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<Seq>,
    /// Stable code.
    pub code: C,
    /// What is wrong, where, and what is allowed; for people.
    pub message: String,
    /// Set if the connection is closed after it.
    pub fatal: bool,
    /// Set if the error ends without any action of the client.
    pub temporary: bool,
}

impl ErrorFrame {
    /// A permanent, non-fatal error. The message is truncated to [`MAX_MESSAGE_BYTES`].
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let mut message = message.into();
        measure::cut(&mut message, MAX_MESSAGE_BYTES);
        Self { id: None, tag: tag::Error, call_id: None, seq: None, code, message, fatal: false, temporary: false }
    }

    /// The error, after which the connection is closed.
    #[must_use]
    pub fn fatal(self) -> Self {
        Self { fatal: true, ..self }
    }

    /// The error, marked as temporary.
    #[must_use]
    pub fn temporary(self) -> Self {
        Self { temporary: true, ..self }
    }

    /// The error, as the answer to the client's frame with this `id`.
    #[must_use]
    pub fn answering(self, id: Option<Value>) -> Self {
        Self { id: id.map(Box::new), ..self }
    }

    /// The error, sent in place of an event.
    #[must_use]
    pub fn in_place_of(self, call_id: CallId, seq: Seq) -> Self {
        Self { call_id: Some(call_id), seq: Some(seq), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_frame_is_written_in_the_order_of_the_contract() {
        let error = ErrorFrame::new(ErrorCode::BadField, "x: \"y\"");
        assert_eq!(
            super::super::text(&error.clone().answering(Some(Value::from("a7")))),
            r#"{"id":"a7","type":"error","code":"bad_field","message":"x: \"y\"","fatal":false,"temporary":false}"#
        );
        let placed = error.fatal().temporary().in_place_of(CallId::parse("c").expect("id"), 3);
        assert_eq!(
            super::super::text(&placed),
            r#"{"type":"error","call_id":"c","seq":3,"code":"bad_field","message":"x: \"y\"","fatal":true,"temporary":true}"#
        );
    }

    #[test]
    fn error_frame_with_a_later_code_is_read_by_a_client() {
        let text = r#"{"type":"error","code":"some_later_code","message":"m","fatal":true,"temporary":false,"new":1}"#;
        let error: ErrorFrame<String> = serde_json::from_str(text).expect("an error");
        assert_eq!((error.code.as_str(), error.fatal), ("some_later_code", true));
        assert!(serde_json::from_str::<ErrorFrame>(text).is_err());
    }

    #[test]
    fn long_message_is_cut() {
        assert_eq!(
            ErrorFrame::new(ErrorCode::BadField, "é".repeat(MAX_MESSAGE_BYTES)).message.len(),
            MAX_MESSAGE_BYTES
        );
    }
}
