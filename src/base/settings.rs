//! Reads a TOML table key by key, so that *every* problem of a file is found in one pass, each with its key path, what
//! was found and what is allowed.
//!
//! Knows no section: each module reads its own with a [`Section`], and reports invalid values to [`Problems`].

use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use secrecy::ExposeSecret as _;
use toml::{Table, Value};

use super::names;
use super::secret::{self, Secret};

/// One problem of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Key path, such as `analyses.summary.debounce_ms`.
    pub path: String,
    /// What is wrong and what is allowed.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.path, self.message)
    }
}

/// All problems of a file, in the order in which they were found.
#[derive(Debug, Default)]
pub struct Problems {
    all: Vec<Problem>,
    folder: PathBuf,
}

impl Problems {
    /// For a file in this folder; without one, relative paths are resolved against the current directory.
    pub fn in_folder(folder: &Path) -> Self {
        Self { all: Vec::new(), folder: folder.to_owned() }
    }

    /// Adds a problem.
    pub fn push(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.all.push(Problem { path: path.into(), message: message.into() });
    }

    /// Returns true if there is no problem.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub fn into_vec(self) -> Vec<Problem> {
        self.all
    }
}

/// One table of the file, read key by key. [`Section::finish`] reports the keys that were not read.
pub struct Section<'a> {
    path: String,
    table: Table,
    asked: Vec<&'static str>,
    /// The keys that were read and present.
    taken: Vec<&'static str>,
    problems: &'a mut Problems,
}

/// A short, single-line form of what was found, for messages.
pub fn found(value: &Value) -> String {
    let text = match value {
        Value::String(text) => format!("{text:?}"),
        other => other.to_string(),
    };
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.chars().count() > 60 { format!("{}…", text.chars().take(60).collect::<String>()) } else { text }
}

fn header(name: &str, value: &Value, folder: &Path) -> Result<(HeaderName, HeaderValue), String> {
    let name = HeaderName::try_from(name).map_err(|_| "expected the name of an HTTP header")?;
    let text =
        value.as_str().ok_or_else(|| format!("expected a string, found a value of type {}", value.type_str()))?;
    let value = if secret::is_named(text) {
        HeaderValue::from_str(secret::resolve(text, folder)?.expose_secret())
    } else {
        HeaderValue::from_str(text)
    };
    let mut value = value.map_err(|_| "the value has characters that are not allowed in a header")?;
    value.set_sensitive(true);
    Ok((name, value))
}

/// The value as a number; an integer counts too.
fn number(value: &Value) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "configuration numbers are small")]
    value.as_float().or_else(|| value.as_integer().map(|integer| integer as f64))
}

impl<'a> Section<'a> {
    /// Reads `value` as the table at `path`; anything else is reported as a problem and read as an empty table.
    pub fn new(path: impl Into<String>, value: Option<Value>, problems: &'a mut Problems) -> Self {
        let path = path.into();
        let table = match value {
            None => Table::new(),
            Some(Value::Table(table)) => table,
            Some(other) => {
                problems.push(path.clone(), format!("expected a table, found {}", found(&other)));
                Table::new()
            }
        };
        Self { path, table, asked: Vec::new(), taken: Vec::new(), problems }
    }

