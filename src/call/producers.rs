//! The producers that are connected to a call, and where those that left were.
//!
//! Knows no event and no record: numbers of frames, what decoders hold, and turns that wait for an answer.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::held::Holding;
use super::input::Attach;
use super::numbers::{ConnectionNo, PeerNo};
use super::record::Mark;
use super::schedule::TurnQueue;
use crate::analysis::{Question, Spoken};
use crate::stt::Dialect;
use crate::types::{Carry, StreamId};

/// All producers of a call. Streams are those that producers named.
#[derive(Default)]
pub(super) struct Producers {
    /// Those that are connected.
    pub(super) live: HashMap<StreamId, Live>,
    /// Where the previous connection of a stream was, if it was connected since the call was loaded.
    pub(super) left: HashMap<StreamId, Left>,
    /// Producers that wait for the older connection of their stream to be gone.
    pub(super) taking_over: Vec<Attach>,
}

/// A connected producer.
pub(super) struct Live {
    pub(super) connection: ConnectionNo,
    pub(super) peer: PeerNo,
    /// Frames read.
    pub(super) count: u64,
    /// Frames of which nothing lives in memory alone.
    pub(super) covered: u64,
    /// Frames that the newest acknowledgement named.
    pub(super) acked: u64,
    /// Final words in its decoder that still wait for the end of their turn.
    pub(super) holding: Holding,
    /// Newest frame that led to a record.
    pub(super) effect: u64,
    /// Frames up to this one had their effect on an earlier connection.
    pub(super) suppress: u64,
    /// The producer's own offset.
    pub(super) offset_ms: Option<u64>,
    /// Its dialect.
    pub(super) dialect: &'static dyn Dialect,
    /// The stream that its events belong to: the one that it named, or one that a later vendor session made of it.
    pub(super) current: StreamId,
    /// A vendor's session began on this connection.
    pub(super) begun: bool,
    /// It met a limit and is being closed: what still comes on it is not taken.
    pub(super) refused: bool,
    /// The vendor's session, where the stream had begun before it was known.
    pub(super) session: Option<String>,
    /// The question that it asks about its turns.
    pub(super) replies: Option<Replies>,
}

/// The question of one connected producer.
pub(super) struct Replies {
    pub(super) question: Arc<Question>,
    /// By the vendor's numbers.
    pub(super) queue: TurnQueue<i64>,
    /// Turns without an answer.
    pub(super) open: BTreeMap<i64, Spoken>,
}

impl Replies {
    /// Nothing was asked yet.
    pub(super) fn new(question: Arc<Question>) -> Self {
        Self { question, queue: TurnQueue::new(), open: BTreeMap::new() }
    }

    /// The question.
    pub(super) fn question(&self) -> &Question {
        &self.question
    }
}

/// Where the previous connection of a stream was when it went.
#[derive(Debug, Clone)]
pub(super) struct Left {
    pub(super) covered: u64,
    pub(super) effect: u64,
    /// What its decoder knew after the frames covered.
    pub(super) carry: Arc<Carry>,
}

impl Producers {
    /// Where the producer of `root` is, for the record of what it led to.
    pub(super) fn mark(&self, root: &StreamId) -> Option<Mark> {
        let live = self.live.get(root)?;
        let out = live.holding.is_out();
        Some(Mark {
            stream: root.clone(),
            connection: live.connection,
            covered: if out { live.count } else { live.covered },
            frame: live.count,
            carry: Arc::clone(live.holding.carry(out)),
        })
    }
}
