//! A call's answers to its producers, and to requests to run an analysis.
//!
//! Knows no socket: an answer is plain data, and its frame is made where the socket is.

use std::sync::Arc;

use super::numbers::ConnectionNo;
use crate::protocol::{CloseCode, ErrorCode, ErrorFrame, FailureCode};
use crate::types::{Carry, Seq, TokenUsage};

/// The answer to a producer that wants to feed a stream.
#[derive(Debug)]
pub enum Attached {
    /// The producer may feed its stream.
    Welcome(Welcome),
    /// The call is completed, and this stream was part of it.
    Completed(Welcome),
    /// The call is completed, and this stream is new; or it has failed, or has the maximum number of streams.
    Refused {
        /// `call_completed`, `call_failed` or `too_many_streams`.
        code: ErrorCode,
        /// Message for people.
        message: String,
        close: CloseCode,
    },
}

/// The content of `welcome`.
#[derive(Debug, Clone)]
pub struct Welcome {
    /// The call's epoch.
    pub epoch: String,
    /// The number of the producer's connection.
    pub connection: ConnectionNo,
    /// Highest durable turn of the stream.
    pub acked: Option<u64>,
    /// The dialect of the producer's frames: the one that was requested, or the one that was picked for the stream
    /// earlier.
    pub dialect: &'static str,
    /// Number of frames of the stream's previous connection that are covered. After a crash it may be lower than what
    /// was acknowledged then, because frames without effect leave no record: a producer continues from the greater of
    /// the two.
    pub frames: Option<u64>,
    /// The state of the previous connection's decoder after these frames.
    pub carry: Arc<Carry>,
    /// Latest insights by analysis, as many as fit into a frame.
    pub insights: serde_json::Map<String, serde_json::Value>,
    /// Analyses with insights that did not fit. `GET /v1/calls/{id}` returns all of them.
    pub insights_omitted: Vec<String>,
    /// Parts of the request that were ignored, and why.
    pub errors: Vec<ErrorFrame>,
    /// The call's head: events after it are new to the connection.
    pub seq: Seq,
}

/// Why an analysis is not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunRefusal {
    /// The analysis does not exist; the message lists those that do.
    #[error("{0}")]
    Unknown(String),
    /// The analysis runs by itself, once per turn.
    #[error("analysis {0:?} runs once per turn and cannot be asked for as a whole")]
    PerTurn(String),
    /// The call has no turn yet.
    #[error("the call has no turn yet; there is nothing to ask about")]
    NoTurns,
    /// The daemon is stopping, or the call has failed.
    #[error("{0}")]
    Unavailable(String),
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    pub code: FailureCode,
    /// Message for people; contains no transcript text.
    pub message: String,
    /// Set if a retry may help.
    pub temporary: bool,
}

/// A model's answer about one turn, for the producer of that turn.
#[derive(Debug, Clone, PartialEq)]
pub struct Replied {
    pub text: String,
    /// The vendor's id of the answer; may be empty.
    pub id: String,
    /// Why the answer ended, in OpenAI's spelling.
    pub finish: &'static str,
    /// The logical model that answered.
    pub model: Arc<str>,
    pub endpoint: Arc<str>,
    /// The vendor's name for the model.
    pub vendor_model: Arc<str>,
    /// Number of HTTP requests made.
    pub attempts: u32,
    pub usage: TokenUsage,
    pub cost_usd: Option<f64>,
    /// Set if the embedded provider answered.
    pub degraded: bool,
}

/// The outcome of a question about one turn.
#[derive(Debug, Clone, PartialEq)]
pub struct TurnReply {
    /// The vendor's number of the turn.
    pub turn_order: i64,
    pub result: Result<Replied, Failed>,
}
