//! Shows frames to people: a call in progress with its insights, on a terminal or in a file.
//!
//! Knows no connection, and the frames of DESIGN 5.2 only by their field names; unknown ones are skipped. Text from
//! others is made harmless before it is written.

mod alerts;
mod insights;
mod text;
mod value;

use std::collections::HashMap;
use std::io::{self, IsTerminal as _, Write};

use owo_colors::{AnsiColors, OwoColorize as _, Style};
use serde_json::Value;

use self::insights::reason;
use self::text::{tail, wrap};
use self::value::Line;
use crate::protocol::event::Kind;
use crate::protocol::tag;

pub(crate) use self::text::{clock, harmless};
pub(crate) use self::value::lines as value_lines;

/// Returns true if the reader of the command's output (such as `head`) has closed it.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Number of columns if the width is unknown.
const DEFAULT_WIDTH: usize = 100;
/// Maximum number of columns, because wider text is hard to read.
const MAX_WIDTH: usize = 120;
/// Number of columns for a call's name, if several calls are shown.
const NAME_COLUMNS: usize = 14;
/// Colours of speakers, in order of appearance.
const SPEAKERS: [AnsiColors; 6] = [
    AnsiColors::Cyan,
    AnsiColors::Magenta,
    AnsiColors::Blue,
    AnsiColors::Green,
    AnsiColors::Yellow,
    AnsiColors::BrightRed,
];

/// Writes frames as text. The stream below it removes colours if they would not be visible.
pub(crate) struct Screen<W: Write> {
    out: W,
    /// Set if partials can be shown and erased again.
    live: bool,
    width: usize,
    /// Set if each line names its call.
    named: bool,
    partial: bool,
    calls: HashMap<String, Call>,
}

#[derive(Default)]
struct Call {
    speakers: Vec<String>,
    /// The value last shown, by analysis.
    shown: HashMap<String, Vec<Line>>,
}

impl Screen<anstream::Stdout> {
    /// A screen on stdout. `named`: several calls may be shown.
    pub(crate) fn stdout(named: bool) -> Self {
        let live = io::stdout().is_terminal();
        let width = rustix::termios::tcgetwinsize(io::stdout()).ok().map(|size| usize::from(size.ws_col));
        let width = width.filter(|columns| *columns >= 40).unwrap_or(DEFAULT_WIDTH);
        Self::new(anstream::stdout(), live, width, named)
    }
}

impl<W: Write> Screen<W> {
    fn new(out: W, live: bool, width: usize, named: bool) -> Self {
        Self { out, live, width: width.min(MAX_WIDTH), named, partial: false, calls: HashMap::new() }
    }

