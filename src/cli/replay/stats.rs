//! The figures of a replay: counts per call, their sum, and the output of both. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

/// Latencies, from which percentiles are computed by nearest rank.
#[derive(Debug, Default, Clone)]
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    /// Adds a sample.
    pub(crate) fn push(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    /// Adds all of `other`.
    pub(crate) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The median and the 99th percentile, in ms; `None` without a sample.
    pub(crate) fn quantiles(&mut self) -> Quantiles {
        self.0.sort_unstable();
        Quantiles { p50: self.rank(0.50), p99: self.rank(0.99) }
    }

    /// The sample at the nearest rank: at least the share `quantile` of all samples is not above it. In ms.
    fn rank(&self, quantile: f64) -> Option<f64> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the length")]
        let rank = (quantile * self.0.len() as f64).ceil() as usize;
        let sample = self.0.get(rank.max(1) - 1)?;
        // Rounded to a hundredth of a millisecond: further digits would not be accurate.
        Some((sample.as_secs_f64() * 100_000.0).round() / 100.0)
    }
}

/// Two quantiles, ms.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Quantiles {
    /// Median.
    pub p50: Option<f64>,
    /// 99th percentile.
    pub p99: Option<f64>,
}

/// Result of one call.
#[derive(Debug, Default)]
pub(crate) struct CallReport {
    /// Number of turns that the daemon lists.
    pub(crate) turns: usize,
    /// Number of different insights that arrived.
    pub(crate) insights: usize,
    /// Number of jobs that failed.
    pub(crate) failures: usize,
    /// Number of final turns that were sent and that the daemon does not list.
    pub(crate) lost: usize,
    /// Number of lines of the recording that cannot be read and are left out.
    pub(crate) skipped: usize,
    /// Number of frames that were sent again.
    pub(crate) resent: usize,
    /// Number of connections after the first.
    pub(crate) reconnects: usize,
    /// Time from a frame with a final turn to its ack.
    pub(crate) acks: Samples,
    /// Time from the frame of the newest turn covered to the first insight that covers it, by analysis.
    pub(crate) insight_times: BTreeMap<String, Samples>,
}

/// The sum over all calls.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    /// Number of calls.
    pub(crate) calls: usize,
    /// Number of calls that ended in an error, and of recordings that cannot be played.
    pub(crate) failed: usize,
    sum: CallReport,
}

/// The last line of `--json`, exactly as it is printed.
#[derive(Debug, Serialize)]
pub(crate) struct LastLine {
    calls: usize,
    turns: usize,
    insights: usize,
    lost: usize,
    /// Left out if it is 0.
    #[serde(skip_serializing_if = "is_zero")]
    skipped: usize,
    ack_ms: Quantiles,
    insight_ms: Quantiles,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde fixes the signature")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl LastLine {
    /// The figures as one sentence.
    pub(crate) fn sentence(&self) -> String {
        let lost = if self.lost == 0 { "nothing lost".to_owned() } else { format!("{} lost", self.lost) };
        format!(
            "{} turns, {} insights, {lost}; turn to ack {}; turn to insight {}",
            self.turns,
            self.insights,
            latency(self.ack_ms),
            latency(self.insight_ms)
        )
    }
}

impl Totals {
    pub(crate) fn add(&mut self, call: CallReport) {
        let sum = &mut self.sum;
        self.calls += 1;
        sum.turns += call.turns;
        sum.insights += call.insights;
        sum.failures += call.failures;
        sum.lost += call.lost;
        sum.skipped += call.skipped;
        sum.resent += call.resent;
        sum.reconnects += call.reconnects;
        sum.acks.extend(call.acks);
        for (analysis, samples) in call.insight_times {
            sum.insight_times.entry(analysis).or_default().extend(samples);
        }
    }

    /// Returns true if nothing was lost and no call failed.
    pub(crate) fn clean(&self) -> bool {
        self.sum.lost == 0 && self.failed == 0
    }

