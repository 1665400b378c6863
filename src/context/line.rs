//! One turn as one line of a prompt: `[12] B (1:05): text`, or `[12] B (1:05, interrupts): text` with [`super::marks`].
//!
//! Knows no prompt around it. The ordinal comes first, because evidence names it; all text of others is escaped, so
//! that a line is always one turn.

use std::fmt::Write as _;
use std::sync::Arc;

use super::marks::{self, Heard};
use super::{escape, tokens};
use crate::base::time::clock;
use crate::types::Turn;

/// Appends the turn's line with its line feed, without the marks that depend on other turns. A turn without text has no
/// line.
pub(super) fn render(turn: &Turn, out: &mut String) {
    if has_line(turn) {
        write(turn, &Heard::default(), out);
    }
}

/// Appends the line of the turn that follows `heard`, and adds the turn to it.
pub(super) fn render_next(turn: &Arc<Turn>, heard: &mut Heard, out: &mut String) {
    if has_line(turn) {
        write(turn, heard, out);
        heard.add(turn);
    }
}

/// Estimated tokens of the line of the turn that follows `heard`.
pub(super) fn tokens_next(turn: &Turn, heard: &Heard) -> u64 {
    let mut text = String::new();
    if has_line(turn) {
        write(turn, heard, &mut text);
    }
    tokens::estimate(&text)
}

fn write(turn: &Turn, heard: &Heard, out: &mut String) {
    // Writing to a String cannot fail.
    let _ = write!(out, "[{}] ", turn.turn);
    if let Some(speaker) = turn.speaker.as_deref().filter(|speaker| !speaker.is_empty()) {
        out.push_str(&escape::label(speaker));
        out.push(' ');
    }
    let _ = write!(out, "({}", clock(turn.start_ms));
    heard.write(turn, out);
    marks::doubt(turn, out);
    out.push_str("): ");
    out.push_str(&escape::text(&marks::doubted(turn)));
    out.push('\n');
}

/// Appends a line that corrects the turn as it was `shown`, if `now` has a different line.
pub(super) fn correct(shown: &Turn, now: &Turn, out: &mut String) {
    let (mut before, mut after) = (String::new(), String::new());
    render(shown, &mut before);
    render(now, &mut after);
    if before != after {
        state(now, out);
    }
}

/// Appends the line of a turn as it is now, or a line that says that it has none.
pub(super) fn state(now: &Turn, out: &mut String) {
    let start = out.len();
    render(now, out);
    if out.len() == start {
        // No turn's own line looks like this: its time comes before its text. Writing to a String cannot fail.
        let _ = writeln!(out, "[{}] (withdrawn)", now.turn);
    }
}

/// Returns true if the turn has a line in prompts.
pub(super) fn has_line(turn: &Turn) -> bool {
    turn.text.chars().any(|character| !character.is_whitespace())
}
