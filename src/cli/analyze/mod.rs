//! `sidetone analyze`: runs the analyses on transcript files and recordings, with a daemon of its own or a running one.
//!
//! In both cases it is a client: each file is one `POST /v1/transcripts`. Knows no analysis.

mod ask;
mod daemon;
mod markdown;
mod report;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use clap::Args;
use futures::StreamExt as _;
use owo_colors::OwoColorize as _;

use self::daemon::Own;
use self::report::Report;
use super::input::{self, Fault};
use super::meter::Meter;
use super::out::{self, say};
use super::screen::{self, Screen};
use super::target::Target;
use super::{client, fetch, name_list, replay};

/// Options of `sidetone analyze`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sidetone analyze standup.vtt                              on a terminal; no daemon, no key and no network needed
  sidetone analyze *.vtt --analyses summary --markdown > report.md
  sidetone analyze call.jsonl --json | jq .insights.summary.value
  sidetone analyze notes.txt --format text --config sidetone.toml
  sidetone analyze captions.srt --to http://127.0.0.1:7700  by a running daemon
  pbpaste | sidetone analyze -

Formats: vtt, srt, zoom, teams, otter, text; recordings (JSON Lines) too. `sidetone help transcripts` says what each
format reads and how captions become turns.
Without --to the command starts a daemon of its own, whose data is in a temporary folder and deleted at the end. That
daemon asks the models of --config, or the embedded provider if there is no configuration. If the daemon of --to requires
a key, set SIDETONE_KEY to it.
Exit code: 0 if every file got all its analyses, else 1. A file that fails is reported, and the others are still analysed.")]
pub(crate) struct AnalyzeArgs {
    /// Transcript files or recordings; "-" is standard input
    #[arg(required = true, value_name = "FILE", value_parser = super::absolute())]
    files: Vec<PathBuf>,
    /// Format of the files; default: detected for each file
    #[arg(long, value_name = "FORMAT", value_parser = input::formats())]
    format: Option<String>,
    /// Analyses to run; default: those of the daemon's configuration
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', value_parser = name_list)]
    analyses: Vec<String>,
    /// Metadata of the calls, a JSON object
    #[arg(long, value_name = "JSON", value_parser = replay::json_object)]
    meta: Option<String>,
    /// Print one line of JSON per file
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// Print a report in Markdown
    #[arg(long)]
    markdown: bool,
    /// Use this running daemon; default: start one for this command
    #[arg(long, value_name = "URL", env = "SIDETONE_URL")]
    to: Option<String>,
    /// Configuration of the daemon that this command starts; without it, the embedded provider answers
    #[arg(long, value_name = "FILE", env = "SIDETONE_CONFIG", value_parser = super::absolute())]
    config: Option<PathBuf>,
    /// Number of files to analyse at once
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    concurrency: u16,
    /// Seconds to wait for the answer about a file
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    patience: u64,
}

/// Runs the command.
///
/// # Errors
/// No daemon answers, or the output cannot be written. Failures of single files are printed, and the exit code shows
/// them.
pub(crate) fn run(args: &AnalyzeArgs) -> Result<ExitCode> {
    if args.files.iter().filter(|path| input::is_stdin(path)).count() > 1 {
        bail!("standard input is given more than once");
    }
    if let Some(url) = &args.to {
        let target: Target = url.parse().map_err(|error| anyhow!("--to: {error}"))?;
        return client(async {
            fetch::get(&target, "/version").await?;
            all(args, &target).await
        });
    }
    if args.config.is_none() {
        anstream::eprintln!(
            "{}",
            "note: the embedded provider answers; use --config for a configuration with models".dimmed()
        );
    }
    let own = Own::start(args.config.as_deref())?;
    let result = client(async {
        tokio::select! {
            done = all(args, own.target()) => done,
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                bail!("interrupted")
            }
        }
    });
    own.stop();
    result
}

/// Analyses all files, and shows the results in the order in which the files were given.
async fn all(args: &AnalyzeArgs, target: &Target) -> Result<ExitCode> {
    let meter = Meter::new(args.files.len(), "files", args.files.len() == 1);
    let mut reports = futures::stream::iter(&args.files)
        .map(|path| async move { (path, Box::pin(one(args, target, path)).await) })
        .buffered(usize::from(args.concurrency));
    let mut output = Output::new(args);
    let mut failed = false;
    while let Some((path, report)) = reports.next().await {
        let shown = match &report {
            Ok(report) => {
                report.notes.iter().for_each(|note| meter.note(note));
                failed |= !report.is_complete();
                meter.hidden(|| output.report(report))
            }
            Err(fault) => {
                failed = true;
                meter.note(&format!("{} {fault}", "error:".red().bold()));
                output.fault(path, fault)
            }
        };
        match shown {
            // The reader of the output has closed it.
            Err(error) if screen::is_broken_pipe(&error) => break,
            shown => shown?,
        }
        meter.advance(1);
    }
    meter.finish();
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn one(args: &AnalyzeArgs, target: &Target, path: &Path) -> Result<Report, Fault> {
    let (owned, format) = (path.to_owned(), args.format.clone());
    // A file may be large, and standard input may take long.
    let read = tokio::task::spawn_blocking(move || input::read(&owned, format.as_deref())).await;
    let input = read.map_err(|error| Fault::new(path, error.to_string()))??;
    let notes = input.notes(path);
    let question = ask::Question {
        input: &input,
        analyses: &args.analyses,
        meta: args.meta.as_deref(),
        patience: Duration::from_secs(args.patience),
    };
    let answer = question.ask(target).await.map_err(|error| Fault::new(path, format!("{error:#}")))?;
    Ok(Report::new(path, &input, answer, notes))
}

/// Where reports go.
enum Output {
    Screen { screen: Box<Screen<anstream::Stdout>>, shown: usize },
    Json,
    Markdown { shown: usize },
}

impl Output {
    fn new(args: &AnalyzeArgs) -> Self {
        match (args.json, args.markdown) {
            (true, _) => Self::Json,
            (_, true) => Self::Markdown { shown: 0 },
            _ => Self::Screen { screen: Box::new(Screen::stdout(false)), shown: 0 },
        }
    }

    fn report(&mut self, report: &Report) -> Result<()> {
        match self {
            Self::Json => say!("{}", report.json()),
            Self::Markdown { shown } => {
                let text = markdown::page(report);
                let gap = if *shown == 0 { "" } else { "\n" };
                *shown += 1;
                out::lines(&format!("{gap}{text}"))
            }
            Self::Screen { screen, shown } => {
                if *shown > 0 {
                    screen.say("")?;
                }
                *shown += 1;
                Ok(report.show(screen)?)
            }
        }
    }

    fn fault(&self, path: &Path, fault: &Fault) -> Result<()> {
        match self {
            Self::Json => say!("{}", serde_json::json!({"file": input::shown(path), "error": fault.json()})),
            // The message is on stderr already.
            Self::Markdown { .. } | Self::Screen { .. } => Ok(()),
        }
    }
}
