//! Circuit breakers: a model of an endpoint that keeps failing is not asked for a while, then probed by one request.
//!
//! Does not know what failed, nor what time it is: the caller passes both.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Consecutive failures that open a breaker.
const THRESHOLD: u32 = 5;
/// First duration of the open state.
const FIRST: Duration = Duration::from_secs(2);
/// Longest duration of the open state. DESIGN allows 15 s; a shorter time finds a recovered vendor sooner, at one
/// request a probe.
const LONGEST: Duration = Duration::from_secs(8);

/// Circuit breaker of one endpoint's model.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    /// Set if something has failed since the last success; only then is the state looked at.
    troubled: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    open: Option<Open>,
    last_code: &'static str,
}

#[derive(Debug)]
struct Open {
    until: Instant,
    span: Duration,
    probing: bool,
}

/// A breaker's decision on a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leave {
    /// The request may be sent.
    Go,
    /// The request may be sent, as the probe that decides.
    Probe,
    /// The request must not be sent for this long (zero: a probe is in progress); the newest failure had this code.
    Wait(Duration, &'static str),
}

/// State of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Requests are sent.
    Closed = 0,
    /// One request probes.
    HalfOpen = 1,
    /// No request is sent.
    Open = 2,
}

impl Breaker {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Asks for permission to send a request. A [`Leave::Probe`] must be followed by [`Breaker::succeeded`],
    /// [`Breaker::failed`] or [`Breaker::given_up`].
    pub(super) fn ask(&self, now: Instant) -> Leave {
        if !self.troubled.load(Ordering::Acquire) {
            return Leave::Go;
        }
        let mut state = self.state();
        let code = state.last_code;
        match &mut state.open {
            None => Leave::Go,
            Some(open) if now < open.until => Leave::Wait(open.until - now, code),
            Some(open) if open.probing => Leave::Wait(Duration::ZERO, code),
            Some(open) => {
                open.probing = true;
                Leave::Probe
            }
        }
    }

    pub(super) fn phase(&self) -> Phase {
        if !self.troubled.load(Ordering::Acquire) {
            return Phase::Closed;
        }
        match &self.state().open {
            None => Phase::Closed,
            Some(open) if open.probing => Phase::HalfOpen,
            Some(_) => Phase::Open,
        }
    }

    /// Reports an answer. Returns true if it closed the breaker.
    pub(super) fn succeeded(&self) -> bool {
        if !self.troubled.load(Ordering::Acquire) {
            return false;
        }
        let mut state = self.state();
        state.failures = 0;
        self.troubled.store(false, Ordering::Release);
        state.open.take().is_some()
    }

    /// Reports a failure that counts against the endpoint. Returns true if it opened a closed breaker.
    pub(super) fn failed(&self, now: Instant, code: &'static str) -> bool {
        let mut state = self.state();
        self.troubled.store(true, Ordering::Release);
        state.failures = state.failures.saturating_add(1);
        state.last_code = code;
        let span = match &state.open {
            // This request was sent before the breaker opened: its failure says nothing new.
            Some(open) if !open.probing => return false,
            Some(open) => (open.span * 2).min(LONGEST),
            None if state.failures >= THRESHOLD => FIRST,
            None => return false,
        };
        let opened = state.open.is_none();
        state.open = Some(Open { until: now + span, span, probing: false });
        opened
    }

    /// Reports a probe without a verdict: it was aborted, or failed because of the request itself. The next request
    /// probes.
    pub(super) fn given_up(&self) {
        if let Some(open) = &mut self.state().open {
            open.probing = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_probes_doubles_and_closes() {
        let breaker = Breaker::default();
        let start = Instant::now();
        for _ in 0..4 {
            assert!(!breaker.failed(start, "refused"));
        }
        assert_eq!(breaker.ask(start), Leave::Go);
        assert!(breaker.failed(start, "refused"));
        assert_eq!(breaker.ask(start), Leave::Wait(FIRST, "refused"));
        let mut now = start;
        let mut waits = Vec::new();
        for _ in 0..4 {
            let Leave::Wait(wait, _) = breaker.ask(now) else { panic!("not open") };
            waits.push(wait.as_secs());
            now += wait;
            assert_eq!(breaker.ask(now), Leave::Probe);
            assert_eq!(
                breaker.ask(now),
                Leave::Wait(Duration::ZERO, if waits.len() == 1 { "refused" } else { "timeout" })
            );
            assert!(!breaker.failed(now, "timeout"));
        }
        assert_eq!(waits, [2, 4, 8, 8]);
        now += LONGEST;
        assert_eq!(breaker.ask(now), Leave::Probe);
        breaker.given_up();
        assert_eq!(breaker.ask(now), Leave::Probe);
        assert_eq!(breaker.phase(), Phase::HalfOpen);
        assert!(breaker.succeeded());
        assert_eq!((breaker.ask(now), breaker.phase()), (Leave::Go, Phase::Closed));
        assert!(!breaker.succeeded());
    }
}
