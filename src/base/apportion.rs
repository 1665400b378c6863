//! A whole number divided in proportion to weights, into whole parts that add up to it: the method of largest remainders.

use std::cmp::Reverse;

/// Divides `total` in proportion to `weights`. Each part is rounded down; the remaining units go, one each, to the
/// parts with the largest remainders (among equal ones, to the first). A part with the weight 0 gets nothing; if all
/// weights are 0, all parts are 0.
pub fn apportion(total: u64, weights: &[u64]) -> Vec<u64> {
    let sum: u128 = weights.iter().map(|weight| u128::from(*weight)).sum();
    if sum == 0 {
        return vec![0; weights.len()];
    }
    let product = |weight: u64| u128::from(total) * u128::from(weight);
    let whole = |weight: &u64| u64::try_from(product(*weight) / sum).unwrap_or(total);
    let mut parts: Vec<u64> = weights.iter().map(whole).collect();
    let rest = total - parts.iter().sum::<u64>();
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by_key(|index| Reverse(product(weights[*index]) % sum));
    for index in order.into_iter().take(usize::try_from(rest).unwrap_or(usize::MAX)) {
        parts[index] += 1;
    }
    parts
}

/// As [`apportion`], for a total that includes another one, which was divided into `inner` (empty if that is not
/// known): no part is smaller than its part of the inner total.
pub fn apportion_over(inner: &[u64], total: u64, weights: &[u64]) -> Vec<u64> {
    match total.checked_sub(inner.iter().sum()) {
        Some(rest) if inner.len() == weights.len() => {
            apportion(rest, weights).iter().zip(inner).map(|(rest, inner)| rest + inner).collect()
        }
        _ => apportion(total, weights),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::testing::kept;

    #[test]
    fn rest_goes_to_the_largest_remainders() {
        assert_eq!(apportion(10, &[0, 1, 1, 1]), [0, 4, 3, 3]);
        assert_eq!(apportion(10, &[1, 2, 3]), [2, 3, 5]);
        assert_eq!(apportion(1, &[3, 5, 4]), [0, 1, 0]);
        assert_eq!(apportion(7, &[0, 0]), [0, 0]);
        assert_eq!(apportion(0, &[3, 5]), [0, 0]);
        assert_eq!(apportion(u64::MAX, &[u64::MAX, 1]), [u64::MAX - 1, 1]);
    }

    proptest! {
        #![proptest_config(kept())]

        #[test]
        fn parts_add_up_and_are_less_than_one_off(
            total in any::<u64>(),
            weights in prop::collection::vec(0..1_000_000_u64, 1..9),
        ) {
            let parts = apportion(total, &weights);
            let sum: u128 = weights.iter().map(|weight| u128::from(*weight)).sum();
            let given: u128 = parts.iter().map(|part| u128::from(*part)).sum();
            prop_assert_eq!(given, if sum == 0 { 0 } else { u128::from(total) });
            for (part, weight) in parts.iter().zip(&weights).filter(|_| sum > 0) {
                let exact = u128::from(total) * u128::from(*weight);
                prop_assert!((u128::from(*part) * sum).abs_diff(exact) < sum, "{} of {}", part, weight);
                prop_assert!(*weight > 0 || *part == 0);
            }
        }

        #[test]
        fn parts_are_not_below_those_of_the_inner_number(
            (inner, outer) in (0..1_000_u64, 0..1_000_u64),
            weights in prop::collection::vec(1..100_u64, 1..9),
        ) {
            let inner_parts = apportion(inner, &weights);
            let parts = apportion_over(&inner_parts, inner + outer, &weights);
            prop_assert_eq!(parts.iter().sum::<u64>(), inner + outer);
            prop_assert!(parts.iter().zip(&inner_parts).all(|(part, inner)| part >= inner));
        }
    }
}
