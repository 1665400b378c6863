//! `sidetone compare`: plays recordings with several configurations on a virtual clock, and compares the results. Knows
//! no daemon: it asks models with the daemon's code, in its own process.

mod html;
mod report;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use self::report::Report;
use super::meter::Meter;
use super::trial::{self, AnswerArgs, Variant, shown, shown_difference};
use super::{client, name_list, out, table};

/// Maximum number of variants: a table with more columns is hard to read.
const MAX_VARIANTS: usize = 6;

/// Options of `sidetone compare`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sidetone compare call.jsonl --variant a=local --variant b=strict.toml --html report.html
  sidetone compare recordings/ --config sidetone.toml --variant fast=openai/gpt-4.1-mini --variant good=openai/gpt-4.1 \\
    --record-llm answers --html report.html --json report.json
  sidetone compare recordings/ --variant v1=summary:a --variant v2=summary:b --analyses summary --replay-llm answers

A variant is another configuration file (other prompts, triggers, limits), or a route, a model or endpoint/vendor-model
that all analyses of --config ask; ROUTE:VARIANT pins one of a route's variants. The others are compared with the first
variant. Triggers and debounce use the times in the recordings; the command does not wait for these times.
With --record-llm each request is sent once and its answer is stored. With --replay-llm the stored answers are used: a
comparison costs nothing and gives the same result every time, and a request without a stored answer is an error.
`sidetone help comparing` explains every figure.
Exit code: 0 if every recording was played with every variant, else 1.")]
pub(crate) struct CompareArgs {
    /// Recordings, or folders of them
    #[arg(required = true, value_name = "FILE|DIR", value_parser = super::absolute())]
    recordings: Vec<PathBuf>,
    /// One of the variants to compare; at least two are needed
    #[arg(long = "variant", required = true, value_name = "NAME=ROUTE|CONFIG", value_parser = trial::parse_variant)]
    variants: Vec<(String, String)>,
    /// The configuration whose routes and models the variants name; without it, only `local` exists
    #[arg(long, value_name = "FILE", env = "SIDETONE_CONFIG", value_parser = super::absolute())]
    config: Option<PathBuf>,
    /// Analyses to run; default: those of each variant's configuration
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', value_parser = name_list)]
    analyses: Vec<String>,
    /// Summaries by people; default: labels.jsonl beside the recordings, if it is there
    #[arg(long, value_name = "FILE", value_parser = super::absolute())]
    labels: Option<PathBuf>,
    /// Write the report as one page
    #[arg(long, value_name = "FILE", value_parser = super::absolute())]
    html: Option<PathBuf>,
    /// Write the report as JSON
    #[arg(long, value_name = "FILE", value_parser = super::absolute())]
    json: Option<PathBuf>,
    #[command(flatten)]
    answers: AnswerArgs,
}

/// Runs the command.
///
/// # Errors
/// A variant or a recording cannot be used, a request has no stored answer, or the report cannot be written.
pub(crate) fn run(args: &CompareArgs) -> Result<ExitCode> {
    for (index, (name, _)) in args.variants.iter().enumerate() {
        if args.variants[..index].iter().any(|(other, _)| other == name) {
            bail!("--variant {name} is given twice; each variant needs a name of its own");
        }
    }
    if !(2..=MAX_VARIANTS).contains(&args.variants.len()) {
        bail!(
            "{} variant; expected 2 to {MAX_VARIANTS}, such as --variant a=local --variant b=strict.toml",
            args.variants.len()
        );
    }
    let answers = args.answers.open()?;
    let open =
        |(name, what): &(String, String)| Variant::open(name, what, args.config.as_deref(), &args.analyses, &answers);
    let variants: Vec<Variant> = args.variants.iter().map(open).collect::<Result<_>>()?;
    let sources = trial::sources(&args.recordings)?;
    let labels = trial::labels(args.labels.as_deref(), &args.recordings)?;
    let meter = Meter::new(sources.len() * variants.len(), "calls", false);
    let report = client(async {
        let mut runs = Vec::new();
        for variant in &variants {
            meter.status(variant.name.clone());
            runs.push(Box::pin(variant.play(&sources, &answers, &meter)).await?);
        }
        Ok(Report::new(&variants, runs, labels.as_ref()))
    });
    meter.finish();
    let report = report?;
    out::lines(&table::draw(&lines(&report), 1))?;
    if let Some(path) = &args.html {
        write(path, &html::page(&report))?;
    }
    if let Some(path) = &args.json {
        write(path, &format!("{:#}\n", report.json()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// A header, then one line per figure: the mean per call for each variant, and the difference from the first one.
fn lines(report: &Report) -> Vec<Vec<String>> {
    let mut head = vec![String::new()];
    for (index, info) in report.variants.iter().enumerate() {
        head.push(info.name.clone());
        if index > 0 {
            head.push(format!("{} - {}", info.name, report.variants[0].name));
        }
    }
    let mut lines = vec![head];
    for total in report.telling() {
        let unit = total.metric.unit;
        let mut line = vec![total.metric.title.to_owned()];
        for (index, column) in total.columns.iter().enumerate() {
            line.push(column.mean.map_or("unknown".to_owned(), |mean| shown(mean.mean, unit)));
            if index > 0 {
                let word = column.better.map_or("", |better| if better { " (better)" } else { " (worse)" });
                let difference = column.difference.map(|mean| shown_difference(mean.mean, unit) + word);
                line.push(difference.unwrap_or_default());
            }
        }
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests;