    /// Erases a partial that is shown, so that something else can be written.
    ///
    /// # Errors
    /// The output is closed.
    pub(crate) fn pause(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.partial) {
            write!(self.out, "\r\u{1b}[2K")?;
        }
        self.out.flush()
    }

    /// Writes a line of the command itself.
    ///
    /// # Errors
    /// The output is closed.
    pub(crate) fn say(&mut self, line: &str) -> io::Result<()> {
        self.pause()?;
        writeln!(self.out, "{line}")?;
        self.out.flush()
    }

    /// Shows a frame.
    ///
    /// # Errors
    /// The output is closed.
    pub(crate) fn frame(&mut self, frame: &Value) -> io::Result<()> {
        let call = frame["call_id"].as_str().unwrap_or_default().to_owned();
        let tag = frame["type"].as_str().unwrap_or_default();
        match Kind::from_type(tag) {
            Kind::TurnFinal => self.turn(&call, &frame["turn"], None)?,
            Kind::TurnRevised => {
                let changed: Vec<&str> =
                    frame["changed"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                self.turn(&call, &frame["turn"], Some(&changed.join(", ")))?;
            }
            Kind::InsightUpdated => self.insight(&call, &frame["insight"])?,
            Kind::InsightFailed => self.failed(&call, &word(&frame["analysis"]), &reason(frame))?,
            Kind::AlertRaised => self.alert(&call, &frame["alert"])?,
            Kind::AlertCleared => self.cleared(&call, &frame["alert"])?,
            Kind::CallStarted => self.event(&call, "call started")?,
            Kind::CallFailed => self.event(&call, "call failed")?,
            Kind::CallCompleted => self.completed(&call, frame)?,
            Kind::Gap => {
                let span = format!("{} to {}", time(&frame["from_ms"]), time(&frame["to_ms"]));
                self.event(&call, &format!("speech is missing from {span} ({})", word(&frame["cause"])))?;
            }
            Kind::CallUpdated | Kind::StreamStarted | Kind::StreamEnded => {}
            Kind::Other => match tag {
                tag::TurnPartial::TEXT => self.partial(&call, frame)?,
                tag::Snapshot::TEXT => self.snapshot(&call, frame)?,
                tag::Error::TEXT => {
                    let line = format!("{}: {}", word(&frame["code"]), word(&frame["message"]));
                    self.say(&format!("{} {line}", "error:".red().bold()))?;
                }
                _ => {}
            },
        }
        self.out.flush()
    }

    fn partial(&mut self, call: &str, frame: &Value) -> io::Result<()> {
        if !self.live {
            return Ok(());
        }
        let text = word(&frame["text"]);
        if text.is_empty() {
            return self.pause();
        }
        let speaker = word(&frame["speaker"]);
        let name = self.name(call);
        let room = self.width.saturating_sub(self.margin() + speaker.chars().count() + 4);
        let speaker = if speaker.is_empty() { speaker } else { format!("{speaker}  ") };
        let line = format!("{name}{:>7}  {speaker}{}", "···", tail(&text, room));
        self.pause()?;
        write!(self.out, "{}", line.dimmed())?;
        self.partial = true;
        self.out.flush()
    }

    fn turn(&mut self, call: &str, turn: &Value, changed: Option<&str>) -> io::Result<()> {
        let speaker = if turn["speaker"].is_null() { "?".to_owned() } else { word(&turn["speaker"]) };
        let style = self.speaker_style(call, &speaker);
        let mark = changed.map_or(String::new(), |changed| format!(" (corrected: {changed})"));
        let head = time(&turn["start_ms"]);
        let indent = speaker.chars().count() + 2;
        let room = self.width.saturating_sub(self.margin() + 2 + indent);
        let lines = wrap(&format!("{}{mark}", word(&turn["text"])), room);
        self.pause()?;
        for (index, line) in lines.iter().enumerate() {
            if index == 0 {
                let name = self.name(call);
                writeln!(self.out, "{}{:>7}  {}  {line}", name.dimmed(), head.dimmed(), speaker.style(style))?;
            } else {
                writeln!(self.out, "{}{:>7}  {:indent$}{line}", self.name(""), "", "")?;
            }
        }
        Ok(())
    }

    fn snapshot(&mut self, call: &str, frame: &Value) -> io::Result<()> {
        let state = &frame["state"];
        let from = state["turns_from"].as_u64().unwrap_or(0);
        let earlier = if from > 0 { format!(", from turn {from} on") } else { String::new() };
        self.event(call, &format!("call is {}{earlier}", word(&state["status"])))?;
        for turn in state["turns"].as_array().into_iter().flatten() {
            self.turn(call, turn, None)?;
        }
        for insight in state["insights"].as_object().into_iter().flat_map(|insights| insights.values()) {
            // A per-turn analysis has one insight per turn; those in a snapshot are not shown.
            if insight["turns"].is_null() {
                self.insight(call, insight)?;
            }
        }
        for alert in state["alerts"].as_array().into_iter().flatten() {
            self.alert(call, alert)?;
        }
        Ok(())
    }

    fn completed(&mut self, call: &str, frame: &Value) -> io::Result<()> {
        let missing: Vec<String> =
            frame["missing"].as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect();
        let mut line = "call completed".to_owned();
        if !missing.is_empty() {
            line.push_str(&format!(", without a final {}", missing.join(", ")));
        }
        if let Some(cost) = frame["cost_usd"].as_f64().filter(|cost| *cost > 0.0) {
            line.push_str(&format!(", {cost:.4} USD"));
        }
        self.calls.remove(call);
        self.event(call, &line)
    }

    fn event(&mut self, call: &str, what: &str) -> io::Result<()> {
        self.pause()?;
        writeln!(self.out, "{:>7}  {} {}", "●".green(), harmless(call).bold(), what.dimmed())
    }

    fn margin(&self) -> usize {
        9 + if self.named { NAME_COLUMNS + 1 } else { 0 }
    }

    fn name(&self, call: &str) -> String {
        if self.named { format!("{:<NAME_COLUMNS$} ", tail(&harmless(call), NAME_COLUMNS)) } else { String::new() }
    }

    fn speaker_style(&mut self, call: &str, speaker: &str) -> Style {
        let speakers = &mut self.calls.entry(call.to_owned()).or_default().speakers;
        let index = speakers.iter().position(|known| known == speaker).unwrap_or_else(|| {
            speakers.push(speaker.to_owned());
            speakers.len() - 1
        });
        Style::new().color(SPEAKERS[index % SPEAKERS.len()]).bold()
    }
}