    /// The last line of `--json`.
    pub(crate) fn last_line(&mut self) -> LastLine {
        let mut insight_times = Samples::default();
        self.sum.insight_times.values().for_each(|samples| insight_times.extend(samples.clone()));
        LastLine {
            calls: self.calls,
            turns: self.sum.turns,
            insights: self.sum.insights,
            lost: self.sum.lost,
            skipped: self.sum.skipped,
            ack_ms: self.sum.acks.quantiles(),
            insight_ms: insight_times.quantiles(),
        }
    }

    /// The summary for people: one row of label and text per figure.
    pub(crate) fn rows(&mut self, took: Duration) -> Vec<(String, String)> {
        let line = self.last_line();
        let sum = &mut self.sum;
        let mut rows: Vec<(String, String)> = vec![
            ("calls".into(), with_note(line.calls, self.failed, "failed")),
            ("turns".into(), line.turns.to_string()),
            ("insights".into(), with_note(line.insights, sum.failures, "failed jobs")),
            ("turn to ack".into(), latency(line.ack_ms)),
            ("turn to insight".into(), latency(line.insight_ms)),
        ];
        if sum.insight_times.len() > 1 {
            for (analysis, samples) in &mut sum.insight_times {
                rows.push((format!("  {analysis}"), latency(samples.quantiles())));
            }
        }
        if sum.reconnects > 0 {
            rows.push(("reconnects".into(), format!("{} ({} frames sent again)", sum.reconnects, sum.resent)));
        }
        if line.skipped > 0 {
            rows.push(("skipped".into(), format!("{} lines that cannot be read", line.skipped)));
        }
        rows.push((
            "lost".into(),
            if line.lost == 0 { "nothing".to_owned() } else { format!("{} final turns", line.lost) },
        ));
        rows.push(("took".into(), format!("{:.1} s", took.as_secs_f64())));
        rows
    }
}

fn with_note(count: usize, noted: usize, note: &str) -> String {
    if noted == 0 { count.to_string() } else { format!("{count} ({noted} {note})") }
}

fn latency(quantiles: Quantiles) -> String {
    match (quantiles.p50, quantiles.p99) {
        (Some(p50), Some(p99)) => format!("{} p50, {} p99", millis(p50), millis(p99)),
        _ => "none measured".to_owned(),
    }
}

fn millis(value: f64) -> String {
    if value < 10.0 { format!("{value:.2} ms") } else { format!("{value:.0} ms") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_by_nearest_rank() {
        let mut samples = Samples::default();
        assert_eq!(samples.quantiles(), Quantiles { p50: None, p99: None });
        samples.push(Duration::from_micros(1234));
        assert_eq!(samples.quantiles(), Quantiles { p50: Some(1.23), p99: Some(1.23) });
        let mut samples = Samples((1..=200).rev().map(Duration::from_millis).collect());
        assert_eq!(samples.quantiles(), Quantiles { p50: Some(100.0), p99: Some(198.0) });
        assert_eq!(samples.len(), 200);
    }

    #[test]
    fn the_last_line_has_the_documented_keys_and_no_other() {
        let mut totals = Totals::default();
        totals.add(CallReport { turns: 3, insights: 2, lost: 1, ..CallReport::default() });
        let line = serde_json::to_string(&totals.last_line()).expect("json");
        assert_eq!(
            line,
            r#"{"calls":1,"turns":3,"insights":2,"lost":1,"ack_ms":{"p50":null,"p99":null},"insight_ms":{"p50":null,"p99":null}}"#
        );
        assert!(!totals.clean());
        let mut totals = Totals::default();
        totals.add(CallReport { turns: 3, skipped: 2, ..CallReport::default() });
        let line = serde_json::to_value(totals.last_line()).expect("json");
        assert_eq!(line["skipped"], 2);
        assert!(totals.clean(), "all that could be sent is there");
    }
}
