//! From frames to events: one decoder per connection, frames counted, what it holds told from what it let go.
//!
//! Knows no socket.

use std::collections::HashSet;

use crate::session::command::Complaint;
use crate::stt::{Decoder, Dialect};
use crate::types::SttEvent;

/// Types of unknown messages that are told one by one; beyond that they are only counted.
const UNKNOWN_TOLD: usize = 32;

/// The frames of one connection.
pub(super) struct Pump {
    decoder: Box<dyn Decoder>,
    strict: bool,
    unknown: HashSet<String>,
    /// Text messages so far.
    pub(super) count: u64,
    /// Those of them of which nothing waits in the decoder.
    pub(super) covered: u64,
}

impl Pump {
    /// For a new connection.
    pub(super) fn new(dialect: &'static dyn Dialect) -> Self {
        let strict = dialect.name() == "sidetone";
        Self { decoder: dialect.open(), strict, unknown: HashSet::new(), count: 0, covered: 0 }
    }

    /// Takes the next frame: what it said, and what is wrong with it.
    pub(super) fn feed(&mut self, text: &str) -> (Vec<SttEvent>, Option<Complaint>) {
        self.count += 1;
        let mut events = Vec::new();
        let mut complaint = None;
        if let Err(error) = self.decoder.decode(text, &mut events) {
            complaint = Some(Complaint { code: error.code, message: error.message, fatal: false, temporary: false });
        }
        // What the decoder still holds belongs to the stream that ends here.
        if let Some(end @ SttEvent::End { .. }) = events.pop_if(|event| matches!(event, SttEvent::End { .. })) {
            self.decoder.finish(&mut events);
            events.push(end);
        }
        if !self.decoder.holding() {
            self.covered = self.count;
        }
        if self.strict {
            complaint = complaint.or_else(|| self.unknown_type(&events));
        }
        (events, complaint)
    }

    /// Told once per type.
    fn unknown_type(&mut self, events: &[SttEvent]) -> Option<Complaint> {
        let [SttEvent::Unknown { kind }] = events else { return None };
        if self.unknown.len() >= UNKNOWN_TOLD || !self.unknown.insert(kind.clone()) {
            return None;
        }
        let shown: String = kind.chars().take(64).collect();
        Some(Complaint {
            code: "unknown_type",
            message: format!("type: no frame type {shown:?}; there are: turn, partial, revise, meta, end"),
            fatal: false,
            temporary: false,
        })
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
            let mut pump = Pump::new(*dialect);
            let (events, complaint) = pump.feed(r#"{"type":"end","scope":"call"}"#);
            assert!(complaint.is_none(), "{}", dialect.name());
            assert!(matches!(events.last(), Some(SttEvent::End { scope: EndScope::Call, .. })), "{}", dialect.name());
            assert_eq!((pump.count, pump.covered), (1, 1));
        }
    }

    #[test]
    fn unknown_types_are_told_once_each_in_our_own_dialect() {
        let mut pump = Pump::new(stt::dialect("sidetone").expect("dialect"));
        assert_eq!(pump.feed(r#"{"type":"noise"}"#).1.map(|complaint| complaint.code), Some("unknown_type"));
        assert!(pump.feed(r#"{"type":"noise"}"#).1.is_none());
        assert_eq!(pump.feed("{").1.map(|complaint| complaint.code), Some("bad_json"));
        assert_eq!(pump.count, 3);
    }
}
