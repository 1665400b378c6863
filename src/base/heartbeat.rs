//! A heartbeat: decides when a peer must be pinged, and that it is gone after two pings without any message from it.
//!
//! Knows no socket: its user sends the pings and reports what was received.

use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// Number of pings that may stay unanswered.
const UNANSWERED: u32 = 2;

/// What the user of a [`Heartbeat`] must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeartbeatAction {
    /// Send a ping.
    Ping,
    /// The peer is gone.
    Gone,
}

/// The heartbeat of one peer.
#[derive(Debug)]
pub struct Heartbeat {
    ticks: Interval,
    unanswered: u32,
}

impl Heartbeat {
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
    pub async fn beat(&mut self, listening: bool) -> HeartbeatAction {
        self.ticks.tick().await;
        if !listening {
            return HeartbeatAction::Ping;
        }
        if self.unanswered >= UNANSWERED {
            return HeartbeatAction::Gone;
        }
        self.unanswered += 1;
        HeartbeatAction::Ping
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(20);

    #[tokio::test(start_paused = true)]
    async fn two_unanswered_pings_end_the_connection() {
        let began = Instant::now();
        let mut heartbeat = Heartbeat::new(EVERY);
        for _ in 0..5 {
            assert_eq!(heartbeat.beat(true).await, HeartbeatAction::Ping);
            assert_eq!(heartbeat.beat(true).await, HeartbeatAction::Ping);
            heartbeat.heard();
        }
        assert_eq!(heartbeat.beat(true).await, HeartbeatAction::Ping);
        assert_eq!(heartbeat.beat(true).await, HeartbeatAction::Ping);
        assert_eq!(heartbeat.beat(true).await, HeartbeatAction::Gone);
        assert_eq!(began.elapsed(), EVERY * 13);
    }

    #[tokio::test(start_paused = true)]
    async fn peer_is_not_timed_out_while_nothing_is_read() {
        let mut heartbeat = Heartbeat::new(EVERY);
        assert_eq!(heartbeat.beat(true).await, HeartbeatAction::Ping);
        for _ in 0..10 {
            assert_eq!(heartbeat.beat(false).await, HeartbeatAction::Ping);
        }
        assert_eq!(heartbeat.beat(true).await, HeartbeatAction::Ping);
        assert_eq!(heartbeat.beat(true).await, HeartbeatAction::Gone);
    }
}
