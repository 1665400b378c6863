//! `[rules.*]`: conditions, and messages for alerts.
//!
//! Does not know which analyses exist: references to them are checked with the whole configuration.

use std::sync::Arc;

use serde_json::json;
use toml::Value;

use super::value::is_pointer;
use super::{Absence, Condition, Phrases, Reading, Rule, Rules, Said, Since, Speaker, Test};
use crate::base::budget::Bound;
use crate::base::names;
use crate::base::settings::{Problems, Section, found};
use crate::types::{Severity, id};

/// Maximum number of rules.
pub const RULES: Bound = Bound::new("rules", 100);
/// Maximum number of words and patterns of one rule.
pub const PHRASES: Bound = Bound::new("rule_phrases", 200);
/// Maximum size of one word or pattern, bytes.
pub const PHRASE_BYTES: Bound = Bound::new("rule_phrase_bytes", 1_024);
/// Maximum number of patterns of all rules. Each takes up to 1 MiB, and caches up to 256 KiB while it matches.
pub const PATTERNS: Bound = Bound::new("rule_patterns", 64);
/// Maximum number of automaton states of all patterns.
pub const PATTERN_STATES: Bound = Bound::new("rule_pattern_states", 50_000);
/// Maximum size of a rule's message, bytes. All messages are in a snapshot.
pub const MESSAGE_BYTES: Bound = Bound::new("rule_message_bytes", 1_024);

/// Longest time in a rule, ms: a day.
const DAY_MS: u64 = 86_400_000;
/// Shortest silence or overlap, ms: a shorter one would occur with every breath.
const SHORTEST_MS: u64 = 100;

/// Largest number that a value is compared with.
const LARGEST: f64 = 1e12;

/// Totals over all rules so far.
#[derive(Default)]
struct Totals {
    patterns: u64,
    states: u64,
}

impl Rules {
    /// Reads `[rules.*]`. Problems are added to `problems`, and the rule is left out.
    pub fn read(value: Option<Value>, problems: &mut Problems) -> Self {
        let sections: Vec<(String, Value)> = match value {
            None => Vec::new(),
            Some(Value::Table(table)) => table.into_iter().collect(),
            Some(other) => {
                problems.push("rules", format!("expected tables [rules.NAME], found {}", found(&other)));
                Vec::new()
            }
        };
        if let Err(over) = RULES.check(sections.len() as u64) {
            problems.push("rules", format!("{} of them: {over}", sections.len()));
            return Self::default();
        }
        let mut rules = Self { all: Vec::new(), names: sections.iter().map(|(name, _)| name.clone()).collect() };
        let mut totals = Totals::default();
        for (name, section) in sections {
            if let Err(error) = id::check(&name) {
                problems.push(format!("rules.{name}"), error.to_string());
                continue;
            }
            if let Some(rule) = read_rule(&name, section, &rules.names, &mut totals, problems) {
                rules.all.push(Arc::new(rule));
            }
        }
        rules.check_order(problems);
        rules
    }

    /// Checks that no rule waits for its own alert, directly or through others.
    fn check_order(&self, problems: &mut Problems) {
        let before = |rule: &Rule| match &rule.condition {
            Condition::Absence(Absence { since: Since::Alert(before), .. }) => self.get(before),
            _ => None,
        };
        for rule in &self.all {
            let mut chain = vec![&*rule.name];
            let mut next = before(rule);
            while let Some(other) = next.filter(|other| !chain.contains(&&*other.name)) {
                chain.push(&other.name);
                next = before(other);
            }
            if next.is_some_and(|other| other.name == rule.name) {
                problems.push(format!("rules.{}.after", rule.name), format!("waits for itself: {}", chain.join(", ")));
            }
        }
    }
}

fn read_rule(name: &str, value: Value, names: &[String], totals: &mut Totals, problems: &mut Problems) -> Option<Rule> {
    let mut section = Section::new(format!("rules.{name}"), Some(value), problems);
    let kind = section.required("kind", |section| section.choice("kind", &Condition::KINDS));
    let severity = section.choice("severity", &Severity::NAMES).and_then(Severity::parse);
    let message = section.string("message").unwrap_or_else(|| name.replace('_', " "));
    if let Err(over) = MESSAGE_BYTES.check(message.len() as u64) {
        section.problem("message", format!("has {} bytes: {over}", message.len()));
    }
    let runs = section.strings("runs").unwrap_or_default();
    let condition = match kind {
        Some("keyword") => said(&mut section, totals).map(Condition::Keyword),
        Some("absence") => absence(&mut section, names, totals).map(Condition::Absence),
        Some("silence") => duration(&mut section, "over_ms", SHORTEST_MS).map(Condition::Silence),
        Some("overlap") => duration(&mut section, "over_ms", SHORTEST_MS).map(Condition::Overlap),
        Some("insight") => reading(&mut section).map(Condition::Insight),
        _ => {
            // Without a kind, the allowed keys are unknown.
            section.take_rest();
            None
        }
    };
    section.finish();
    let severity = severity.unwrap_or(Severity::Warning);
    Some(Rule { name: Arc::from(name), severity, message, runs, condition: condition? })
}

