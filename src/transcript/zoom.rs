//! Zoom: the WebVTT of a cloud recording, whose cues begin with the name; captions saved in a meeting (`[Name] 14:03:21`
//! above the text); and a saved chat (`14:03:21 From Name to Everyone: text`).

use super::captions::{self, Naming};
use super::headed::{self, Head};
use super::{Fit, Format, Line, Transcript, TranscriptError, cues, time};

pub(super) struct Zoom;

/// Share of cues with a name from which on a WebVTT file counts as Zoom's, percent.
const NAMED_SHARE: usize = 60;

impl Format for Zoom {
    fn name(&self) -> &'static str {
        "zoom"
    }

    fn about(&self) -> &'static str {
        "Zoom: WebVTT with cues such as Name: text; or [Name] 14:03:21 above the text; or a saved chat"
    }

    fn fit(&self, lines: &[Line<'_>]) -> Fit {
        if !cues::is_vtt(lines) {
            return if lines.iter().any(|line| caption(line).or_else(|| chat(line)).is_some()) {
                Fit::Surely
            } else {
                Fit::No
            };
        }
        let Ok(cues) = cues::vtt(lines) else { return Fit::Maybe };
        let is_zoom = !captions::has_voices(&cues) && captions::named_share(&cues) >= NAMED_SHARE;
        if is_zoom { Fit::Surely } else { Fit::Maybe }
    }

    fn read(&self, lines: &[Line<'_>]) -> Result<Transcript, TranscriptError> {
        if cues::is_vtt(lines) {
            return Ok(captions::transcript(&cues::vtt(lines)?, Naming::Always));
        }
        let mut transcript = headed::read(lines, |line, _| caption(line).or_else(|| chat(line)), |_| true);
        // The times in a cloud recording's chat begin with the recording; the others are times of day.
        if lines.iter().any(|line| caption(line).is_some() || (chat(line).is_some() && line.text.contains("From "))) {
            headed::from_clock(&mut transcript);
        }
        Ok(transcript)
    }
}

/// `[Name] 14:03:21`, alone on its line.
fn caption<'a>(line: &Line<'a>) -> Option<Head<'a>> {
    let (name, stamp) = line.text.trim().strip_prefix('[')?.rsplit_once(']')?;
    let start_ms = time::stamp(stamp.trim())?;
    let name = name.trim();
    Some(Head { speaker: Some(name).filter(|name| !name.is_empty()), start_ms, text: "" })
}

/// `14:03:21<TAB> From Name to Everyone: text` or `00:12:34<TAB>Name:<TAB>text`.
fn chat<'a>(line: &Line<'a>) -> Option<Head<'a>> {
    let text = line.text.trim_end();
    let (stamp, rest) = text.split_once([' ', '\t'])?;
    let start_ms = time::stamp(stamp).filter(|_| stamp.matches(':').count() == 2)?;
    let rest = rest.trim_start();
    let Some(from) = rest.strip_prefix("From ") else {
        // A saved chat separates its columns by tabs; without them the line is speech.
        let (name, said) = rest.split_once(":\t").or_else(|| Some((rest.strip_suffix(':')?, "")))?;
        let has_tab = text.as_bytes().get(stamp.len()) == Some(&b'\t');
        return has_tab.then_some(Head { speaker: Some(name.trim()), start_ms, text: said.trim() });
    };
    // The text may follow on the next lines: then this line ends with the colon.
    let (who, said) = from.split_once(": ").or_else(|| Some((from.strip_suffix(':')?, "")))?;
    let name = who.rsplit_once(" to ").map_or(who, |(name, _)| name);
    Some(Head { speaker: Some(name.trim()), start_ms, text: said.trim() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_above_captions_and_chats_are_read() {
        for (text, expected) in [
            ("[Ann Lee] 14:03:21", Some((Some("Ann Lee"), 50_601_000, ""))),
            ("[] 14:03:21", Some((None, 50_601_000, ""))),
            ("14:03:21\t From Ann Lee to Everyone: Hi: there", Some((Some("Ann Lee"), 50_601_000, "Hi: there"))),
            ("14:03:21 From Ann Lee to Everyone:", Some((Some("Ann Lee"), 50_601_000, ""))),
            ("14:03:21\t From  Ann Lee : Hi", Some((Some("Ann Lee"), 50_601_000, "Hi"))),
            ("00:12:34\tAnn Lee:\tHi", Some((Some("Ann Lee"), 754_000, "Hi"))),
            ("00:12:34 Ann Lee: Hi", None),
            ("[Music] plays", None),
            ("14:03:21 is late", None),
        ] {
            let line = Line { number: 1, text };
            let head = caption(&line).or_else(|| chat(&line));
            assert_eq!(head.map(|head| (head.speaker, head.start_ms, head.text)), expected, "{text}");
        }
    }
}
