//! `sidetone eval`: measures insights on recordings with labels, at several points of each call. Knows no daemon: like
//! `sidetone compare`, it runs the calls in its own process, on a virtual clock.

mod measure;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;

use self::measure::{Group, SENTIMENT, SUMMARY};
use super::meter::Meter;
use super::out::{self, say};
use super::trial::{self, AnswerArgs, LABELS, Source, Variant};
use super::{client, table};

/// Options of `sidetone eval`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sidetone eval recordings/                                  the embedded provider
  sidetone eval recordings/ --config sidetone.toml --route openai/gpt-4.1-mini --record-llm answers
  sidetone eval recordings/ --replay-llm answers --json | jq '.groups[].summary'

The folder has recordings, and labels.jsonl with what people said of them:
  {\"kind\":\"call\",\"call_id\":\"FILE\",\"source\":\"Set\",\"summary\":\"…\"}
  {\"kind\":\"turn\",\"call_id\":\"FILE\",\"turn_order\":3,\"sentiment\":\"negative\"}
Each call runs the analyses that its labels can judge: summary, sentiment_turn. Triggers use the times in the recording;
the command does not wait for these times. The figures at 25, 50 and 75 % of a call's time judge the insights that were
current then. `sidetone help comparing` explains every figure.")]
pub(crate) struct EvalArgs {
    /// Folder with recordings and labels.jsonl
    #[arg(value_name = "DIR", value_parser = super::absolute())]
    folder: PathBuf,
    /// The configuration; without it, the embedded provider answers
    #[arg(long, value_name = "FILE", env = "SIDETONE_CONFIG", value_parser = super::absolute())]
    config: Option<PathBuf>,
    /// Ask this route, ROUTE:VARIANT, model or endpoint/vendor-model instead of the one that the configuration names
    #[arg(long, value_name = "ROUTE")]
    route: Option<String>,
    /// File with the labels; default: labels.jsonl in the folder
    #[arg(long, value_name = "FILE", value_parser = super::absolute())]
    labels: Option<PathBuf>,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    answers: AnswerArgs,
}

/// Runs the command.
///
/// # Errors
/// There are no labels, a recording cannot be played, or a request has no stored answer.
pub(crate) fn run(args: &EvalArgs) -> Result<ExitCode> {
    let paths = [args.folder.clone()];
    let Some(labels) = trial::labels(args.labels.as_deref(), &paths)? else {
        bail!("{} has no {LABELS}; --labels names another file", args.folder.display());
    };
    let answers = args.answers.open()?;
    let analyses = [SUMMARY, SENTIMENT].map(str::to_owned);
    let config = args.config.as_deref();
    let variant = match &args.route {
        Some(route) => Variant::open(route, route, config, &analyses, &answers)?,
        None => Variant::of_config(config, &analyses, &answers)?,
    };
    let all = trial::sources(&paths)?;
    let count = all.len();
    let judged = all.into_iter().filter_map(|source| {
        let analyses = measure::judged(labels.of(source.call.as_str())?);
        (!analyses.is_empty()).then_some(Source { analyses: Some(analyses), ..source })
    });
    let sources: Vec<Source> = judged.collect();
    if sources.is_empty() {
        bail!("none of the {count} recordings has a label with a summary or with a turn's sentiment");
    }
    if sources.len() < count {
        anstream::eprintln!("{} recordings without such labels are left out", count - sources.len());
    }
    let meter = Meter::new(sources.len(), "calls", false);
    let calls = client(async { Box::pin(variant.play(&sources, &answers, &meter)).await });
    meter.finish();
    let groups = Group::all(calls?, &labels);
    if args.json {
        let groups: Vec<_> = groups.iter().map(Group::json).collect();
        say!("{:#}", serde_json::json!({"version": 1, "variant": variant.what, "groups": groups}))?;
    } else {
        for (index, group) in groups.iter().enumerate() {
            let gap = if index == 0 { "" } else { "\n" };
            out::lines(&format!("{gap}{}\n{}", group.title(), table::draw(&group.lines(), 1)))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests;
