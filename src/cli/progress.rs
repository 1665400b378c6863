//! What a command does before it has anything to show: lines on stderr, with colours on a terminal and none elsewhere.

use owo_colors::OwoColorize as _;

/// A step that begins now.
pub(crate) fn step(text: &str) {
    anstream::eprintln!("{} {text}", "*".cyan().bold());
}

/// Something that belongs to the step before.
pub(crate) fn detail(text: &str) {
    anstream::eprintln!("  {}", text.dimmed());
}

/// Something that is not as the user may expect it.
pub(crate) fn warn(text: &str) {
    anstream::eprintln!("{} {text}", "!".yellow().bold());
}
