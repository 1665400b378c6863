//! Producers that drop their connection, replace it from another socket, and resend what was not acknowledged, as the
//! protocol requires.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::random::Random;
use super::script::{Decoder, Frame, Naming};
use crate::analysis::{Question, Spoken};
use crate::call::answer::Attached;
use crate::call::input::Frames;
use crate::call::numbers::{ConnectionNo, PeerNo};
use crate::protocol::ingest::Ack;
use crate::types::StreamId;

/// A connection that got its welcome and is still open.
pub(super) struct Connection {
    pub(super) peer: PeerNo,
    pub(super) number: ConnectionNo,
    /// Position of its first frame in the script.
    base: usize,
    sent: u64,
    acked: u64,
    decoder: Decoder,
    /// Turns about which the producer asked, and which have no answer yet.
    pub(super) asked: BTreeSet<i64>,
    /// The daemon has told the producer to close.
    pub(super) closing: bool,
}

pub(super) struct Producer {
    pub(super) stream: StreamId,
    pub(super) naming: Naming,
    pub(super) script: Vec<Frame>,
    /// The question about each of the producer's turns.
    pub(super) question: Option<Arc<Question>>,
    /// The producer waits for the welcome of this connection.
    pub(super) attaching: Option<PeerNo>,
    /// Oldest first: a second connection replaces the first.
    pub(super) connections: Vec<Connection>,
    /// Position in the script of the first frame of the newest connection that got its welcome.
    last_base: usize,
    /// Number of frames of the script that were acknowledged.
    pub(super) acked: usize,
    /// Set once the producer has received the answer that the call is over.
    pub(super) over: bool,
}

impl Producer {
    pub(super) fn new(stream: StreamId, naming: Naming, script: Vec<Frame>, question: Option<Arc<Question>>) -> Self {
        let (attaching, connections) = (None, Vec::new());
        Self { stream, naming, script, question, attaching, connections, last_base: 0, acked: 0, over: false }
    }

    /// The daemon was killed, so all sockets are closed.
    pub(super) fn cut_off(&mut self) {
        self.attaching = None;
        self.connections.clear();
    }

    /// The producer gets the answer to its attach.
    pub(super) fn attached(&mut self, peer: PeerNo, attached: &Attached, resends: bool, random: &mut Random) {
        assert_eq!(self.attaching.take(), Some(peer), "an answer to the newest attach");
        let Attached::Welcome(welcome) = attached else {
            self.over = true;
            return;
        };
        let covered = self.last_base + usize::try_from(welcome.frames.unwrap_or(0)).expect("few");
        assert!(covered <= self.script.len(), "covered {covered} of {} frames", self.script.len());
        let mut base = covered.max(self.acked);
        if self.naming == Naming::Held {
            let between = &self.script[covered..base];
            let quiet = between.iter().all(|frame| !matches!(frame, Frame::Words(_) | Frame::EndTurn));
            assert!(quiet, "acknowledged frames {covered}..{base} hold words that no carry knows");
        } else if resends {
            base = random.index(base + 1);
        }
        self.last_base = base;
        let decoder = Decoder::resume(self.naming, &welcome.carry);
        let (number, asked, closing) = (welcome.connection, BTreeSet::new(), false);
        self.connections.push(Connection { peer, number, base, sent: 0, acked: 0, decoder, asked, closing });
    }

    /// An answer about a turn came. Returns true if the producer waited for it.
    pub(super) fn replied(&mut self, peer: PeerNo, turn: i64) -> bool {
        let connection = self.connections.iter_mut().find(|connection| connection.peer == peer);
        connection.is_some_and(|connection| connection.asked.remove(&turn))
    }

    /// Returns true if every turn about which the producer asked has its answer.
    pub(super) fn is_answered(&self) -> bool {
        self.connections.iter().all(|connection| connection.asked.is_empty())
    }

    /// Handles an acknowledgement; `None` if it acknowledges nothing new.
    pub(super) fn ack(&mut self, peer: PeerNo, ack: &Ack) -> Option<std::ops::Range<usize>> {
        let connection = self.connections.iter_mut().find(|connection| connection.peer == peer)?;
        assert!(ack.frames <= connection.sent, "{} frames acknowledged of {}", ack.frames, connection.sent);
        assert!(ack.frames >= connection.acked, "an acknowledgement is taken back");
        connection.acked = ack.frames;
        let until = connection.base + usize::try_from(ack.frames).expect("few");
        let before = self.acked;
        self.acked = before.max(until);
        (before < self.acked).then_some(before..self.acked)
    }

    /// The next frame of the connection at `index`; `None` at the end of the script.
    pub(super) fn next(&mut self, index: usize) -> Option<(Frame, Frames)> {
        let connection = &mut self.connections[index];
        let frame = self.script.get(connection.base + usize::try_from(connection.sent).expect("few"))?.clone();
        connection.sent += 1;
        let (events, carry) = connection.decoder.decode(&frame);
        let asks = match &frame {
            Frame::Turn(turn, ..) if self.question.is_some() => {
                let turn_order = i64::try_from(*turn).expect("few");
                connection.asked.insert(turn_order);
                vec![Spoken { turn_order, text: frame.words().len().to_string(), speaker: None }]
            }
            _ => Vec::new(),
        };
        let frames = Frames {
            connection: connection.number,
            stream: self.stream.clone(),
            count: connection.sent,
            carry,
            events,
            asks,
            lease: None,
        };
        Some((frame, frames))
    }

    /// Returns true if the whole script was sent on the newest connection.
    pub(super) fn is_done(&self) -> bool {
        let sent = |connection: &Connection| connection.base + usize::try_from(connection.sent).expect("few");
        self.connections.last().is_some_and(|connection| sent(connection) >= self.script.len())
    }

    /// Returns true if the whole script was acknowledged.
    pub(super) fn is_acked(&self) -> bool {
        self.acked == self.script.len()
    }
}
