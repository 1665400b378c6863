//! `sidetone replay`: plays recordings into a daemon, as many at a time as requested, and reports the results.
//!
//! Knows nothing of the daemon but its sockets and its list of turns: it does not know the state of a call.

mod call;
mod expected;
mod files;
mod insights;
mod outbox;
mod script;
mod standin;
mod stats;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use futures::StreamExt as _;
use owo_colors::OwoColorize as _;
use serde_json::json;
use tokio::sync::Mutex;

use crate::base::names;
use crate::base::surrogates;
use crate::recording::Recording;
use crate::stt;
use crate::types::id::{self, MAX_ID_BYTES};

use super::meter::Meter;
use super::out::say;
use super::target::{DEFAULT_LISTEN, Target};
use super::{call_id, fetch, name_list};

pub(crate) use call::{Play, play};
pub(crate) use files::{left_out, load, walk};
pub(crate) use stats::{CallReport, Totals};

/// Options of `sidetone replay`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sidetone replay call.jsonl                            in real time, to the daemon on this machine
  sidetone replay recordings/ --speed max               a whole folder, as fast as the daemon takes it
  sidetone replay call.jsonl --calls 100 --concurrency 100 --speed 4
  sidetone replay recordings/ --speed max --json | tail -n 1
  sidetone replay --as-stt call.jsonl --listen 127.0.0.1:9000   as if by the STT vendor

If the daemon requires a key, set SIDETONE_KEY to it.
A line that cannot be read is reported, counted and left out; the other lines are played.
Exit code: 0 if the daemon has every final turn that was sent; 1 if anything was lost, a call failed, or a recording could
not be played.")]
pub(crate) struct ReplayArgs {
    /// Recordings, or folders of recordings (read in order of name; other files are skipped and reported)
    #[arg(required = true, value_name = "FILE|DIR", value_parser = super::absolute())]
    paths: Vec<PathBuf>,
    /// Address of the daemon
    #[arg(long, value_name = "URL", env = "SIDETONE_URL", default_value_t = format!("http://{DEFAULT_LISTEN}"))]
    to: String,
    /// Playback speed as a multiple of real time, such as 4 or 0.5, or "max". The daemon's debounce and intervals stay
    /// in real time, so a faster replay makes fewer insights than the call would
    #[arg(long, value_name = "N|max", default_value = "1")]
    speed: Speed,
    /// Play each recording as N calls, named with -1 to -N
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    calls: Option<u32>,
    /// Number of calls to play at once
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    concurrency: u32,
    /// Id of the call, for a single recording; default: the file's name
    #[arg(long, value_name = "ID", value_parser = call_id)]
    call_id: Option<String>,
    /// Analyses to run; default: those of the daemon's configuration
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', value_parser = name_list)]
    analyses: Vec<String>,
    /// The variant for a route's jobs; may be repeated. Default: chosen by weight
    #[arg(long = "variant", value_name = "ROUTE=NAME", value_parser = variant)]
    variants: Vec<(String, String)>,
    /// Metadata of the calls, a JSON object
    #[arg(long, value_name = "JSON", value_parser = json_object)]
    meta: Option<String>,
    /// Seconds without any progress after which a call is given up
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    patience: u64,
    /// Print figures as JSON: one line per call, and a last line with the sums
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    standin: standin::StandinArgs,
}

/// How fast a recording is played.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Speed {
    /// A multiple of real time.
    Times(f64),
    /// As fast as the daemon accepts frames.
    Max,
}

impl Speed {
    /// The time after the start at which something that was recorded at `at` is due.
    pub(crate) fn scale(self, at: Duration) -> Duration {
        match self {
            Self::Times(factor) => at.div_f64(factor),
            Self::Max => Duration::ZERO,
        }
    }
}

impl FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self::Max);
        }
        match text.trim_end_matches('x').parse::<f64>() {
            Ok(factor) if (0.001..=10_000.0).contains(&factor) => Ok(Self::Times(factor)),
            _ => Err("expected a number from 0.001 to 10000 (times real time), or \"max\"".to_owned()),
        }
    }
}

