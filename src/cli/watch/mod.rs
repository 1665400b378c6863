//! `sidetone watch`: subscribes to a daemon and shows its frames, for people or as NDJSON.
//!
//! Knows no session and no journal: only the frames of its subscription.

mod follow;
mod positions;

use std::collections::HashSet;
use std::io::Write as _;
use std::ops::ControlFlow;
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use clap::Args;
use owo_colors::OwoColorize as _;

use super::name_list;
use super::screen::{self, Screen};
use super::target::{DEFAULT_LISTEN, Target};
use crate::protocol::event::Kind;
use crate::protocol::subscribe::Include;
use crate::types::directory::CallState;
use crate::types::{CallId, IdError};

pub(crate) use follow::{Heard, follow};
pub(crate) use positions::{Positions, Selection};

/// Options of `sidetone watch`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sidetone watch                                  every call of the daemon on this machine
  sidetone watch --call c_42 --analyses summary   one call, one analysis; the call need not exist yet
  sidetone watch --json | jq 'select(.type == \"insight.updated\") | .insight.value'

If the daemon requires a key, set SIDETONE_KEY to it.
The command continues after a restart of the daemon: each event is shown once, in order. Ctrl-C stops it.")]
pub(crate) struct WatchArgs {
    /// Address of the daemon
    #[arg(long, value_name = "URL", env = "SIDETONE_URL", default_value_t = format!("http://{DEFAULT_LISTEN}"))]
    to: String,
    /// Id of a call; may be repeated. Default: all calls, including later ones
    #[arg(long = "call", value_name = "ID", value_parser = call_id)]
    calls: Vec<CallId>,
    /// Analyses to show; default: all
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', value_parser = name_list)]
    analyses: Vec<String>,
    /// Leave out turns that are still being spoken
    #[arg(long)]
    no_partials: bool,
    /// Print the daemon's frames unchanged, one per line
    #[arg(long)]
    json: bool,
    /// Exit once the calls named with --call have completed
    #[arg(long, requires = "calls")]
    until_completed: bool,
}

fn call_id(text: &str) -> Result<CallId, IdError> {
    CallId::parse(text)
}

/// Runs the command.
///
/// # Errors
/// No daemon answers, or it refused the subscription.
///
/// # Cancel safety
/// Dropping the future closes the connection.
pub(crate) async fn run(args: WatchArgs) -> Result<ExitCode> {
    let target: Target = args.to.parse().map_err(|error| anyhow!("--to: {error}"))?;
    let single = args.calls.len() == 1;
    let mut open: HashSet<String> = args.calls.iter().map(ToString::to_string).collect();
    let selection = if args.calls.is_empty() { Selection::All } else { Selection::Calls(args.calls) };
    let mut include = vec![Include::Turns];
    include.extend((!args.no_partials).then_some(Include::Partials));
    let mut positions = Positions::new(selection, args.analyses, include);
    let mut screen = Screen::stdout(!single);
    if !args.json {
        anstream::eprintln!("{}", format!("watching {target}; Ctrl-C ends").dimmed());
    }
    let taken = follow(&target, &mut positions, |heard| {
        match heard {
            Heard::Frame(text, frame) => {
                if args.json {
                    let mut out = std::io::stdout().lock();
                    // Frames are one line by contract; a line break could only stand between tokens.
                    writeln!(out, "{}", text.replace(['\n', '\r'], " "))?;
                    out.flush()?;
                } else {
                    screen.frame(frame)?;
                }
                if frame["type"] == Kind::CallCompleted.as_str()
                    || frame["state"]["status"] == CallState::Completed.as_str()
                {
                    open.remove(frame["call_id"].as_str().unwrap_or_default());
                    if args.until_completed && open.is_empty() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
            Heard::Lost(why) => {
                screen.pause()?;
                anstream::eprintln!("{} {why}; reconnecting", "lost:".yellow());
            }
            Heard::Back => anstream::eprintln!("{}", "back".green()),
        }
        Ok(ControlFlow::Continue(()))
    })
    .await;
    match taken {
        Err(error) if screen::is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error),
        Ok(()) => Ok(ExitCode::SUCCESS),
    }
}
