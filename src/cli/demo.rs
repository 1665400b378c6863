//! `sidetone demo`: starts a daemon of its own, plays a bundled call into it over a real socket, and shows the results
//! live.
//!
//! It is a client like any other: everything that it shows came through `GET /v1/subscribe`. If it finds a real model
//! (see [`discovery`](super::discovery)), it says so and asks that model; if the model does not answer, the embedded
//! provider does.

mod fallback;
mod model;

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use clap::Args;
use futures::future::{Either, select};
use owo_colors::OwoColorize as _;

use crate::app;
use crate::config::Config;
use crate::protocol::event::Kind;
use crate::protocol::subscribe::Include;
use crate::recording;
use crate::stt;
use crate::types::CallId;

use super::discovery;
use super::meter::Meter;
use super::out::say;
use super::progress;
use super::replay::{self, CallReport, Play, Speed, Totals};
use super::screen::{self, Screen};
use super::serve::Stop;
use super::target::Target;
use super::temporary::Folder;
use super::watch::{Heard, Positions, Selection, follow};
use fallback::Fallback;
use model::{Chosen, Need};

/// The bundled call.
const CALL: &str = include_str!("../../config/demo/call.jsonl");
/// The call's id in the demo's daemon.
const CALL_ID: &str = "demo";
/// Longest time without any progress: a model on this machine may take 90 s for the last insight.
const PATIENCE: Duration = Duration::from_secs(120);
/// Insights are slightly more frequent than by default, because the call is played fast.
const CONFIG: &str = "
[analyses.summary]
every_n_turns = 5
debounce_ms = 150
max_wait_ms = 600

[analyses.sentiment]
every_n_turns = 3
debounce_ms = 150
max_wait_ms = 600
";

/// Options of `sidetone demo`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sidetone demo                 about a minute; then the daemon runs until Ctrl-C
  sidetone demo --speed 1       in real time
  sidetone demo --once          exits when the call is complete
  sidetone demo --local         uses no model, even if the environment has a key

No key, no network and no file is needed: insights then come from the embedded `local` provider. If a key of a known
vendor is in the environment (OPENAI_API_KEY, ANTHROPIC_API_KEY, GEMINI_API_KEY, GROQ_API_KEY, …) or an Ollama runs, its
model is used: the first lines name it and its maximum cost.")]
pub(crate) struct DemoArgs {
    /// Playback speed as a multiple of real time, or "max"
    #[arg(long, value_name = "N|max", default_value = "4")]
    speed: Speed,
    /// Exit when the call is complete
    #[arg(long)]
    once: bool,
    /// Do not ask a model: the embedded provider makes the insights
    #[arg(long, conflicts_with = "endpoint")]
    local: bool,
    /// Ask the model of this endpoint, such as openai or ollama
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// The daemon did not start, or the call did not complete.
pub(crate) fn run(args: &DemoArgs) -> Result<ExitCode> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    let chosen = if args.local {
        progress::step("Insights come from the embedded provider (--local); no model is asked");
        None
    } else {
        runtime.block_on(find_model(args))?
    };
    let folder = Folder::create("demo")?;
    let base = format!("[storage]\ndir = {:?}\n{CONFIG}\n", folder.path().display().to_string());
    let lines = chosen.as_ref().map(model::configuration).unwrap_or_default();
    progress::step("Starting a daemon on a free loopback port; its data is in a temporary folder, deleted at the end");
    let running = app::start(parse(&format!("{base}{lines}"))?, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let without = parse(&format!("{base}{}", model::without()))?;
    let asked = Asked { chosen: chosen.as_ref(), give_up: &|| running.reload(&without) };
    let result = runtime.block_on(show(args, &asked, &Target::at(running.address)));
    running.stop();
    result
}

/// The model that the daemon asks, and a way to stop asking it.
struct Asked<'a> {
    /// The model, if there is one.
    chosen: Option<&'a Chosen>,
    /// Makes the daemon ask only the embedded provider from now on.
    give_up: &'a dyn Fn(),
}

fn parse(text: &str) -> Result<Config> {
    Config::parse(text, Path::new(".")).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(super::settings::line).collect();
        anyhow!("the demo's own configuration is invalid: {}", lines.join("; "))
    })
}

