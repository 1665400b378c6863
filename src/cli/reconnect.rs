//! Decides when a client reconnects after a failed connection attempt, and how long it waits. Knows no socket; the
//! meaning of close codes is in `protocol::close`.

use std::time::Duration;

use crate::base::backoff::Backoff;
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

/// The waits of a client that reconnects.
pub(crate) const RECONNECTS: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
/// What `Later` stands for, before jitter shortens it.
const LATER: Duration = Duration::from_secs(2);

/// The next wait.
pub(crate) fn pause(backoff: &mut Backoff, when: ReconnectWhen) -> Duration {
    let least = if when == ReconnectWhen::Later { LATER } else { Duration::ZERO };
    backoff.pause_from(least, rand::random())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_waits_a_second_at_least_and_now_may_be_shorter() {
        let mut backoff = RECONNECTS;
        assert!(pause(&mut backoff, ReconnectWhen::Now) <= Duration::from_millis(50));
        assert!(pause(&mut backoff, ReconnectWhen::Later) >= LATER / 2);
    }

    #[test]
    fn refused_upgrade_is_final_unless_it_passes() {
        assert_eq!((after_status(403), after_status(503)), (ReconnectWhen::Never, ReconnectWhen::Later));
        assert_eq!(after_status(429), ReconnectWhen::Later);
    }
}