    /// The key path of `key`.
    pub fn at(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The folder against which relative paths are resolved.
    pub fn folder(&self) -> &Path {
        &self.problems.folder
    }

    /// Returns true if the file contains `key`, read already or not, valid or not.
    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key) || self.taken.contains(&key)
    }

    /// Reads `key` with `read`, and reports a problem if the file does not contain the key.
    pub fn required<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        if !self.has(key) {
            self.problem(key, "is required");
        }
        read(self)
    }

    /// Reports a problem at `key`.
    pub fn problem(&mut self, key: &str, message: impl Into<String>) {
        let path = self.at(key);
        self.problems.push(path, message);
    }

    /// The problems found so far, for nested sections.
    pub fn problems(&mut self) -> &mut Problems {
        self.problems
    }

    /// Takes the raw value of `key`.
    pub fn take(&mut self, key: &'static str) -> Option<Value> {
        self.asked.push(key);
        let value = self.table.remove(key);
        self.taken.extend(value.is_some().then_some(key));
        value
    }

    /// Takes all remaining keys as `(key, value)`: for tables whose keys are names.
    pub fn take_rest(&mut self) -> Vec<(String, Value)> {
        std::mem::take(&mut self.table).into_iter().collect()
    }

    fn read<T>(&mut self, key: &'static str, expected: &str, read: impl FnOnce(&Value) -> Option<T>) -> Option<T> {
        let value = self.take(key)?;
        let result = read(&value);
        if result.is_none() {
            self.problem(key, format!("expected {expected}, found {}", found(&value)));
        }
        result
    }

    /// An integer within `range`.
    pub fn integer(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let expected = format!("an integer from {} to {}", range.start(), range.end());
        self.read(key, &expected, |value| {
            let number = u64::try_from(value.as_integer()?).ok()?;
            range.contains(&number).then_some(number)
        })
    }

    /// A number within `range`.
    pub fn number(&mut self, key: &'static str, range: RangeInclusive<f64>) -> Option<f64> {
        let expected = format!("a number from {} to {}", range.start(), range.end());
        self.read(key, &expected, |value| number(value).filter(|number| range.contains(number)))
    }

    /// A duration in ms within `range` (ms); the key ends in `_ms`.
    pub fn millis(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Option<Duration> {
        self.integer(key, range).map(Duration::from_millis)
    }

    /// A list of numbers within `range`.
    pub fn numbers(&mut self, key: &'static str, range: RangeInclusive<f64>) -> Option<Vec<f64>> {
        let expected = format!("a list of numbers from {} to {}", range.start(), range.end());
        self.read(key, &expected, |value| {
            value.as_array()?.iter().map(|item| number(item).filter(|number| range.contains(number))).collect()
        })
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, key: &'static str) -> Option<bool> {
        self.read(key, "true or false", Value::as_bool)
    }

    /// A string that is not empty.
    pub fn string(&mut self, key: &'static str) -> Option<String> {
        self.read(key, "a string that is not empty", |value| {
            value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
        })
    }

    /// A string, which may be empty.
    pub fn text(&mut self, key: &'static str) -> Option<String> {
        self.read(key, "a string", |value| value.as_str().map(str::to_owned))
    }

    /// One of `allowed`.
    pub fn choice(&mut self, key: &'static str, allowed: &[&'static str]) -> Option<&'static str> {
        let value = self.take(key)?;
        let choice = value.as_str().and_then(|text| allowed.iter().copied().find(|choice| *choice == text));
        if choice.is_none() {
            let hint = value.as_str().map_or_else(String::new, |text| names::hint(text, allowed));
            self.problem(key, format!("expected one of {}, found {}{hint}", allowed.join(", "), found(&value)));
        }
        choice
    }

    /// The items of a list of `what`s. An item that `read` rejects is reported and becomes `None`, so that the problems
    /// of the other items are reported too.
    fn items<T>(&mut self, key: &'static str, what: &str, read: impl Fn(Value) -> Option<T>) -> Option<Vec<Option<T>>> {
        let items = match self.take(key)? {
            Value::Array(items) => items,
            other => {
                self.problem(key, format!("expected a list of {what}s, found {}", found(&other)));
                return None;
            }
        };
        let mut list = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            let shown = found(&item);
            let item = read(item);
            if item.is_none() {
                self.problem(&format!("{key}[{index}]"), format!("expected a {what}, found {shown}"));
            }
            list.push(item);
        }
        Some(list)
    }

    /// A list of strings, without the items that are not strings.
    pub fn strings(&mut self, key: &'static str) -> Option<Vec<String>> {
        Some(self.strings_in_place(key)?.into_iter().flatten().collect())
    }

    /// A list of strings; an item that is not a string is reported and becomes `None`.
    pub fn strings_in_place(&mut self, key: &'static str) -> Option<Vec<Option<String>>> {
        self.items(key, "string", |item| match item {
            Value::String(text) => Some(text),
            _ => None,
        })
    }

    /// A list of tables, each with its path (`routes.summary.variants[0]`), without the items that are not tables.
    pub fn tables(&mut self, key: &'static str) -> Option<Vec<(String, Value)>> {
        let path = self.at(key);
        let items = self.items(key, "table", |item| item.is_table().then_some(item))?;
        let named = items.into_iter().enumerate().map(|(index, item)| Some((format!("{path}[{index}]"), item?)));
        Some(named.flatten().collect())
    }

    /// A secret given as `env:VAR` or `file:PATH`; the file never contains the value itself.
    pub fn secret(&mut self, key: &'static str) -> Option<Secret> {
        let value = self.take(key)?;
        let Value::String(source) = value else {
            let message = format!("expected \"env:VAR\" or \"file:PATH\", found a value of type {}", value.type_str());
            self.problem(key, message);
            return None;
        };
        match secret::resolve(&source, &self.problems.folder) {
            Ok(value) => Some(Secret { source, value }),
            Err(message) => {
                self.problem(key, message);
                None
            }
        }
    }

    /// A table of HTTP headers. A value is a string, `env:VAR` or `file:PATH`; all values are treated as secrets.
    pub fn headers(&mut self, key: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let table = match self.take(key) {
            None => return headers,
            Some(Value::Table(table)) => table,
            Some(other) => {
                // The message does not show the value, which may be a secret.
                let message =
                    format!("expected a table of header = \"value\", found a value of type {}", other.type_str());
                self.problem(key, message);
                return headers;
            }
        };
        for (name, value) in table {
            match header(&name, &value, &self.problems.folder) {
                Ok((name, value)) => {
                    headers.append(name, value);
                }
                Err(message) => self.problem(&format!("{key}.{name}"), message),
            }
        }
        headers
    }

    /// Reports every key that was not read, and lists the allowed ones.
    pub fn finish(self) {
        let Self { path, table, mut asked, problems, .. } = self;
        asked.sort_unstable();
        for key in table.keys() {
            let at = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            problems.push(at, format!("unknown key; there are: {}{}", asked.join(", "), names::hint(key, &asked)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_found_at_once_with_path_and_choices() {
        let table: Table =
            toml::from_str("a = \"soon\"\nb = 5\nc = \"x\"\nextra = 1\nlinger_m = 2\nmode = \"Macine\"").expect("toml");
        let mut problems = Problems::default();
        let mut section = Section::new("s", Some(Value::Table(table)), &mut problems);
        assert_eq!(section.integer("a", 0..=9), None);
        assert_eq!(section.integer("b", 0..=9), Some(5));
        assert_eq!(section.choice("c", &["y", "z"]), None);
        assert_eq!(section.choice("mode", &["process", "machine"]), None);
        assert_eq!(section.integer("linger_ms", 0..=9), None);
        // A key with an invalid value is not also reported as missing.
        assert!(section.has("a") && section.has("extra") && !section.has("d"));
        section.finish();
        let lines: Vec<String> = problems.into_vec().iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "s.a: expected an integer from 0 to 9, found \"soon\"",
                "s.c: expected one of y, z, found \"x\"",
                "s.mode: expected one of process, machine, found \"Macine\"; did you mean \"machine\"?",
                "s.extra: unknown key; there are: a, b, c, linger_ms, mode",
                "s.linger_m: unknown key; there are: a, b, c, linger_ms, mode; did you mean \"linger_ms\"?",
            ]
        );
    }
}
