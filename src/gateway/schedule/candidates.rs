//! Orders the candidates of a request. Knows no attempt: the scheduler asks them in the order given here.

use tokio::time::Instant;

use crate::base::tokens::Ratio;
use crate::gateway::admission::budget;
use crate::gateway::admission::token_estimate::TokenEstimate;
use crate::gateway::catalogue::config::Balance;
use crate::gateway::catalogue::endpoint::EndpointModel;
use crate::gateway::catalogue::resolved::{Candidate, Resolved};
use crate::llm::ChatRequest;

/// The candidates in the order in which this request tries them. The embedded provider is last, except with
/// [`Balance::Order`].
pub(in crate::gateway) fn arrange(resolved: &Resolved, request: &ChatRequest) -> Vec<Candidate> {
    let mut candidates = resolved.candidates.clone();
    if candidates.len() < 2 {
        return candidates;
    }
    let now = Instant::now();
    match &resolved.balance {
        Balance::Order => {}
        Balance::Weight(weights) => {
            let mut weights = weights.iter();
            // Sorting by exponential draws: each candidate comes first with a probability proportional to its weight,
            // and the rest are ordered in the same way.
            sort(&mut candidates, |_| {
                let weight = weights.next().copied().unwrap_or(0.0);
                if weight > 0.0 { -(1.0 - rand::random::<f64>()).ln() / weight } else { f64::MAX }
            });
        }
        Balance::Latency => {
            sort(&mut candidates, |remote| remote.latency.load(now));
            // The better of two random candidates comes first: always taking the best would send it every request until
            // its latency shows that load.
            let remote = candidates.iter().filter(|candidate| matches!(candidate, Candidate::Remote(_))).count();
            if remote > 2 {
                let one = rand::random_range(0..remote);
                let other = (one + rand::random_range(1..remote)) % remote;
                candidates[..=one.min(other)].rotate_right(1);
            }
        }
        Balance::Cost => {
            let now_ms = crate::base::time::unix_ms();
            // Estimated once: what differs is how each model counts.
            let tokens = TokenEstimate::of(request, Ratio::default());
            sort(&mut candidates, |remote| {
                let tokens = TokenEstimate { input: remote.token_ratio().apply(tokens.input), ..tokens };
                #[expect(clippy::cast_precision_loss, reason = "the estimate is only compared")]
                let cost = remote.price(now_ms).map(|price| budget::estimate(price, tokens) as f64);
                cost.unwrap_or(f64::MAX)
            });
        }
    }
    candidates
}

/// Sorts by a key, smallest first; equal keys keep their order. The embedded provider comes last.
fn sort(candidates: &mut Vec<Candidate>, mut key: impl FnMut(&EndpointModel) -> f64) {
    let mut keyed: Vec<(f64, Candidate)> = candidates
        .drain(..)
        .map(|candidate| match &candidate {
            Candidate::Local => (f64::INFINITY, candidate),
            Candidate::Remote(remote) => (key(remote), candidate),
        })
        .collect();
    keyed.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    candidates.extend(keyed.into_iter().map(|(_, candidate)| candidate));
}
