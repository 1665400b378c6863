//! The `[journal]` section: what an acknowledged event survives, and how long events are kept.
//!
//! Does not know the journal's folder.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use toml::Value;

use crate::base::settings::{Problems, Section};

/// What an acknowledged event survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// A crash of the daemon: events are handed to the operating system, and synced in the background every ten
    /// seconds.
    #[default]
    Process,
    /// A power loss: events are synced before they are acknowledged.
    Machine,
}

/// Settings of the embedded journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// What an acknowledged event survives.
    pub durability: Durability,
    /// Completed and failed calls are erased this long after their end; `None` = never.
    pub retention: Option<Duration>,
    /// Size of all logs above which the oldest completed calls are erased; 0 = unlimited.
    pub max_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { durability: Durability::Process, retention: Some(days(DEFAULT_RETENTION_DAYS)), max_bytes: 0 }
    }
}

impl Config {
    /// Reads `[journal]`. An invalid value is reported in `problems`, and its default is used.
    ///
    /// `durability` = `"process"` (default) or `"machine"`, `retention_days` (default 30; 0 = for ever), `max_bytes`
    /// (default 0 = unlimited).
    pub fn read(value: Option<Value>, problems: &mut Problems) -> Self {
        let mut section = Section::new("journal", value, problems);
        let durability = match section.choice("durability", &["process", "machine"]) {
            Some("machine") => Durability::Machine,
            _ => Durability::Process,
        };
        let retention_days = section.integer("retention_days", 0..=36_500).unwrap_or(DEFAULT_RETENTION_DAYS);
        let max_bytes = section.integer("max_bytes", 0..=u64::MAX >> 1).unwrap_or(0);
        section.finish();
        Self { durability, retention: (retention_days > 0).then(|| days(retention_days)), max_bytes }
    }
}

const DEFAULT_RETENTION_DAYS: u64 = 30;

fn days(days: u64) -> Duration {
    Duration::from_secs(days * 24 * 60 * 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Config, Vec<String>) {
        let table: toml::Table = toml::from_str(text).expect("toml");
        let mut problems = Problems::default();
        let config = Config::read(Some(Value::Table(table)), &mut problems);
        (config, problems.into_vec().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn reads_every_key() {
        let (config, problems) = read("durability = \"machine\"\nretention_days = 2\nmax_bytes = 1000");
        assert_eq!(problems, Vec::<String>::new());
        let expected =
            Config { durability: Durability::Machine, retention: Some(Duration::from_secs(172_800)), max_bytes: 1000 };
        assert_eq!(config, expected);
        assert_eq!(read("").0, Config::default());
        assert_eq!(read("retention_days = 0").0.retention, None);
    }

    #[test]
    fn names_every_problem() {
        let (_, problems) = read("durability = \"always\"\nretention_days = -1\nsync = true");
        assert_eq!(
            problems,
            [
                "journal.durability: expected one of process, machine, found \"always\"",
                "journal.retention_days: expected an integer from 0 to 36500, found -1",
                "journal.sync: unknown key; there are: durability, max_bytes, retention_days",
            ]
        );
    }
}