fn duration(section: &mut Section<'_>, key: &'static str, shortest: u64) -> Option<u64> {
    section.required(key, |section| section.integer(key, shortest..=DAY_MS))
}

fn said(section: &mut Section<'_>, totals: &mut Totals) -> Option<Said> {
    let texts = section.required("any", |section| section.strings_in_place("any"));
    let speaker = section.string("speaker").map(|speaker| Speaker::new(&speaker));
    let texts = texts?;
    if texts.is_empty() {
        section.problem("any", "expected at least one: words, or a pattern between slashes");
        return None;
    }
    if let Err(over) = PHRASES.check(texts.len() as u64) {
        section.problem("any", format!("{} of them: {over}", texts.len()));
        return None;
    }
    let mut any = Phrases::default();
    let mut all_well = true;
    for (index, text) in texts.into_iter().enumerate() {
        let read = text.map(|text| phrase(&mut any, &text, totals));
        if let Some(Err(message)) = &read {
            section.problem(&format!("any[{index}]"), message.clone());
        }
        all_well &= matches!(read, Some(Ok(())));
    }
    all_well.then_some(Said { any, speaker })
}

fn phrase(any: &mut Phrases, text: &str, totals: &mut Totals) -> Result<(), String> {
    let over = |over: crate::base::budget::Exceeded| over.to_string();
    PHRASE_BYTES.check(text.len() as u64).map_err(over)?;
    if let Some(states) = any.add(text)? {
        totals.patterns += 1;
        totals.states = totals.states.saturating_add(states);
        PATTERNS.check(totals.patterns).map_err(over)?;
        PATTERN_STATES.check(totals.states).map_err(over)?;
    }
    Ok(())
}

fn absence(section: &mut Section<'_>, names: &[String], totals: &mut Totals) -> Option<Absence> {
    let said = said(section, totals);
    let within_ms = duration(section, "within_ms", 1);
    let of = section.choice("of", &["call", "stream"]);
    let after = section.string("after");
    if let Some(after) = after.as_ref().filter(|after| !names.contains(after)) {
        section.problem("after", names::unknown("rule", after, names));
        return None;
    }
    if after.is_some() && of.is_some() {
        section.problem("of", "has no meaning with after: the time is counted from that rule's alert");
    }
    let since = match (after, of) {
        (Some(rule), _) => Since::Alert(rule),
        (None, Some("stream")) => Since::Stream,
        (None, _) => Since::Call,
    };
    Some(Absence { said: said?, within_ms: within_ms?, since })
}

fn reading(section: &mut Section<'_>) -> Option<Reading> {
    let analysis = section.required("analysis", |section| section.string("analysis"));
    let at = section.required("at", |section| section.string("at")).filter(|at| {
        let well = is_pointer(at);
        if !well {
            section.problem("at", format!("expected a JSON pointer such as \"/overall/score\", found {at:?}"));
        }
        well
    });
    let given = ["below", "above", "equals"].into_iter().filter(|key| section.has(key)).count();
    let below = section.number("below", -LARGEST..=LARGEST).map(Test::Below);
    let above = section.number("above", -LARGEST..=LARGEST).map(Test::Above);
    let equals = equals(section);
    if given != 1 {
        section.problem("at", format!("expected one of below, above and equals beside it, found {given}"));
    }
    let for_ms = section.integer("for_ms", 0..=DAY_MS).unwrap_or(0);
    let test = below.or(above).or(equals).filter(|_| given == 1);
    Some(Reading { analysis: analysis?, at: at?, test: test?, for_ms })
}

fn equals(section: &mut Section<'_>) -> Option<Test> {
    let value = section.take("equals")?;
    let value = match value {
        Value::String(text) => json!(text),
        Value::Integer(number) => json!(number),
        Value::Float(number) if number.is_finite() => json!(number),
        Value::Boolean(is) => json!(is),
        other => {
            section.problem("equals", format!("expected a string, a number, true or false, found {}", found(&other)));
            return None;
        }
    };
    Some(Test::Equals(value))
}
