//! Circuit breakers: a model of an endpoint that keeps failing is not asked for a while, then probed by one request.
//!
//! Knows no clock and no endpoint: the caller passes the time and the outcomes.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::base::backoff::Backoff;
use crate::base::sync::lock;
use crate::gateway::code::Code;

/// Consecutive failures that open a breaker.
const THRESHOLD: u32 = 5;
/// Durations of the open state. DESIGN allows 15 s; a shorter time notices a recovered vendor sooner, at the cost of one
/// request per probe. Without jitter: only one request of a process probes.
const OPEN: Backoff = Backoff::new(Duration::from_secs(2), Duration::from_secs(8)).with_jitter(0.0);

/// Circuit breaker of one endpoint's model.
#[derive(Debug, Default)]
pub(in crate::gateway) struct CircuitBreaker {
    /// Set if something has failed since the last success; only then is the state read.
    troubled: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    failures: u32,
    backoff: Backoff,
    open: Option<Open>,
    /// Code of the newest failure; `None` before the first.
    last_code: Option<Code>,
}

impl Default for State {
    fn default() -> Self {
        Self { failures: 0, backoff: OPEN, open: None, last_code: None }
    }
}

#[derive(Debug)]
struct Open {
    until: Instant,
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
        state.backoff.reset();
        self.troubled.store(false, Ordering::Release);
        state.open.take().is_some()
    }

    /// Reports a failure that counts against the endpoint. Returns true if it opened a closed breaker.
    pub(in crate::gateway) fn failed(&self, now: Instant, code: Code) -> bool {
        let mut state = self.state();
        self.troubled.store(true, Ordering::Release);
        state.failures = state.failures.saturating_add(1);
        state.last_code = Some(code);
        let opens = match &state.open {
            // Any other request was sent before the breaker opened: its failure says nothing new.
            Some(open) => open.probing,
            None => state.failures >= THRESHOLD,
        };
        if !opens {
            return false;
        }
        let until = now + state.backoff.pause(0.0);
        state.open.replace(Open { until, probing: false }).is_none()
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
        assert_eq!(breaker.ask(start), Decision::Wait(Duration::from_secs(2), Code::Refused));
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
        now += Duration::from_secs(8);
        assert_eq!(breaker.ask(now), Decision::Probe);
        breaker.given_up();
        assert_eq!(breaker.ask(now), Decision::Probe);
        assert_eq!(breaker.phase(), Phase::HalfOpen);
        assert!(breaker.succeeded());
        assert_eq!((breaker.ask(now), breaker.phase()), (Decision::Send, Phase::Closed));
        assert!(!breaker.succeeded());
    }
}
