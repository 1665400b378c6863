//! What a call answers the producers that are connected to it, and whoever asks it to run an analysis.
//!
//! Knows no socket: an answer is plain data, and its frame is written where the socket is.

use std::sync::Arc;

use super::input::ConnectionNo;
use crate::protocol::{CloseCode, ErrorCode, ErrorFrame};
use crate::types::{Carry, Seq, StreamId};

/// What a producer is told.
#[derive(Debug)]
pub enum Attached {
    /// Go on.
    Welcome(Welcome),
    /// The call is completed, and this stream was part of it.
    Completed(Welcome),
    /// The call is completed, and this stream is new; or it has failed, or has as many streams as it may have.
    Refused {
        /// `call_completed`, `call_failed` or `too_many_streams`.
        code: ErrorCode,
        /// For people.
        message: String,
        close: CloseCode,
    },
}

/// The content of `welcome`.
#[derive(Debug, Clone)]
pub struct Welcome {
    /// The call's epoch.
    pub epoch: String,
    /// The number of this connection.
    pub connection: ConnectionNo,
    /// Highest durable turn of the stream.
    pub acked: Option<u64>,
    /// The dialect of its frames: the one that was asked for, or that was picked for the stream earlier.
    pub dialect: &'static str,
    /// Frames covered of the stream's previous connection. After a crash it may be below what was acknowledged there, for
    /// frames without effect leave no record: a producer goes on from the greater of the two.
    pub frames: Option<u64>,
    /// What the previous connection's decoder knew after these.
    pub carry: Arc<Carry>,
    /// Latest insights by analysis, as many as fit into a frame.
    pub insights: serde_json::Map<String, serde_json::Value>,
    /// Analyses with insights that did not fit. `GET /v1/calls/{id}` returns all of them.
    pub insights_omitted: Vec<String>,
    /// Parts of the request that were ignored, and why.
    pub complaints: Vec<ErrorFrame>,
    /// The call's head: events after it are new to the connection.
    pub seq: Seq,
}

/// The newest acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// The stream that the connection feeds: the one that it named, or the one that its vendor's newest session is.
    pub stream: StreamId,
    /// Frames of the connection that are covered.
    pub frames: u64,
    /// Highest durable turn of the stream.
    pub turn_order: Option<u64>,
}

/// Why an analysis is not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunRefusal {
    /// No such analysis, and those that there are.
    #[error("{0}")]
    Unknown(String),
    /// It runs once a turn, by itself.
    #[error("analysis {0:?} runs once per turn and cannot be asked for as a whole")]
    PerTurn(String),
    /// The call has no turn yet.
    #[error("the call has no turn yet; there is nothing to ask about")]
    NoTurns,
    /// The daemon is stopping, or the call has failed.
    #[error("{0}")]
    Unavailable(String),
}

/// How a connection is to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Goodbye {
    /// Told before.
    pub complaint: Option<ErrorFrame>,
    pub code: CloseCode,
    /// Close reason.
    pub reason: &'static str,
}
