//! The part of the page about one call: its charts, the last values of all variants side by side, and all revisions of
//! these values. Knows no figure over several calls.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::chart::{self, Lane, Steps, colour};
use super::figures;
use super::text::{self, Show, escaped};
use crate::cli::compare::report::{CallReport, Info, Run};
use crate::cli::screen::clock;
use crate::cli::trial::{Shown, Unit, shown, with_summary};
use crate::gateway::price;
use crate::types::{Insight, TurnNo, provider};

/// Maximum number of turns that are shown for a per-turn analysis. Turns in which the variants differ come first.
const MAX_TURNS: usize = 200;

/// Writes the part about one call. `open`: it is shown expanded.
pub(super) fn section(call: &CallReport, variants: &[Info], open: bool) -> String {
    let title = call.title.as_deref().unwrap_or(&call.id);
    let open = if open { " open" } else { "" };
    let mut out = format!("<details class=\"call\"{open}><summary><h3>{}</h3><p class=\"facts\">", escaped(title));
    if call.title.is_some() {
        let _ = write!(out, "{} · ", escaped(&call.id));
    }
    let _ = write!(out, "{} · {} turns</p></summary>", clock(call.length_ms), call.turns);
    failures(call, variants, &mut out);
    out.push_str(&chart::lanes(&lanes(call, variants), call.length_ms, "When insights were published"));
    summaries(call, variants, &mut out);
    out.push_str("<details><summary>Figures of this call</summary>");
    out.push_str(&figures::of_call(call, variants));
    out.push_str("</details>");
    for analysis in analyses(call) {
        let per_turn = call.runs.iter().flat_map(|run| run.call.of(analysis)).any(|shown| shown.insight.turn.is_some());
        let _ = write!(out, "<h4>{}</h4>", escaped(&analysis.replace('_', " ")));
        match per_turn {
            true => turns(call, variants, analysis, &mut out),
            false => rolling(call, variants, analysis, &mut out),
        }
    }
    if let Some(reference) = &call.reference {
        let _ = write!(
            out,
            "<details><summary>The summary that a person wrote</summary><div class=\"cell\"><p>{}</p></div></details>",
            escaped(reference)
        );
    }
    out.push_str("</details>");
    out
}

/// Analyses for which any variant asked a model.
fn analyses(call: &CallReport) -> BTreeSet<&str> {
    let insights = call.runs.iter().flat_map(|run| &run.call.insights);
    let asked = insights
        .filter(|(_, shown)| shown.iter().any(|shown| !provider::is_computed(&shown.insight.provenance.endpoint)));
    asked.map(|(name, _)| name.as_str()).collect()
}

fn failures(call: &CallReport, variants: &[Info], out: &mut String) {
    for (info, run) in variants.iter().zip(&call.runs) {
        let mut counts: BTreeMap<(&str, &str, &str), u64> = BTreeMap::new();
        for (_, failure) in &run.call.failures {
            let kind = (failure.analysis.as_str(), failure.code.as_str(), failure.message.as_str());
            *counts.entry(kind).or_default() += 1;
        }
        for ((analysis, code, message), count) in counts {
            let times = if count == 1 { "once".to_owned() } else { format!("{count} times") };
            let _ = write!(
                out,
                "<p class=\"failure\"><strong>{}</strong>: {} failed {times}: {} ({})</p>",
                escaped(&info.name),
                escaped(analysis),
                escaped(message),
                escaped(code)
            );
        }
    }
}

/// A chart of when turns became final and when insights were published.
fn lanes<'a>(call: &'a CallReport, variants: &'a [Info]) -> Vec<Lane<'a>> {
    let said = call.runs.first().into_iter().flat_map(|run| run.call.spoken());
    let said = said.map(|(at_ms, turn)| (at_ms, format!("turn {}", turn.turn))).collect();
    let mut lanes = vec![Lane { name: "turns", colour: "turn".to_owned(), marks: said }];
    for (index, (info, run)) in variants.iter().zip(&call.runs).enumerate() {
        let insights = run.call.insights.values().flatten().filter(|shown| shown.insight.turn.is_none());
        let marks = insights.map(|Shown { at_ms, insight }| (*at_ms, format!("{} {}", insight.analysis, insight.rev)));
        lanes.push(Lane { name: &info.name, colour: colour(index), marks: marks.collect() });
    }
    lanes
}

/// A chart of the summaries' ROUGE-1 over time.
fn summaries(call: &CallReport, variants: &[Info], out: &mut String) {
    let reference = call.reference.as_deref();
    let curve = |run: &Run| with_summary(&run.call, reference, |timeline| timeline.curve());
    let lines = call.runs.iter().enumerate().map(|(index, run)| Steps { colour: colour(index), points: curve(run) });
    let chart =
        chart::steps(&lines.collect::<Vec<_>>(), call.length_ms, "ROUGE-1 of the summaries over the call's time");
    if !chart.is_empty() {
        let keys = variants.iter().enumerate();
        let keys = keys.map(|(index, info)| format!("<i class=\"{}\"></i>{}", colour(index), escaped(&info.name)));
        let keys = keys.collect::<Vec<_>>().join(" ");
        let _ = write!(out, "<p class=\"key\">ROUGE-1 of the current summary: {keys}</p>{chart}");
    }
}

