//! The report about one file: facts about it, its insights, and the places of their evidence in the conversation.
//!
//! Knows no analysis: values have any form.

use std::io::{self, Write};
use std::path::Path;

use owo_colors::OwoColorize as _;
use serde_json::{Value, json};

use super::ask::Answer;
use crate::cli::input::{self, Input};
use crate::cli::screen::{Screen, clock, harmless};
use crate::transcript::Times;
use crate::types::Turn;

/// Maximum number of speakers that are named in the line above a report.
const MAX_SPEAKERS: usize = 6;
/// Order in which analyses are shown; others follow by name.
const ORDER: [&str; 9] = [
    "call_report",
    "summary",
    "action_items",
    "questions",
    "next_best_action",
    "topics",
    "entities",
    "speakers",
    "sentiment",
];

/// One file's answer.
pub(super) struct Report {
    /// The path as given.
    path: String,
    /// The file's name.
    pub(super) name: String,
    /// The file's own title.
    pub(super) title: Option<String>,
    /// `vtt`, or `recording` and its dialect.
    source: String,
    times: Option<Times>,
    answer: Answer,
    /// Notes about the file, for stderr.
    pub(super) notes: Vec<String>,
}

impl Report {
    pub(super) fn new(path: &Path, input: &Input, answer: Answer, mut notes: Vec<String>) -> Self {
        let (title, source, times) = match input {
            Input::Recording(recording) => {
                (recording.header.title.clone(), format!("recording, {}", recording.header.dialect), None)
            }
            Input::Transcript(format, transcript) => {
                (transcript.title.clone(), (*format).to_owned(), Some(transcript.times))
            }
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = if input::is_stdin(path) { input::shown(path) } else { name };
        let path = input::shown(path);
        let errors = answer.body["errors"].as_array().into_iter().flatten();
        notes
            .extend(errors.map(|error| format!("{path}: {}", harmless(error["message"].as_str().unwrap_or_default()))));
        Self { path, name, title, source, times, answer, notes }
    }

    /// Returns true if every analysis has its final insight.
    pub(super) fn is_complete(&self) -> bool {
        self.missing().next().is_none()
    }

    /// Analyses without a final insight, and the reasons.
    pub(super) fn missing(&self) -> impl Iterator<Item = (&str, &str)> {
        let missing = self.answer.body["missing"].as_object().into_iter().flatten();
        missing.map(|(name, why)| (name.as_str(), why.as_str().unwrap_or("unknown")))
    }

    /// The insights: the analysis, and the insight of each turn or of the whole call.
    pub(super) fn insights(&self) -> impl Iterator<Item = (&str, Vec<&Value>)> {
        let mut all: Vec<(&String, &Value)> = self.answer.body["insights"].as_object().into_iter().flatten().collect();
        all.sort_by_key(|(name, _)| ORDER.iter().position(|known| known == name).unwrap_or(ORDER.len()));
        all.into_iter().map(|(name, insight)| match insight["turns"].as_object() {
            Some(turns) => {
                let mut turns: Vec<&Value> = turns.values().collect();
                turns.sort_by_key(|insight| insight["turn"].as_u64());
                (name.as_str(), turns)
            }
            None => (name.as_str(), vec![insight]),
        })
    }

    pub(super) fn turn(&self, number: u64) -> Option<&Turn> {
        let turns = &self.answer.turns;
        // Turns are numbered from 0 without gaps.
        let at = usize::try_from(number).ok()?;
        turns.get(at).filter(|turn| turn.turn == number).or_else(|| turns.iter().find(|turn| turn.turn == number))
    }

    /// When a quote was said, and by whom: `0:42, Ann`, or `turn 7` if its turn is not known.
    pub(super) fn place(&self, turn: u64) -> String {
        match self.turn(turn) {
            Some(Turn { start_ms, speaker: Some(speaker), .. }) => {
                format!("{}, {}", clock(*start_ms), harmless(speaker))
            }
            Some(Turn { start_ms, .. }) => clock(*start_ms),
            None => format!("turn {turn}"),
        }
    }

    /// Facts about the file: turns, length, speakers, format.
    pub(super) fn facts(&self) -> Vec<String> {
        let turns = self.answer.body["turns"].as_u64().unwrap_or_default();
        let mut facts = vec![if turns == 1 { "1 turn".to_owned() } else { format!("{turns} turns") }];
        if let Some(end) = self.answer.turns.iter().map(|turn| turn.end_ms).max() {
            let about = if self.times == Some(Times::Estimated) { "about " } else { "" };
            facts.push(format!("{about}{}", clock(end)));
        }
        let mut speakers: Vec<&str> = Vec::new();
        for speaker in self.answer.turns.iter().filter_map(|turn| turn.speaker.as_deref()) {
            if !speakers.contains(&speaker) {
                speakers.push(speaker);
            }
            if speakers.len() > MAX_SPEAKERS {
                break;
            }
        }
        let more = if speakers.len() > MAX_SPEAKERS { ", …" } else { "" };
        speakers.truncate(MAX_SPEAKERS);
        if !speakers.is_empty() {
            facts.push(format!("{}{more}", harmless(&speakers.join(", "))));
        }
        facts.push(self.source.clone());
        if let Some(cost) = self.answer.body["cost_usd"].as_f64().filter(|cost| *cost > 0.0) {
            facts.push(format!("{cost:.4} USD"));
        }
        facts
    }

    /// A line of `--json`.
    pub(super) fn json(&self) -> Value {
        let mut line = json!({"file": self.path, "source": self.source});
        if let Some(title) = &self.title {
            line["title"] = json!(title);
        }
        if let Some(times) = self.times {
            line["times"] = json!(times.as_str());
        }
        for (name, value) in self.answer.body.as_object().into_iter().flatten() {
            line[name] = value.clone();
        }
        line
    }

    /// Writes the report for people.
    ///
    /// # Errors
    /// The output is closed.
    pub(super) fn show<W: Write>(&self, screen: &mut Screen<W>) -> io::Result<()> {
        let title = self.title.as_deref().map_or(String::new(), |title| format!("  {}", harmless(title)));
        screen.say(&format!("{}{title}  {}", harmless(&self.name).bold(), self.facts().join(" · ").dimmed()))?;
        for (_, insights) in self.insights() {
            for insight in insights {
                screen.insight(&self.path, insight)?;
                let quotes = insight["evidence"].as_array().into_iter().flatten();
                let quotes: Vec<String> = quotes
                    .filter(|item| item["unverified"] != true)
                    .filter_map(|item| Some((item["quote"].as_str()?, self.place(item["turn"].as_u64()?))))
                    .map(|(quote, place)| format!("“{quote}” ({place})"))
                    .collect();
                screen.quotes(&quotes)?;
            }
        }
        for (name, why) in self.missing() {
            screen.failed(&self.path, name, why)?;
        }
        Ok(())
    }
}
