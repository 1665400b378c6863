//! Divides the tokens and the cost of one request among the analyses that it answered.
//!
//! Knows no price: tokens, and money in whole pico-dollars, so that the parts add up exactly.

use crate::base::apportion::{apportion, apportion_over};
use crate::types::TokenUsage;

/// Pico-dollars of a US dollar.
const PICO: f64 = 1e12;

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Bill {
    pub(crate) usage: TokenUsage,
    /// US dollars; `None` if a price is unknown.
    pub(crate) cost_usd: Option<f64>,
}

impl Bill {
    /// Divides it in proportion to `weights`; see [`apportion`].
    pub(super) fn split(&self, weights: &[u64]) -> Vec<Self> {
        if let [_] = weights {
            return vec![*self];
        }
        let TokenUsage { input, cached, output } = self.usage;
        let share = |total: Option<u64>| total.map(|total| apportion(total, weights));
        let (cached, output) = (share(cached), share(output));
        let input = input.map(|input| apportion_over(cached.as_deref().unwrap_or_default(), input, weights));
        let cost = share(self.cost_usd.map(pico));
        let at = |shares: &Option<Vec<u64>>, index: usize| shares.as_ref().map(|shares| shares[index]);
        let part = |index| {
            let usage = TokenUsage { input: at(&input, index), cached: at(&cached, index), output: at(&output, index) };
            Self { usage, cost_usd: at(&cost, index).map(usd) }
        };
        (0..weights.len()).map(part).collect()
    }
}

/// Limits a cost to at least zero and to below the largest exact float.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the caller limits the cost")]
fn pico(usd: f64) -> u64 {
    (usd * PICO).round() as u64
}

#[expect(clippy::cast_precision_loss, reason = "amounts are a few dollars")]
fn usd(pico: u64) -> f64 {
    pico as f64 / PICO
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::testing::kept;

    #[test]
    fn unknown_cost_stays_unknown_and_a_single_part_has_it_all() {
        let usage = TokenUsage { input: Some(11), cached: None, output: Some(3) };
        let bill = Bill { usage, cost_usd: None };
        let parts = bill.split(&[1, 2]);
        assert_eq!(parts[1].usage, TokenUsage { input: Some(7), cached: None, output: Some(2) });
        assert!(parts.iter().all(|part| part.cost_usd.is_none()));
        assert_eq!(bill.split(&[0]), [bill]);
    }

    proptest! {
        #![proptest_config(kept())]

        #[test]
        fn parts_add_up_to_the_bill(
            tokens in 0..10_000_000_u64,
            cost in 0..1_000_000_000_000_000_u64,
            weights in prop::collection::vec(0..10_000_u64, 1..8),
        ) {
            let usage = TokenUsage { input: Some(tokens), cached: Some(tokens / 3), output: Some(tokens / 7) };
            let parts = Bill { usage, cost_usd: Some(usd(cost)) }.split(&weights);
            if weights.len() > 1 && weights.iter().all(|weight| *weight == 0) {
                prop_assert!(parts.iter().all(|part| part.cost_usd == Some(0.0)));
            } else {
                let sum = |of: fn(&TokenUsage) -> Option<u64>| parts.iter().map(|part| of(&part.usage).unwrap_or(0)).sum::<u64>();
                prop_assert_eq!(sum(|usage| usage.input), tokens);
                prop_assert_eq!(sum(|usage| usage.cached), tokens / 3);
                prop_assert_eq!(sum(|usage| usage.output), tokens / 7);
                prop_assert_eq!(parts.iter().map(|part| pico(part.cost_usd.unwrap_or(0.0))).sum::<u64>(), cost);
            }
        }
    }
}
