//! Rules: conditions on turns, time and insights that raise alerts, without an LLM.
//!
//! Knows no call, no clock, no journal and no socket. A rule is data ([`Rule`], read by [`config`]). This module
//! evaluates conditions (words, speakers, overlaps, values of insights), and keeps the state of a call's alerts from
//! its log ([`Standing`]). The call decides when a condition is evaluated, and what follows.
//!
//! | kind | the condition holds when | the alert is cleared when |
//! |---|---|---|
//! | `keyword` | a final turn contains one of the words | a correction removes them from that turn |
//! | `absence` | the time is over and no final turn contains the words | they are said later |
//! | `silence` | nobody has spoken for the given time while a stream is connected | somebody speaks |
//! | `overlap` | two speakers spoke at once for the given time | a turn without such an overlap begins later |
//! | `insight` | a value of the newest insight passes a test, for the given time | a newer insight fails it |
//!
//! One alert of a rule is open at a time in a call.

mod config;
mod overlap;
mod phrases;
mod standing;
mod value;
mod who;

use std::sync::Arc;

pub use config::{MESSAGE_BYTES, PATTERN_STATES, PATTERNS, PHRASE_BYTES, PHRASES, RULES};
pub use overlap::overlap;
pub use phrases::{Phrases, QUOTE_BYTES, SCAN_STEPS, Steps, TURN_STEPS, Text, quote_of};
pub use standing::{Marks, Raised, Standing};
pub use value::{Reading, Test};
pub use who::{Roles, SPEAKERS, Speaker};

use crate::types::{Severity, Turn};

/// A condition, and the alert that it raises.
#[derive(Debug)]
pub struct Rule {
    /// The rule's name, a valid id.
    pub name: Arc<str>,
    pub severity: Severity,
    /// Message for people.
    pub message: String,
    /// Analyses that run when it raises an alert.
    pub runs: Vec<String>,
    pub condition: Condition,
}

/// When a rule raises an alert.
#[derive(Debug)]
pub enum Condition {
    /// Words were said.
    Keyword(Said),
    /// Words were not said in time.
    Absence(Absence),
    /// Nobody speaks for this long, ms.
    Silence(u64),
    /// Two speakers speak at once for this long, ms.
    Overlap(u64),
    /// A value of an insight passes a test.
    Insight(Reading),
}

impl Condition {
    /// The names of the kinds.
    pub const KINDS: [&'static str; 5] = ["keyword", "absence", "silence", "overlap", "insight"];

    /// The words that the condition searches for in turns; `None` if it searches for none.
    pub fn said(&self) -> Option<&Said> {
        match self {
            Self::Keyword(said) => Some(said),
            Self::Absence(absence) => Some(&absence.said),
            Self::Silence(_) | Self::Overlap(_) | Self::Insight(_) => None,
        }
    }
}

/// Words of any speaker, or of one.
#[derive(Debug)]
pub struct Said {
    pub any: Phrases,
    /// The speaker; `None` for any.
    pub speaker: Option<Speaker>,
}

impl Said {
    /// Returns true if the turn is by the speaker whose words count.
    pub fn is_by(&self, turn: &Turn, roles: &Roles) -> bool {
        self.speaker.as_ref().is_none_or(|speaker| roles.is(turn.speaker.as_deref(), speaker))
    }
}

/// Words that must be said within a period.
#[derive(Debug)]
pub struct Absence {
    pub said: Said,
    /// Length of the period, ms.
    pub within_ms: u64,
    /// Where the period begins.
    pub since: Since,
}

/// Where a period begins.
#[derive(Debug, PartialEq, Eq)]
pub enum Since {
    /// At the call's start.
    Call,
    /// At each stream's start; the words must be said in that stream.
    Stream,
    /// At the newest alert of this rule; the words must be said after it.
    Alert(String),
}

/// All rules of a configuration.
#[derive(Debug, Default)]
pub struct Rules {
    all: Vec<Arc<Rule>>,
    /// Names of all rules. While the configuration is read, they include rules with errors.
    names: Vec<String>,
}

impl Rules {
    /// Returns true if there are no rules.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// All rules, in the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &Arc<Rule>)> {
        self.all.iter().enumerate()
    }

    pub fn at(&self, index: usize) -> Option<&Arc<Rule>> {
        self.all.get(index)
    }

    pub fn get(&self, name: &str) -> Option<&Arc<Rule>> {
        self.all.iter().find(|rule| *rule.name == *name)
    }

    /// All names. While the configuration is read, they include rules that have errors.
    pub fn names(&self) -> &[String] {
        &self.names
    }
}

#[cfg(test)]
mod tests;
