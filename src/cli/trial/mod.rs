//! Plays recordings on a virtual clock: the common part of `sidetone compare` and `sidetone eval`.
//!
//! Knows no daemon, and no output except the text of single figures.

mod call;
mod figures;
mod files;
mod show;
#[cfg(test)]
pub(crate) mod tests;
mod variant;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use futures::{StreamExt as _, TryStreamExt as _};

use super::meter::Meter;
use super::replay::{left_out, load, stem_id, walk};
use crate::evaluation::labels::Labels;
use crate::gateway::exchanges::{ExchangeStore, Exchanges};
use crate::recording::Recording;
use crate::types::CallId;

pub(crate) use self::call::{Call, Shown};
pub(crate) use self::figures::{Figures, METRICS, Metric, Unit, with_summary};
use self::files::Files;
pub(crate) use self::show::{shown, shown_difference};
pub(crate) use self::variant::{Variant, parse_variant};

/// Name of the file with labels, in the folder of the recordings.
pub(crate) const LABELS: &str = "labels.jsonl";

/// Where models' answers come from.
#[derive(Debug, Args)]
pub(crate) struct AnswerArgs {
    /// Store models' answers in this folder; a request whose answer is there already is not sent
    #[arg(long, value_name = "DIR", conflicts_with = "replay_llm", value_parser = super::absolute())]
    record_llm: Option<PathBuf>,
    /// Take models' answers from this folder, and send no request
    #[arg(long, value_name = "DIR", value_parser = super::absolute())]
    replay_llm: Option<PathBuf>,
    /// Number of calls to play at once
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    concurrency: u16,
}

/// The source of models' answers for one command.
pub(crate) struct Answers {
    store: Option<Arc<dyn ExchangeStore>>,
    replays: bool,
    concurrency: usize,
}

impl AnswerArgs {
    /// Opens the folder.
    ///
    /// # Errors
    /// The folder cannot be created, or it does not exist and answers are to be taken from it.
    pub(crate) fn open(&self) -> Result<Answers> {
        let (folder, replays) = match (&self.record_llm, &self.replay_llm) {
            (Some(folder), _) => (Some(Files::create(folder)?), false),
            (None, Some(folder)) => (Some(Files::open(folder)?), true),
            (None, None) => (None, false),
        };
        let store = folder.map(|files| Arc::new(files) as Arc<dyn ExchangeStore>);
        Ok(Answers { store, replays, concurrency: usize::from(self.concurrency) })
    }
}

impl Answers {
    /// The exchanges of one configuration with its models.
    pub(crate) fn exchanges(&self) -> Exchanges {
        match &self.store {
            None => Exchanges::live(),
            Some(store) if self.replays => Exchanges::replaying(Arc::clone(store)),
            Some(store) => Exchanges::recording(Arc::clone(store)),
        }
    }
}

/// A recording to play.
pub(crate) struct Source {
    pub(crate) call: CallId,
    pub(crate) recording: Recording,
    /// Analyses to run; `None`: those of the variant.
    pub(crate) analyses: Option<Vec<String>>,
}

/// Finds the recordings among files and folders; what is left out is reported on stderr.
///
/// # Errors
/// A path or a recording cannot be read, or there is no recording.
pub(crate) fn sources(paths: &[PathBuf]) -> Result<Vec<Source>> {
    let walk = walk(paths)?;
    for (path, why) in walk.skipped.iter().filter(|(path, _)| !path.ends_with(LABELS)) {
        anstream::eprintln!("skipped {}: {why}", path.display());
    }
    if let Some((path, why)) = walk.damaged.first() {
        bail!("{}: {why}", path.display());
    }
    if walk.recordings.is_empty() {
        bail!("no recording among the files; a recording is JSON Lines of {{\"at_ms\":N,\"message\":{{…}}}}");
    }
    let mut taken = HashSet::new();
    let mut sources = Vec::new();
    for (path, _) in walk.recordings {
        let recording = load(&path)?.with_context(|| path.display().to_string())?;
        left_out(&path, &recording).iter().for_each(|sentence| anstream::eprintln!("{sentence}"));
        let stem = stem_id(&path);
        let names = (1..).map(|number| if number == 1 { stem.clone() } else { format!("{stem}.{number}") });
        let name = names.into_iter().find(|name| taken.insert(name.clone())).unwrap_or_default();
        let call = CallId::parse(&name).with_context(|| path.display().to_string())?;
        sources.push(Source { call, recording, analyses: None });
    }
    Ok(sources)
}

/// The labels in `file`; without one, those beside the recordings, if there are any.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn labels(file: Option<&Path>, paths: &[PathBuf]) -> Result<Option<Labels>> {
    let beside = || {
        let folders = paths.iter().filter_map(|path| if path.is_dir() { Some(path.as_path()) } else { path.parent() });
        folders.map(|folder| folder.join(LABELS)).find(|path| path.is_file())
    };
    let Some(path) = file.map(Path::to_owned).or_else(beside) else { return Ok(None) };
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Labels::read(&text).map(Some).map_err(|message| anyhow!("{}: {message}", path.display()))
}

impl Variant {
    /// Plays all recordings, several at once. The results are in the order of the recordings.
    ///
    /// # Errors
    /// The first recording that cannot be played, or the first request that has no stored answer.
    ///
    /// # Cancel safety
    /// Dropping the future aborts the requests in progress.
    pub(crate) async fn play(&self, sources: &[Source], answers: &Answers, meter: &Meter) -> Result<Vec<Call>> {
        if !answers.replays {
            self.offline.read_lists().await;
        }
        let runs = futures::stream::iter(sources).map(|source| self.one(source, meter));
        runs.buffered(answers.concurrency).try_collect().await
    }

    async fn one(&self, source: &Source, meter: &Meter) -> Result<Call> {
        let Source { call, recording, analyses } = source;
        let analyses = analyses.as_ref().unwrap_or(&self.analyses);
        let run = Box::pin(self.offline.play(call, recording, analyses, &self.pins)).await;
        let run = run.map_err(|message| anyhow!("{}: {call}: {message}", self.name))?;
        meter.advance(1);
        run.notes.iter().for_each(|note| meter.note(&format!("{}: {call}: {note}", self.name)));
        Ok(Call::new(call, recording, run))
    }
}
