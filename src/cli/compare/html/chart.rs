//! Charts as inline SVG: intervals of differences, times of insights, and the quality of summaries over time. Knows no
//! page. Colours are classes of the page's style sheet; each chart also contains its data as text.

use std::fmt::Write as _;

use super::text::escaped;
use crate::cli::screen::clock;
use crate::evaluation::interval::Interval;

/// Width of a chart over time, in its own units.
const WIDTH: f64 = 720.0;
/// Height of a lane.
const LANE: f64 = 22.0;
/// Space at the left for names, and at the right.
const LEFT: f64 = 84.0;
const RIGHT: f64 = 12.0;
/// Longest name at the left, characters.
const NAME_CHARS: usize = 11;

/// The classes of the variants' colours, in order; a seventh variant has the first one's colour.
pub(super) fn colour(variant: usize) -> String {
    format!("v{}", variant % 6)
}

/// A difference with its interval around a line at 0; `class` says whether it is good.
pub(super) fn difference(interval: Interval, class: &str) -> String {
    let (low, high) = (interval.low.unwrap_or(interval.mean), interval.high.unwrap_or(interval.mean));
    let most = low.abs().max(high.abs());
    if most == 0.0 {
        return String::new();
    }
    let x = |value: f64| 60.0 + value / most * 54.0;
    format!(
        "<svg class=\"forest {class}\" viewBox=\"0 0 120 16\" width=\"120\" height=\"16\" aria-hidden=\"true\">\
         <line class=\"zero\" x1=\"60\" y1=\"0\" x2=\"60\" y2=\"16\"/><line class=\"range\" x1=\"{:.1}\" y1=\"8\" x2=\"{:.1}\" y2=\"8\"/>\
         <circle cx=\"{:.1}\" cy=\"8\" r=\"3.5\"/></svg>",
        x(low),
        x(high),
        x(interval.mean)
    )
}

/// A lane of a chart over time.
pub(super) struct Lane<'a> {
    pub(super) name: &'a str,
    /// Class of its colour.
    pub(super) colour: String,
    /// Times, ms, and what happened then.
    pub(super) marks: Vec<(u64, String)>,
}

/// Marks on lanes over a call's time.
pub(super) fn lanes(lanes: &[Lane<'_>], length_ms: u64, label: &str) -> String {
    let height = LANE * lanes.len() as f64 + 18.0;
    let mut out = open(height, label);
    for (index, lane) in lanes.iter().enumerate() {
        let y = LANE * index as f64 + LANE / 2.0;
        let name: String = lane.name.chars().take(NAME_CHARS).collect();
        let _ = write!(
            out,
            "<text x=\"0\" y=\"{:.1}\">{}</text><line class=\"grid\" x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\"/>",
            y + 4.0,
            escaped(&name),
            WIDTH - RIGHT
        );
        for (at_ms, what) in &lane.marks {
            let _ = write!(
                out,
                "<circle class=\"{}\" cx=\"{:.1}\" cy=\"{y:.1}\" r=\"4\"><title>{} {}</title></circle>",
                lane.colour,
                x(*at_ms, length_ms),
                clock(*at_ms),
                escaped(what)
            );
        }
    }
    axis(&mut out, height, length_ms);
    out
}

/// A line that stays at each value until the next, from 0 to 1.
pub(super) struct Steps {
    /// Class of its colour.
    pub(super) colour: String,
    /// Times, ms, and values.
    pub(super) points: Vec<(u64, f64)>,
}

/// Lines of steps over a call's time. The highest value is at the top.
pub(super) fn steps(lines: &[Steps], length_ms: u64, label: &str) -> String {
    const TOP: f64 = 8.0;
    const BASE: f64 = 108.0;
    let most = lines.iter().flat_map(|line| &line.points).map(|(_, value)| *value).fold(0.0, f64::max);
    if most == 0.0 {
        return String::new();
    }
    let y = |value: f64| BASE - value / most * (BASE - TOP);
    let mut out = open(BASE + 20.0, label);
    for (value, text) in [(0.0, "0".to_owned()), (most, format!("{most:.2}"))] {
        let _ = write!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text><line class=\"grid\" x1=\"{LEFT}\" y1=\"{2:.1}\" x2=\"{3:.1}\" y2=\"{2:.1}\"/>",
            LEFT - 8.0,
            y(value) + 4.0,
            y(value),
            WIDTH - RIGHT
        );
    }
    for line in lines {
        let mut path = format!("M{LEFT} {BASE}");
        for (at_ms, value) in &line.points {
            let _ = write!(path, " H{:.1} V{:.1}", x(*at_ms, length_ms), y(*value));
        }
        let _ = write!(out, "<path class=\"{}\" d=\"{path} H{:.1}\"/>", line.colour, WIDTH - RIGHT);
    }
    axis(&mut out, BASE + 20.0, length_ms);
    out
}

fn open(height: f64, label: &str) -> String {
    let label = escaped(label);
    format!("<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{label}\">")
}

/// The times below a chart, and its end.
fn axis(out: &mut String, height: f64, length_ms: u64) {
    for part in 0..=4 {
        let at_ms = length_ms * part / 4;
        let anchor = ["start", "middle", "middle", "middle", "end"][usize::try_from(part).unwrap_or(0)];
        let (x, y) = (x(at_ms, length_ms), height - 3.0);
        let _ = write!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>", clock(at_ms));
    }
    out.push_str("</svg>");
}

fn x(at_ms: u64, length_ms: u64) -> f64 {
    let share = at_ms.min(length_ms) as f64 / length_ms.max(1) as f64;
    LEFT + share * (WIDTH - LEFT - RIGHT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_in_charts_is_never_markup() {
        let lane = Lane { name: "<b>", colour: colour(7), marks: vec![(500, "</title><script>".to_owned())] };
        let chart = lanes(&[lane], 1_000, "\"onload=");
        assert!(!chart.contains("<script") && !chart.contains("<b>") && chart.contains("class=\"v1\""), "{chart}");
        assert!(chart.contains("aria-label=\"&quot;onload=\""), "{chart}");
    }

    #[test]
    fn empty_data_draws_no_chart() {
        let zero = Interval { mean: 0.0, low: Some(0.0), high: Some(0.0), n: 2 };
        assert_eq!(difference(zero, ""), "");
        assert_eq!(steps(&[Steps { colour: colour(0), points: vec![(5, 0.0)] }], 10, "x"), "");
        assert!(lanes(&[], 0, "empty").ends_with("</svg>"));
    }
}
