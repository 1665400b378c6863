//! The command line. One file or folder per command. Commands that talk to a running daemon are clients of its public
//! contract: they know no session, no journal and no gateway.
//!
//! Exit codes: 0 success, 1 failure, 2 invalid command line.

mod analyze;
mod cert;
mod check;
mod compare;
mod convert;
mod demo;
mod dialects;
mod discovery;
mod eval;
mod fetch;
mod healthcheck;
mod help;
mod init;
mod input;
mod key;
mod meter;
mod models;
mod notify;
mod out;
mod panics;
mod progress;
mod reconnect;
mod record;
mod render;
mod replay;
mod screen;
#[cfg(test)]
mod scripted;
mod serve;
mod settings;
mod stream;
mod table;
mod target;
mod temporary;
mod trial;
mod turns;
mod usage;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{CommandFactory as _, Parser, Subcommand};
use owo_colors::OwoColorize as _;

use crate::types::id;

/// Turns of live conversations in, insights of LLMs out, while the conversation goes on
#[derive(Debug, Parser)]
#[command(
    name = "sidetone",
    version,
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "\
Start here:
  sidetone demo                                    a bundled call, no key and no network needed
  sidetone serve                                   the daemon
  sidetone analyze meeting.vtt                     the analyses of a transcript file
  sidetone replay call.jsonl                       a recording into the daemon
  sidetone watch                                   the insights of the daemon
  sidetone help                                    commands, and the topics of the documentation"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what Sidetone does: play a bundled call through a daemon of its own
    Demo(demo::DemoArgs),
    /// Run the daemon
    Serve(serve::ServeArgs),
    /// Write a configuration that uses the models found on this machine
    Init(init::InitArgs),
    /// Play recordings into a daemon
    Replay(Box<replay::ReplayArgs>),
    /// Analyse transcript files and recordings
    Analyze(Box<analyze::AnalyzeArgs>),
    /// Write a transcript file as a recording
    Convert(convert::ConvertArgs),
    /// Compare models, prompts and triggers on recordings, without waiting
    Compare(Box<compare::CompareArgs>),
    /// Measure insights on recordings with labels
    Eval(Box<eval::EvalArgs>),
    /// Show calls and insights live
    Watch(watch::WatchArgs),
    /// Record a call of a running daemon
    Record(record::RecordArgs),
    /// Stream a WAV file to an STT endpoint, or through the daemon to one
    Stream(stream::StreamArgs),
    /// List the supported STT wire formats
    Dialects(dialects::DialectsArgs),
    /// Make a certificate for local use
    Cert(cert::CertArgs),
    /// Show the prompt that a recording would send, and its estimated tokens
    Render(render::RenderArgs),
    /// Report every problem of a configuration
    Check(check::CheckArgs),
    /// Check that a daemon is ready; for containers and scripts
    Healthcheck(healthcheck::HealthcheckArgs),
    /// Create, list and revoke client keys
    Key(key::KeyArgs),
    /// Show how the LLMs were used, and the cost
    Usage(usage::UsageArgs),
    /// List the available models
    Models(models::ModelsArgs),
    /// Show the help of a command, or a topic of the documentation
    Help(help::HelpArgs),
}

/// Runs the command of the command line.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            anstream::eprintln!("{} {error:#}", "error:".red().bold());
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Demo(args) => demo::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Init(args) => client(init::run(args)),
        Command::Healthcheck(args) => client(healthcheck::run(args)),
        Command::Render(args) => render::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Key(args) => key::run(&args),
        Command::Usage(args) => client(usage::run(args)),
        Command::Models(args) => client(models::run(args)),
        Command::Replay(args) => client(replay::run(*args)),
        Command::Analyze(args) => analyze::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Watch(args) => client(watch::run(args)),
        Command::Record(args) => client(record::run(args)),
        Command::Stream(args) => client(stream::run(args)),
        Command::Dialects(args) => dialects::run(&args),
        Command::Cert(args) => cert::run(&args),
        Command::Help(args) => help::run(&args, Cli::command()),
    }
}

/// Runs a client command on a runtime of its own.
fn client<T>(command: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(command)
}

/// Reads a path and makes it absolute, so that a message does not depend on the current folder. `-`, standard input, is
/// not changed.
fn absolute() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| if path.as_os_str() == "-" { Ok(path) } else { std::path::absolute(path) })
}

/// Validates a call id.
fn call_id(text: &str) -> Result<String, String> {
    id::check(text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

/// Validates a name in a list: not empty, and without a comma or a space.
fn name_list(text: &str) -> Result<String, String> {
    let name = text.trim();
    if name.is_empty() || name.contains([',', ' ']) {
        return Err("expected names separated by commas, such as summary,sentiment".to_owned());
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_examples() {
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains(&format!("sidetone {}", command.get_name())), "{}", command.get_name());
        }
    }
}
