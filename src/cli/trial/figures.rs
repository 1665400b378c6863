//! The figures of a played call, and the list of those that are compared. Knows no output.

use serde::Serialize;

use super::call::{Call, Shown};
use crate::evaluation::online::{self, Revision, Said, Timeline};
use crate::evaluation::rouge;
use crate::evaluation::values::{Items, Quotes, summary_text};
use crate::types::provider;

/// The analysis whose text is compared with people's summaries.
const SUMMARY: &str = "summary";

/// The figures of one call. Money is in pico-dollars. An unknown value is `None`, never 0.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Figures {
    /// Number of requests to models; each repair of an answer counts as one more.
    pub(crate) requests: u64,
    /// Number of HTTP calls made for these requests.
    pub(crate) attempts: u64,
    pub(crate) input: Option<u64>,
    /// The part of `input` that vendors read from their prompt caches.
    pub(crate) cached: Option<u64>,
    pub(crate) cached_share: Option<f64>,
    pub(crate) output: Option<u64>,
    pub(crate) cost_pico: Option<i64>,
    pub(crate) insights: u64,
    pub(crate) failed: u64,
    /// Time from the newest turn that an insight covers to the insight: the median here, the 95th percentile below.
    pub(crate) latency_ms_p50: Option<u64>,
    pub(crate) latency_ms_p95: Option<u64>,
    /// Mean number of turns that arrived while an insight was computed.
    pub(crate) behind_turns: Option<f64>,
    pub(crate) items: Items,
    pub(crate) quotes: Quotes,
    pub(crate) evidence_precision: Option<f64>,
    /// Figures of the summary at the call's end.
    pub(crate) summary: online::Figures,
}

impl Figures {
    /// Computes the figures of a call. `reference`: the summary that a person wrote.
    pub(crate) fn of(call: &Call, reference: Option<&str>) -> Self {
        let tally = &call.tally;
        let (input, cached) = (tally.input.0, tally.cached.0);
        // Values that no model made take no time.
        let is_asked = |shown: &&Shown| !provider::is_computed(&shown.insight.provenance.endpoint);
        let shown = || call.insights.values().flatten().filter(is_asked);
        let mut waits: Vec<u64> = shown().map(|shown| shown.insight.latency_ms.total).collect();
        waits.sort_unstable();
        let (mut items, mut quotes) = (Items::default(), Quotes::default());
        for insights in call.insights.values() {
            for (index, Shown { insight, .. }) in insights.iter().enumerate() {
                quotes.add(Quotes::of(&insight.value, &insight.evidence));
                if insight.turn.is_none() {
                    let before = index.checked_sub(1).map(|before| &insights[before].insight.value);
                    items.add(Items::between(before, &insight.value));
                }
            }
        }
        let behind: Vec<u64> = shown().map(|shown| shown.insight.behind_turns).collect();
        Self {
            requests: tally.requests,
            attempts: tally.attempts,
            input,
            cached,
            cached_share: input.zip(cached).filter(|(all, _)| *all > 0).map(|(all, read)| read as f64 / all as f64),
            output: tally.output.0,
            cost_pico: tally.cost.0,
            insights: call.insights.values().map(Vec::len).sum::<usize>() as u64,
            failed: call.failures.len() as u64,
            latency_ms_p50: percentile(&waits, 50),
            latency_ms_p95: percentile(&waits, 95),
            behind_turns: (!behind.is_empty()).then(|| behind.iter().sum::<u64>() as f64 / behind.len() as f64),
            items,
            quotes,
            evidence_precision: quotes.precision(),
            summary: with_summary(call, reference, |timeline| timeline.at(100)),
        }
    }
}

/// Computes `take` on the summaries of a call over its time.
pub(crate) fn with_summary<T>(call: &Call, reference: Option<&str>, take: impl FnOnce(&Timeline<'_>) -> T) -> T {
    let words = |text: &str| text.split_whitespace().count() as u64;
    let said = call.spoken().map(|(at_ms, turn)| Said { at_ms, turn: turn.turn, words: words(&turn.text) });
    let said: Vec<Said> = said.collect();
    let revision = |shown: &Shown| {
        let covers = shown.insight.covers;
        let words = rouge::tokens(&summary_text(&shown.insight.value)?);
        Some(Revision { at_ms: shown.at_ms, from: covers.from, to: covers.to, words })
    };
    let revisions: Vec<Revision> = call.of(SUMMARY).iter().filter_map(revision).collect();
    let reference = reference.map(rouge::tokens);
    take(&Timeline::new(&said, &revisions, reference.as_deref()))
}

/// The percentile of sorted values, by nearest rank.
fn percentile(sorted: &[u64], percent: usize) -> Option<u64> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.checked_sub(1)?).copied()
}

/// The unit of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Count,
    Share,
    Score,
    Ms,
    Pico,
}

