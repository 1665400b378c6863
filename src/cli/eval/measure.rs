//! Compares calls with their labels: figures for each set of calls, at several points of the calls' time. Knows no
//! output except its lines.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::cli::trial::{Call, Figures, Shown, Unit, shown, with_summary};
use crate::evaluation::interval::Interval;
use crate::evaluation::labels::{CallLabels, Labels};
use crate::evaluation::online::{self, SHARES};
use crate::evaluation::score::Score;
use crate::evaluation::values::Quotes;

/// The analysis that is compared with people's summaries.
pub(super) const SUMMARY: &str = "summary";
/// The analysis that is compared with labels of turns.
pub(super) const SENTIMENT: &str = "sentiment_turn";
/// Name of the group of calls whose labels name no source.
const NO_SOURCE: &str = "calls";
/// Name of the group of all calls.
const ALL: &str = "all";

/// The analyses that can be compared with the labels of a call.
pub(super) fn judged(labels: &CallLabels) -> Vec<String> {
    let summary = labels.summary.as_ref().map(|_| SUMMARY);
    let sentiment = (!labels.sentiment.is_empty()).then_some(SENTIMENT);
    summary.into_iter().chain(sentiment).map(str::to_owned).collect()
}

/// A figure about summaries.
struct Of {
    name: &'static str,
    title: &'static str,
    unit: Unit,
    of: fn(&online::Figures) -> Option<f64>,
}

const FIGURES: [Of; 6] = [
    Of { name: "rouge_1", title: "ROUGE-1", unit: Unit::Score, of: |figures| figures.rouge_1 },
    Of { name: "rouge_l", title: "ROUGE-L", unit: Unit::Score, of: |figures| figures.rouge_l },
    Of { name: "r1_auc", title: "R1-AUC", unit: Unit::Score, of: |figures| figures.r1_auc },
    Of { name: "el_ms", title: "EL", unit: Unit::Ms, of: |figures| figures.el_ms },
    Of { name: "ne", title: "NE", unit: Unit::Score, of: |figures| figures.ne },
    Of { name: "rf", title: "RF", unit: Unit::Score, of: |figures| figures.rf },
];

/// The calls of one set.
pub(super) struct Group {
    name: String,
    calls: Vec<Measured>,
}

/// One call.
#[derive(Clone)]
struct Measured {
    figures: Figures,
    /// The figures of the summary at each of [`SHARES`]; `None` without a summary by a person.
    summary: Option<[online::Figures; SHARES.len()]>,
    turns: Vec<Turn>,
    sentiment_source: Option<String>,
}

/// A turn with a label.
#[derive(Clone)]
struct Turn {
    /// When the turn became final, as a percentage of the call's time.
    percent: f64,
    gold: String,
    /// The label that the analysis gave; empty if there is no insight.
    found: String,
}

impl Measured {
    fn of(call: &Call, labels: &CallLabels) -> Self {
        let reference = labels.summary.as_deref();
        let at = |timeline: &online::Timeline<'_>| SHARES.map(|percent| timeline.at(percent));
        let end_ms = call.turns.values().map(|(at_ms, _)| *at_ms).max().unwrap_or(0).max(1);
        let found: BTreeMap<_, _> = call.of(SENTIMENT).iter().filter_map(label).collect();
        let labelled = call.spoken().filter_map(|(at_ms, turn)| {
            let number = turn.vendor_turn.clone().unwrap_or_else(|| turn.turn_order.to_string());
            let gold = labels.sentiment.get(&number)?.clone();
            let found = found.get(&turn.turn).map_or(String::new(), |found| (*found).to_owned());
            Some(Turn { percent: at_ms as f64 * 100.0 / end_ms as f64, gold, found })
        });
        Self {
            figures: Figures::of(call, reference),
            summary: reference.map(|reference| with_summary(call, Some(reference), at)),
            turns: labelled.collect(),
            sentiment_source: labels.sentiment_source.clone(),
        }
    }
}

/// The turn of an insight, and the label that the insight gives to it.
fn label(shown: &Shown) -> Option<(u64, &str)> {
    Some((shown.insight.turn?, shown.insight.value.get("label")?.as_str()?))
}

impl Group {
    /// The sets of calls by name, and all together if there are several.
    pub(super) fn all(calls: Vec<Call>, labels: &Labels) -> Vec<Self> {
        let mut groups: BTreeMap<String, Vec<Measured>> = BTreeMap::new();
        for call in calls {
            let Some(labels) = labels.of(&call.id) else { continue };
            let source = labels.source.clone().unwrap_or_else(|| NO_SOURCE.to_owned());
            groups.entry(source).or_default().push(Measured::of(&call, labels));
        }
        let mut groups: Vec<Self> = groups.into_iter().map(|(name, calls)| Self { name, calls }).collect();
        if groups.len() > 1 {
            let calls = groups.iter().flat_map(|group| group.calls.iter().cloned()).collect();
            groups.push(Self { name: ALL.to_owned(), calls });
        }
        groups
    }

    /// A heading.
    pub(super) fn title(&self) -> String {
        let calls = if self.calls.len() == 1 { "call" } else { "calls" };
        let mut title = format!("{}: {} {calls}", self.name, self.calls.len());
        let (all, answered) = (self.turns().count(), self.turns().filter(|turn| !turn.found.is_empty()).count());
        if all > 0 {
            title.push_str(&format!(", {all} turns with a label, {answered} answered"));
        }
        if let Some(source) = self.sentiment_source() {
            title.push_str(&format!(" (labels: {source})"));
        }
        title
    }

