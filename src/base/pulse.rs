//! A heartbeat: decides when a peer must be pinged, and that it is gone after two pings without any message from it.
//!
//! Knows no socket: its user sends the pings and reports what was received.

use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// Number of pings that may stay unanswered.
const UNANSWERED: u32 = 2;

/// What the user of a [`Pulse`] must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// Send a ping.
    Ping,
    /// The peer is gone.
    Gone,
}

/// The heartbeat of one peer.
#[derive(Debug)]
pub struct Pulse {
    ticks: Interval,
    unanswered: u32,
}

impl Pulse {
    /// For a peer that is connected now; `every` is the interval of pings.
    pub fn new(every: Duration) -> Self {
        let mut ticks = interval_at(Instant::now() + every, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { ticks, unanswered: 0 }
    }

    /// Records that the peer sent something, whatever it was.
    pub fn heard(&mut self) {
        self.unanswered = 0;
    }

    /// Waits until its user must do something. While the socket is not read (`listening` is false), nothing can be
    /// received from the peer, so no time counts against it.
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
