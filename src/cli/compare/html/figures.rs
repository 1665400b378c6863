//! Tables of figures: over all calls, with intervals and differences, and of one call.
//!
//! Knows no value of an insight.

use std::fmt::Write as _;

use super::chart;
use super::text::escaped;
use crate::cli::compare::report::{CallReport, Column, Info, Report};
use crate::cli::trial::{METRICS, Metric, shown, shown_difference};
use crate::evaluation::interval::Interval;

/// Figures that are shown in large type.
const HEADLINES: [&str; 6] = ["cost_pico", "latency_ms_p50", "el_ms", "cached_share", "evidence_precision", "r1_auc"];

/// Sentences that say what is better and worse than with the first variant, and the most important figures.
pub(super) fn headlines(report: &Report) -> String {
    let mut out = String::from("<ul class=\"verdicts\">");
    for (index, info) in report.variants.iter().enumerate().skip(1) {
        let names = |better: bool| {
            let totals = report.telling().filter(|total| total.columns[index].better == Some(better));
            totals.map(|total| total.metric.title).collect::<Vec<_>>().join(", ")
        };
        let (better, worse) = (names(true), names(false));
        let base = escaped(&report.variants[0].name);
        let name = escaped(&info.name);
        let _ = match (better.as_str(), worse.as_str()) {
            ("", "") => write!(out, "<li><strong>{name}</strong>: no difference from {base} is beyond chance.</li>"),
            (better, "") => write!(out, "<li><strong>{name}</strong> is better than {base}: {better}.</li>"),
            ("", worse) => write!(out, "<li><strong>{name}</strong> is worse than {base}: {worse}.</li>"),
            (better, worse) => {
                write!(out, "<li><strong>{name}</strong> is better than {base}: {better}; and worse: {worse}.</li>")
            }
        };
    }
    out.push_str("</ul><div class=\"cards\">");
    for total in report.telling().filter(|total| HEADLINES.contains(&total.metric.name)) {
        let most =
            total.columns.iter().filter_map(|column| column.mean).map(|mean| mean.mean.abs()).fold(0.0, f64::max);
        let _ = write!(out, "<div class=\"card\"><h3>{}</h3>", escaped(total.metric.title));
        for (index, (info, column)) in report.variants.iter().zip(&total.columns).enumerate() {
            let value = column.mean.map_or("unknown".to_owned(), |mean| shown(mean.mean, total.metric.unit));
            let width = column.mean.map_or(0.0, |mean| if most > 0.0 { mean.mean.abs() / most * 100.0 } else { 0.0 });
            let _ = write!(
                out,
                "<p><span>{}</span><b>{value}</b></p><div class=\"bar\"><i class=\"{}\" style=\"width:{width:.0}%\"></i></div>",
                escaped(&info.name),
                chart::colour(index)
            );
        }
        out.push_str("</div>");
    }
    out.push_str("</div>");
    out
}

/// The table of all figures over all calls.
pub(super) fn totals(report: &Report) -> String {
    let mut out = String::from(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Figures over all calls\"><table>\
         <caption>Mean of a call, with the interval of 95 % over the calls</caption><thead><tr><th scope=\"col\">Figure</th>",
    );
    for (index, info) in report.variants.iter().enumerate() {
        let name = escaped(&info.name);
        let _ = write!(out, "<th scope=\"col\"><span class=\"who {}\">{name}</span></th>", chart::colour(index));
        if index > 0 {
            let base = escaped(&report.variants[0].name);
            let _ = write!(out, "<th scope=\"col\">{name} − {base}</th>");
        }
    }
    out.push_str("</tr></thead><tbody>");
    for total in report.telling() {
        let metric = total.metric;
        let _ = write!(out, "<tr><th scope=\"row\">{}</th>", escaped(metric.title));
        for (index, column) in total.columns.iter().enumerate() {
            let (name, base) = (escaped(&report.variants[index].name), escaped(&report.variants[0].name));
            let _ = write!(out, "<td data-name=\"{name}\">{}</td>", mean(column, metric));
            if index > 0 {
                let _ = write!(out, "<td data-name=\"{name} − {base}\">{}</td>", difference(column, metric));
            }
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table></div>");
    out
}

fn mean(column: &Column, metric: &Metric) -> String {
    let Some(mean) = column.mean else { return "unknown".to_owned() };
    let sum = column.sum.map_or(String::new(), |sum| format!("<small>{} in all</small>", shown(sum, metric.unit)));
    format!("{}{}{sum}", shown(mean.mean, metric.unit), range(mean, |value| shown(value, metric.unit)))
}

fn difference(column: &Column, metric: &Metric) -> String {
    let Some(difference) = column.difference else { return String::new() };
    let (class, word) = match column.better {
        Some(true) => ("good", "<em class=\"good\">better</em>"),
        Some(false) => ("bad", "<em class=\"bad\">worse</em>"),
        None => ("", ""),
    };
    format!(
        "{} {word}{}{}",
        shown_difference(difference.mean, metric.unit),
        chart::difference(difference, class),
        range(difference, |value| shown_difference(value, metric.unit))
    )
}

/// The ends of an interval; empty if they are equal or unknown.
fn range(interval: Interval, shown: impl Fn(f64) -> String) -> String {
    match interval.low.zip(interval.high).filter(|(low, high)| low < high) {
        Some((low, high)) => format!("<small>{} to {}</small>", shown(low), shown(high)),
        None => String::new(),
    }
}

/// The table of one call.
pub(super) fn of_call(call: &CallReport, variants: &[Info]) -> String {
    let mut out = String::from(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Figures of the call\"><table><thead><tr>\
         <th scope=\"col\">Figure</th>",
    );
    for (index, info) in variants.iter().enumerate() {
        let (colour, name) = (chart::colour(index), escaped(&info.name));
        let _ = write!(out, "<th scope=\"col\"><span class=\"who {colour}\">{name}</span></th>");
    }
    out.push_str("</tr></thead><tbody>");
    for metric in METRICS {
        let values: Vec<Option<f64>> = call.runs.iter().map(|run| (metric.of)(&run.figures)).collect();
        if values.iter().all(Option::is_none) {
            continue;
        }
        let _ = write!(out, "<tr><th scope=\"row\">{}</th>", escaped(metric.title));
        for (info, value) in variants.iter().zip(values) {
            let value = value.map_or("unknown".to_owned(), |value| shown(value, metric.unit));
            let _ = write!(out, "<td data-name=\"{}\">{value}</td>", escaped(&info.name));
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table></div>");
    out
}

/// The list that explains each figure of the report.
pub(super) fn meanings() -> String {
    let mut out = String::from("<dl>");
    for Metric { title, meaning, .. } in METRICS {
        let _ = write!(out, "<dt>{}</dt><dd>{}</dd>", escaped(title), escaped(meaning));
    }
    out.push_str("</dl>");
    out
}
