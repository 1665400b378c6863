//! The variants of a route, and which of them a request gets.
//!
//! Keeps no state: the choice is a hash of the route, the key and the variants' names.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::resolved::Resolved;

/// A route: weighted variants.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) variants: Vec<(f64, Arc<Resolved>)>,
}

impl Route {
    /// Chooses a variant by weighted rendezvous hashing: each variant draws a number from (route, key, variant), and
    /// the smallest `-ln(draw) / weight` wins. Changing one weight changes the variant of as few keys as possible; no
    /// state is kept.
    pub(super) fn choose(&self, route: &str, sticky_key: &str) -> Option<Arc<Resolved>> {
        if let [(_, variant)] = self.variants.as_slice() {
            return Some(Arc::clone(variant));
        }
        let score = |weight: f64, variant: &str| -draw(route, sticky_key, variant).ln() / weight;
        self.variants
            .iter()
            .filter(|(weight, _)| *weight > 0.0)
            .min_by(|(weight_a, a), (weight_b, b)| {
                score(*weight_a, &a.variant).total_cmp(&score(*weight_b, &b.variant))
            })
            .map(|(_, variant)| Arc::clone(variant))
    }
}

/// A number in (0, 1) that is the same on every machine and in every version. Uses SHA-256, because no hash of the
/// standard library guarantees that.
fn draw(route: &str, key: &str, variant: &str) -> f64 {
    let mut hash = Sha256::new();
    for part in [route, key, variant] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    let digest = hash.finalize();
    let bits = digest.iter().take(8).fold(0u64, |bits, byte| (bits << 8) | u64::from(*byte));
    #[expect(clippy::cast_precision_loss, reason = "53 bits are kept, which is what an f64 holds")]
    let fraction = (bits >> 11) as f64;
    (fraction + 0.5) / (1u64 << 53) as f64
}
