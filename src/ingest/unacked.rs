//! Keeps the frames of a stream whose producer cannot send them again, until the session has made them durable. If the
//! session is lost, they are sent to the next one.
//!
//! Knows no session: only numbers of frames.

use std::collections::VecDeque;

use crate::analysis::Spoken;
use crate::base::ws::Utf8Bytes;

#[derive(Debug)]
struct Kept {
    /// Number of the frame on its connection, once it was sent.
    number: u64,
    text: Utf8Bytes,
    asks: Vec<Spoken>,
}

/// Frames that no session has acknowledged yet, oldest first.
#[derive(Debug, Default)]
pub(super) struct Unacked {
    frames: VecDeque<Kept>,
    /// How many of the frames were sent on this connection.
    sent: usize,
}

impl Unacked {
    /// Adds a frame, with its turns that are to be answered.
    pub(super) fn push(&mut self, text: Utf8Bytes, asks: Vec<Spoken>) {
        self.frames.push_back(Kept { number: 0, text, asks });
    }

    /// The next frame that was not sent on this connection.
    pub(super) fn next(&self) -> Option<(Utf8Bytes, Vec<Spoken>)> {
        self.frames.get(self.sent).map(|kept| (kept.text.clone(), kept.asks.clone()))
    }

    /// Records that this frame was sent, as the connection's frame `number`.
    pub(super) fn sent(&mut self, number: u64) {
        if let Some(kept) = self.frames.get_mut(self.sent) {
            kept.number = number;
            self.sent += 1;
        }
    }

    /// Drops frames up to the connection's frame `frames`, which the session has acknowledged.
    pub(super) fn covered(&mut self, frames: u64) {
        while self.sent > 0 && self.frames.front().is_some_and(|kept| kept.number <= frames) {
            self.frames.pop_front();
            self.sent -= 1;
        }
    }

    /// Starts a new connection. The first `covered` frames of the previous one need not be sent again.
    pub(super) fn reconnected(&mut self, covered: Option<u64>) {
        self.covered(covered.unwrap_or(0));
        self.sent = 0;
    }

    /// Invalidates the connection's frame numbers, because another connection has fed the stream since.
    pub(super) fn forget_numbers(&mut self) {
        self.sent = 0;
    }

    /// Drops all frames. Returns the turns that were to be answered.
    pub(super) fn clear(&mut self) -> Vec<Spoken> {
        self.sent = 0;
        self.frames.drain(..).flat_map(|kept| kept.asks).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends everything that was not sent, with numbers from `first` on.
    fn send(unacked: &mut Unacked, first: u64) -> Vec<String> {
        let mut texts = Vec::new();
        while let Some((text, _)) = unacked.next() {
            unacked.sent(first + texts.len() as u64);
            texts.push(text.to_string());
        }
        texts
    }

    fn four() -> Unacked {
        let mut unacked = Unacked::default();
        for text in ["a", "b", "c", "d"] {
            unacked.push(Utf8Bytes::from_static(text), Vec::new());
        }
        unacked
    }

    #[test]
    fn frames_that_the_lost_session_acknowledged_are_not_resent() {
        let mut unacked = four();
        assert_eq!(send(&mut unacked, 1), ["a", "b", "c", "d"]);
        unacked.covered(1);
        // Frames 2 and 3 are durable, and their acknowledgement was lost with the session.
        unacked.reconnected(Some(3));
        let turn = Spoken { turn_order: 5, text: "e".to_owned(), speaker: None };
        unacked.push(Utf8Bytes::from_static("e"), vec![turn.clone()]);
        assert_eq!(send(&mut unacked, 1), ["d", "e"]);
        unacked.covered(2);
        assert_eq!(unacked.next(), None);
        unacked.reconnected(None);
        assert_eq!(send(&mut unacked, 1), Vec::<String>::new(), "nothing is left");
        unacked.push(Utf8Bytes::from_static("f"), vec![turn.clone()]);
        assert_eq!(unacked.clear(), [turn]);
    }

    #[test]
    fn without_a_previous_connection_everything_is_sent() {
        let mut unacked = four();
        unacked.reconnected(None);
        assert_eq!(send(&mut unacked, 1), ["a", "b", "c", "d"]);
        // Numbers of another connection say nothing about these frames.
        unacked.forget_numbers();
        unacked.reconnected(Some(4));
        assert_eq!(send(&mut unacked, 1), ["a", "b", "c", "d"]);
    }
}
