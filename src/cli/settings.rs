//! Reads the configuration for a command, and reports what is wrong with it.

use std::path::Path;

use anyhow::{Result, anyhow};

use crate::base::settings::Problem;
use crate::config::{Config, StorageConfig};

/// Reads `path`; without one, uses the defaults.
///
/// # Errors
/// All problems, one line each, and the next step.
pub(crate) fn load(path: Option<&Path>) -> Result<Config> {
    Config::load(path).map_err(|problems| refused(path, &problems))
}

/// Where a daemon with this configuration keeps its data; no other section is checked.
///
/// # Errors
/// As [`load`], but only for `[storage]` and `[journal]`.
pub(crate) fn storage(path: Option<&Path>) -> Result<StorageConfig> {
    Config::storage(path).map_err(|problems| refused(path, &problems))
}

fn refused(path: Option<&Path>, problems: &[Problem]) -> anyhow::Error {
    let path = path.map(|path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
    let lines: Vec<String> = problems.iter().map(line).collect();
    if let Some(path) = path.as_ref().filter(|path| !path.exists()) {
        let next = "without --config the defaults are used; `sidetone help sidetone.toml` shows every key";
        return anyhow!("{}\n{next}", lines.first().map_or(path.display().to_string(), Clone::clone));
    }
    let at = path.map_or_else(String::new, |path| format!(" --config {}", path.display()));
    anyhow!("the configuration has problems:\n{}\n`sidetone check{at}` checks it again", lines.join("\n"))
}

/// `section.name.key: what is wrong and what is allowed`, on one line.
pub(crate) fn line(problem: &Problem) -> String {
    let text = problem.to_string();
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines.join(" / ").trim_start_matches(": ").to_owned()
}
