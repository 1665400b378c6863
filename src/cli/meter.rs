//! Output of a long command while it works: a progress bar on a terminal, and notes on stderr. Knows no command.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use owo_colors::OwoColorize as _;

/// A progress bar (hidden if stderr is not a terminal), with notes that do not break it.
#[derive(Debug, Clone)]
pub(crate) struct Meter {
    bar: ProgressBar,
}

impl Meter {
    /// A bar up to `length` of `unit`. Nothing is drawn with `quiet`, or if stderr is not a terminal.
    pub(crate) fn new(length: usize, unit: &str, quiet: bool) -> Self {
        let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(length as u64) };
        bar.set_length(length as u64);
        let template = format!("{{bar:32.cyan/blue}} {{human_pos}}/{{human_len}} {unit}  {{elapsed}}  {{msg:.dim}}");
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style.progress_chars("━╸─"));
        }
        if !quiet {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Self { bar }
    }

    /// Adds `count` to the progress.
    pub(crate) fn advance(&self, count: usize) {
        let left = self.bar.length().unwrap_or(0).saturating_sub(self.bar.position());
        self.bar.inc(left.min(count as u64));
    }

    /// Sets the text beside the bar.
    pub(crate) fn status(&self, text: impl Into<std::borrow::Cow<'static, str>>) {
        self.bar.set_message(text);
    }

    /// Writes a line to stderr, above the bar.
    pub(crate) fn note(&self, text: &str) {
        self.bar.suspend(|| anstream::eprintln!("{}", text));
    }

    /// Writes a warning to stderr, above the bar.
    pub(crate) fn warn(&self, text: &str) {
        self.bar.suspend(|| anstream::eprintln!("{} {text}", "warning:".yellow().bold()));
    }

    /// Runs `write`, which writes to a terminal, while the bar is hidden.
    pub(crate) fn hidden<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bar.suspend(write)
    }

    /// Removes the bar.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
