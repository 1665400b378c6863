//! The data in a record besides its event: the private fields from which a call is rebuilt exactly. Also writes and
//! reads records.
//!
//! Knows no journal. Private fields are never sent to clients, except a turn's words, which readers may request.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::context::Digest;
use crate::protocol::event::Kind;
use crate::protocol::{self, Event, Sequenced, Stamp};
use crate::rules::Marks;
use crate::turns::TurnPrivate;
use crate::types::{Carry, Header, Insight, Seq, StreamId};

/// The position of a connection when a record was written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Mark {
    #[serde(rename = "s")]
    pub(crate) stream: StreamId,
    /// Number of the connection in the call.
    #[serde(rename = "c")]
    pub(crate) connection: u64,
    /// Number of the connection's frames that this and earlier records cover.
    #[serde(rename = "f")]
    pub(crate) covered: u64,
    /// Number of the frame that led to this record.
    #[serde(rename = "n")]
    pub(crate) frame: u64,
    /// The decoder's state after the covered frames.
    #[serde(default, rename = "k", skip_serializing_if = "no_carry")]
    pub(crate) carry: Arc<Carry>,
}

fn no_carry(carry: &Arc<Carry>) -> bool {
    carry.is_empty()
}

/// A digest of old turns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct StoredDigest {
    /// The high-water mark for which it was made: `max_context_tokens`.
    pub(crate) mark: u64,
    pub(crate) digest: Arc<Digest>,
    /// Cost of the request that made it, US dollars; `None` if the price is unknown.
    pub(crate) cost_usd: Option<f64>,
}

/// Private fields of a record; all optional.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Private {
    /// What the turn table needs besides the turn, including its words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) turn: Option<TurnPrivate>,
    /// The producer's position.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mark: Option<Mark>,
    /// Analyses that the call runs from this record on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) analyses: Vec<String>,
    /// Variants that the call's producer chose, by route.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) variants: BTreeMap<String, String>,
    /// The variant and prompt that an analysis is pinned to: (analysis, variant, prompt id).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pinned: Option<(String, String, String)>,
    /// Conditions on insights that begin or cease to hold at this record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rules: Option<Marks>,
    /// A digest that was made since the record before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) digest: Option<StoredDigest>,
    /// Set on the last record of a call that is to be completed, because a producer or a timer ended it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) ending: bool,
}

impl Private {
    fn encode(&self) -> Bytes {
        if *self == Self::default() {
            return Bytes::new();
        }
        // Serialising plain data into memory cannot fail.
        serde_json::to_vec(self).map(|json| Bytes::from(json.into_boxed_slice())).unwrap_or_default()
    }
}

/// A record to append.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    /// The header by which readers select the event.
    pub(crate) header: Header,
    /// The insight, if the event is one.
    pub(crate) insight: Option<Arc<Insight>>,
    /// The event's wire form.
    pub(crate) frame: Bytes,
    /// The private fields as JSON, or empty.
    pub(crate) private: Bytes,
}

impl Outgoing {
    /// The kind of the event.
    pub(crate) fn kind(&self) -> Kind {
        Kind::from_code(self.header.kind)
    }
}

/// The record of `event` at `stamp`.
pub(crate) fn encode(stamp: &Stamp, event: &Event, private: &Private) -> Outgoing {
    let insight = if let Event::InsightUpdated { insight } = event { Some(Arc::clone(insight)) } else { None };
    let frame = Bytes::from(protocol::event::encode(stamp, event));
    Outgoing { header: event.header(), insight, frame, private: private.encode() }
}

/// A record that was read.
#[derive(Debug, Clone)]
pub(crate) struct Decoded {
    /// Position.
    pub(crate) seq: Seq,
    /// When, RFC 3339.
    pub(crate) at: String,
    pub(crate) event: Event,
    /// The event's private fields.
    pub(crate) private: Private,
}

/// Reads the record at `seq`.
///
/// # Errors
/// What is wrong with it, for the log; never transcript text.
pub(crate) fn decode(seq: Seq, frame: &[u8], private: &[u8]) -> Result<Decoded, String> {
    let wrong = |part: &str, error: &serde_json::Error| {
        format!("event {seq}: {part} cannot be read (line {}, column {})", error.line(), error.column())
    };
    let Sequenced { stamp, event } = Sequenced::read(frame).map_err(|error| wrong("event", &error))?;
    let private: Private = if private.is_empty() {
        Private::default()
    } else {
        serde_json::from_slice(private).map_err(|error| wrong("private fields", &error))?
    };
    Ok(Decoded { seq, at: stamp.at, event, private })
}
