//! When a client reconnects: what each close code means for it, and how long it waits. Knows no socket.

use std::time::Duration;

use rand::RngExt as _;

use crate::base::ws::DialError;

/// How a client proceeds after a connection has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    /// Reconnect at once (with the backoff of repeated failures).
    Now,
    /// Reconnect after a few seconds: to do so at once would make things worse.
    Later,
    /// Do not reconnect: it cannot help.
    Never,
}

/// The reaction to a close code of the daemon; the README's table as code.
pub(crate) fn after_close(code: u16) -> Again {
    match code {
        1008 | 4400 | 4401 | 4403 | 4409 | 4410 | 4413 => Again::Never,
        4429 | 4500 | 1011 => Again::Later,
        // 1001 going away, 1005 and 1006 lost, 1012 restart, 1013 too slow, 4408 no subscribe in time.
        _ => Again::Now,
    }
}

/// The reaction to a dial that did not lead to a WebSocket.
pub(crate) fn after_dial(error: &DialError) -> Again {
    match error {
        DialError::Url(_) => Again::Never,
        DialError::Status { status, .. } => after_status(*status),
        DialError::Connect(_) | DialError::Timeout(_) => Again::Now,
    }
}

fn after_status(status: u16) -> Again {
    match status {
        429 => Again::Later,
        400..=499 => Again::Never,
        _ => Again::Later,
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

    /// The next wait. With `Later` it is at least 2 s before it is shortened.
    pub(crate) fn next(&mut self, again: Again) -> Duration {
        let full = Self::FIRST.saturating_mul(1 << self.failures.min(10)).min(Self::LONGEST);
        let full = if again == Again::Later { full.max(Duration::from_secs(2)) } else { full };
        self.failures = self.failures.saturating_add(1);
        full.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    /// Reports a connection that works: the next failure counts as the first one again.
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
        let waits: Vec<Duration> = (0..12).map(|_| backoff.next(Again::Now)).collect();
        assert!(waits[0] <= Duration::from_millis(50) && waits[0] >= Duration::from_millis(25), "{waits:?}");
        assert!(waits[11] >= Duration::from_millis(2500) && waits[11] <= Duration::from_secs(5), "{waits:?}");
        backoff.reset();
        assert!(backoff.next(Again::Now) <= Duration::from_millis(50));
        assert!(backoff.next(Again::Later) >= Duration::from_secs(1));
    }

    #[test]
    fn only_what_a_client_cannot_mend_is_never() {
        for code in [4400, 4401, 4403, 4409, 4410, 4413] {
            assert_eq!(after_close(code), Again::Never, "{code}");
        }
        for code in [1001, 1006, 1013, 4408] {
            assert_eq!(after_close(code), Again::Now, "{code}");
        }
        for code in [4429, 4500] {
            assert_eq!(after_close(code), Again::Later, "{code}");
        }
        assert_eq!((after_status(403), after_status(503)), (Again::Never, Again::Later));
    }
}
