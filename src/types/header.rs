//! The header of a record, by which readers select events without decoding them.
//!
//! Knows no event: a kind is a number here, whose meaning is in `protocol::event`.

use std::sync::Arc;

use super::TurnNo;

/// The number of an event kind. It is stored, so its meaning never changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct KindCode(pub u8);

/// The fields beside an event's frame in its record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Header {
    /// The kind of the event.
    pub kind: KindCode,
    /// The analysis that the event is about.
    pub analysis: Option<Arc<str>>,
    /// The turn that the event is about.
    pub turn: Option<TurnNo>,
}
