//! `[storage]`: the data directory, and the places of files in it.
//!
//! `[journal] dir` is the older name of the same key. Nothing outside this file names a place below the data directory
//! or knows the older name. Does not create or open anything.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::base::settings::{Problems, Section};
use crate::keys;

/// Where a daemon keeps its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageConfig {
    dir: PathBuf,
}

impl StorageConfig {
    /// Reads `[storage]`, and removes the older name of `dir` from `journal`, the value of `[journal]`. An invalid
    /// value is reported in `problems`, and its default is used.
    ///
    /// `dir`: default `$XDG_STATE_HOME/sidetone/journal`, else `~/.local/state/sidetone/journal`; a leading `~/` is the
    /// home directory.
    pub fn read(value: Option<Value>, journal: &mut Option<Value>, problems: &mut Problems) -> Self {
        let older = match journal {
            Some(Value::Table(table)) => table.remove("dir"),
            _ => None,
        };
        let older = older.map(|dir| Value::Table(Table::from_iter([("dir".to_owned(), dir)])));
        let older = directory(&mut Section::new("journal", older, problems));
        let mut section = Section::new("storage", value, problems);
        let given = directory(&mut section);
        section.finish();
        if let (Some(given), Some(older)) = (&given, &older)
            && given != older
        {
            let (given, older) = (given.display(), older.display());
            let message = format!(
                "is the older name of storage.dir, but their values differ: {older} here, {given} in storage.dir; \
                 remove one of them"
            );
            problems.push("journal.dir", message);
        }
        let dir = given.or(older).unwrap_or_else(|| {
            default_directory(variable).unwrap_or_else(|message| {
                problems.push("storage.dir", message);
                PathBuf::new()
            })
        });
        Self { dir }
    }

    /// A data directory without a configuration file.
    pub fn at(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The data directory. It contains the journal's files directly, the file of client keys and the admin socket.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The directory of the ledger.
    pub fn ledger(&self) -> PathBuf {
        self.dir.join("ledger")
    }

    /// The file of client keys.
    pub fn keys(&self) -> PathBuf {
        keys::path(&self.dir)
    }

    /// The directory of the positions and dead letters of sinks.
    pub fn sinks(&self) -> PathBuf {
        self.dir.join("sinks")
    }
}

/// The key `dir` of a section as an absolute path; `None` if it is absent, or invalid and reported.
fn directory(section: &mut Section<'_>) -> Option<PathBuf> {
    let text = section.string("dir")?;
    match expand(&text, variable) {
        Ok(dir) => Some(section.folder().join(dir)),
        Err(message) => {
            section.problem("dir", message);
            None
        }
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

fn expand(text: &str, variable: impl Fn(&str) -> Option<String>) -> Result<PathBuf, &'static str> {
    match text.strip_prefix("~/") {
        Some(below) => {
            let home = variable("HOME").ok_or("begins with ~/, but HOME is not set")?;
            Ok(Path::new(&home).join(below))
        }
        None => Ok(PathBuf::from(text)),
    }
}

fn default_directory(variable: impl Fn(&str) -> Option<String>) -> Result<PathBuf, &'static str> {
    let state = variable("XDG_STATE_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let home = || variable("HOME").map(|home| Path::new(&home).join(".local/state"));
    state
        .or_else(home)
        .map(|state| state.join("sidetone/journal"))
        .ok_or("expected a directory; it has no default here, as neither XDG_STATE_HOME nor HOME is set")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `[storage]` and `[journal]` of a file in the directory `at`. Returns the settings and the problems.
    fn read(text: &str, at: &str) -> (StorageConfig, Option<Value>, Vec<String>) {
        let mut table: Table = toml::from_str(text).expect("toml");
        let mut problems = Problems::in_folder(Path::new(at));
        let mut journal = table.remove("journal");
        let storage = StorageConfig::read(table.remove("storage"), &mut journal, &mut problems);
        (storage, journal, problems.into_vec().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn storage_dir_is_read_under_both_names() {
        for text in [
            "[storage]\ndir = \"data\"",
            "[journal]\ndir = \"data\"\nretention_days = 2",
            "[storage]\ndir = \"/etc/data\"\n[journal]\ndir = \"data/\"",
        ] {
            let (storage, journal, problems) = read(text, "/etc");
            assert_eq!(problems, Vec::<String>::new(), "{text}");
            assert_eq!(storage.dir(), Path::new("/etc/data"), "{text}");
            assert_eq!(storage.ledger(), Path::new("/etc/data/ledger"));
            assert_eq!(storage.keys(), Path::new("/etc/data/keys.json"));
            assert_eq!(storage.sinks(), Path::new("/etc/data/sinks"));
            assert!(journal.is_none_or(|journal| journal.get("dir").is_none()), "{text}");
        }
    }

    #[test]
    fn storage_dir_with_two_values_is_refused() {
        let (storage, _, problems) = read("[storage]\ndir = \"/a\"\n[journal]\ndir = \"/b\"", "/etc");
        assert_eq!(storage.dir(), Path::new("/a"));
        assert_eq!(
            problems,
            ["journal.dir: is the older name of storage.dir, but their values differ: /b here, /a in storage.dir; \
                 remove one of them"]
        );
    }

    #[test]
    fn storage_problems_name_the_key_that_was_given() {
        let (_, _, problems) = read("[storage]\ndir = 5\nkind = \"x\"\n[journal]\ndir = \"\"", "/etc");
        let named = |expected: &str| problems.iter().any(|problem| problem == expected);
        assert!(named("journal.dir: expected a string that is not empty, found \"\""), "{problems:?}");
        assert!(named("storage.dir: expected a string that is not empty, found 5"), "{problems:?}");
        assert!(named("storage.kind: unknown key; there are: dir"), "{problems:?}");
    }

    #[test]
    fn storage_default_follows_the_environment() {
        let env = |pairs: &'static [(&'static str, &'static str)]| {
            move |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        let both = env(&[("XDG_STATE_HOME", "/state"), ("HOME", "/home/x")]);
        assert_eq!(default_directory(both), Ok("/state/sidetone/journal".into()));
        assert_eq!(expand("~/j", both), Ok("/home/x/j".into()));
        assert_eq!(expand("j", both), Ok("j".into()));
        let relative = env(&[("XDG_STATE_HOME", "state"), ("HOME", "/home/x")]);
        assert_eq!(default_directory(relative), Ok("/home/x/.local/state/sidetone/journal".into()));
        assert!(default_directory(env(&[])).is_err());
        assert!(expand("~/j", env(&[])).is_err());
    }
}