/// Looks for a model, and reports what it found.
async fn find_model(args: &DemoArgs) -> Result<Option<Chosen>> {
    progress::step("Looking for models: API keys in the environment, an Ollama on its usual port");
    let discovery = discovery::look().await;
    discovery.notes.iter().for_each(|note| progress::warn(note));
    let Some(found) = model::choose(&discovery, args.endpoint.as_deref())? else {
        progress::step(
            "Found none: insights come from the embedded provider (local), which needs no key and no network",
        );
        return Ok(None);
    };
    let (recording, dialect) = bundled()?;
    let need = Need::of(&recording, dialect, &parse(CONFIG)?.analyses, CALL_ID)?;
    let chosen = Chosen { cap: found.price.map(|price| need.usd(price)), found };
    model::announce(&chosen, &discovery, need);
    Ok(Some(chosen))
}

/// Reads the bundled call.
fn bundled() -> Result<(recording::Recording, &'static dyn stt::Dialect)> {
    let recording = recording::parse(CALL).context("the bundled call cannot be read")?;
    let dialect = stt::dialect(&recording.header.dialect).context("the bundled call's dialect is not known")?;
    Ok((recording, dialect))
}

async fn show(args: &DemoArgs, asked: &Asked<'_>, target: &Target) -> Result<ExitCode> {
    let mut stop = Stop::listen()?;
    let call = async {
        let Some(well) = Box::pin(call(args, asked, target)).await? else { return anyhow::Ok(ExitCode::SUCCESS) };
        if args.once {
            return Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        look_around(target)?;
        std::future::pending().await
    };
    tokio::select! {
        done = call => done,
        () = stop.wait() => {
            say!("\nstopped")?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Plays the call and shows it. Returns true if all went well; `None` if nobody reads the output any more.
async fn call(args: &DemoArgs, asked: &Asked<'_>, target: &Target) -> Result<Option<bool>> {
    let chosen = asked.chosen;
    let (recording, dialect) = bundled()?;
    let screen = RefCell::new(Screen::stdout(false));
    let by =
        chosen.map_or_else(|| "the embedded provider, no model is asked".to_owned(), |chosen| chosen.found.candidate());
    let speed = match args.speed {
        Speed::Max => "as fast as possible".to_owned(),
        Speed::Times(factor) => format!("{factor} times as fast"),
    };
    let length = recording.duration().as_secs();
    let head = [
        format!("{}  {}", "sidetone demo".bold(), recording.header.title.clone().unwrap_or_default()),
        format!("{:>13}  {}:{:02} min, {speed}; insights by {by}", "", length / 60, length % 60),
        format!("{:>13}  {}", "in a browser".dimmed(), target.http("/")),
        format!("{:>13}  {}", "subscribe".dimmed(), target.ws("/v1/subscribe", &[])),
        format!("{:>13}  POST {}", "ask".dimmed(), target.http(&ask_path("summary"))),
        String::new(),
    ];
    for line in head {
        match screen.borrow_mut().say(&line).map_err(anyhow::Error::from) {
            Err(error) if screen::is_broken_pipe(&error) => return Ok(None),
            said => said?,
        }
    }
    let call_id = CallId::parse(CALL_ID)?;
    let mut positions =
        Positions::new(Selection::Calls(vec![call_id]), Vec::new(), vec![Include::Turns, Include::Partials]);
    let fallback = Fallback::watch(chosen);
    let watching = follow(target, &mut positions, |heard| {
        if let Heard::Frame(_, frame) = heard {
            fallback.frame(frame);
            screen.borrow_mut().frame(frame)?;
            if frame["type"] == Kind::CallCompleted.as_str() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    });
    let meter = Meter::new(0, "", true);
    let playing = replay::play(Play {
        target,
        call_id: CALL_ID,
        recording: &recording,
        dialect,
        variants: &[],
        analyses: &[],
        meta: Some(r#"{"company":"Larkfield Broadband","team":"support"}"#),
        speed: args.speed,
        patience: PATIENCE,
        meter: &meter,
    });
    let explain = async || {
        let Some(explanation) = fallback.explanation(target).await else { return anyhow::Ok(()) };
        if explanation.give_up {
            (asked.give_up)();
        }
        let line = format!("{:>7}  {}", "!".yellow().bold(), explanation.sentence.yellow());
        Ok(screen.borrow_mut().say(&line)?)
    };
    let explaining = async {
        loop {
            fallback.seen().await;
            if explain().await.is_err() {
                break;
            }
        }
    };
    let mut both = std::pin::pin!(watched_to_the_end(watching, Box::pin(playing)));
    let (watched, (report, played)) = tokio::select! {
        done = &mut both => done,
        // If nobody reads the output, `watching` ends too.
        () = explaining => both.await,
    };
    match watched {
        Err(error) if screen::is_broken_pipe(&error) => return Ok(None),
        watched => watched.context("watching the call")?,
    }
    played.context("playing the call")?;
    // The last insight may have something to explain.
    match explain().await {
        Err(error) if screen::is_broken_pipe(&error) => return Ok(None),
        explained => explained?,
    }
    summarize(report).map(Some)
}

/// Plays the call and watches it, until both have ended. A call that could not be played is never completed, so it is not
/// watched any longer.
///
/// # Cancel safety
/// As safe as both futures.
async fn watched_to_the_end<R>(
    watching: impl Future<Output = Result<()>>,
    playing: impl Future<Output = (R, Result<()>)>,
) -> (Result<()>, (R, Result<()>)) {
    match select(std::pin::pin!(watching), std::pin::pin!(playing)).await {
        Either::Left((watched, playing)) => (watched, playing.await),
        Either::Right((played, watching)) if played.1.is_ok() => (watching.await, played),
        Either::Right((played, _)) => (Ok(()), played),
    }
}

fn summarize(report: CallReport) -> Result<bool> {
    let mut totals = Totals::default();
    totals.add(report);
    let line = totals.last_line();
    say!("{:>7}  {}", "●".green(), line.sentence().dimmed())?;
    Ok(totals.clean())
}

fn ask_path(analysis: &str) -> String {
    format!("/v1/calls/{CALL_ID}/analyses/{analysis}?wait_ms=5000")
}

fn look_around(target: &Target) -> Result<()> {
    let url = target.http("");
    say!(
        "
{} until Ctrl-C. Try these from another terminal:

  curl {url}/v1/calls/{CALL_ID}
  curl '{url}/v1/calls/{CALL_ID}/turns?limit=5'
  curl -X POST -H 'content-type: application/json' '{}'
  curl -H 'content-type: application/json' {url}/v1/chat/completions -d '{}'
  curl {url}/metrics
  sidetone watch --to {url}
  sidetone replay YOUR-RECORDING.jsonl --to {url}

The dashboard is at {url}/#{CALL_ID}, and the documentation at {url}/docs/; `sidetone help` lists its topics.",
        "The daemon keeps running".bold(),
        target.http(&ask_path("summary")),
        r#"{"model": "local", "transcript": {"call_id": "demo"}, "messages": [{"role": "user", "content": "What happened?"}]}"#,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn call_that_could_not_be_played_is_not_watched() {
        let watching = std::future::pending();
        let playing = async { ((), Err(anyhow!("no connection for 60 s"))) };
        let (watched, ((), played)) = watched_to_the_end(watching, playing).await;
        assert!(watched.is_ok() && played.is_err());
    }

    #[test]
    fn bundled_call_is_complete() {
        let (recording, dialect) = bundled().expect("recording");
        let mut decoder = dialect.open();
        let mut events = Vec::new();
        for frame in &recording.frames {
            decoder.decode(&frame.message, &mut events).expect("frame");
        }
        let finals = events.iter().filter(|event| matches!(event, crate::types::SttEvent::Final(_))).count();
        let revisions = events.iter().filter(|event| matches!(event, crate::types::SttEvent::Revise(_))).count();
        let ends = events.iter().filter(|event| matches!(event, crate::types::SttEvent::End { .. })).count();
        assert_eq!((finals, revisions, ends), (37, 1, 1));
        assert!((180..300).contains(&recording.duration().as_secs()));
    }
}