fn time(ms: &Value) -> String {
    ms.as_u64().map_or(String::new(), clock)
}

fn word(value: &Value) -> String {
    value.as_str().map_or(String::new(), harmless)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(live: bool, named: bool, frames: &[Value]) -> String {
        let mut bytes = Vec::new();
        let mut screen = Screen::new(anstream::StripStream::new(&mut bytes), live, 60, named);
        for frame in frames {
            screen.frame(frame).expect("write");
        }
        drop(screen);
        String::from_utf8(bytes).expect("text")
    }

    fn turn(text: &str) -> Value {
        json!({"turn": 0, "speaker": "A", "text": text, "start_ms": 67_000})
    }

    #[test]
    fn a_call_reads_from_top_to_bottom() {
        let insight = json!({"type": "insight.updated", "call_id": "c", "insight": {
            "analysis": "sentiment", "status": "provisional", "degraded": true, "covers": {"from": 0, "to": 3},
            "provenance": {"endpoint": "local", "model": "local"}, "latency_ms": {"total": 4},
            "value": {"overall": "negative"}}});
        let text = shown(
            false,
            false,
            &[
                json!({"type": "call.started", "call_id": "c", "seq": 1}),
                json!({"type": "turn.partial", "call_id": "c", "text": "not shown in a file"}),
                json!({"type": "turn.final", "call_id": "c", "turn": turn("Some words that are long enough to need a second line.")}),
                insight.clone(),
                insight,
                json!({"type": "turn.revised", "call_id": "c", "turn": turn("Short."), "changed": ["text"]}),
                json!({"type": "insight.failed", "call_id": "c", "analysis": "summary", "code": "timeout", "temporary": true}),
                json!({"type": "call.completed", "call_id": "c", "missing": {"summary": "timeout"}, "cost_usd": 0.0}),
                json!({"type": "something.new"}),
            ],
        );
        let expected = "      ●  c call started
   1:07  A  Some words that are long enough to need a
            second line.
      ▌  sentiment turns 0–3 · local, degraded · 4 ms
      ▌  overall negative
      ▌  sentiment turns 0–3 · local, degraded · 4 ms · unchanged
   1:07  A  Short. (corrected: text)
      ▌  summary failed: timeout; it will be tried again
      ●  c call completed, without a final summary
";
        assert_eq!(text, expected);
    }

    #[test]
    fn words_of_others_cannot_command_the_terminal() {
        let text = shown(
            true,
            true,
            &[
                json!({"type": "turn.final", "call_id": "c\u{1b}[2J", "turn": {"speaker": "\u{1b}]0;x\u{7}", "text": "a\u{1b}[31m\r\nb"}}),
                json!({"type": "error", "code": "x", "message": "\u{1b}[2J"}),
            ],
        );
        assert!(!text.contains('\u{1b}') && !text.contains('\r') && !text.contains('\u{7}'), "{text:?}");
    }
}
