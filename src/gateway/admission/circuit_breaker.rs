//! Circuit breakers: a model of an endpoint that keeps failing is not asked for a while, then probed by one request.
//!
//! Knows no clock and no endpoint: the caller passes the time and the outcomes.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::base::sync::lock;
use crate::gateway::code::Code;

/// Consecutive failures that open a breaker.
const THRESHOLD: u32 = 5;
/// First duration of the open state.
const FIRST: Duration = Duration::from_secs(2);
/// Longest duration of the open state. DESIGN allows 15 s; a shorter time notices a recovered vendor sooner, at the
/// cost of one request per probe.
const LONGEST: Duration = Duration::from_secs(8);

/// Circuit breaker of one endpoint's model.
#[derive(Debug, Default)]
pub(in crate::gateway) struct CircuitBreaker {
    /// Set if something has failed since the last success; only then is the state read.
    troubled: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    open: Option<Open>,
    /// Code of the newest failure; `None` before the first.
    last_code: Option<Code>,
}

#[derive(Debug)]
struct Open {
    until: Instant,
    span: Duration,
    probing: bool,
}

/// A breaker's decision on a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum Decision {
    /// The request may be sent.
    Send,
    /// The request may be sent as the probe that decides whether the breaker closes.
    Probe,
    /// The request must not be sent for this long (zero: a probe is in progress); the newest failure had this code.
    Wait(Duration, Code),
}

/// State of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum Phase {
    /// Requests are sent.
    Closed = 0,
    /// One request probes.
    HalfOpen = 1,
    /// No request is sent.
    Open = 2,
}

impl CircuitBreaker {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Asks for permission to send a request. A [`Decision::Probe`] must be followed by [`CircuitBreaker::succeeded`],
    /// [`CircuitBreaker::failed`] or [`CircuitBreaker::given_up`].
    pub(in crate::gateway) fn ask(&self, now: Instant) -> Decision {
        if !self.troubled.load(Ordering::Acquire) {
            return Decision::Send;
        }
        let mut state = self.state();
        let code = state.last_code.unwrap_or(Code::UpstreamError);
        match &mut state.open {
            None => Decision::Send,
            Some(open) if now < open.until => Decision::Wait(open.until - now, code),
            Some(open) if open.probing => Decision::Wait(Duration::ZERO, code),
            Some(open) => {
                open.probing = true;
                Decision::Probe
            }
        }
    }

    pub(in crate::gateway) fn phase(&self) -> Phase {
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
    pub(in crate::gateway) fn succeeded(&self) -> bool {
        if !self.troubled.load(Ordering::Acquire) {
            return false;
        }
        let mut state = self.state();
        state.failures = 0;
        self.troubled.store(false, Ordering::Release);
        state.open.take().is_some()
    }

    /// Reports a failure that counts against the endpoint. Returns true if it opened a closed breaker.
    pub(in crate::gateway) fn failed(&self, now: Instant, code: Code) -> bool {
        let mut state = self.state();
        self.troubled.store(true, Ordering::Release);
        state.failures = state.failures.saturating_add(1);
        state.last_code = Some(code);
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
    pub(in crate::gateway) fn given_up(&self) {
        if let Some(open) = &mut self.state().open {
            open.probing = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breaker_opens_probes_doubles_its_wait_and_closes() {
        let breaker = CircuitBreaker::default();
        let start = Instant::now();
        for _ in 0..4 {
            assert!(!breaker.failed(start, Code::Refused));
        }
        assert_eq!(breaker.ask(start), Decision::Send);
        assert!(breaker.failed(start, Code::Refused));
        assert_eq!(breaker.ask(start), Decision::Wait(FIRST, Code::Refused));
        let mut now = start;
        let mut waits = Vec::new();
        for _ in 0..4 {
            let Decision::Wait(wait, _) = breaker.ask(now) else { panic!("not open") };
            waits.push(wait.as_secs());
            now += wait;
            assert_eq!(breaker.ask(now), Decision::Probe);
            assert_eq!(
                breaker.ask(now),
                Decision::Wait(Duration::ZERO, if waits.len() == 1 { Code::Refused } else { Code::Timeout })
            );
            assert!(!breaker.failed(now, Code::Timeout));
        }
        assert_eq!(waits, [2, 4, 8, 8]);
        now += LONGEST;
        assert_eq!(breaker.ask(now), Decision::Probe);
        breaker.given_up();
        assert_eq!(breaker.ask(now), Decision::Probe);
        assert_eq!(breaker.phase(), Phase::HalfOpen);
        assert!(breaker.succeeded());
        assert_eq!((breaker.ask(now), breaker.phase()), (Decision::Send, Phase::Closed));
        assert!(!breaker.succeeded());
    }
}
