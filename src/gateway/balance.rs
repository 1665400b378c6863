//! Orders the candidates of a request. Knows no attempt: the scheduler asks them in the order given here.

use tokio::time::Instant;

use super::budget;
use super::catalogue::{Arm, Target};
use super::config::Balance;
use super::endpoint::Remote;
use super::rate::Need;
use crate::llm::ChatRequest;

/// The candidates in the order in which this request tries them. The embedded provider is last, except with
/// [`Balance::Order`].
pub(super) fn arrange(arm: &Arm, request: &ChatRequest) -> Vec<Target> {
    let mut candidates = arm.candidates.clone();
    if candidates.len() < 2 {
        return candidates;
    }
    let now = Instant::now();
    match &arm.balance {
        Balance::Order => {}
        Balance::Weight(weights) => {
            let mut weights = weights.iter();
            // Sorting by exponential draws: each candidate comes first with a probability proportional to its weight,
            // and so on for the rest.
            sort(&mut candidates, |_| {
                let weight = weights.next().copied().unwrap_or(0.0);
                if weight > 0.0 { -(1.0 - rand::random::<f64>()).ln() / weight } else { f64::MAX }
            });
        }
        Balance::Latency => {
            sort(&mut candidates, |remote| remote.pace.load(now));
            // The better of two random candidates comes first: always taking the best would send it every request until
            // its latency shows that load.
            let remote = candidates.iter().filter(|target| matches!(target, Target::Remote(_))).count();
            if remote > 2 {
                let one = rand::random_range(0..remote);
                let other = (one + rand::random_range(1..remote)) % remote;
                candidates[..=one.min(other)].rotate_right(1);
            }
        }
        Balance::Cost => {
            let (need, now_ms) = (Need::of(request), crate::base::time::unix_ms());
            sort(&mut candidates, |remote| {
                #[expect(clippy::cast_precision_loss, reason = "an estimate, to compare by")]
                let cost = remote.price(now_ms).map(|price| budget::estimate(price, need) as f64);
                cost.unwrap_or(f64::MAX)
            });
        }
    }
    candidates
}

/// Sorts by a key, smallest first; equal keys keep their order. The embedded provider comes last.
fn sort(candidates: &mut Vec<Target>, mut key: impl FnMut(&Remote) -> f64) {
    let mut keyed: Vec<(f64, Target)> = candidates
        .drain(..)
        .map(|target| match &target {
            Target::Local => (f64::INFINITY, target),
            Target::Remote(remote) => (key(remote), target),
        })
        .collect();
    keyed.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    candidates.extend(keyed.into_iter().map(|(_, target)| target));
}
