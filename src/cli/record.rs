//! `sidetone record`: writes a call of a running daemon to a recording, in Sidetone's own dialect.
//!
//! The recording replays to the same turns: a revision is written as the whole turn again, in its new state.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use owo_colors::OwoColorize as _;
use serde_json::{Map, Value, json};

use super::fetch;
use super::out::say;
use super::target::{DEFAULT_LISTEN, Target};
use super::watch::{Heard, Positions, Selection, follow};
use crate::base::owner;
use crate::recording::{self, Header};
use crate::types::CallId;

/// The fields that a `turn` frame takes over from a turn as the daemon sends it.
const FIELDS: [&str; 6] = ["speaker", "text", "start_ms", "end_ms", "language", "confidence"];

/// Options of `sidetone record`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sidetone record c_42                       into c_42.jsonl, until the call is over; it need not exist yet
  sidetone record c_42 -o call.jsonl --no-words

Sessions are recorded as their vendor sent them by the daemon itself, with [record] in its configuration.")]
pub(crate) struct RecordArgs {
    /// The call
    #[arg(value_name = "CALL")]
    call: String,
    /// The daemon
    #[arg(long, value_name = "URL", env = "SIDETONE_URL", default_value_t = format!("http://{DEFAULT_LISTEN}"))]
    to: String,
    /// Where to write; default: CALL.jsonl
    #[arg(short, long, value_name = "FILE", value_parser = super::absolute())]
    output: Option<PathBuf>,
    /// Leave out words and their times
    #[arg(long)]
    no_words: bool,
    /// Replace a file that is there
    #[arg(long)]
    force: bool,
}

/// Runs the command.
///
/// # Errors
/// No daemon, or the file cannot be written.
pub(crate) async fn run(args: RecordArgs) -> Result<ExitCode> {
    let target: Target = args.to.parse().map_err(|error| anyhow!("--to: {error}"))?;
    CallId::parse(&args.call).map_err(|error| anyhow!("CALL: {error}"))?;
    let path = match args.output {
        Some(path) => path,
        None => std::path::absolute(format!("{}.jsonl", args.call))?,
    };
    if path.exists() && !args.force {
        bail!("{} is there; --force replaces it", path.display());
    }
    fetch::get(&target, "/version").await?;
    // No file is created or replaced before the daemon has accepted the subscription.
    let mut tape = None;
    let include = if args.no_words { vec!["turns", "partials"] } else { vec!["turns", "words", "partials"] };
    let mut positions = Positions::new(Selection::Calls(vec![args.call.clone()]), Vec::new(), include);
    let taken = tokio::select! {
        taken = follow(&target, &mut positions, |heard| match heard {
            Heard::Frame(_, frame) => {
                if tape.is_none() && frame["type"] == "subscribed" {
                    let file = std::fs::File::create(&path);
                    let file = file.with_context(|| format!("cannot write {}", path.display()))?;
                    owner::give(&path, path.parent().and_then(owner::heir))?;
                    tape = Some(Tape::begin(std::io::BufWriter::new(file))?);
                }
                tape.as_mut().map_or(Ok(ControlFlow::Continue(())), |tape| tape.take(frame))
            }
            Heard::Lost(why) => {
                anstream::eprintln!("{} {why}; coming back", "lost:".yellow());
                Ok(ControlFlow::Continue(()))
            }
            Heard::Back => Ok(ControlFlow::Continue(())),
        }) => taken,
        interrupted = tokio::signal::ctrl_c() => interrupted.context("cannot listen for Ctrl-C"),
    };
    taken?;
    match tape {
        Some(tape) => say!("{} turns in {}", tape.turns, path.display())?,
        None => anstream::eprintln!("nothing was recorded"),
    }
    Ok(ExitCode::SUCCESS)
}

struct Tape<W: std::io::Write> {
    out: W,
    began: Instant,
    /// Call time when the command began, as far as the turns show it.
    base: Duration,
    turns: u64,
}

impl<W: std::io::Write> Tape<W> {
    /// Starts a recording now.
    fn begin(out: W) -> Result<Self> {
        let mut tape = Self { out, began: Instant::now(), base: Duration::ZERO, turns: 0 };
        tape.line(&recording::write_header(&Header { dialect: "sidetone".to_owned(), ..Header::default() }))?;
        Ok(tape)
    }

