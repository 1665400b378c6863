//! One turn as one line of a prompt: `[12] B (1:05): text`.
//!
//! Knows no prompt around it. The ordinal comes first, because evidence names it; all text of others is escaped, so
//! that a line is always one turn.

use std::fmt::Write as _;

use super::escape;
use crate::base::time::clock;
use crate::types::Turn;

/// Appends the turn's line with its line feed. A turn without text has no line.
pub(super) fn render(turn: &Turn, out: &mut String) {
    if !has_line(turn) {
        return;
    }
    // Writing to a String cannot fail.
    let _ = write!(out, "[{}] ", turn.turn);
    if let Some(speaker) = turn.speaker.as_deref().filter(|speaker| !speaker.is_empty()) {
        out.push_str(&escape::label(speaker));
        out.push(' ');
    }
    let _ = write!(out, "({}): ", clock(turn.start_ms));
    out.push_str(&escape::text(turn.text.trim()));
    out.push('\n');
}

/// Appends a line that corrects the turn as it was `shown`, if `now` has a different line.
pub(super) fn correct(shown: &Turn, now: &Turn, out: &mut String) {
    let (mut before, mut after) = (String::new(), String::new());
    render(shown, &mut before);
    render(now, &mut after);
    if before == after {
        return;
    }
    if after.is_empty() {
        // No turn's own line looks like this: its time comes before its text.
        after = format!("[{}] (withdrawn)\n", now.turn);
    }
    out.push_str(&after);
}

/// Returns true if the turn has a line in prompts.
pub(super) fn has_line(turn: &Turn) -> bool {
    turn.text.chars().any(|character| !character.is_whitespace())
}
