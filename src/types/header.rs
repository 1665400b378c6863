//! The header of a record: what readers select events by, without a look into the event.
//!
//! Knows no event: a kind is a number here, whose meaning is in `protocol::event`.

use std::sync::Arc;

use super::TurnNo;

/// The number of a kind of events. It is stored, so a number never gets another meaning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct KindCode(pub u8);

/// What stands beside an event's frame in its record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Header {
    /// The kind of the event.
    pub kind: KindCode,
    /// The analysis that the event is about.
    pub analysis: Option<Arc<str>>,
    /// The turn that the event is about.
    pub turn: Option<TurnNo>,
}
