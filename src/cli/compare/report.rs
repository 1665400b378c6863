//! The result of a comparison: each variant's run of each call with its figures, and the figures over all calls.
//!
//! Knows no file and no markup: JSON, the page and the table on the terminal are made from it.

use serde_json::{Value, json};

use crate::cli::trial::{Call, Figures, METRICS, Metric, Shown, Unit, Variant};
use crate::evaluation::interval::Interval;
use crate::evaluation::labels::Labels;
use crate::evaluation::values::Items;
use crate::gateway::price;

/// The version of the JSON form.
const VERSION: u32 = 1;

/// The whole report. The other variants are compared with the first one.
pub(super) struct Report {
    pub(super) variants: Vec<Info>,
    pub(super) calls: Vec<CallReport>,
    pub(super) totals: Vec<Total>,
}

/// A variant, for people.
pub(super) struct Info {
    pub(super) name: String,
    pub(super) what: String,
    analyses: Vec<String>,
}

/// One recording.
pub(super) struct CallReport {
    pub(super) id: String,
    pub(super) title: Option<String>,
    pub(super) length_ms: u64,
    pub(super) turns: usize,
    /// The summary that a person wrote.
    pub(super) reference: Option<String>,
    /// The runs, in the order of the variants.
    pub(super) runs: Vec<Run>,
}

/// One recording with one variant.
pub(super) struct Run {
    pub(super) call: Call,
    pub(super) figures: Figures,
}

/// A figure over all calls.
pub(super) struct Total {
    pub(super) metric: &'static Metric,
    /// The figures, in the order of the variants.
    pub(super) columns: Vec<Column>,
}

/// A figure of one variant.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Column {
    /// The sum over all calls; `None` if a sum has no meaning, or if the value of a call is unknown.
    pub(super) sum: Option<f64>,
    /// The mean per call.
    pub(super) mean: Option<Interval>,
    /// The mean difference from the first variant, per call.
    pub(super) difference: Option<Interval>,
    /// True if the figure is better than that of the first variant, false if it is worse; `None` if the difference may
    /// be due to chance, or is neither good nor bad.
    pub(super) better: Option<bool>,
}

impl Report {
    /// `runs`: the calls of each variant, all in the same order.
    pub(super) fn new(variants: &[Variant], runs: Vec<Vec<Call>>, labels: Option<&Labels>) -> Self {
        let mut calls: Vec<CallReport> = Vec::new();
        for (column, runs) in runs.into_iter().enumerate() {
            for (index, call) in runs.into_iter().enumerate() {
                if column == 0 {
                    let reference = labels.and_then(|labels| labels.of(&call.id)?.summary.clone());
                    calls.push(CallReport {
                        id: call.id.clone(),
                        title: call.title.clone(),
                        length_ms: call.length_ms,
                        turns: call.turns.len(),
                        reference,
                        runs: Vec::new(),
                    });
                }
                let report = &mut calls[index];
                let figures = Figures::of(&call, report.reference.as_deref());
                report.runs.push(Run { call, figures });
            }
        }
        let totals = METRICS.iter().map(|metric| Total::of(metric, variants.len(), &calls)).collect();
        let info = |variant: &Variant| Info {
            name: variant.name.clone(),
            what: variant.what.clone(),
            analyses: variant.analyses.clone(),
        };
        Self { variants: variants.iter().map(info).collect(), calls, totals }
    }

    /// The figures to show: without those that no variant has, and without those that are 0 for all variants.
    pub(super) fn telling(&self) -> impl Iterator<Item = &Total> {
        self.totals.iter().filter(|total| {
            let unknown = |column: &Column| column.mean.is_none() && total.metric.adds_up;
            let says = |column: &Column| unknown(column) || column.mean.is_some_and(|mean| mean.mean != 0.0);
            total.columns.iter().any(says)
        })
    }

