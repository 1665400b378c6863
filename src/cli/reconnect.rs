//! Decides when a client reconnects after a failed connection attempt, and how long it waits. Knows no socket; the
//! meaning of close codes is in `protocol::close`.

use std::time::Duration;

use rand::RngExt as _;

use crate::base::ws::DialError;
use crate::protocol::ReconnectWhen;

/// The reaction to an attempt that did not lead to a WebSocket.
pub(crate) fn after_dial(error: &DialError) -> ReconnectWhen {
    match error {
        DialError::Url(_) => ReconnectWhen::Never,
        DialError::Status { status, .. } => after_status(*status),
        DialError::Connect(_) | DialError::Timeout(_) => ReconnectWhen::Now,
    }
}

fn after_status(status: u16) -> ReconnectWhen {
    match status {
        429 => ReconnectWhen::Later,
        400..=499 => ReconnectWhen::Never,
        _ => ReconnectWhen::Later,
    }
}

/// Waits that double from 50 ms to 5 s, each shortened at random by up to a half, so that the clients of a restarted
/// daemon do not all reconnect at once.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(50);
    const LONGEST: Duration = Duration::from_secs(5);

    /// The next wait. With `Later` it is at least 2 s before it is shortened at random.
    pub(crate) fn next(&mut self, when: ReconnectWhen) -> Duration {
        let full = Self::FIRST.saturating_mul(1 << self.failures.min(10)).min(Self::LONGEST);
        let full = if when == ReconnectWhen::Later { full.max(Duration::from_secs(2)) } else { full };
        self.failures = self.failures.saturating_add(1);
        full.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    /// Records that a connection works: the next failure counts as the first one again.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_limit_and_start_over() {
        let mut backoff = Backoff::default();
        let waits: Vec<Duration> = (0..12).map(|_| backoff.next(ReconnectWhen::Now)).collect();
        assert!(waits[0] <= Duration::from_millis(50) && waits[0] >= Duration::from_millis(25), "{waits:?}");
        assert!(waits[11] >= Duration::from_millis(2500) && waits[11] <= Duration::from_secs(5), "{waits:?}");
        backoff.reset();
        assert!(backoff.next(ReconnectWhen::Now) <= Duration::from_millis(50));
        assert!(backoff.next(ReconnectWhen::Later) >= Duration::from_secs(1));
    }

    #[test]
    fn refused_upgrade_is_final_unless_it_passes() {
        assert_eq!((after_status(403), after_status(503)), (ReconnectWhen::Never, ReconnectWhen::Later));
        assert_eq!(after_status(429), ReconnectWhen::Later);
    }
}
