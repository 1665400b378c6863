//! What a record holds beside its event: the private fields from which a session is rebuilt exactly.
//!
//! Never goes out, but for a turn's words, which readers may ask for.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::journal::{NewRecord, Record};
use crate::turns::TurnPrivate;
use crate::types::{Carry, Event, Seq, Stamp, StreamId};

/// How far a connection had come when a record was written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    /// The stream.
    #[serde(rename = "s")]
    pub stream: StreamId,
    /// Number of the connection in the call.
    #[serde(rename = "c")]
    pub connection: u64,
    /// Frames of that connection which are covered by this and earlier records.
    #[serde(rename = "f")]
    pub covered: u64,
    /// The frame that led to this record.
    #[serde(rename = "n")]
    pub frame: u64,
    /// What the connection's decoder knew after the frames covered.
    #[serde(default, rename = "k", skip_serializing_if = "no_carry")]
    pub carry: Arc<Carry>,
}

fn no_carry(carry: &Arc<Carry>) -> bool {
    carry.is_empty()
}

/// Private fields of a record; all optional.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Private {
    /// What the turn table needs beyond the turn, its words among it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn: Option<TurnPrivate>,
    /// Where the producer was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<Mark>,
    /// Analyses that the call runs from here on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub analyses: Vec<String>,
    /// Variants that the call's producer chose, by route.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variants: BTreeMap<String, String>,
    /// The variant and prompt that an analysis is pinned to: (analysis, variant, prompt id).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<(String, String, String)>,
    /// Set on the last record of a call that is to be completed: the end was asked for, or came by a timer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ending: bool,
}

impl Private {
    fn encode(&self) -> Bytes {
        if *self == Self::default() {
            return Bytes::new();
        }
        // Plain data into memory: cannot fail.
        serde_json::to_vec(self).map(|json| Bytes::from(json.into_boxed_slice())).unwrap_or_default()
    }
}

/// The record of `event` at `stamp`.
pub fn encode(stamp: &Stamp, event: &Event, private: &Private) -> NewRecord {
    NewRecord { frame: Bytes::from(crate::types::event::encode(stamp, event)), private: private.encode() }
}

/// A record read back.
#[derive(Debug, Clone)]
pub struct Decoded {
    /// Position.
    pub seq: Seq,
    /// When, RFC 3339.
    pub at: String,
    /// What.
    pub event: Event,
    /// The rest.
    pub private: Private,
}

/// Reads a record back.
///
/// # Errors
/// What is wrong with it, for the log; never transcript text.
pub fn decode(record: &Record) -> Result<Decoded, String> {
    let wrong = |part: &str, error: &serde_json::Error| {
        format!("event {}: {part} cannot be read (line {}, column {})", record.seq, error.line(), error.column())
    };
    let stamp: Stamp = serde_json::from_slice(&record.frame).map_err(|error| wrong("stamp", &error))?;
    let event: Event = serde_json::from_slice(&record.frame).map_err(|error| wrong("event", &error))?;
    let private: Private = if record.private.is_empty() {
        Private::default()
    } else {
        serde_json::from_slice(&record.private).map_err(|error| wrong("private fields", &error))?
    };
    Ok(Decoded { seq: record.seq, at: stamp.at, event, private })
}
