//! Decodes the frames of one connection into events, and counts them.
//!
//! Knows no socket.

use std::collections::HashSet;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use crate::base::names;
use crate::base::surrogates;
use crate::protocol::{ErrorCode, ErrorFrame};
use crate::stt::{DecodeError, Decoder, Dialect, Fit};
use crate::types::{Carry, SttEvent};

/// Maximum number of unknown message types that are reported; further ones are only counted.
const UNKNOWN_TOLD: usize = 32;
/// Longest `id` that an error repeats, bytes.
const MAX_ID_BYTES: usize = 256;

/// Decodes the frames of one connection.
pub(super) struct Pump {
    decoder: Box<dyn Decoder>,
    dialect: &'static dyn Dialect,
    unknown: HashSet<String>,
    /// Number of text messages so far.
    pub(super) count: u64,
    /// The decoder's state after them.
    pub(super) carry: Arc<Carry>,
    carry_version: u64,
    /// Set if only a part of the last frame could not be read.
    pub(super) partly: bool,
    /// How well the newest frame fits the dialect.
    pub(super) fit: Fit,
}

impl Pump {
    /// Starts a connection; `carry` is the decoder's state at the end of the stream's earlier connection.
    pub(super) fn new(dialect: &'static dyn Dialect, carry: &Arc<Carry>) -> Self {
        let decoder = if carry.is_empty() { dialect.open() } else { dialect.resume(carry) };
        let carry_version = decoder.carry_version();
        Self {
            decoder,
            dialect,
            unknown: HashSet::new(),
            count: 0,
            carry: Arc::clone(carry),
            carry_version,
            partly: false,
            fit: Fit::default(),
        }
    }

    /// Decodes the next frame: returns its events and its errors.
    pub(super) fn feed(&mut self, text: &str) -> (Vec<SttEvent>, Option<ErrorFrame>) {
        self.count += 1;
        let mut events = Vec::new();
        let mut error = None;
        self.partly = false;
        let result = self.decoder.decode(text, &mut events);
        self.fit = Fit::of(&result, &events, self.decoder.holding());
        match result {
            Ok(lost) => {
                if let [DecodeError { code, message, .. }, more @ ..] = &lost[..] {
                    self.partly = true;
                    let more = if more.is_empty() { String::new() } else { format!(" (and {} more)", more.len()) };
                    let message = format!("{message}{more}; this part is left out, and the rest of the frame is used");
                    error = Some(ErrorFrame::new(*code, message));
                }
            }
            Err(DecodeError { code, message, .. }) => error = Some(ErrorFrame::new(code, message)),
        }
        // What the decoder still holds belongs to the stream that ends here.
        if let Some(end @ SttEvent::End { .. }) = events.pop_if(|event| matches!(event, SttEvent::End { .. })) {
            self.decoder.finish(&mut events);
            events.push(end);
        }
        let version = self.decoder.carry_version();
        if version != self.carry_version {
            (self.carry, self.carry_version) = (Arc::new(self.decoder.carry()), version);
        }
        // Only authors of the `sidetone` dialect's frames can correct them, so only they get its errors.
        if self.decoder.picked().unwrap_or(self.dialect).is_own() {
            error = error.or_else(|| self.unknown_type(&events));
            if let Some(error) = &mut error {
                error.id = id_of(text).map(Box::new);
            }
        }
        (events, error)
    }

    /// Reports an unknown type once.
    fn unknown_type(&mut self, events: &[SttEvent]) -> Option<ErrorFrame> {
        let [SttEvent::Unknown { kind }] = events else { return None };
        if self.unknown.len() >= UNKNOWN_TOLD || !self.unknown.insert(kind.clone()) {
            return None;
        }
        let shown: String = kind.chars().take(64).collect();
        let known = ["turn", "partial", "revise", "meta", "end"];
        let message = format!("type: {}", names::unknown("frame type", &shown, &known));
        Some(ErrorFrame::new(ErrorCode::UnknownType, message))
    }
}

/// The `id` of the producer's frame, if it can be read.
fn id_of(text: &str) -> Option<Value> {
    #[derive(Deserialize)]
    struct Named {
        id: Value,
    }
    let Named { id } = surrogates::from_str(text).ok()?;
    match &id {
        Value::Number(_) => Some(id),
        Value::String(name) => (name.len() <= MAX_ID_BYTES).then_some(id),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stt;
    use crate::types::EndScope;

    #[test]
    fn end_is_understood_on_every_dialect_and_frames_are_counted() {
        for dialect in stt::DIALECTS {
            let mut pump = Pump::new(*dialect, &Arc::default());
            let (events, error) = pump.feed(r#"{"type":"end","scope":"call"}"#);
            assert!(error.is_none(), "{}", dialect.name());
            assert!(matches!(events.last(), Some(SttEvent::End { scope: EndScope::Call, .. })), "{}", dialect.name());
            assert_eq!((pump.count, pump.carry.held.len()), (1, 0));
        }
    }

    #[test]
    fn unknown_type_is_reported_once_in_the_sidetone_dialect() {
        let mut pump = Pump::new(stt::dialect("sidetone").expect("dialect"), &Arc::default());
        assert_eq!(pump.feed(r#"{"type":"noise"}"#).1.map(|error| error.code), Some(ErrorCode::UnknownType));
        assert!(pump.feed(r#"{"type":"noise"}"#).1.is_none());
        assert_eq!(pump.feed("{").1.map(|error| error.code), Some(ErrorCode::BadJson));
        assert_eq!(pump.count, 3);
    }
    #[test]
    fn error_has_the_id_of_its_frame() {
        let id = |dialect: &str, frame: &str| {
            let mut pump = Pump::new(stt::dialect(dialect).expect("dialect"), &Arc::default());
            pump.feed(frame).1.expect("error").id.map(|id| *id)
        };
        assert_eq!(id("sidetone", r#"{"type":"turn","id":"a7"}"#), Some("a7".into()));
        assert_eq!(id("sidetone", r#"{"type":"noise","id":7}"#), Some(7.into()));
        for none in [r#"{"type":"turn"}"#, r#"{"type":"turn","id":{}}"#, "{", "[]"] {
            assert_eq!(id("sidetone", none), None, "{none}");
        }
        // In a vendor's frame, `id` is the vendor's own field.
        assert_eq!(id("assemblyai", r#"{"type":"Begin","id":"x","expires_at":[]"#), None);
    }
}
