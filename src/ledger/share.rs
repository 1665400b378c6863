//! The shares of a bundle's analyses in one attempt: integers that add up to what the attempt used and cost.
//!
//! Knows no gateway: the weights of the analyses come with the end of the attempt.

use std::sync::Arc;

use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use crate::base::apportion::{apportion, apportion_over};
use crate::types::AttemptDone;

/// The shares in one attempt.
#[derive(Serialize, Deserialize)]
pub(super) struct Shares<'a> {
    /// Id of the attempt.
    id: i64,
    #[serde(borrow)]
    shares: Vec<Share<'a>>,
}

/// The share of one analysis.
#[derive(Serialize, Deserialize)]
struct Share<'a> {
    analysis: &'a str,
    /// The attempt counts for the analysis with the greatest weight.
    attempts: u64,
    input: Option<u64>,
    cached: Option<u64>,
    cache_write: Option<u64>,
    output: Option<u64>,
    reasoning: Option<u64>,
    cost_pico: Option<u64>,
}

impl<'a> Shares<'a> {
    /// The shares in an attempt that has ended; `None` if it was not a bundle's.
    pub(super) fn of(attempt: &'a AttemptDone) -> Option<Self> {
        if attempt.shares.is_empty() {
            return None;
        }
        let weights: Vec<u64> = attempt.shares.iter().map(|(_, weight)| *weight).collect();
        let split = |total: Option<u64>| total.map(|total| apportion(total, &weights));
        let split_over = |inner: &Option<Vec<u64>>, total: Option<u64>| {
            total.map(|total| apportion_over(inner.as_deref().unwrap_or_default(), total, &weights))
        };
        let (cached, reasoning) = (split(attempt.cached), split(attempt.reasoning));
        let (input, output) = (split_over(&cached, attempt.input), split_over(&reasoning, attempt.output));
        let cache_write = split(attempt.cache_write);
        let cost_pico = split(attempt.cost_pico.and_then(|cost| u64::try_from(cost).ok()));
        let attempts = apportion(1, &weights);
        let at = |parts: &Option<Vec<u64>>, index: usize| parts.as_ref().map(|parts| parts[index]);
        let share = |(index, (analysis, _)): (usize, &'a (Arc<str>, u64))| Share {
            analysis,
            attempts: attempts[index],
            input: at(&input, index),
            cached: at(&cached, index),
            cache_write: at(&cache_write, index),
            output: at(&output, index),
            reasoning: at(&reasoning, index),
            cost_pico: at(&cost_pico, index),
        };
        let shares = attempt.shares.iter().enumerate().map(share).collect();
        Some(Self { id: attempt.id, shares })
    }

    /// Stores them. Storing them a second time changes nothing.
    pub(super) fn store(&self, connection: &Connection) -> rusqlite::Result<()> {
        let mut insert = connection.prepare_cached(
            "INSERT OR REPLACE INTO shares (attempt, analysis, attempts, input, cached, cache_write, output, reasoning, \
             cost_pico) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?;
        let signed = |number: Option<u64>| number.map(|number| i64::try_from(number).unwrap_or(i64::MAX));
        for share in &self.shares {
            insert.execute(rusqlite::params![
                self.id,
                share.analysis,
                signed(Some(share.attempts)),
                signed(share.input),
                signed(share.cached),
                signed(share.cache_write),
                signed(share.output),
                signed(share.reasoning),
                signed(share.cost_pico),
            ])?;
        }
        Ok(())
    }
}
