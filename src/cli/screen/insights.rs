//! Insights on a terminal: their headings, their values with marks at what changed, and their quotes; also why an
//! analysis has no insight.
//!
//! Knows no other frame.

use std::io::{self, Write};

use owo_colors::OwoColorize as _;
use serde::Deserialize as _;
use serde_json::Value;

use super::text::{harmless, wrap};
use super::value::{Line, lines as value_lines, unverified};
use super::{Screen, word};
use crate::types::Status;

impl<W: Write> Screen<W> {
    /// Shows quotes below an insight.
    ///
    /// # Errors
    /// The output is closed.
    pub(crate) fn quotes(&mut self, quotes: &[String]) -> io::Result<()> {
        let lines: Vec<Line> = quotes.iter().map(|quote| Line { depth: 1, text: harmless(quote) }).collect();
        self.pause()?;
        // Dimmed, because they are known already.
        self.value(&lines, &lines)?;
        self.out.flush()
    }

    /// Shows an insight.
    ///
    /// # Errors
    /// The output is closed.
    pub(crate) fn insight(&mut self, call: &str, insight: &Value) -> io::Result<()> {
        let analysis = word(&insight["analysis"]);
        let per_turn = insight["turn"].as_u64();
        let mut facts = vec![match per_turn {
            Some(turn) => format!("turn {turn}"),
            None => covers(&insight["covers"]),
        }];
        let endpoint = word(&insight["provenance"]["endpoint"]);
        if !endpoint.is_empty() {
            let model = word(&insight["provenance"]["model"]);
            let by = if model == endpoint || model.is_empty() { endpoint } else { format!("{endpoint} {model}") };
            facts.push(if insight["degraded"] == true { format!("{by}, degraded") } else { by });
        }
        if let Some(ms) = insight["latency_ms"]["total"].as_u64() {
            facts.push(format!("{ms} ms"));
        }
        if Status::deserialize(&insight["status"]).is_ok_and(|status| status == Status::Final) && per_turn.is_none() {
            facts.push("final".to_owned());
        }
        let value = &insight["value"];
        let mut lines = value_lines(value);
        lines.extend(unverified(&insight["evidence"]));
        let state = self.calls.entry(call.to_owned()).or_default();
        let before = if per_turn.is_none() { state.shown.insert(analysis.clone(), lines.clone()) } else { None };
        let before = before.unwrap_or_default();
        let same = before == lines;
        if same {
            facts.push("unchanged".to_owned());
        }
        self.pause()?;
        let name = self.name(call);
        let facts = facts.join(" · ");
        writeln!(self.out, "{}{:>7}  {} {}", name.dimmed(), "▌".yellow(), analysis.bold(), facts.dimmed())?;
        if !same {
            self.value(&lines, &before)?;
        }
        Ok(())
    }

    /// Writes `lines`; those that are also in `before` are dimmed.
    fn value(&mut self, lines: &[Line], before: &[Line]) -> io::Result<()> {
        let name = self.name("");
        for line in lines {
            let known = before.contains(line);
            let indent = line.depth * 2;
            let bullet = if line.text.starts_with("- ") { 2 } else { 0 };
            let room = self.width.saturating_sub(self.margin() + 4 + indent + bullet);
            for (index, text) in wrap(&line.text, room).iter().enumerate() {
                let hang = if index == 0 { indent } else { indent + bullet };
                let text = if known { text.dimmed().to_string() } else { tinted(text) };
                writeln!(self.out, "{name}{:>7}  {:hang$}{text}", "▌".yellow(), "")?;
            }
        }
        Ok(())
    }

    /// Shows that an analysis has no result.
    ///
    /// # Errors
    /// The output is closed.
    pub(crate) fn failed(&mut self, call: &str, analysis: &str, why: &str) -> io::Result<()> {
        let line = format!("{} failed: {}", harmless(analysis), harmless(why));
        self.pause()?;
        let name = self.name(call);
        for text in wrap(&line, self.width.saturating_sub(self.margin() + 4)) {
            writeln!(self.out, "{}{:>7}  {}", name.dimmed(), "▌".red(), text.red())?;
        }
        Ok(())
    }
}

/// Colours the words for a mood or a trend.
fn tinted(line: &str) -> String {
    line.split(' ')
        .map(|word| match word.trim_end_matches([',', '.', ';']) {
            "positive" | "improving" | "rising" => word.green().to_string(),
            "negative" | "worsening" | "falling" | "declining" => word.red().to_string(),
            "mixed" => word.yellow().to_string(),
            "·" => word.dimmed().to_string(),
            _ => word.to_owned(),
        })
        .collect::<Vec<_>>()
        .join(" ")
}

/// Why an analysis failed: code, message, and whether it is tried again.
pub(super) fn reason(failed: &Value) -> String {
    let again = if failed["temporary"] == true { "; it will be tried again" } else { "" };
    let message = word(&failed["message"]);
    let message = if message.is_empty() { message } else { format!(": {message}") };
    format!("{}{message}{again}", word(&failed["code"]))
}

fn covers(covers: &Value) -> String {
    match (covers["from"].as_u64(), covers["to"].as_u64()) {
        (Some(from), Some(to)) if from == to => format!("turn {to}"),
        (Some(from), Some(to)) => match covers["digest_to"].as_u64() {
            Some(short) => format!("turns {from}–{to}, in short to {short}"),
            None => format!("turns {from}–{to}"),
        },
        _ => "no turn".to_owned(),
    }
}
