//! SubRip: numbered cues, optionally with names before the text.

use super::captions::{self, Naming};
use super::{Fit, Format, Line, Transcript, TranscriptError, cues};

pub(super) struct Srt;

impl Format for Srt {
    fn name(&self) -> &'static str {
        "srt"
    }

    fn about(&self) -> &'static str {
        "SubRip: numbered cues below lines such as 00:00:01,000 --> 00:00:04,000"
    }

    fn fit(&self, lines: &[Line<'_>]) -> Fit {
        let mut said = lines.iter().filter(|line| !line.is_blank()).take(2);
        if said.any(cues::is_time_line) { Fit::Maybe } else { Fit::No }
    }

    fn read(&self, lines: &[Line<'_>]) -> Result<Transcript, TranscriptError> {
        Ok(captions::transcript(&cues::srt(lines)?, Naming::Perhaps))
    }
}
