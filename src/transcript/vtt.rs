//! WebVTT: names in voice tags, otherwise optionally before the text.

use super::captions::{self, Naming};
use super::{Fit, Format, Line, Transcript, TranscriptError, cues};

pub(super) struct Vtt;

impl Format for Vtt {
    fn name(&self) -> &'static str {
        "vtt"
    }

    fn about(&self) -> &'static str {
        "WebVTT: WEBVTT, then cues below lines such as 00:01.000 --> 00:04.000"
    }

    fn fit(&self, lines: &[Line<'_>]) -> Fit {
        if cues::is_vtt(lines) { Fit::Maybe } else { Fit::No }
    }

    fn read(&self, lines: &[Line<'_>]) -> Result<Transcript, TranscriptError> {
        Ok(captions::transcript(&cues::vtt(lines)?, Naming::Perhaps))
    }
}
