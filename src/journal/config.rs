//! The `[journal]` section: where the journal is, how durable it is, and for how long it is kept.
//!
//! Knows no file: the folder is made and checked when the store opens.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use toml::Value;

use crate::base::settings::{Problems, Section};

/// What an acknowledged event survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// The death of the daemon: handed to the operating system, synced in the background every ten seconds.
    #[default]
    Process,
    /// The loss of power: synced before it is acknowledged.
    Machine,
}

/// How the embedded journal is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The journal's folder; private to the user that runs the daemon.
    pub dir: PathBuf,
    /// What an acknowledged event survives.
    pub durability: Durability,
    /// Completed and failed calls are erased this long after their end; `None` = never.
    pub retention: Option<Duration>,
    /// Size of all logs above which the oldest completed calls are erased; 0 = unlimited.
    pub max_bytes: u64,
}

impl Config {
    /// A journal in `dir`, all else as by default.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            durability: Durability::Process,
            retention: Some(days(DEFAULT_RETENTION_DAYS)),
            max_bytes: 0,
        }
    }

    /// Reads `[journal]`; what is wrong goes to `problems`, and its default stands in for it.
    ///
    /// `dir` (default `$XDG_STATE_HOME/sidetone/journal`, else `~/.local/state/sidetone/journal`; a leading `~/` is the
    /// home folder), `durability` = `"process"` (default) or `"machine"`, `retention_days` (default 30; 0 = for ever),
    /// `max_bytes` (default 0 = unlimited).
    pub fn read(value: Option<Value>, problems: &mut Problems) -> Self {
        let mut section = Section::new("journal", value, problems);
        let given = section.string("dir");
        let durability = match section.choice("durability", &["process", "machine"]) {
            Some("machine") => Durability::Machine,
            _ => Durability::Process,
        };
        let retention_days = section.integer("retention_days", 0..=36_500).unwrap_or(DEFAULT_RETENTION_DAYS);
        let max_bytes = section.integer("max_bytes", 0..=u64::MAX >> 1).unwrap_or(0);
        let dir = match resolve(given.as_deref(), |name| std::env::var(name).ok().filter(|text| !text.is_empty())) {
            Ok(dir) => section.folder().join(dir),
            Err(message) => {
                section.problem("dir", message);
                PathBuf::new()
            }
        };
        section.finish();
        Self { dir, durability, retention: (retention_days > 0).then(|| days(retention_days)), max_bytes }
    }
}

const DEFAULT_RETENTION_DAYS: u64 = 30;

fn days(days: u64) -> Duration {
    Duration::from_secs(days * 24 * 60 * 60)
}

fn resolve(given: Option<&str>, env: impl Fn(&str) -> Option<String>) -> Result<PathBuf, &'static str> {
    let home = || env("HOME").map(PathBuf::from);
    match given {
        Some(text) => match text.strip_prefix("~/") {
            Some(below) => home().map(|home| home.join(below)).ok_or("begins with ~/, but HOME is not set"),
            None => Ok(PathBuf::from(text)),
        },
        None => env("XDG_STATE_HOME")
            .map(PathBuf::from)
            .filter(|dir| dir.is_absolute())
            .or_else(|| home().map(|home| home.join(".local/state")))
            .map(|state| state.join("sidetone/journal"))
            .ok_or("expected a folder; it has no default here, as neither XDG_STATE_HOME nor HOME is set"),
    }
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
        let (config, problems) =
            read("dir = \"/srv/j\"\ndurability = \"machine\"\nretention_days = 2\nmax_bytes = 1000");
        assert_eq!(problems, Vec::<String>::new());
        let expected = Config {
            dir: "/srv/j".into(),
            durability: Durability::Machine,
            retention: Some(Duration::from_secs(172_800)),
            max_bytes: 1000,
        };
        assert_eq!(config, expected);
        assert_eq!(read("dir = \"/srv/j\"").0, Config::at("/srv/j"));
        assert_eq!(read("dir = \"/srv/j\"\nretention_days = 0").0.retention, None);
    }

    #[test]
    fn names_every_problem() {
        let (_, problems) = read("dir = \"\"\ndurability = \"always\"\nretention_days = -1\nsync = true");
        assert_eq!(
            problems,
            [
                "journal.dir: expected a string that is not empty, found \"\"",
                "journal.durability: expected one of process, machine, found \"always\"",
                "journal.retention_days: expected an integer from 0 to 36500, found -1",
                "journal.sync: unknown key; there are: dir, durability, max_bytes, retention_days",
            ]
        );
    }

    #[test]
    fn the_default_folder_follows_the_environment() {
        let env = |pairs: &'static [(&'static str, &'static str)]| {
            move |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        let both = env(&[("XDG_STATE_HOME", "/state"), ("HOME", "/home/x")]);
        assert_eq!(resolve(None, both), Ok("/state/sidetone/journal".into()));
        let home = env(&[("HOME", "/home/x")]);
        assert_eq!(resolve(None, home), Ok("/home/x/.local/state/sidetone/journal".into()));
        assert_eq!(resolve(Some("~/j"), home), Ok("/home/x/j".into()));
        assert!(resolve(None, env(&[])).is_err());
        assert!(resolve(Some("~/j"), env(&[])).is_err());
    }
}
