//! Shows alerts on a terminal: their severity as colour and word, their quote, and their end.

use std::io::{self, Write};

use owo_colors::{OwoColorize as _, Style};
use serde_json::Value;

use super::text::{harmless, wrap};
use super::{Screen, word};

impl<W: Write> Screen<W> {
    pub(super) fn alert(&mut self, call: &str, alert: &Value) -> io::Result<()> {
        let severity = word(&alert["severity"]);
        let style = severity_style(&severity);
        let turn = alert["turn"].as_u64().map(|turn| format!("turn {turn}"));
        let room = self.width.saturating_sub(self.margin() + 4);
        let quote = alert["quote"].as_str().map(|quote| wrap(&format!("“{}”", harmless(quote)), room));
        let facts: Vec<String> = [Some(word(&alert["rule"])), turn].into_iter().flatten().collect();
        self.pause()?;
        let name = self.name(call);
        let head = format!("{} {}", severity.to_uppercase().style(style), word(&alert["message"]).bold());
        writeln!(self.out, "{}{:>7}  {head} {}", name.dimmed(), "▲".style(style), facts.join(" · ").dimmed())?;
        for line in quote.into_iter().flatten() {
            writeln!(self.out, "{}{:>7}  {line}", self.name(""), "▲".style(style))?;
        }
        Ok(())
    }

    pub(super) fn cleared(&mut self, call: &str, alert: &Value) -> io::Result<()> {
        self.pause()?;
        let name = self.name(call);
        let line = format!("{} is cleared", word(&alert["rule"]));
        writeln!(self.out, "{}{:>7}  {}", name.dimmed(), "△".green(), line.dimmed())
    }
}

/// The colour of a severity; its name is written beside it.
fn severity_style(severity: &str) -> Style {
    match severity {
        "critical" => Style::new().red().bold(),
        "warning" => Style::new().yellow().bold(),
        _ => Style::new().blue().bold(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(frames: &[Value]) -> String {
        let mut bytes = Vec::new();
        let mut screen = Screen::new(anstream::StripStream::new(&mut bytes), false, 60, false);
        for frame in frames {
            screen.frame(frame).expect("write");
        }
        drop(screen);
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn alerts_show_their_severity_their_words_and_their_end() {
        let alert = json!({"id": "a_1", "rule": "churn", "severity": "critical", "message": "May leave.", "turn": 12,
            "quote": "I want to cancel the whole contract today, and that is it."});
        let text = shown(&[
            json!({"type": "alert.raised", "call_id": "c", "alert": alert.clone()}),
            json!({"type": "alert.cleared", "call_id": "c", "alert": {"id": "a_1", "rule": "churn"}}),
            json!({"type": "alert.raised", "call_id": "c", "alert": {"rule": "quiet", "severity": "info", "message": "Quiet."}}),
            json!({"type": "snapshot", "call_id": "c", "state": {"status": "open", "alerts": [alert]}}),
        ]);
        let expected = "      ▲  CRITICAL May leave. churn · turn 12
      ▲  “I want to cancel the whole contract today, and
      ▲  that is it.”
      △  churn is cleared
      ▲  INFO Quiet. quiet
      ●  c call is open
      ▲  CRITICAL May leave. churn · turn 12
      ▲  “I want to cancel the whole contract today, and
      ▲  that is it.”
";
        assert_eq!(text, expected);
    }
}