    fn take(&mut self, frame: &Value) -> Result<ControlFlow<()>> {
        match frame["type"].as_str().unwrap_or_default() {
            "snapshot" => {
                for turn in frame["state"]["turns"].as_array().into_iter().flatten() {
                    let end = Duration::from_millis(turn["end_ms"].as_u64().unwrap_or(0));
                    self.base = self.base.max(end);
                    self.began = Instant::now();
                    self.turn(turn)?;
                }
                if frame["state"]["status"] == "completed" {
                    return self.end();
                }
            }
            "turn.final" | "turn.revised" => self.turn(&frame["turn"])?,
            "turn.partial" => {
                let mut said = Map::new();
                said.insert("type".to_owned(), json!("partial"));
                // A partial has no ordinal: it belongs to the next turn.
                said.insert("turn_order".to_owned(), json!(self.turns));
                for name in ["speaker", "text"] {
                    if let Some(value) = frame.get(name).filter(|value| !value.is_null()) {
                        said.insert(name.to_owned(), value.clone());
                    }
                }
                self.frame(&Value::Object(said))?;
            }
            "call.updated" => self.frame(&json!({"type": "meta", "meta": frame["meta"]}))?,
            "call.completed" => return self.end(),
            _ => {}
        }
        Ok(ControlFlow::Continue(()))
    }

    fn turn(&mut self, turn: &Value) -> Result<()> {
        let mut said = Map::new();
        said.insert("type".to_owned(), json!("turn"));
        said.insert("turn_order".to_owned(), turn["turn"].clone());
        for name in FIELDS {
            if let Some(value) = turn.get(name).filter(|value| !value.is_null()) {
                said.insert(name.to_owned(), value.clone());
            }
        }
        if let Some(words) = turn.get("words").filter(|words| words.as_array().is_some_and(|words| !words.is_empty())) {
            said.insert("words".to_owned(), words.clone());
        }
        self.turns = self.turns.max(turn["turn"].as_u64().unwrap_or(0) + 1);
        self.frame(&Value::Object(said))
    }

    fn end(&mut self) -> Result<ControlFlow<()>> {
        self.frame(&json!({"type": "end", "scope": "call"}))?;
        Ok(ControlFlow::Break(()))
    }

    fn frame(&mut self, frame: &Value) -> Result<()> {
        let at = self.base + self.began.elapsed();
        self.line(&recording::write_frame(at, &frame.to_string()))
    }

    fn line(&mut self, line: &str) -> Result<()> {
        writeln!(self.out, "{line}")?;
        self.out.flush()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_reads_back_as_the_same_turns() {
        let mut tape = Tape::begin(Vec::new()).expect("header");
        let turn = json!({"turn": 0, "stream_id": "s", "turn_order": 4, "rev": 0, "speaker": "A", "text": "One.",
            "start_ms": 5, "end_ms": 900, "words": [{"text": "One.", "start_ms": 5, "end_ms": 900}]});
        let revised = json!({"turn": 0, "stream_id": "s", "turn_order": 4, "rev": 1, "speaker": "B", "text": "One.",
            "start_ms": 5, "end_ms": 900});
        for frame in [
            json!({"type": "snapshot", "state": {"status": "open", "turns": [turn]}}),
            json!({"type": "turn.partial", "text": "tw"}),
            json!({"type": "turn.revised", "turn": revised}),
        ] {
            assert!(tape.take(&frame).expect("taken").is_continue());
        }
        assert!(tape.take(&json!({"type": "call.completed"})).expect("taken").is_break());
        let recording = recording::parse(std::str::from_utf8(&tape.out).expect("text")).expect("recording");
        assert_eq!((recording.header.dialect.as_str(), recording.frames.len()), ("sidetone", 4));
        assert!(recording.frames[0].at >= Duration::from_millis(900));
        let mut decoder = crate::stt::dialect("sidetone").expect("dialect").open();
        let mut events = Vec::new();
        for frame in &recording.frames {
            decoder.decode(&frame.message, &mut events).expect("decodes");
        }
        let text: Vec<String> = events.iter().map(|event| format!("{event:?}")).collect();
        assert!(text[0].contains("One.") && text[2].contains("\"B\"") && text[3].contains("Call"), "{text:?}");
    }
}
