//! `sidetone replay --as-stt`: serves recordings as the STT vendor would.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use owo_colors::OwoColorize as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::super::out::say;
use super::{Speed, files};
use crate::standin::{self, Fault, Options, Pace, Script};

/// What determines the pace of the frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum PaceBy {
    /// The recorded times, by --speed
    Clock,
    /// The audio that the client sends
    Audio,
}

/// Options of `--as-stt`.
#[derive(Debug, Args)]
#[command(next_help_heading = "As STT vendor")]
pub(super) struct StandinArgs {
    /// Serve the recordings over AssemblyAI's v3 protocol, one recording per session in rotation, to any client or to
    /// the daemon's proxy
    #[arg(long)]
    pub(super) as_stt: bool,
    /// Address to listen on; port 0 picks a free port
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0", requires = "as_stt")]
    listen: SocketAddr,
    /// What determines the pace of the frames
    #[arg(long, value_name = "BY", default_value = "clock", requires = "as_stt")]
    pace: PaceBy,
    /// Fault to simulate: drop, cut, stall, garble, slow, mute, refuse, 1008, 3005 or 3008; @TURNS after it delays it
    /// by that many turns
    #[arg(long, value_name = "KIND[@TURNS]", requires = "as_stt")]
    fault: Option<Fault>,
    /// Only the first N sessions have the fault
    #[arg(long, value_name = "N", requires = "fault")]
    faulty_sessions: Option<usize>,
    /// The only API key that is accepted; default: any
    #[arg(long, value_name = "KEY", requires = "as_stt")]
    require_key: Option<String>,
    /// Give every session an id of its own instead of the recorded one
    #[arg(long, requires = "as_stt")]
    fresh_ids: bool,
    /// Add SpeechStarted, Heartbeat and a final SpeakerRevision
    #[arg(long, requires = "as_stt")]
    extras: bool,
}

/// Serves until Ctrl-C.
///
/// # Errors
/// There is nothing to serve, or the address is in use.
pub(super) async fn run(args: StandinArgs, paths: &[PathBuf], speed: Speed) -> Result<ExitCode> {
    let walk = files::walk(paths)?;
    let mut scripts = Vec::new();
    for (path, _) in &walk.recordings {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let recording = files::load(path)?.with_context(|| path.display().to_string())?;
        match Script::new(name, &recording) {
            Ok(script) => scripts.push(script),
            Err(why) => anstream::eprintln!("skipped {}: {why}", path.display()),
        }
    }
    for (path, why) in walk.skipped.iter().chain(&walk.damaged) {
        anstream::eprintln!("skipped {}: {why}", path.display());
    }
    for sentence in &walk.left_out {
        anstream::eprintln!("{sentence}");
    }
    if scripts.is_empty() {
        bail!("no assemblyai recording among {} files", walk.recordings.len() + walk.skipped.len());
    }
    let listener = TcpListener::bind(args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?;
    let address = listener.local_addr()?;
    say!("listening on ws://{address}")?;
    say!(
        "serving {} recordings over AssemblyAI's v3 protocol; configure a daemon with this address: {}",
        scripts.len(),
        format!("[stt] upstream = \"ws://{address}\"").bold()
    )?;
    let pace = match (args.pace, speed) {
        (PaceBy::Audio, _) => Pace::Audio,
        (PaceBy::Clock, Speed::Max) => Pace::Max,
        (PaceBy::Clock, Speed::Times(times)) => Pace::Clock(times),
    };
    let options = Options {
        pace,
        fault: args.fault,
        faulty_sessions: args.faulty_sessions,
        key: args.require_key,
        fresh_ids: args.fresh_ids,
        extras: args.extras,
    };
    let stop = CancellationToken::new();
    tokio::select! {
        () = standin::serve(listener, scripts, options, stop) => {}
        interrupted = tokio::signal::ctrl_c() => interrupted.context("cannot listen for Ctrl-C")?,
    }
    Ok(ExitCode::SUCCESS)
}
