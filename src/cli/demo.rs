//! `sidetone demo`: a daemon of its own, a bundled call played into it over a real socket, and what comes of it, live.
//!
//! It is a client like any other: what it shows came through `GET /v1/subscribe`.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::ControlFlow;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use clap::Args;
use owo_colors::OwoColorize as _;

use crate::app;
use crate::config::Config;
use crate::recording;
use crate::stt;
use crate::types::id;

use super::meter::Meter;
use super::out::say;
use super::replay::{self, CallReport, Play, Speed, Totals};
use super::screen::{self, Screen};
use super::serve::Stop;
use super::target::Target;
use super::watch::{Heard, Positions, Selection, follow};

/// The bundled call.
const CALL: &str = include_str!("../../config/demo/call.jsonl");
/// Its id in the demo's daemon.
const CALL_ID: &str = "demo";
/// Insights that come a little more often than by default, for a call that is played fast.
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
  sidetone demo                 about a minute; then the daemon stays up until Ctrl-C
  sidetone demo --speed 1       in real time
  sidetone demo --once          exits when the call is complete

No key, no network and no file is needed: insights come from the embedded `local` provider.")]
pub(crate) struct DemoArgs {
    /// Times real time, or "max"
    #[arg(long, value_name = "N|max", default_value = "4")]
    speed: Speed,
    /// Exit when the call is complete
    #[arg(long)]
    once: bool,
}

/// Runs the command.
///
/// # Errors
/// The daemon did not start, or the call did not complete.
pub(crate) fn run(args: &DemoArgs) -> Result<ExitCode> {
    let folder = Folder::create()?;
    let text = format!("[journal]\ndir = {:?}\n{CONFIG}", folder.0.display().to_string());
    let config = Config::parse(&text, Path::new(".")).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(super::settings::line).collect();
        anyhow!("the demo's own configuration is wrong: {}", lines.join("; "))
    })?;
    let running = app::start(config, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    let result = runtime.block_on(show(args, &Target::at(running.address)));
    running.stop();
    result
}

async fn show(args: &DemoArgs, target: &Target) -> Result<ExitCode> {
    let mut stop = Stop::listen()?;
    let call = async {
        let Some(well) = Box::pin(call(args, target)).await? else { return anyhow::Ok(ExitCode::SUCCESS) };
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

/// Plays the call and shows it. Whether all went well; `None` where nobody reads on.
async fn call(args: &DemoArgs, target: &Target) -> Result<Option<bool>> {
    let recording = recording::parse(CALL).context("the bundled call cannot be read")?;
    let dialect = stt::dialect(&recording.header.dialect).context("the bundled call's dialect is not known")?;
    let mut screen = Screen::stdout(false);
    let speed = match args.speed {
        Speed::Max => "as fast as it goes".to_owned(),
        Speed::Times(factor) => format!("{factor} times as fast"),
    };
    let length = recording.duration().as_secs();
    let head = [
        format!("{}  {}", "sidetone demo".bold(), recording.header.title.clone().unwrap_or_default()),
        format!(
            "{:>13}  {}:{:02} min, {speed}; insights by the embedded provider, no model is asked",
            "",
            length / 60,
            length % 60
        ),
        format!("{:>13}  {}", "in a browser".dimmed(), target.http("/")),
        format!("{:>13}  {}", "subscribe".dimmed(), target.ws("/v1/subscribe", &[])),
        format!("{:>13}  POST {}", "ask".dimmed(), target.http(&ask_path("summary"))),
        String::new(),
    ];
    for line in head {
        match screen.say(&line).map_err(anyhow::Error::from) {
            Err(error) if screen::is_broken_pipe(&error) => return Ok(None),
            said => said?,
        }
    }
    let mut positions =
        Positions::new(Selection::Calls(vec![CALL_ID.to_owned()]), Vec::new(), vec!["turns", "partials"]);
    let watching = follow(target, &mut positions, |heard| {
        if let Heard::Frame(_, frame) = heard {
            screen.frame(frame)?;
            if frame["type"] == "call.completed" {
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
        analyses: &[],
        meta: Some(r#"{"company":"Larkfield Broadband","team":"support"}"#),
        speed: args.speed,
        patience: Duration::from_secs(60),
        meter: &meter,
    });
    let (watched, (report, played)) = futures::join!(watching, Box::pin(playing));
    match watched {
        Err(error) if screen::is_broken_pipe(&error) => return Ok(None),
        watched => watched.context("watching the call")?,
    }
    played.context("playing the call")?;
    summarize(report).map(Some)
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
{} until Ctrl-C. Look around from another terminal:

  curl {url}/v1/calls/{CALL_ID}
  curl '{url}/v1/calls/{CALL_ID}/turns?limit=5'
  curl -X POST -H 'content-type: application/json' '{}'
  curl -H 'content-type: application/json' {url}/v1/chat/completions -d '{}'
  curl {url}/metrics
  sidetone watch --to {url}
  sidetone replay YOUR-RECORDING.jsonl --to {url}

README.md shows an agent and a dashboard in thirty lines each.",
        "The daemon stays up".bold(),
        target.http(&ask_path("summary")),
        r#"{"model": "local", "transcript": {"call_id": "demo"}, "messages": [{"role": "user", "content": "What happened?"}]}"#,
    )
}

/// A private folder that goes with us.
struct Folder(PathBuf);

impl Folder {
    fn create() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("sidetone-demo-{}", id::random_suffix()));
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot create {}; TMPDIR names another place", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Left behind, it is small and private, and the system clears its folder of temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundled_call_is_whole() {
        let recording = recording::parse(CALL).expect("recording");
        let dialect = stt::dialect(&recording.header.dialect).expect("dialect");
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
