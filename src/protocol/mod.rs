//! The protocol of the sockets (DESIGN 5.1, 5.2): every frame, event, error code and close code, written and read by
//! the same types in the daemon, the command line, the tests and the benches.
//!
//! Knows no socket, no session and no journal, and does no I/O. Frames of clients are checked where the error message
//! is made: by `stt::sidetone` for producers, by `api::subscribe::request` for subscribers.

pub mod close;
pub mod code;
pub mod error;
pub mod event;
pub mod failure;
mod gap;
pub mod ingest;
mod kind;
pub mod live;
pub mod pairs;
pub mod push;
pub mod schema;
pub mod sequenced;
pub mod sniff;
pub mod subscribe;
pub mod tag;

pub use close::{Close, CloseCode, ReconnectWhen};
pub use code::ErrorCode;
pub use error::{ErrorFrame, MAX_MESSAGE_BYTES, REVOKED};
pub use event::{Event, Stamp};
pub use failure::FailureCode;
pub use gap::GapCause;
pub use live::{InsightDelta, TurnPartial};
pub use sequenced::Sequenced;

use serde::{Deserialize, Serialize};

/// Version of the protocol, in `welcome`.
pub const VERSION: u32 = 1;

/// `reconnect`, to producers and subscribers: the daemon is about to stop, and the client should connect again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Reconnect {
    #[serde(rename = "type")]
    pub tag: tag::Reconnect,
    /// Wait this long before the next connection, ms.
    pub after_ms: u64,
    /// The daemon closes this connection after this time at the latest, ms.
    pub grace_ms: u64,
}

impl Reconnect {
    pub fn new(after_ms: u64, grace_ms: u64) -> Self {
        Self { tag: tag::Reconnect, after_ms, grace_ms }
    }
}

/// The frame as it is sent: one JSON object without line breaks.
pub fn text(frame: &impl Serialize) -> String {
    // Serialising plain data into memory cannot fail.
    serde_json::to_string(frame).unwrap_or_default()
}
