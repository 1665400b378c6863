//! `sidetone help`: the list of commands and topics, the help of a command, or a page of the documentation.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use owo_colors::OwoColorize as _;

use super::out;
use crate::docs::{self, SIDETONE_TOML, SIDETONE_TOML_NAME, TOPICS};

/// Width of a terminal that does not say how wide it is, columns.
const DEFAULT_WIDTH: usize = 100;
/// Longer lines are hard to read, columns.
const MAX_WIDTH: usize = 120;

/// Options of `sidetone help`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sidetone help                     commands and topics
  sidetone help replay              one command
  sidetone help key create          a subcommand
  sidetone help subscribing         one topic, with colours on a terminal
  sidetone help errors | less       as Markdown
  sidetone help sidetone.toml       every key of the configuration

A running daemon serves the topics at /docs/.")]
pub(crate) struct HelpArgs {
    /// Name of a command or of a topic
    #[arg(value_name = "COMMAND|TOPIC")]
    names: Vec<String>,
}

/// Runs the command; `root` is the whole command line.
///
/// # Errors
/// The output cannot be written.
pub(crate) fn run(args: &HelpArgs, mut root: clap::Command) -> Result<ExitCode> {
    root.build();
    match args.names.as_slice() {
        [] => {
            let help = root.render_long_help();
            out::lines(&format!("{}\n{}", help.ansi().to_string().trim_end(), topics()))?;
        }
        [name] if name == SIDETONE_TOML_NAME => out::lines(SIDETONE_TOML)?,
        [name] if docs::topic(name).is_some() => {
            let text = docs::topic(name).map(|topic| topic.text).unwrap_or_default();
            if io::stdout().is_terminal() { out::lines(&docs::render(text, width()))? } else { out::lines(text)? }
        }
        names => match command(&mut root, names) {
            Ok(command) => out::lines(&command.render_long_help().ansi().to_string())?,
            Err(unknown) => {
                anstream::eprintln!(
                    "{} no command or topic {unknown:?}; `sidetone help` lists all of them",
                    "error:".red().bold()
                );
                return Ok(ExitCode::from(2));
            }
        },
    }
    Ok(ExitCode::SUCCESS)
}

/// The command with the path `names`.
///
/// # Errors
/// The first name that is not a command.
fn command<'a>(root: &'a mut clap::Command, names: &[String]) -> Result<&'a mut clap::Command, String> {
    names.iter().try_fold(root, |command, name| command.find_subcommand_mut(name).ok_or_else(|| name.clone()))
}

/// The list of topics, in the style of clap's lists.
fn topics() -> String {
    let names = TOPICS.iter().map(|topic| (topic.name, topic.summary));
    let all = names.chain([(SIDETONE_TOML_NAME, "every key of the configuration with its default")]);
    let lines = all.map(|(name, summary)| format!("  {}{summary}\n", format!("{name:<15}").bold()));
    format!("\n{}\n{}", "Topics:".bold().underline(), lines.collect::<String>())
}

fn width() -> usize {
    let width = rustix::termios::tcgetwinsize(io::stdout()).ok().map(|size| usize::from(size.ws_col));
    width.filter(|columns| *columns >= 40).unwrap_or(DEFAULT_WIDTH).min(MAX_WIDTH)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn topic_is_never_the_name_of_a_command() {
        let root = Cli::command();
        for topic in TOPICS {
            assert!(root.find_subcommand(topic.name).is_none(), "{}", topic.name);
        }
        assert!(topics().contains("every limit with its default"), "{}", topics());
    }

    #[test]
    fn command_is_found_by_its_names_and_an_unknown_one_is_named() {
        let mut root = Cli::command();
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(command(&mut root, &words(&["key", "create"])).expect("a command").get_name(), "create");
        assert_eq!(command(&mut root, &words(&["key", "destroy"])).map(|_| ()), Err("destroy".to_owned()));
    }
}
