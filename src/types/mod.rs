//! Plain data that all layers share: identifiers, turns, the events of a decoder, insights and alerts.
//!
//! Knows no socket, no clock, no journal and no LLM. Every type is `Send`, cheap to clone and has no behaviour beyond
//! validation and its own wire format.

pub mod alert;
pub mod attempt;
pub mod directory;
pub mod header;
pub mod id;
pub mod insight;
pub mod provider;
pub mod stt;
pub mod transcript;
pub mod trigger;
pub mod turn;
pub mod view;
pub mod words;

pub use alert::{Alert, ClearedAlert, OpenAlert, Severity};
pub use attempt::{AttemptBegun, AttemptDone, Outcome, RequestDone, Why};
pub use header::{Header, KindCode};
pub use id::{CallId, IdError, StreamId};
pub use insight::{Coverage, Evidence, Insight, InsightFailure, LatencyMs, Provenance, Status, TokenUsage};
pub use stt::{Carry, EndScope, Final, Revision, SttEvent, TurnKey};
pub use transcript::Transcript;
pub use trigger::Trigger;
pub use turn::{Turn, Word};

/// Longest frame that the daemon sends, bytes: 1 MiB minus a reserve for the members that are added per reader
/// (subscription, cursor).
pub const MAX_FRAME_BYTES: usize = 1024 * 1024 - 1024;

/// Position of an event in its call: dense, from 1. 0 means "before the first event".
pub type Seq = u64;
/// Ordinal of a turn in its call: dense, from 0, never changed once assigned.
pub type TurnNo = u64;
/// A JSON object, as in `meta`.
pub type JsonMap = serde_json::Map<String, serde_json::Value>;
