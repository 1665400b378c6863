//! What a call answers the producers that are connected to it, and whoever asks it to run an analysis.
//!
//! Knows no socket: an answer is plain data, and its frame is written where the socket is.

use std::sync::Arc;

use super::numbers::ConnectionNo;
use crate::protocol::{CloseCode, ErrorCode, ErrorFrame, FailureCode};
use crate::types::{Carry, Seq, TokenUsage};

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

/// No answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    pub code: FailureCode,
    /// For people; no transcript text.
    pub message: String,
    /// Whether trying again may help.
    pub temporary: bool,
}

/// A model's answer about one turn, for the producer of that turn.
#[derive(Debug, Clone, PartialEq)]
pub struct Replied {
    pub text: String,
    /// The vendor's id of the answer; may be empty.
    pub id: String,
    /// Why it ended, in OpenAI's spelling.
    pub finish: &'static str,
    /// The logical model that answered.
    pub model: Arc<str>,
    pub endpoint: Arc<str>,
    /// The vendor's name for the model.
    pub vendor_model: Arc<str>,
    /// HTTP calls made.
    pub attempts: u32,
    pub usage: TokenUsage,
    pub cost_usd: Option<f64>,
    /// Made in a lesser way.
    pub degraded: bool,
}

/// What came of a question about one turn.
#[derive(Debug, Clone, PartialEq)]
pub struct TurnReply {
    /// The vendor's number of the turn.
    pub turn_order: i64,
    pub result: Result<Replied, Failed>,
}