    /// The JSON form.
    pub(super) fn json(&self) -> Value {
        let variants = self.variants.iter();
        let variants = variants.map(|info| json!({"name": info.name, "what": info.what, "analyses": info.analyses}));
        let totals = self.totals.iter().map(|total| {
            let columns = self.variants.iter().zip(&total.columns).map(|(info, column)| {
                let value = json!({
                    "sum": column.sum.map(number),
                    "mean": column.mean.map(|mean| interval(mean, total.metric.unit)),
                    "difference": column.difference.map(|mean| interval(mean, total.metric.unit)),
                    "better": column.better,
                });
                (info.name.clone(), value)
            });
            (total.metric.name.to_owned(), Value::Object(columns.collect()))
        });
        json!({
            "version": VERSION,
            "variants": variants.collect::<Vec<_>>(),
            "calls": self.calls.iter().map(|call| self.call_json(call)).collect::<Vec<_>>(),
            "totals": totals.collect::<serde_json::Map<_, _>>(),
        })
    }

    fn call_json(&self, call: &CallReport) -> Value {
        let runs = self.variants.iter().zip(&call.runs).map(|(info, run)| {
            let failures = run.call.failures.iter();
            let failures = failures.map(|(at_ms, failure)| json!({"at_ms": at_ms, "failure": failure}));
            let value = json!({
                "figures": run.figures,
                "timeline": timeline(&run.call),
                "failures": failures.collect::<Vec<_>>(),
            });
            (info.name.clone(), value)
        });
        json!({
            "call_id": call.id,
            "title": call.title,
            "length_ms": call.length_ms,
            "turns": call.turns,
            "has_summary_label": call.reference.is_some(),
            "runs": runs.collect::<serde_json::Map<_, _>>(),
        })
    }
}

/// All insights of a call in order of time, with the cost of each and its changes.
fn timeline(call: &Call) -> Vec<Value> {
    let mut entries: Vec<(u64, Value)> = Vec::new();
    for insights in call.insights.values() {
        for (index, Shown { at_ms, insight }) in insights.iter().enumerate() {
            let before = index.checked_sub(1).map(|before| &insights[before].insight.value);
            let items = insight.turn.is_none().then(|| Items::between(before, &insight.value));
            let cost = insight.provenance.cost_usd.map(price::pico);
            entries.push((*at_ms, json!({"at_ms": at_ms, "cost_pico": cost, "items": items, "insight": insight})));
        }
    }
    entries.sort_by_key(|(at_ms, _)| *at_ms);
    entries.into_iter().map(|(_, entry)| entry).collect()
}

impl Total {
    pub(super) fn of(metric: &'static Metric, variants: usize, calls: &[CallReport]) -> Self {
        let value = |call: &CallReport, column: usize| (metric.of)(&call.runs[column].figures);
        let columns = (0..variants).map(|column| {
            let values: Vec<Option<f64>> = calls.iter().map(|call| value(call, column)).collect();
            let sum = values.iter().copied().sum::<Option<f64>>().filter(|_| metric.adds_up);
            let mean = Interval::of(&values.into_iter().flatten().collect::<Vec<_>>());
            let pairs = calls.iter().filter_map(|call| value(call, 0).zip(value(call, column)));
            let pairs: Vec<(f64, f64)> = pairs.collect();
            let difference = Interval::of_differences(&pairs).filter(|_| column > 0);
            let certain = difference.filter(Interval::excludes_zero);
            let better = certain.zip(metric.more_is_better).map(|(by, more)| (by.mean > 0.0) == more);
            Column { sum, mean, difference, better }
        });
        Self { metric, columns: columns.collect() }
    }
}

/// A number as JSON, without a fraction if it is an integer.
fn number(value: f64) -> Value {
    if value.fract() != 0.0 || value.abs() >= 9e15 {
        return json!(value);
    }
    #[expect(clippy::cast_possible_truncation, reason = "an integer below 2^53")]
    let whole = value as i64;
    json!(whole)
}

/// Money is in whole pico-dollars.
fn interval(interval: Interval, unit: Unit) -> Value {
    let whole = |value: f64| number(if unit == Unit::Pico { value.round() } else { value });
    let Interval { mean, low, high, n } = interval;
    json!({"mean": whole(mean), "low": low.map(whole), "high": high.map(whole), "n": n})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_stay_whole_in_json() {
        assert_eq!((number(3.0), number(0.5)), (json!(3), json!(0.5)));
        let mean = Interval { mean: 2.5, low: Some(1.25), high: None, n: 2 };
        assert_eq!(interval(mean, Unit::Pico), json!({"mean": 3, "low": 1, "high": null, "n": 2}));
    }
}
