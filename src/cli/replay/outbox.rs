//! Tracks which frames were sent, which are acknowledged, and which must be sent again: the producer's side of the
//! frame counts in DESIGN 5.1. Pure; a frame is identified by its index in the recording.

/// The positions of one stream's producer.
///
/// `acked <= next` always; a frame below `acked` is never sent again.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Index of the first frame of the newest connection that got a `welcome`.
    base: usize,
    /// Index of the frame to send next.
    next: usize,
    /// Number of frames that the daemon has reported as covered.
    acked: usize,
    /// The highest `next` so far.
    furthest: usize,
    resent: usize,
}

impl Outbox {
    /// Handles the welcome of a connection. `covered` is `welcome.frames`: how many frames of the connection before are
    /// covered.
    ///
    /// A count above the number of frames sent on that connection cannot refer to it (for example because its own
    /// welcome was lost) and is ignored: everything that is not acknowledged is then sent again.
    pub(crate) fn welcomed(&mut self, covered: Option<u64>) {
        let sent = self.next - self.base;
        let resume = match covered.and_then(|count| usize::try_from(count).ok()) {
            Some(count) if count <= sent => self.base + count,
            _ => self.acked,
        };
        self.acked = self.acked.max(resume);
        self.base = self.acked;
        self.next = self.acked;
    }

    /// Handles `ack.frames` of this connection. Returns the indexes that it newly covers.
    pub(crate) fn acknowledged(&mut self, frames: u64) -> std::ops::Range<usize> {
        let before = self.acked;
        let count = usize::try_from(frames).unwrap_or(usize::MAX);
        self.acked = self.base.saturating_add(count).min(self.next).max(before);
        before..self.acked
    }

    /// Records that the frame at [`Outbox::next`] has been written.
    pub(crate) fn sent(&mut self) {
        if self.next < self.furthest {
            self.resent += 1;
        }
        self.next += 1;
        self.furthest = self.furthest.max(self.next);
    }

    /// Index of the frame to send next; the number of frames once all are sent.
    pub(crate) fn next(&self) -> usize {
        self.next
    }

    /// Index of the first frame that is not acknowledged.
    pub(crate) fn acked(&self) -> usize {
        self.acked
    }

    /// Number of different frames that have been sent.
    pub(crate) fn furthest(&self) -> usize {
        self.furthest
    }

    /// Number of repeated frames; a frame that is repeated twice counts twice.
    pub(crate) fn resent(&self) -> usize {
        self.resent
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::testing::kept;

    #[test]
    fn resend_starts_at_the_ack_if_the_welcome_is_lower() {
        let mut outbox = Outbox::default();
        send(&mut outbox, 10);
        outbox.acknowledged(8);
        outbox.welcomed(Some(5));
        assert_eq!((outbox.next(), outbox.acked()), (8, 8));
    }

    fn send(outbox: &mut Outbox, count: usize) {
        for _ in 0..count {
            outbox.sent();
        }
    }

    #[test]
    fn a_drop_resends_from_what_the_daemon_covers() {
        let mut outbox = Outbox::default();
        outbox.welcomed(None);
        send(&mut outbox, 40);
        assert_eq!(outbox.acknowledged(30), 0..30);
        assert_eq!(outbox.acknowledged(20), 30..30);
        outbox.welcomed(Some(33));
        assert_eq!(outbox.next(), 33);
        send(&mut outbox, 10);
        // Counts are per connection: 5 frames of the second one.
        assert_eq!(outbox.acknowledged(5), 33..38);
        outbox.welcomed(Some(7));
        assert_eq!(outbox.next(), 40);
        assert_eq!(outbox.resent(), 7);
    }

    #[test]
    fn a_count_that_cannot_be_right_is_not_believed() {
        let mut outbox = Outbox::default();
        outbox.welcomed(None);
        send(&mut outbox, 40);
        outbox.acknowledged(33);
        outbox.welcomed(Some(33));
        send(&mut outbox, 2);
        // This is the count of the connection before the newest one, which the daemon never saw.
        outbox.welcomed(Some(33));
        assert_eq!(outbox.next(), 33);
        // The daemon saw a connection whose welcome we did not get, and none of whose frames took effect: frames that
        // are not acknowledged are sent again.
        outbox.welcomed(Some(0));
        assert_eq!(outbox.next(), 33);
        outbox.acknowledged(u64::MAX);
        assert_eq!(outbox.acked(), 33);
    }

    proptest! {
        #![proptest_config(kept())]

        /// The daemon here applies any number of frames and loses the others whenever the connection drops: every frame
        /// must arrive, in order.
        #[test]
        fn every_frame_arrives(steps in prop::collection::vec((0usize..20, 0usize..20, any::<bool>()), 1..40)) {
            let mut outbox = Outbox::default();
            let mut covered: Vec<usize> = Vec::new();
            outbox.welcomed(None);
            for (sent, kept, acks) in steps {
                let arrived: Vec<usize> = (0..sent).map(|_| { let index = outbox.next(); outbox.sent(); index }).collect();
                let kept = kept.min(arrived.len());
                covered.extend(&arrived[..kept]);
                if acks {
                    outbox.acknowledged(kept as u64);
                }
                outbox.welcomed(Some(kept as u64));
            }
            prop_assert_eq!(covered.clone(), (0..covered.len()).collect::<Vec<_>>());
            prop_assert_eq!(outbox.next(), covered.len());
        }
    }
}
