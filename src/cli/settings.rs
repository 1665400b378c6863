//! Reading the configuration for a command, and telling what is wrong with it.

use std::path::Path;

use anyhow::{Result, bail};

use crate::base::settings::Problem;
use crate::config::Config;

/// Reads `path`, or the defaults where there is none.
///
/// # Errors
/// All problems, a line each, and the next step.
pub(crate) fn load(path: Option<&Path>) -> Result<Config> {
    match Config::load(path) {
        Ok(config) => Ok(config),
        Err(problems) => {
            let lines: Vec<String> = problems.iter().map(line).collect();
            if let Some(path) = path.filter(|path| !path.exists()) {
                let next = "without --config the defaults apply; config/sidetone.toml of the project shows every key";
                bail!("{}\n{next}", lines.first().map_or(path.display().to_string(), Clone::clone));
            }
            let at = path.map_or_else(String::new, |path| format!(" --config {}", path.display()));
            bail!("the configuration has problems:\n{}\n`sidetone check{at}` looks again", lines.join("\n"))
        }
    }
}

/// `section.name.key: what is wrong and what is allowed`, on one line.
pub(crate) fn line(problem: &Problem) -> String {
    let text = problem.to_string();
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines.join(" / ").trim_start_matches(": ").to_owned()
}
