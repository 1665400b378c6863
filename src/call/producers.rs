//! The connected producers of a call, and the positions of those that have left.
//!
//! Knows no event and no record: only numbers of frames, what decoders hold, and turns that wait for an answer.

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
    /// Connected producers.
    pub(super) live: HashMap<StreamId, Live>,
    /// The position of the previous connection of a stream, if it was connected since the call was loaded.
    pub(super) left: HashMap<StreamId, Left>,
    /// Producers that wait until the older connection of their stream is gone.
    pub(super) taking_over: Vec<Attach>,
}

/// A connected producer.
pub(super) struct Live {
    pub(super) connection: ConnectionNo,
    pub(super) peer: PeerNo,
    /// Number of frames read.
    pub(super) count: u64,
    /// Number of frames whose effects are all stored.
    pub(super) covered: u64,
    /// Number of frames in the newest acknowledgement.
    pub(super) acked: u64,
    /// Final words in its decoder that wait for the end of their turn.
    pub(super) holding: Holding,
    /// Number of the newest frame that led to a record.
    pub(super) effect: u64,
    /// Frames up to this one had their effect on an earlier connection.
    pub(super) suppress: u64,
    /// The producer's own offset.
    pub(super) offset_ms: Option<u64>,
    pub(super) dialect: &'static dyn Dialect,
    /// The stream to which the producer's events belong: the one that it named, or one that a later session of the
    /// vendor began.
    pub(super) current: StreamId,
    /// Set if a session of the vendor began on this connection.
    pub(super) begun: bool,
    /// Set if the producer exceeded a limit and is being closed: its further frames are ignored.
    pub(super) refused: bool,
    /// The vendor's session id, if it became known after the stream had begun.
    pub(super) session: Option<String>,
    /// The question that the producer asks about its turns.
    pub(super) replies: Option<Replies>,
}

/// The question of one connected producer.
pub(super) struct Replies {
    pub(super) question: Arc<Question>,
    /// Tasks of the turns, by the vendor's numbers.
    pub(super) queue: TurnQueue<i64>,
    /// Turns without an answer.
    pub(super) open: BTreeMap<i64, Spoken>,
}

impl Replies {
    /// Before any turn is asked about.
    pub(super) fn new(question: Arc<Question>) -> Self {
        Self { question, queue: TurnQueue::new(), open: BTreeMap::new() }
    }

    pub(super) fn question(&self) -> &Question {
        &self.question
    }
}

/// The position of the previous connection of a stream when it ended.
#[derive(Debug, Clone)]
pub(super) struct Left {
    pub(super) covered: u64,
    pub(super) effect: u64,
    /// The decoder's state after the covered frames.
    pub(super) carry: Arc<Carry>,
}

impl Producers {
    /// The position of the producer of `root`, for a record that it led to.
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
