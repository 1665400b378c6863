//! Otter: its text, with `Name  0:15` above each turn; and its SubRip, which names a speaker only where another begins.

use super::captions::{self, Naming};
use super::{Fit, Format, Line, Transcript, TranscriptError, cues, headed};

pub(super) struct Otter;

impl Format for Otter {
    fn name(&self) -> &'static str {
        "otter"
    }

    fn about(&self) -> &'static str {
        "Otter: Name  0:15 above the text; or SubRip with the name where the speaker changes"
    }

    fn fit(&self, lines: &[Line<'_>]) -> Fit {
        if cues::is_vtt(lines) {
            return Fit::No;
        }
        // A single such line may be an item of an agenda.
        let heads = lines.iter().filter(|line| headed::name_then_time(line, false).is_some()).take(2).count();
        if heads == 2 || lines.iter().any(is_footer) { Fit::Surely } else { Fit::No }
    }

    fn read(&self, lines: &[Line<'_>]) -> Result<Transcript, TranscriptError> {
        if lines.iter().any(cues::is_time_line) {
            return Ok(captions::transcript(&cues::srt(lines)?, Naming::AtChanges));
        }
        Ok(headed::read(lines, headed::name_then_time, |line| !is_footer(line)))
    }
}

/// `Transcribed by https://otter.ai`
fn is_footer(line: &Line<'_>) -> bool {
    const BEGINNING: &str = "transcribed by http";
    let text = line.text.trim();
    let begins = text.get(..BEGINNING.len()).is_some_and(|start| start.eq_ignore_ascii_case(BEGINNING));
    let site = text.get(BEGINNING.len()..).unwrap_or_default().trim_start_matches('s').trim_end_matches('/');
    begins && matches!(site, "://otter.ai" | "://www.otter.ai")
}