/// A figure by which variants are compared.
pub(crate) struct Metric {
    /// The name in JSON.
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    /// The meaning of the figure, in one sentence.
    pub(crate) meaning: &'static str,
    pub(crate) unit: Unit,
    /// True if a higher value is better, false if a lower one is; `None` if neither is.
    pub(crate) more_is_better: Option<bool>,
    /// True if the sum over all calls has a meaning.
    pub(crate) adds_up: bool,
    pub(crate) of: fn(&Figures) -> Option<f64>,
}

macro_rules! metrics {
    ($($name:literal, $title:literal, $unit:ident, $better:expr, $adds_up:literal, $of:expr, $meaning:literal;)+) => {
        /// All figures, in the order in which they are shown.
        pub(crate) static METRICS: &[Metric] = &[$(Metric {
            name: $name,
            title: $title,
            meaning: $meaning,
            unit: Unit::$unit,
            more_is_better: $better,
            adds_up: $adds_up,
            of: $of,
        }),+];
    };
}

const MORE: Option<bool> = Some(true);
const LESS: Option<bool> = Some(false);

metrics! {
    "cost_pico", "Cost", Pico, LESS, true, |figures| figures.cost_pico.map(|cost| cost as f64),
        "Cost of the models' answers, including those of requests that failed.";
    "requests", "Requests to models", Count, LESS, true, |figures| Some(figures.requests as f64),
        "Each repair of an answer counts as a further request.";
    "input", "Input tokens", Count, LESS, true, |figures| figures.input.map(|count| count as f64),
        "As the vendors counted them.";
    "cached_share", "Read from a cache", Share, MORE, false, |figures| figures.cached_share,
        "Share of the input tokens that a vendor read from its prompt cache.";
    "output", "Output tokens", Count, LESS, true, |figures| figures.output.map(|count| count as f64),
        "As the vendors counted them.";
    "latency_ms_p50", "Latency, median", Ms, LESS, false, |figures| figures.latency_ms_p50.map(|ms| ms as f64),
        "Time from the newest turn that an insight covers to the insight.";
    "latency_ms_p95", "Latency, 95th percentile", Ms, LESS, false, |figures| figures.latency_ms_p95.map(|ms| ms as f64),
        "Time that 95 % of the insights do not exceed.";
    "behind_turns", "Turns behind", Count, LESS, false, |figures| figures.behind_turns,
        "Turns that arrived while an insight was computed.";
    "insights", "Insights", Count, None, true, |figures| Some(figures.insights as f64),
        "Number of published insights.";
    "failed", "Failed runs", Count, LESS, true, |figures| Some(figures.failed as f64),
        "Runs of analyses that gave no insight.";
    "items_added", "Items added", Count, None, true, |figures| Some(figures.items.added as f64),
        "List elements with an id that the list did not have before, such as action items.";
    "items_changed", "Items changed", Count, None, true, |figures| Some(figures.items.changed as f64),
        "List elements with an id of which another field changed.";
    "items_retracted", "Items retracted", Count, LESS, true, |figures| Some(figures.items.retracted as f64),
        "List elements with an id that were removed again.";
    "evidence_precision", "Quotes that are in the transcript", Share, MORE, false, |figures| figures.evidence_precision,
        "Share of an insight's quotes whose words are in the turn that they name.";
    "el_ms", "Summary: expected latency (EL)", Ms, LESS, false, |figures| figures.summary.el_ms,
        "Mean time from a spoken word to the first summary that covers it.";
    "r1_auc", "Summary: ROUGE-1 over time (R1-AUC)", Score, MORE, false, |figures| figures.summary.r1_auc,
        "Mean over the call's time of the ROUGE-1 of the current summary, against a person's summary.";
    "rouge_1", "Summary: ROUGE-1 at the end", Score, MORE, false, |figures| figures.summary.rouge_1,
        "Words in common with a person's summary (F1).";
    "rouge_l", "Summary: ROUGE-L at the end", Score, MORE, false, |figures| figures.summary.rouge_l,
        "Longest sequence of words in common with a person's summary (F1).";
    "ne", "Summary: normalized erasure (NE)", Score, LESS, false, |figures| figures.summary.ne,
        "Words rewritten during the call, divided by the words of the last summary.";
    "rf", "Summary: redundancy (RF)", Score, LESS, false, |figures| figures.summary.rf,
        "Share of the last summary's word pairs (bigrams) that repeat an earlier pair in it.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occur() {
        let values: Vec<u64> = (1..=20).collect();
        assert_eq!((percentile(&values, 50), percentile(&values, 95)), (Some(10), Some(19)));
        assert_eq!((percentile(&[7], 95), percentile(&[], 50)), (Some(7), None));
    }

    #[test]
    fn names_of_metrics_differ() {
        let names: std::collections::BTreeSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), METRICS.len());
    }
}
