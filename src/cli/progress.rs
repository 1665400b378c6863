//! Progress of a command before it has results to show: lines on stderr, with colours on a terminal only.

use owo_colors::OwoColorize as _;

/// Announces a step that begins now.
pub(crate) fn step(text: &str) {
    anstream::eprintln!("{} {text}", "*".cyan().bold());
}

/// Adds a detail to the previous step.
pub(crate) fn detail(text: &str) {
    anstream::eprintln!("  {}", text.dimmed());
}

/// Warns of something that the user may not expect.
pub(crate) fn warn(text: &str) {
    anstream::eprintln!("{} {text}", "!".yellow().bold());
}