/// The last value of each variant, compared with the first variant's; and all revisions, each compared with the one before.
fn rolling(call: &CallReport, variants: &[Info], analysis: &str, out: &mut String) {
    let last = |run: &Run| run.call.of(analysis).last().cloned();
    let base = call.runs.first().and_then(last);
    out.push_str("<div class=\"side\">");
    for (index, (info, run)) in variants.iter().zip(&call.runs).enumerate() {
        let body = match last(run) {
            None => "<p class=\"same\">no insight</p>".to_owned(),
            Some(Shown { insight, .. }) => {
                let before = base.as_ref().filter(|_| index > 0).map(|base| &base.insight.value);
                let value = match before.filter(|before| **before == insight.value) {
                    Some(_) => format!("<p class=\"same\">the same as {}</p>", escaped(&variants[0].name)),
                    None => text::value(before, &insight.value, Show::All),
                };
                value + &about(&insight)
            }
        };
        cell(index, info, &body, out);
    }
    out.push_str("</div>");
    let counts: Vec<String> = call.runs.iter().map(|run| run.call.of(analysis).len().to_string()).collect();
    let _ = write!(out, "<details><summary>Timeline: {} revisions</summary>", counts.join(" and "));
    let mut moments: BTreeMap<u64, Vec<(usize, usize)>> = BTreeMap::new();
    for (column, run) in call.runs.iter().enumerate() {
        for (index, shown) in run.call.of(analysis).iter().enumerate() {
            moments.entry(shown.at_ms).or_default().push((column, index));
        }
    }
    for (at_ms, found) in moments {
        let _ = write!(out, "<h5>{}</h5><div class=\"side\">", clock(at_ms));
        for (column, (info, run)) in variants.iter().zip(&call.runs).enumerate() {
            let of_column = found.iter().filter(|(of, _)| *of == column);
            let body: String = of_column.map(|(_, index)| revision(run.call.of(analysis), *index)).collect();
            if body.is_empty() {
                out.push_str("<div class=\"cell none\"></div>");
            } else {
                cell(column, info, &body, out);
            }
        }
        out.push_str("</div>");
    }
    out.push_str("</details>");
}

fn revision(insights: &[Shown], index: usize) -> String {
    let insight = &insights[index].insight;
    match index.checked_sub(1).map(|before| &insights[before].insight.value) {
        None => text::value(None, &insight.value, Show::All) + &about(insight),
        before => text::value(before, &insight.value, Show::Changes) + &about(insight),
    }
}

/// The values of a per-turn analysis, by turn.
fn turns(call: &CallReport, variants: &[Info], analysis: &str, out: &mut String) {
    let of_turn = |run: &Run, turn: TurnNo| {
        let shown = run.call.of(analysis).iter().rev().find(|shown| shown.insight.turn == Some(turn));
        shown.map(|shown| shown.insight.value.clone())
    };
    let Some(first) = call.runs.first() else { return };
    let rows = first.call.spoken().map(|(_, turn)| {
        let values: Vec<_> = call.runs.iter().map(|run| of_turn(run, turn.turn)).collect();
        let same = values.iter().all(|value| *value == values[0]);
        (same, turn, values)
    });
    let mut rows: Vec<_> = rows.collect();
    let (count, differ) = (rows.len(), rows.iter().filter(|(same, ..)| !same).count());
    rows.sort_by_key(|(same, ..)| *same);
    let _ = write!(out, "<details><summary>{count} turns, of which {differ} differ</summary>");
    for (_, turn, values) in rows.into_iter().take(MAX_TURNS) {
        let speaker = turn.speaker.as_deref().map_or(String::new(), |speaker| format!("{speaker}: "));
        let said = escaped(&format!("{speaker}{}", turn.text));
        let _ = write!(out, "<h5>{}</h5><p class=\"said\">{said}</p><div class=\"side\">", clock(turn.start_ms));
        for (index, (info, value)) in variants.iter().zip(&values).enumerate() {
            let before = values[0].as_ref().filter(|_| index > 0);
            let body = value.as_ref().map(|value| text::value(before, value, Show::All));
            cell(index, info, &body.unwrap_or_else(|| "<p class=\"same\">no insight</p>".to_owned()), out);
        }
        out.push_str("</div>");
    }
    if count > MAX_TURNS {
        let _ = write!(out, "<p class=\"facts\">{} more turns are left out here.</p>", count - MAX_TURNS);
    }
    out.push_str("</details>");
}

fn cell(index: usize, info: &Info, body: &str, out: &mut String) {
    let (colour, name) = (colour(index), escaped(&info.name));
    let _ = write!(out, "<div class=\"cell\"><p class=\"who {colour}\">{name}</p>{body}</div>");
}

/// The model that made an insight, and the insight's time, tokens and cost.
fn about(insight: &Insight) -> String {
    let Insight { provenance, latency_ms, .. } = insight;
    let mut facts = vec![format!("{} after the turn", shown(latency_ms.total as f64, Unit::Ms))];
    if insight.behind_turns > 0 {
        facts.push(format!("{} turns behind", insight.behind_turns));
    }
    if let (Some(input), Some(output), true) =
        (provenance.usage.input, provenance.usage.output, provenance.attempts > 0)
    {
        let cached = provenance.usage.cached.map_or(String::new(), |cached| format!(" ({cached} from a cache)"));
        facts.push(format!("{input} tokens in{cached}, {output} out"));
    }
    if let Some(cost) = provenance.cost_usd.filter(|cost| *cost > 0.0) {
        facts.push(shown(price::pico(cost) as f64, Unit::Pico));
    }
    facts.push(format!("{} ({})", provenance.model, String::from(insight.trigger.clone())));
    let unverified = insight.evidence.iter().filter(|quote| quote.unverified).count();
    if unverified > 0 {
        facts.push(format!("{unverified} quotes not in the transcript"));
    }
    format!("<p class=\"about\">{}</p>", escaped(&facts.join(" · ")))
}