    fn turns(&self) -> impl Iterator<Item = &Turn> {
        self.calls.iter().flat_map(|call| &call.turns)
    }

    /// The source of the sentiment labels; `None` if they have different sources, or one without a name.
    fn sentiment_source(&self) -> Option<&str> {
        let mut sources = self.calls.iter().filter(|call| !call.turns.is_empty()).map(|call| &call.sentiment_source);
        let first = sources.next()?.as_deref()?;
        sources.all(|source| source.as_deref() == Some(first)).then_some(first)
    }

    /// The score of the turns that were final at this percentage of the call's time.
    fn score(&self, percent: u32) -> Option<Score> {
        let by_then = self.turns().filter(|turn| turn.percent <= f64::from(percent));
        Score::of(by_then.map(|turn| (turn.gold.as_str(), turn.found.as_str())))
    }

    fn summary(&self, of: &Of, share: usize) -> Option<Interval> {
        let figures = self.calls.iter().filter_map(|call| (of.of)(&call.summary.as_ref()?[share]));
        Interval::of(&figures.collect::<Vec<_>>())
    }

    fn sum<T: std::iter::Sum>(&self, of: impl Fn(&Figures) -> Option<T>) -> Option<T> {
        self.calls.iter().map(|call| of(&call.figures)).sum()
    }

    fn quotes(&self) -> Quotes {
        let mut quotes = Quotes::default();
        self.calls.iter().for_each(|call| quotes.add(call.figures.quotes));
        quotes
    }

    /// A header, then one line per figure.
    pub(super) fn lines(&self) -> Vec<Vec<String>> {
        let mut lines = vec![std::iter::once(String::new()).chain(SHARES.map(|share| format!("{share} %"))).collect()];
        let mut add = |title: &str, cells: Vec<Option<String>>| {
            if cells.iter().any(Option::is_some) {
                let cells = cells.into_iter().map(|cell| cell.unwrap_or_else(|| "-".to_owned()));
                lines.push(std::iter::once(title.to_owned()).chain(cells).collect::<Vec<String>>());
            }
        };
        let scores = SHARES.map(|share| self.score(share));
        let cells = |of: fn(Score) -> f64| scores.iter().map(|score| Some(format!("{:.3}", of((*score)?)))).collect();
        add("accuracy", cells(|score| score.accuracy));
        add("macro-F1", cells(|score| score.macro_f1));
        for figure in &FIGURES {
            let at = |share| self.summary(figure, share).map(|mean| shown(mean.mean, figure.unit));
            add(figure.title, (0..SHARES.len()).map(at).collect());
        }
        let quotes = self.quotes();
        let mut whole = |title: &str, text: Option<String>| {
            lines.push(vec![
                title.to_owned(),
                String::new(),
                String::new(),
                String::new(),
                text.unwrap_or("unknown".into()),
            ]);
        };
        if quotes.all > 0 {
            let title = format!("quotes in the transcript, of {}", quotes.all);
            whole(&title, quotes.precision().map(|precision| shown(precision, Unit::Share)));
        }
        let count = |count: u64| shown(count as f64, Unit::Count);
        whole("requests", self.sum(|figures| Some(figures.requests)).map(count));
        whole("input tokens", self.sum(|figures| figures.input).map(count));
        whole("from a cache", self.sum(|figures| figures.cached).map(count));
        whole("output tokens", self.sum(|figures| figures.output).map(count));
        whole("cost", self.sum(|figures| figures.cost_pico).map(|cost| shown(cost as f64, Unit::Pico)));
        whole("failed runs", self.sum(|figures| Some(figures.failed)).map(count));
        lines
    }

    /// The JSON form.
    pub(super) fn json(&self) -> Value {
        let at = |of: &dyn Fn(usize, u32) -> Value| {
            let shares = SHARES.iter().enumerate().map(|(index, share)| (share.to_string(), of(index, *share)));
            Value::Object(shares.collect())
        };
        let summary = FIGURES.iter().map(|figure| {
            let means = at(&|index, _| json!(self.summary(figure, index)));
            (figure.name.to_owned(), means)
        });
        let summary: serde_json::Map<String, Value> = summary.collect();
        let judged = self.calls.iter().filter(|call| call.summary.is_some()).count();
        let quotes = self.quotes();
        json!({
            "name": self.name,
            "calls": self.calls.len(),
            "sentiment": (self.turns().next().is_some()).then(|| json!({
                "turns": self.turns().count(),
                "answered": self.turns().filter(|turn| !turn.found.is_empty()).count(),
                "labels": self.sentiment_source(),
                "at": at(&|_, share| json!(self.score(share))),
            })),
            "summary": (judged > 0).then(|| json!({"calls": judged, "at": summary})),
            "evidence": {"quotes": quotes.all, "verified": quotes.verified, "precision": quotes.precision()},
            "requests": self.sum(|figures| Some(figures.requests)),
            "failed": self.sum(|figures| Some(figures.failed)),
            "tokens": {
                "input": self.sum(|figures| figures.input),
                "cached": self.sum(|figures| figures.cached),
                "output": self.sum(|figures| figures.output),
            },
            "cost_pico": self.sum(|figures| figures.cost_pico),
        })
    }
}
