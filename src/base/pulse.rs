//! Whether a peer is still there: it is pinged now and then, and gone once two pings brought no sign of life.
//!
//! Knows no socket: whoever has one sends the pings and tells what it hears.

use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// Pings that may go unanswered.
const UNANSWERED: u32 = 2;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// Send a ping.
    Ping,
    /// The peer is gone.
    Gone,
}

/// The clock of one peer.
#[derive(Debug)]
pub struct Pulse {
    ticks: Interval,
    unanswered: u32,
}

impl Pulse {
    /// Of a peer that is there now, and is pinged so often.
    pub fn new(every: Duration) -> Self {
        let mut ticks = interval_at(Instant::now() + every, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { ticks, unanswered: 0 }
    }

    /// The peer said something, whatever it was.
    pub fn heard(&mut self) {
        self.unanswered = 0;
    }

    /// Waits until something is to be done. While its socket is not read (`listening` is false), a peer cannot be heard,
    /// and nothing counts against it.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn beat(&mut self, listening: bool) -> Beat {
        self.ticks.tick().await;
        if !listening {
            return Beat::Ping;
        }
        if self.unanswered >= UNANSWERED {
            return Beat::Gone;
        }
        self.unanswered += 1;
        Beat::Ping
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(20);

    #[tokio::test(start_paused = true)]
    async fn two_pings_without_a_word_are_enough() {
        let began = Instant::now();
        let mut pulse = Pulse::new(EVERY);
        for _ in 0..5 {
            assert_eq!(pulse.beat(true).await, Beat::Ping);
            assert_eq!(pulse.beat(true).await, Beat::Ping);
            pulse.heard();
        }
        assert_eq!(pulse.beat(true).await, Beat::Ping);
        assert_eq!(pulse.beat(true).await, Beat::Ping);
        assert_eq!(pulse.beat(true).await, Beat::Gone);
        assert_eq!(began.elapsed(), EVERY * 13);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_not_listened_to_is_not_given_up() {
        let mut pulse = Pulse::new(EVERY);
        assert_eq!(pulse.beat(true).await, Beat::Ping);
        for _ in 0..10 {
            assert_eq!(pulse.beat(false).await, Beat::Ping);
        }
        assert_eq!(pulse.beat(true).await, Beat::Ping);
        assert_eq!(pulse.beat(true).await, Beat::Gone);
    }
}
