//! Rules: conditions on turns, time and insights that raise alerts, without an LLM.
//!
//! Pure: knows no call, no clock, no journal and no socket. A rule is data ([`Rule`], read by [`config`]); what a condition
//! needs to decide is here (words, speakers, overlaps, values of insights), and what the log of a call says of its alerts
//! ([`Standing`]). When a condition is looked at, and what comes of it, is the business of the call.
//!
//! | kind | holds | the alert is cleared |
//! |---|---|---|
//! | `keyword` | a final turn has one of the words | a correction leaves none of them in that turn |
//! | `absence` | the time is over and no final turn has the words | they are said after all |
//! | `silence` | nobody has spoken for so long while a stream is connected | somebody speaks |
//! | `overlap` | two speakers spoke at once for so long | a turn without such an overlap begins after it |
//! | `insight` | a value of the newest insight is so, for so long | a newer insight says otherwise |
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

/// A condition, and what is said when it holds.
#[derive(Debug)]
pub struct Rule {
    /// Its name: an id.
    pub name: Arc<str>,
    pub severity: Severity,
    /// For people.
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
    /// Nobody speaks for so long, ms.
    Silence(u64),
    /// Two speak at once for so long, ms.
    Overlap(u64),
    /// A value of an insight.
    Insight(Reading),
}

impl Condition {
    /// The names of the kinds.
    pub const KINDS: [&'static str; 5] = ["keyword", "absence", "silence", "overlap", "insight"];

    /// The words that it looks for in turns.
    pub fn said(&self) -> Option<&Said> {
        match self {
            Self::Keyword(said) => Some(said),
            Self::Absence(absence) => Some(&absence.said),
            Self::Silence(_) | Self::Overlap(_) | Self::Insight(_) => None,
        }
    }
}

/// Words of anybody, or of one speaker.
#[derive(Debug)]
pub struct Said {
    pub any: Phrases,
    /// `None`: anybody.
    pub speaker: Option<Speaker>,
}

impl Said {
    /// Whether the turn is by the speaker whose words count.
    pub fn is_by(&self, turn: &Turn, roles: &Roles) -> bool {
        self.speaker.as_ref().is_none_or(|speaker| roles.is(turn.speaker.as_deref(), speaker))
    }
}

/// Words that must come in time.
#[derive(Debug)]
pub struct Absence {
    pub said: Said,
    /// Within so long, ms,
    pub within_ms: u64,
    /// of this.
    pub since: Since,
}

/// From when on time is counted.
#[derive(Debug, PartialEq, Eq)]
pub enum Since {
    /// The call's start.
    Call,
    /// Each stream's start; the words must come in that stream.
    Stream,
    /// The newest alert of this rule; the words must come after it.
    Alert(String),
}

/// All rules of a configuration.
#[derive(Debug, Default)]
pub struct Rules {
    all: Vec<Arc<Rule>>,
    /// Those with errors too, while the configuration is read.
    names: Vec<String>,
}

impl Rules {
    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// All of them, in the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &Arc<Rule>)> {
        self.all.iter().enumerate()
    }

    /// The one at this place.
    pub fn at(&self, index: usize) -> Option<&Arc<Rule>> {
        self.all.get(index)
    }

    /// The rule `name`.
    pub fn get(&self, name: &str) -> Option<&Arc<Rule>> {
        self.all.iter().find(|rule| *rule.name == *name)
    }

    /// All names. While the configuration is read, those of rules that have errors are among them.
    pub fn names(&self) -> &[String] {
        &self.names
    }
}

#[cfg(test)]
mod tests;
