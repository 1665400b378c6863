//! `sidetone record`: writes a call of a running daemon to a recording, in the `sidetone` dialect.
//!
//! A replay of the recording gives the same turns: a revision is written as the whole turn again, in its new state.

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use owo_colors::OwoColorize as _;

use super::fetch;
use super::out::say;
use super::target::{DEFAULT_LISTEN, Target};
use super::watch::{Heard, Positions, Selection, follow};
use crate::base::owner;
use crate::protocol::ingest::{self, ClientFrame};
use crate::protocol::subscribe::{Include, ServerFrame};
use crate::protocol::{self, Event, TurnPartial, tag};
use crate::recording::{self, Header};
use crate::types::directory::CallState;
use crate::types::{CallId, EndScope, Turn};

/// Options of `sidetone record`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sidetone record c_42                       into c_42.jsonl, until the call ends; the call need not exist yet
  sidetone record c_42 -o call.jsonl --no-words

With [record] in its configuration, the daemon itself records sessions as their vendor sent them.")]
pub(crate) struct RecordArgs {
    /// Id of the call
    #[arg(value_name = "CALL")]
    call: String,
    /// Address of the daemon
    #[arg(long, value_name = "URL", env = "SIDETONE_URL", default_value_t = format!("http://{DEFAULT_LISTEN}"))]
    to: String,
    /// Output file; default: CALL.jsonl
    #[arg(short, long, value_name = "FILE", value_parser = super::absolute())]
    output: Option<PathBuf>,
    /// Leave out words and their times
    #[arg(long)]
    no_words: bool,
    /// Replace an existing file
    #[arg(long)]
    force: bool,
}

/// Runs the command.
///
/// # Errors
/// No daemon answers, or the file cannot be written.
pub(crate) async fn run(args: RecordArgs) -> Result<ExitCode> {
    let target: Target = args.to.parse().map_err(|error| anyhow!("--to: {error}"))?;
    let call = CallId::parse(&args.call).map_err(|error| anyhow!("CALL: {error}"))?;
    let path = match args.output {
        Some(path) => path,
        None => std::path::absolute(format!("{}.jsonl", args.call))?,
    };
    if path.exists() && !args.force {
        bail!("{} exists; --force replaces it", path.display());
    }
    fetch::get(&target, "/version").await?;
    // No file is created or replaced before the daemon has accepted the subscription.
    let mut tape = None;
    let mut include = vec![Include::Turns, Include::Partials];
    include.extend((!args.no_words).then_some(Include::Words));
    let mut positions = Positions::new(Selection::Calls(vec![call]), Vec::new(), include);
    let taken = tokio::select! {
        taken = follow(&target, &mut positions, |heard| match heard {
            Heard::Frame(text, frame) => {
                if tape.is_none() && frame["type"] == tag::Subscribed::TEXT {
                    let file = std::fs::File::create(&path);
                    let file = file.with_context(|| format!("cannot write {}", path.display()))?;
                    owner::give(&path, path.parent().and_then(owner::heir))?;
                    tape = Some(Tape::begin(std::io::BufWriter::new(file))?);
                }
                tape.as_mut().map_or(Ok(ControlFlow::Continue(())), |tape| tape.take(text))
            }
            Heard::Lost(why) => {
                anstream::eprintln!("{} {why}; reconnecting", "lost:".yellow());
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
    /// Call time when the command began, estimated from the turns.
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

    fn take(&mut self, text: &str) -> Result<ControlFlow<()>> {
        match ServerFrame::read(text) {
            Ok(ServerFrame::Snapshot(snapshot)) => {
                for shown in snapshot.state.turns.into_iter().flatten() {
                    self.base = self.base.max(Duration::from_millis(shown.turn.end_ms));
                    self.began = Instant::now();
                    self.turn(shown.turn.into_owned())?;
                }
                if snapshot.state.status == CallState::Completed.as_str() {
                    return self.end();
                }
            }
            Ok(ServerFrame::TurnPartial(TurnPartial { speaker, text, .. })) => {
                // A partial has no ordinal: it belongs to the next turn.
                let partial = ingest::Partial { turn_order: self.turns, speaker, text, ..Default::default() };
                self.frame(&ClientFrame::Partial(partial))?;
            }
            Ok(ServerFrame::Event(pushed)) => match pushed.event.event {
                Event::TurnFinal { turn } | Event::TurnRevised { turn, .. } => self.turn(turn)?,
                Event::CallUpdated { meta } => {
                    let meta = ingest::Meta { meta: Cow::Owned(meta), ..Default::default() };
                    self.frame(&ClientFrame::Meta(meta))?;
                }
                Event::CallCompleted { .. } => return self.end(),
                _ => {}
            },
            // Also frames of a later version: they contain nothing to record.
            _ => {}
        }
        Ok(ControlFlow::Continue(()))
    }

    fn turn(&mut self, turn: Turn) -> Result<()> {
        self.turns = self.turns.max(turn.turn + 1);
        let frame = ingest::Turn {
            turn_order: turn.turn,
            speaker: turn.speaker.map(Cow::Owned),
            text: Cow::Owned(turn.text),
            start_ms: Some(turn.start_ms),
            end_ms: Some(turn.end_ms),
            language: turn.language.map(Cow::Owned),
            confidence: turn.confidence,
            words: Cow::Owned(turn.words),
            ..Default::default()
        };
        self.frame(&ClientFrame::Turn(frame))
    }

    fn end(&mut self) -> Result<ControlFlow<()>> {
        let end = ingest::End { scope: Some(EndScope::Call), ..Default::default() };
        self.frame(&ClientFrame::End(end))?;
        Ok(ControlFlow::Break(()))
    }

    fn frame(&mut self, frame: &ClientFrame<'_>) -> Result<()> {
        let at = self.base + self.began.elapsed();
        self.line(&recording::write_frame(at, &protocol::text(frame)))
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
        let turn = r#"{"turn":0,"stream_id":"s","turn_order":4,"rev":0,"speaker":"A","text":"One.","start_ms":5,"end_ms":900,
            "words":[{"text":"One.","start_ms":5,"end_ms":900}]}"#;
        let revised = r#"{"turn":0,"stream_id":"s","turn_order":4,"rev":1,"speaker":"B","text":"One.","start_ms":5,"end_ms":900}"#;
        let stamp = r#""subscription":"sub_1","call_id":"c","seq":3,"at":"t""#;
        for frame in [
            format!(
                r#"{{"type":"snapshot","subscription":"sub_1","call_id":"c","epoch":"e","seq":2,
                "state":{{"status":"open","meta":{{}},"turns_from":0,"turns":[{turn}],"insights":{{}}}}}}"#
            ),
            r#"{"type":"turn.partial","call_id":"c","stream_id":"s","turn_order":5,"text":"tw"}"#.to_owned(),
            r#"{"type":"alert.raised","call_id":"c"}"#.to_owned(),
            format!(r#"{{"type":"turn.revised",{stamp},"turn":{revised},"changed":["speaker"]}}"#),
        ] {
            assert!(tape.take(&frame).expect("taken").is_continue());
        }
        let completed = format!(r#"{{"type":"call.completed",{stamp},"final":{{}},"missing":{{}},"cost_usd":null}}"#);
        assert!(tape.take(&completed).expect("taken").is_break());
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
