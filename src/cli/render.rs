//! `sidetone render`: shows the request that an analysis, or its bundle, would send for a recording, without sending it.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use owo_colors::OwoColorize as _;

use crate::analysis::trigger::Trigger;
use crate::analysis::{Analysis, Asked, Facts, Prompt, Scope, gate, request};
use crate::base::time::millis;
use crate::config::Config;
use crate::context::tokens::estimate;
use crate::context::{Context, Snapshot, Window};
use crate::llm::{ChatRequest, Content, Message, ResponseFormat};
use crate::recording::Recording;
use crate::stt::{self, Dialect};
use crate::turns::{ChangeKind, Turns};
use crate::types::{CallId, JsonMap, StreamId, SttEvent};

use super::out::{self, say};
use super::replay::{left_out, load, stem_id};
use super::screen::harmless;
use super::settings;

/// Options of `sidetone render`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sidetone render call.jsonl --analysis summary            the last prompt, at the call's end
  sidetone render call.jsonl --analysis summary --at 12    the prompt after turn 12
  sidetone render call.jsonl --analysis mine --config sidetone.toml > prompt.txt
  sidetone render call.jsonl --analysis summary --config sidetone.toml --bundle --schema

The prompt is written to stdout, notes about it to stderr. Tokens are estimated: each vendor counts differently. The value
that a model gave before is not in it, because no model is asked.")]
pub(crate) struct RenderArgs {
    /// Recording
    #[arg(value_name = "FILE", value_parser = super::absolute())]
    file: PathBuf,
    /// Name of the analysis
    #[arg(long, value_name = "NAME")]
    analysis: String,
    /// Number of the last known turn, from 0; default: the call has ended. For a per-turn analysis: the turn
    #[arg(long, value_name = "TURN")]
    at: Option<u64>,
    /// Version of the prompt; default: the one that would be used
    #[arg(long, value_name = "VERSION")]
    prompt: Option<String>,
    /// The request of the whole bundle, with all analyses of it that calls run, as if each had something new
    #[arg(long)]
    bundle: bool,
    /// Also the JSON schema that the answer must have
    #[arg(long)]
    schema: bool,
    /// Configuration file; without it, the built-in analyses
    #[arg(long, value_name = "FILE", env = "SIDETONE_CONFIG", value_parser = super::absolute())]
    config: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// The configuration, the analysis, the recording, the prompt or the turn cannot be found or used.
pub(crate) fn run(args: &RenderArgs) -> Result<ExitCode> {
    let config = settings::load(args.config.as_deref())?;
    let analysis =
        config.analyses.get(&args.analysis).ok_or_else(|| anyhow!("{}", config.analyses.unknown(&args.analysis)))?;
    if analysis.is_computed() {
        bail!("{} is computed from the turns and has no prompt", args.analysis);
    }
    let recording = load(&args.file)
        .and_then(|recording| recording.map_err(Into::into))
        .with_context(|| format!("cannot read {}", args.file.display()))?;
    for sentence in left_out(&args.file, &recording) {
        anstream::eprintln!("{sentence}");
    }
    let dialect = stt::dialect(&recording.header.dialect)
        .ok_or_else(|| anyhow!("{}: no dialect {:?}", args.file.display(), recording.header.dialect))?;
    let moment = moment(&recording, dialect, analysis, args.at)?;
    let prompt = analysis.prompt(args.prompt.as_deref())?;
    let call_id = CallId::parse(&stem_id(&args.file))?;
    let facts = Facts { call_id, meta: moment.meta, speakers: JsonMap::new(), turn: moment.turn };
    let last = args.at.is_none() && moment.turn.is_none();
    let mut members = vec![(Arc::clone(analysis), prompt)];
    if args.bundle {
        members.extend(others(&config, (analysis, &members[0].1), last)?);
        members.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
    }
    let asked = members.iter().map(|(analysis, prompt)| Asked { analysis, prompt, current: None, last, due: true });
    let request = request::request(&asked.collect::<Vec<_>>(), &moment.snapshot, &facts)?;

    let mut total = 0;
    for message in &request.messages {
        let text = text_of(message);
        total += estimate(&text);
        say!("{}", format!("=== {} ===", message.role.as_str()).bold())?;
        out::written(print(&text))?;
    }
    if let Some(ResponseFormat::JsonSchema { schema, .. }) = request.response_format.filter(|_| args.schema) {
        say!("{}", "=== schema ===".bold())?;
        say!("{}", serde_json::to_string_pretty(&*schema)?)?;
    }
    let covers = moment.snapshot.covers();
    let span = match (covers.from, covers.to) {
        (Some(from), Some(to)) => format!("turns {from} to {to}"),
        _ => "no turn".to_owned(),
    };
    let prompts: Vec<&str> = members.iter().map(|(_, prompt)| &*prompt.id).collect();
    anstream::eprintln!("{}", format!("{}; {span}; estimated tokens: {total}", prompts.join(", ")).dimmed());
    Ok(ExitCode::SUCCESS)
}

/// The other analyses that the request of an analysis asks, if something is new for all of them: those that a call runs
/// unless it names its own. `last`: it is the last request of the call.
///
/// # Errors
/// The analysis is asked alone.
fn others(
    config: &Config,
    (analysis, prompt): (&Arc<Analysis>, &Prompt),
    last: bool,
) -> Result<Vec<(Arc<Analysis>, Arc<Prompt>)>> {
    let target = |analysis: &Analysis| {
        let target = config.gateway.target(&analysis.name, analysis.settings.route.as_deref());
        target.ok().filter(|target| !config.gateway.is_local(target))
    };
    let name = &analysis.name;
    let Some(route) = target(analysis) else {
        bail!(
            "--bundle: the embedded provider answers {name}, and it gets each analysis alone; --config can name a model"
        )
    };
    let is_early = analysis.scope == Scope::End && !last;
    if is_early || analysis.bundle(&route).is_none() || !prompt.bundles() {
        bail!("--bundle: {name} is asked alone")
    }
    let mut others = Vec::new();
    for other in config.default_analyses().iter().filter(|other| **other != **name) {
        let Some(other) = config.analyses.get(other).filter(|other| !other.is_computed()) else { continue };
        let has_run = if last { other.settings.triggers.on_end } else { other.scope == Scope::Rolling };
        let its = other.prompt(None)?;
        if has_run
            && analysis.goes_with(other, &route)
            && target(other).is_some_and(|its| its == route)
            && its.bundles()
        {
            others.push((Arc::clone(other), its));
        }
    }
    Ok(others)
}

/// Writes the text unchanged, except to a terminal, which would obey control characters in it.
fn print(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if !out.is_terminal() {
        return writeln!(out, "{text}");
    }
    text.lines().try_for_each(|line| writeln!(out, "{}", harmless(line)))
}

fn text_of(message: &Message) -> String {
    match &message.content {
        Content::Parts(parts) => format!("{parts:?}"),
        content => content.plain(),
    }
}

/// The last request of `analysis` over `recording`, which is its longest.
///
/// # Errors
/// The recording has no turn, or the prompt cannot be rendered.
pub(super) fn last_request(
    recording: &Recording,
    dialect: &dyn Dialect,
    analysis: &Analysis,
    call_id: &str,
) -> Result<(ChatRequest, u64)> {
    let moment = moment(recording, dialect, analysis, None)?;
    let facts =
        Facts { call_id: CallId::parse(call_id)?, meta: moment.meta, speakers: JsonMap::new(), turn: moment.turn };
    let request = analysis.request(&*analysis.prompt(None)?, &moment.snapshot, &facts)?;
    Ok((request, moment.turns))
}

/// The input of an analysis at one point of a call.
struct Moment {
    snapshot: Snapshot,
    meta: JsonMap,
    turn: Option<u64>,
    /// Number of turns so far.
    turns: u64,
}

/// Plays `recording` on its own clock up to turn `at`, or to its end, including the runs that the analysis would have
/// had by then, because they determine where its window begins.
fn moment(recording: &Recording, dialect: &dyn Dialect, analysis: &Analysis, at: Option<u64>) -> Result<Moment> {
    let stream = StreamId::parse("s_1")?;
    let budget = analysis.settings.max_context_tokens;
    let (mut turns, mut context, mut window) = (Turns::new(), Context::new(), Window::new(budget));
    let mut trigger = Trigger::new(&analysis.settings.triggers);
    let mut decoder = dialect.open();
    let mut meta = JsonMap::new();
    let (mut events, mut changes) = (Vec::new(), Vec::new());
    let last = recording.frames.len();
    for index in 0..=last {
        let frame = recording.frames.get(index);
        let now = millis(frame.map_or(recording.duration(), |frame| frame.at));
        while let Some(due) = trigger.next_deadline().filter(|due| *due <= now) {
            if trigger.poll(due).is_none() {
                break;
            }
            context.snapshot(&mut window);
            trigger.ran(due);
        }
        match frame {
            // Frames that the daemon would refuse have no effect here either.
            Some(frame) => {
                let _ = decoder.decode(&frame.message, &mut events);
            }
            None => decoder.finish(&mut events),
        }
        for event in events.drain(..) {
            if let SttEvent::Meta(more) = &event {
                meta.extend(more.clone());
            }
            // A revision that names no turn changes nothing.
            let _ = turns.apply(&stream, decoder.picked().unwrap_or(dialect).splits(), 0, now, &event, &mut changes);
        }
        for change in changes.drain(..) {
            context.upsert(&change.turn);
            match change.kind {
                ChangeKind::New => {
                    let before = turns.iter().rev().filter(|earlier| earlier.turn < change.turn.turn);
                    let said = before.map(|earlier| earlier.text.as_str()).filter(|text| !text.is_empty());
                    if !(analysis.settings.gate && gate::adds_nothing(&change.turn.text, said)) {
                        trigger.on_turn(now, context.tokens(change.turn.turn));
                    }
                }
                ChangeKind::Revised(_) => trigger.on_revision(now),
            }
        }
        if at.is_some_and(|at| (context.len() as u64) > at) {
            break;
        }
    }
    let count = context.len() as u64;
    if count == 0 {
        bail!("the recording has no turn, so there is no prompt");
    }
    if let Some(at) = at.filter(|at| *at >= count) {
        bail!("--at {at}: the recording has turns 0 to {}", count - 1);
    }
    Ok(match (analysis.scope, at) {
        (Scope::Turn, at) => {
            let turn = at.unwrap_or(count - 1);
            let snapshot = context.snapshot_turn(turn, analysis.settings.context_turns, budget);
            Moment { snapshot, meta, turn: Some(turn), turns: count }
        }
        (Scope::Rolling | Scope::End, Some(at)) => {
            Moment { snapshot: context.snapshot_to(&mut window, at + 1), meta, turn: None, turns: count }
        }
        (Scope::Rolling | Scope::End, None) => {
            Moment { snapshot: context.snapshot_final(&mut window), meta, turn: None, turns: count }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::Registry;
    use crate::recording;

    const CALL: &str = include_str!("../../config/demo/call.jsonl");

    fn prompt(name: &str, at: Option<u64>) -> Result<String> {
        let recording = recording::parse(CALL)?;
        let dialect = stt::dialect(&recording.header.dialect).expect("dialect");
        let analysis = Registry::builtin().get(name).expect("analysis").clone();
        let moment = moment(&recording, dialect, &analysis, at)?;
        let facts =
            Facts { call_id: CallId::parse("c")?, meta: moment.meta, speakers: JsonMap::new(), turn: moment.turn };
        let request = analysis.request(&*analysis.prompt(None)?, &moment.snapshot, &facts)?;
        Ok(request.messages.iter().map(text_of).collect())
    }

    #[test]
    fn a_prompt_holds_what_was_said_up_to_then_and_nothing_later() {
        let early = prompt("summary", Some(3)).expect("prompt");
        assert!(early.contains("Daniel Okafor") && !early.contains("Mill Street"), "{early}");
        let whole = prompt("summary", None).expect("prompt");
        assert!(whole.contains("Daniel Okafor") && whole.contains("Goodbye!"), "{whole}");
        let turn = prompt("sentiment_turn", Some(7)).expect("prompt");
        assert!(turn.contains("terrible service") && !turn.contains("Okafor"), "{turn}");
        let error = prompt("summary", Some(99)).expect_err("no such turn").to_string();
        assert!(error.contains("turns 0 to 36"), "{error}");
    }

    fn bundle(analyses: &str, name: &str, last: bool) -> Result<Vec<String>> {
        let models = "[endpoints.o]\nprovider = \"openai\"\n[models.m]\ncandidates = [\"o/x\"]\n[routes.r]\n\
                      variants = [{ name = \"a\", model = \"m\" }]\n[gateway]\ndefault_route = \"r\"\n";
        let config = Config::parse(&format!("{models}{analyses}"), std::path::Path::new(".")).expect("config");
        let analysis = config.analyses.get(name).expect("analysis");
        let others = others(&config, (analysis, &*analysis.prompt(None)?), last)?;
        Ok(others.iter().map(|(analysis, _)| analysis.name.to_string()).collect())
    }

    #[test]
    fn bundle_has_the_analyses_that_the_daemon_asks_with_it() {
        let slow = "[analyses.topics]\nbundle = \"slow\"\n[analyses.entities]\nbundle = \"slow\"\n[analyses.questions]\n\
                    [analyses.call_report]\n[analyses.scorecard]\nquestions = [{ id = \"a\", text = \"A?\" }]\n";
        assert_eq!(bundle(slow, "summary", false).expect("a bundle"), ["sentiment", "questions"]);
        assert_eq!(bundle(slow, "topics", false).expect("a bundle"), ["entities"]);
        assert_eq!(bundle(slow, "call_report", true).expect("a bundle"), ["scorecard"]);
        for (analyses, name) in
            [(slow, "call_report"), ("[analyses.summary]\nbundle = \"\"\n", "summary"), ("", "sentiment_turn")]
        {
            let error = bundle(analyses, name, false).expect_err(name).to_string();
            assert!(error.ends_with("is asked alone"), "{error}");
        }
        let error = bundle("[analyses.summary]\nroute = \"local\"\n", "summary", true).expect_err("local").to_string();
        assert!(error.contains("the embedded provider answers summary"), "{error}");
    }
}
