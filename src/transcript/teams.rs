//! Microsoft Teams: WebVTT with voice tags; its cues as JSON (the meeting's metadata); and the text of its document, with
//! `Name   0:03` or a line of times above the name and the text.

use serde::Deserialize;

use super::captions::{self, Naming};
use super::cues::{self, Cue};
use super::merge::{Piece, merge};
use super::{Fit, Format, Line, Times, Transcript, TranscriptError, append, headed, names};

pub(super) struct Teams;

/// Number of lines in which a file's first cues or head lines must occur to recognise it.
const FIRST_LINES: usize = 200;

impl Format for Teams {
    fn name(&self) -> &'static str {
        "teams"
    }

    fn about(&self) -> &'static str {
        "Microsoft Teams: WebVTT with voice tags such as <v Name>; or Name   0:03 above the text"
    }

    fn fit(&self, lines: &[Line<'_>]) -> Fit {
        let first = lines.get(..lines.len().min(FIRST_LINES)).unwrap_or_default();
        if cues::is_vtt(lines) {
            let is_teams = first.iter().any(|line| is_guid_id(line.text)) || first.iter().any(|line| line.text == "{");
            return if is_teams { Fit::Surely } else { Fit::Maybe };
        }
        // Teams writes three spaces, Otter two.
        let is_head =
            |line: &Line<'_>| line.text.trim().contains("   ") && headed::name_then_time(line, false).is_some();
        if first.iter().any(is_head) { Fit::Surely } else { Fit::No }
    }

    fn read(&self, lines: &[Line<'_>]) -> Result<Transcript, TranscriptError> {
        if cues::is_vtt(lines) {
            let cues = cues::vtt(lines)?;
            let spoken: Option<Vec<Spoken>> = cues.iter().map(Spoken::read).collect();
            return Ok(match spoken {
                Some(spoken) if !cues.is_empty() => {
                    let pieces = cues.iter().zip(spoken).map(|(cue, spoken)| spoken.piece(cue));
                    timed(pieces.collect())
                }
                _ => captions::transcript(&cues, Naming::Perhaps),
            });
        }
        if lines.iter().any(cues::is_time_line) {
            let cues = cues::srt(lines)?;
            return Ok(timed(cues.iter().map(named_above).collect()));
        }
        Ok(headed::read(lines, headed::name_then_time, |line| !is_notice(line.text)))
    }
}

fn timed(pieces: Vec<Piece>) -> Transcript {
    let (turns, left_out) = merge(pieces);
    Transcript { title: None, turns, times: Times::Given, left_out }
}

/// Returns true for `Name started transcription` and `Name stopped transcription`.
fn is_notice(text: &str) -> bool {
    let text = text.trim();
    let name = text.strip_suffix(" started transcription").or_else(|| text.strip_suffix(" stopped transcription"));
    name.is_some_and(names::is_name)
}

/// Returns true for an identifier such as `6a1b…-…/12-0`.
fn is_guid_id(text: &str) -> bool {
    text.split_once('/').is_some_and(|(guid, part)| {
        let is_guid = guid.len() == 36 && guid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        is_guid && part.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
    })
}

/// The content of a cue in the metadata.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spoken {
    #[serde(default)]
    speaker_name: Option<String>,
    spoken_text: String,
}

impl Spoken {
    fn read(cue: &Cue<'_>) -> Option<Self> {
        let text: Vec<&str> = cue.text.iter().map(|line| line.text).collect();
        serde_json::from_str(&text.join("\n")).ok()
    }

    fn piece(self, cue: &Cue<'_>) -> Piece {
        let (line, start_ms, end_ms) = (cue.line, cue.start_ms, cue.end_ms);
        let speaker = self.speaker_name.filter(|name| !name.trim().is_empty());
        Piece { line, speaker, text: self.spoken_text, start_ms, end_ms, apart: false }
    }
}

/// A cue whose first line is the name.
fn named_above(cue: &Cue<'_>) -> Piece {
    let (line, start_ms, end_ms) = (cue.line, cue.start_ms, cue.end_ms);
    let (speaker, said) = match cue.text.as_slice() {
        [name, said @ ..] if !said.is_empty() && names::is_name(name.text) => (Some(name.text.trim().to_owned()), said),
        said => (None, said),
    };
    let mut text = String::new();
    said.iter().for_each(|line| append(&mut text, line.text.trim()));
    Piece { line, speaker, text, start_ms, end_ms, apart: false }
}