fn variant(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((route, name)) if !route.is_empty() && !name.is_empty() => Ok((route.to_owned(), name.to_owned())),
        _ => Err(format!("expected ROUTE=NAME, such as summary=b, found {text:?}")),
    }
}

/// Validates a JSON object.
pub(crate) fn json_object(text: &str) -> Result<String, String> {
    let object: serde_json::Map<String, serde_json::Value> =
        surrogates::from_str(text).map_err(|error| format!("expected a JSON object: {error}"))?;
    Ok(serde_json::Value::Object(object).to_string())
}

/// Runs the command.
///
/// # Errors
/// Nothing could be played at all. Failures of single calls are printed, and the exit code shows them.
///
/// # Cancel safety
/// Dropping the future closes the connections; the calls stay open at the daemon.
pub(crate) async fn run(args: ReplayArgs) -> Result<ExitCode> {
    if args.standin.as_stt {
        return standin::run(args.standin, &args.paths, args.speed).await;
    }
    let target: Target = args.to.parse().map_err(|error| anyhow!("--to: {error}"))?;
    let walk = files::walk(&args.paths)?;
    for (path, why) in &walk.skipped {
        anstream::eprintln!("skipped {}: {why}", path.display());
    }
    for (path, why) in &walk.damaged {
        anstream::eprintln!("{} {}: {why}", "damaged".red(), path.display());
    }
    for sentence in &walk.left_out {
        anstream::eprintln!("{sentence}");
    }
    if walk.recordings.is_empty() {
        bail!(
            "no recording among {} files; a recording is JSON Lines of {{\"at_ms\":N,\"message\":{{…}}}}",
            walk.skipped.len() + walk.damaged.len()
        );
    }
    if args.call_id.is_some() && walk.recordings.len() > 1 {
        bail!("--call-id names one call, but there are {} recordings", walk.recordings.len());
    }
    fetch::get(&target, "/version").await?;

    let frames: usize = walk.recordings.iter().map(|(_, frames)| frames).sum();
    let paths: Vec<PathBuf> = walk.recordings.into_iter().map(|(path, _)| path).collect();
    let jobs = jobs(&paths, args.calls, args.call_id.as_deref());
    let all = jobs.len();
    let meter = Meter::new(frames * args.calls.unwrap_or(1) as usize, "frames", false);
    meter.status(format!("0 of {all} calls complete"));
    let shared = Arc::new(Shared { target, meter: meter.clone(), ids: Mutex::default(), args });
    let started = Instant::now();
    let mut totals = Totals::default();
    totals.failed += walk.damaged.len();
    let concurrency = shared.args.concurrency as usize;
    let mut calls = futures::stream::iter(jobs)
        .map(|job| {
            let shared = Arc::clone(&shared);
            tokio::spawn(async move { (shared.call(&job).await, job) })
        })
        .buffer_unordered(concurrency);
    while let Some(played) = calls.next().await {
        let ((call_id, report, result), job) = played.context("a call's task ended early")?;
        if let Err(error) = &result {
            totals.failed += 1;
            meter.warn(&format!("{call_id}: {error:#}"));
        }
        if report.lost > 0 {
            meter.warn(&format!("{call_id}: {} final turns were lost", report.lost));
        }
        if shared.args.json {
            let mut line = json!({
                "call_id": call_id,
                "file": job.path.display().to_string(),
                "turns": report.turns,
                "insights": report.insights,
                "lost": report.lost,
                "reconnects": report.reconnects,
                "error": result.err().map(|error| format!("{error:#}")),
            });
            if report.skipped > 0 {
                line["skipped"] = json!(report.skipped);
            }
            print_line(&line)?;
        }
        totals.add(report);
        meter.status(format!("{} of {all} calls complete", totals.calls));
    }
    meter.finish();
    if shared.args.json {
        print_line(&totals.last_line())?;
    } else {
        print_summary(&mut totals, started.elapsed())?;
        if shared.args.speed != Speed::Times(1.0) {
            anstream::eprintln!("{SPEED_NOTE}");
        }
    }
    Ok(if totals.clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Explains the number of insights if the recording was not played in real time.
const SPEED_NOTE: &str = "note: debounce and intervals stay in real time at any --speed, so there are fewer insights \
    than in the real call: turns that come faster than the debounce share one insight. --speed 1 gives the real \
    number.";

struct Job {
    path: PathBuf,
    wanted_id: String,
}

/// One job for each recording and copy.
fn jobs(recordings: &[PathBuf], copies: Option<u32>, call_id: Option<&str>) -> Vec<Job> {
    let mut jobs = Vec::new();
    for path in recordings {
        let name = call_id.map_or_else(|| stem_id(path), str::to_owned);
        match copies {
            None => jobs.push(Job { path: path.clone(), wanted_id: name }),
            Some(copies) => jobs.extend(
                (1..=copies).map(|copy| Job { path: path.clone(), wanted_id: suffixed(&name, &format!("-{copy}")) }),
            ),
        }
    }
    jobs
}

/// The file's stem as a call id: characters that an id cannot have become `_`.
pub(crate) fn stem_id(path: &Path) -> String {
    id::sanitize(&path.file_stem().unwrap_or_default().to_string_lossy())
}

/// `name` and `suffix`, cut to the maximum length of an id.
fn suffixed(name: &str, suffix: &str) -> String {
    let room = MAX_ID_BYTES - suffix.len();
    // Ids are ASCII.
    format!("{}{suffix}", &name[..name.len().min(room)])
}

struct Shared {
    target: Target,
    meter: Meter,
    /// Ids that this replay uses, because the daemon knows a call only once it has begun.
    ids: Mutex<HashSet<String>>,
    args: ReplayArgs,
}

impl Shared {
    async fn call(&self, job: &Job) -> (String, CallReport, Result<()>) {
        match self.prepare(job).await {
            Err(error) => (job.wanted_id.clone(), CallReport::default(), Err(error)),
            Ok((call_id, recording, dialect)) => {
                let play = Play {
                    target: &self.target,
                    call_id: &call_id,
                    recording: &recording,
                    dialect,
                    analyses: &self.args.analyses,
                    variants: &self.args.variants,
                    meta: self.args.meta.as_deref(),
                    speed: self.args.speed,
                    patience: self.patience(),
                    meter: &self.meter,
                };
                let (report, result) = Box::pin(call::play(play)).await;
                let report = CallReport { skipped: recording.skipped, ..report };
                (call_id, report, result)
            }
        }
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(self.args.patience)
    }

    async fn prepare(&self, job: &Job) -> Result<(String, Recording, &'static dyn stt::Dialect)> {
        let recording = files::load(&job.path)?.with_context(|| format!("{}", job.path.display()))?;
        let name = &recording.header.dialect;
        let dialect = stt::dialect(name).ok_or_else(|| {
            let known: Vec<&str> = stt::DIALECTS.iter().map(|dialect| dialect.name()).collect();
            anyhow!("{}: {}", job.path.display(), names::unknown("dialect", name, &known))
        })?;
        Ok((self.claim(&job.wanted_id).await?, recording, dialect))
    }

    /// The first of `wanted`, `wanted.2`, `wanted.3`, … that neither the daemon nor this replay has.
    async fn claim(&self, wanted: &str) -> Result<String> {
        let mut ids = self.ids.lock().await;
        let mut candidate = wanted.to_owned();
        let mut number = 1;
        loop {
            let taken = ids.contains(&candidate)
                || fetch::get_patiently(&self.target, &format!("/v1/calls/{candidate}"), self.patience())
                    .await?
                    .is_some();
            if !taken {
                break;
            }
            number += 1;
            candidate = suffixed(wanted, &format!(".{number}"));
        }
        if number > 1 {
            self.meter.note(&format!("the id {wanted} is in use; this call gets {candidate}"));
        }
        ids.insert(candidate.clone());
        Ok(candidate)
    }
}

fn print_line(value: &impl serde::Serialize) -> Result<()> {
    say!("{}", serde_json::to_string(value)?)
}

fn print_summary(totals: &mut Totals, took: Duration) -> Result<()> {
    for (label, text) in totals.rows(took) {
        let text = if label == "lost" && text != "nothing" { format!("{}", text.red().bold()) } else { text };
        say!("{:<18}{text}", label.dimmed())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
