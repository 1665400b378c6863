//! `sidetone check`: validates a configuration. Reads files, uses no network.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use owo_colors::OwoColorize as _;

use crate::config::Config;

use super::out::say;
use super::settings;

/// Options of `sidetone check`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sidetone check --config sidetone.toml
  sidetone check && systemctl restart sidetone

Prints one line per problem: its key path, what was found and what is allowed. Exit code: 0 without problems, else 1.")]
pub(crate) struct CheckArgs {
    /// Configuration file; without it, the defaults are checked
    #[arg(long, value_name = "FILE", env = "SIDETONE_CONFIG", value_parser = super::absolute())]
    config: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// The output cannot be written. Problems of the configuration are printed.
pub(crate) fn run(args: &CheckArgs) -> Result<ExitCode> {
    match Config::load(args.config.as_deref()) {
        Ok(config) => {
            let of = args.config.as_ref().map_or_else(|| "the defaults".to_owned(), |path| path.display().to_string());
            say!("{} {of}: {}", "OK".green().bold(), inventory(&config))?;
            let retiring = config.gateway.retiring(crate::base::time::unix_ms()).into_iter();
            let retiring =
                retiring.map(|(model, date)| format!("{model} will be retired at {date}: replace it by another model"));
            for warning in retiring.chain(config.warnings()) {
                say!("{} {warning}", "WARN".yellow().bold())?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(problems) => {
            for problem in &problems {
                say!("{}", settings::line(problem))?;
            }
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Summarizes a configuration in one line.
fn inventory(config: &Config) -> String {
    let names = |what: &str, names: Vec<String>| {
        if names.is_empty() { format!("no {what}") } else { format!("{what} {}", names.join(", ")) }
    };
    let endpoints = config.gateway.endpoints.iter().map(|endpoint| endpoint.name.clone()).collect();
    let models = config.gateway.models.iter().map(|model| model.name.clone()).collect();
    let routes = config.gateway.routes.iter().map(|route| route.name.clone()).collect();
    [
        names("analyses", config.analyses.names().to_vec()),
        names("rules", config.rules.names().to_vec()),
        names("routes", routes),
        names("models", models),
        names("endpoints", endpoints),
        names("sinks", config.sinks.iter().map(|sink| sink.name.clone()).collect()),
        format!("data in {}", config.storage.dir().display()),
    ]
    .join("; ")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const EXAMPLE: &str = include_str!("../../config/sidetone.toml");

    #[test]
    fn example_configuration_is_valid_and_shows_the_defaults() {
        let example = Config::parse(EXAMPLE, Path::new(".")).expect("the example");
        let default = Config::parse("", Path::new(".")).expect("the defaults");
        assert_eq!(format!("{example:?}"), format!("{default:?}"));
    }

    /// The commented-out lines are valid too, except for those that refer to something outside the file.
    #[test]
    fn no_key_of_the_example_is_unknown_or_of_another_form() {
        let text: Vec<&str> = EXAMPLE
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(rest) if is_toml(rest) => rest,
                _ => line,
            })
            .collect();
        let problems = match Config::parse(&text.join("\n"), Path::new(".")) {
            Ok(_) => Vec::new(),
            Err(problems) => problems,
        };
        // Also excepted: keys that can be set only with another value of a key that has its default here.
        let outside =
            ["was built without", "is not set", "cannot be read", "cannot read", "No such file", "only with balance"];
        let wrong: Vec<String> = problems
            .iter()
            .map(settings::line)
            .filter(|line| !outside.iter().any(|reason| line.contains(reason)))
            .collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert!(problems.len() > 3, "the environment answers for too much: {problems:?}");
    }

    /// Returns true if a commented-out line of the example is TOML and not prose.
    fn is_toml(line: &str) -> bool {
        let name = line.split('=').next().unwrap_or_default().trim();
        line.starts_with('[')
            || line.starts_with("  {")
            || line.starts_with(']')
            || (line.contains('=') && name.chars().all(|character| character.is_ascii_lowercase() || character == '_'))
    }
}
