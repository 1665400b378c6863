//! Producers that drop their connection, take their own stream over from another socket, and send again what was not
//! acknowledged, as the protocol asks them to.

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

/// A connection that was welcomed and is not gone.
pub(super) struct Connection {
    pub(super) peer: PeerNo,
    pub(super) number: ConnectionNo,
    /// Position in the script of its first frame.
    base: usize,
    sent: u64,
    acked: u64,
    decoder: Decoder,
    /// Turns that it asked about and has no answer for.
    pub(super) asked: BTreeSet<i64>,
    /// It was told to go.
    pub(super) closing: bool,
}

pub(super) struct Producer {
    pub(super) stream: StreamId,
    pub(super) naming: Naming,
    pub(super) script: Vec<Frame>,
    /// Asked about each of its turns.
    pub(super) question: Option<Arc<Question>>,
    /// Waits for its welcome.
    pub(super) attaching: Option<PeerNo>,
    /// Oldest first: a second one takes over from the first.
    pub(super) connections: Vec<Connection>,
    /// Position in the script of the first frame of the newest connection that was welcomed.
    last_base: usize,
    /// Frames of the script that were acknowledged.
    pub(super) acked: usize,
    /// The call is over for it.
    pub(super) over: bool,
}

impl Producer {
    pub(super) fn new(stream: StreamId, naming: Naming, script: Vec<Frame>, question: Option<Arc<Question>>) -> Self {
        let (attaching, connections) = (None, Vec::new());
        Self { stream, naming, script, question, attaching, connections, last_base: 0, acked: 0, over: false }
    }

    /// The daemon is gone, and all sockets with it.
    pub(super) fn cut_off(&mut self) {
        self.attaching = None;
        self.connections.clear();
    }

    /// What it is told about its stream.
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

    /// An answer came about a turn; whether it was waited for.
    pub(super) fn replied(&mut self, peer: PeerNo, turn: i64) -> bool {
        let connection = self.connections.iter_mut().find(|connection| connection.peer == peer);
        connection.is_some_and(|connection| connection.asked.remove(&turn))
    }

    /// Every turn that it asked about has its answer.
    pub(super) fn is_answered(&self) -> bool {
        self.connections.iter().all(|connection| connection.asked.is_empty())
    }

    /// What was acknowledged; `None` where that is nothing new.
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

    /// The next frame of the connection at `index`; `None` where the script is over.
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

    /// Whether all of the script was sent on the newest connection.
    pub(super) fn is_done(&self) -> bool {
        let sent = |connection: &Connection| connection.base + usize::try_from(connection.sent).expect("few");
        self.connections.last().is_some_and(|connection| sent(connection) >= self.script.len())
    }

    /// All of the script was acknowledged.
    pub(super) fn is_acked(&self) -> bool {
        self.acked == self.script.len()
    }
}
