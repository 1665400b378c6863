//! Cues: the common part of WebVTT and SubRip. A time line begins a cue; the lines up to the next one are its text.
//! Identifiers, comments and blocks of styles are not text.
//!
//! Knows no markup and no speaker.

use super::time;
use super::{Line, MAX_TURNS, TranscriptError};

/// Separates the two times of a cue.
const ARROW: &str = "-->";
/// The first word of a WebVTT file.
const HEADER: &str = "WEBVTT";

/// One cue: lines of text, and the time for which they are shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cue<'a> {
    /// Line number of the cue's times.
    pub(super) line: usize,
    /// The cue's identifier, or `""`.
    pub(super) id: &'a str,
    pub(super) start_ms: u64,
    /// Never before the start: an earlier end is raised to the start.
    pub(super) end_ms: u64,
    /// The cue's lines of text, unchanged.
    pub(super) text: Vec<Line<'a>>,
}

/// The two formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Vtt,
    Srt,
}

/// Returns true if the first word of a file is `WEBVTT`.
pub(super) fn is_vtt(lines: &[Line<'_>]) -> bool {
    lines.iter().find(|line| !line.is_blank()).is_some_and(is_header)
}

/// Returns true if a line begins a cue: times on both sides of an arrow, or an attempt at one.
pub(super) fn is_time_line(line: &Line<'_>) -> bool {
    line.text.split_once(ARROW).is_some_and(|(before, _)| {
        let before = before.trim();
        let is_word = before.contains(':') && !before.contains(char::is_whitespace);
        is_word || before.starts_with(|first: char| first.is_ascii_digit())
    })
}

/// The cues of a WebVTT file.
///
/// # Errors
/// There is no `WEBVTT`, a time cannot be read, or a text belongs to no cue.
pub(super) fn vtt<'a>(lines: &[Line<'a>]) -> Result<Vec<Cue<'a>>, TranscriptError> {
    let Some(first) = lines.iter().position(|line| !line.is_blank()) else {
        return Err(TranscriptError::new(1, 1, "the file is empty; expected WEBVTT as its first word"));
    };
    if !is_header(&lines[first]) {
        return Err(lines[first].fault(0, "expected WEBVTT as the file's first word"));
    }
    cues(lines, first, Kind::Vtt)
}

/// The cues of a SubRip file.
///
/// # Errors
/// As [`vtt`], except for `WEBVTT`.
pub(super) fn srt<'a>(lines: &[Line<'a>]) -> Result<Vec<Cue<'a>>, TranscriptError> {
    cues(lines, 0, Kind::Srt)
}

fn is_header(line: &Line<'_>) -> bool {
    line.text.strip_prefix(HEADER).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t']))
}

fn cues<'a>(lines: &[Line<'a>], first: usize, kind: Kind) -> Result<Vec<Cue<'a>>, TranscriptError> {
    let mut cues: Vec<Cue<'a>> = Vec::new();
    let mut id = "";
    // Set if the line before is empty: only then a comment, or an identifier that is not a number, may follow.
    let mut after_gap = true;
    let mut index = first;
    while let Some(line) = lines.get(index) {
        index += 1;
        if line.is_blank() {
            // A line of only spaces belongs to the cue in WebVTT, and ends it in SubRip.
            after_gap |= line.text.is_empty() || kind == Kind::Srt;
            continue;
        }
        if is_time_line(line) {
            if cues.len() == MAX_TURNS {
                return Err(line.fault(0, format!("more than {MAX_TURNS} cues (transcript_turns)")));
            }
            let (start_ms, end_ms) = times(line)?;
            cues.push(Cue { line: line.number, id: std::mem::take(&mut id), start_ms, end_ms, text: Vec::new() });
        } else if kind == Kind::Vtt && after_gap && is_no_cue(line) {
            let end = lines[index..].iter().position(|line| line.text.trim().is_empty() || is_time_line(line));
            index = end.map_or(lines.len(), |end| index + end);
        } else if lines.get(index).is_some_and(is_time_line) && is_id(line, after_gap, kind, cues.last()) {
            id = line.text.trim();
        } else {
            let Some(cue) = cues.last_mut() else {
                let expected = match kind {
                    Kind::Vtt => "a cue: a line of times, such as 00:01.000 --> 00:04.000",
                    Kind::Srt => "a cue: a number, and a line of times, such as 00:00:01,000 --> 00:00:04,000",
                };
                return Err(line.fault(0, format!("expected {expected}")));
            };
            cue.text.push(*line);
        }
        after_gap = false;
    }
    Ok(cues)
}

/// Returns true if a line begins a block that is not a cue. The header may occur in the middle of concatenated files.
fn is_no_cue(line: &Line<'_>) -> bool {
    let opens =
        |word: &str| line.text.strip_prefix(word).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t']));
    is_header(line) || opens("NOTE") || opens("STYLE") || opens("REGION")
}

/// Returns true if the line before a time line is its cue's identifier, and not the last line of the cue before.
fn is_id(line: &Line<'_>, after_gap: bool, kind: Kind, before: Option<&Cue<'_>>) -> bool {
    let text = line.text.trim();
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        // After an empty cue, without an empty line, a number may be its whole text.
        return after_gap || before.is_none_or(|cue| !cue.text.is_empty() || follows(cue.id, text));
    }
    match kind {
        Kind::Vtt => after_gap || (text.contains('/') && !text.contains(char::is_whitespace)),
        Kind::Srt => false,
    }
}

/// Returns true if `next` is the number after `number`.
fn follows(number: &str, next: &str) -> bool {
    match (number.parse::<u64>(), next.parse::<u64>()) {
        (Ok(number), Ok(next)) => number.checked_add(1) == Some(next),
        _ => false,
    }
}

/// The times of a time line. The settings after them, which position the cue, are ignored.
fn times(line: &Line<'_>) -> Result<(u64, u64), TranscriptError> {
    let (before, after) = line.text.split_once(ARROW).unwrap_or((line.text, ""));
    let start = time::at(line, before.len() - before.trim_start().len(), before.trim())?;
    let indent = after.len() - after.trim_start().len();
    let end = after.split_whitespace().next().unwrap_or_default();
    let end = time::at(line, before.len() + ARROW.len() + indent, end)?;
    Ok((start, end.max(start)))
}

#[cfg(test)]
mod tests {
    use super::super::source;
    use super::*;

    /// Identifier, start, end and lines of a cue.
    type Plain = (String, u64, u64, Vec<String>);

    fn read(text: &str) -> Result<Vec<Plain>, String> {
        let lines = source::lines(text).expect("lines");
        let cues = if is_vtt(&lines) { vtt(&lines) } else { srt(&lines) };
        let plain = |cue: Cue<'_>| {
            let text = cue.text.iter().map(|line| line.text.to_owned()).collect();
            (cue.id.to_owned(), cue.start_ms, cue.end_ms, text)
        };
        cues.map(|cues| cues.into_iter().map(plain).collect()).map_err(|error| error.to_string())
    }

    fn cue(id: &str, start: u64, end: u64, text: &[&str]) -> Plain {
        (id.to_owned(), start, end, text.iter().map(|line| (*line).to_owned()).collect())
    }

    #[test]
    fn blocks_that_are_no_cue_are_no_text() {
        let text = "WEBVTT - A title\nKind: captions\nX-TIMESTAMP-MAP=LOCAL:00:00:00.000,MPEGTS:900000\n\nNOTE one\nline\n\n\
                    STYLE\n::cue { color: red }\n\nREGION\nid:fred\n\nintro\n00:01.000 --> 00:02.000 align:start position:0%\n\
                    One\n two\n\nNOTE\n\nNOTES are text\n\nWEBVTT\n\n00:03.000 --> 00:02.000\nThree\n";
        let expected =
            [cue("intro", 1_000, 2_000, &["One", " two", "NOTES are text"]), cue("", 3_000, 3_000, &["Three"])];
        assert_eq!(read(text).expect("cues"), expected);
    }

    #[test]
    fn subrip_variants_are_read() {
        for (text, expected) in [
            // No blank line at the end or between cues, no numbers, decimal points, no fraction, positions, an arrow in
            // the text.
            (
                "1\n00:00:01,000 --> 00:00:02,000\nA\n2\n00:00:03.5-->0:00:04 X1:1 X2:2\nB --> C\n00:00:05,000 --> 00:00:06,000\nD",
                vec![
                    cue("1", 1_000, 2_000, &["A"]),
                    cue("2", 3_500, 4_000, &["B --> C"]),
                    cue("", 5_000, 6_000, &["D"]),
                ],
            ),
            // A blank line within a cue, an empty cue, and spoken numbers.
            (
                "\n1\n00:00:01,000 --> 00:00:02,000\n\n2\n00:00:03,000 --> 00:00:04,000\nA\n\nB\n\n3\n00:00:05,000 --> 00:00:06,000\n42\n\n4\n00:00:07,000 --> 00:00:08,000\nC\n",
                vec![
                    cue("1", 1_000, 2_000, &[]),
                    cue("2", 3_000, 4_000, &["A", "B"]),
                    cue("3", 5_000, 6_000, &["42"]),
                    cue("4", 7_000, 8_000, &["C"]),
                ],
            ),
            (
                "00:01 --> 00:02\n42\n00:03 --> 00:04\nA",
                vec![cue("", 1_000, 2_000, &["42"]), cue("", 3_000, 4_000, &["A"])],
            ),
            (
                "1\n00:01 --> 00:02\n2\n00:03 --> 00:04\nA",
                vec![cue("1", 1_000, 2_000, &[]), cue("2", 3_000, 4_000, &["A"])],
            ),
        ] {
            assert_eq!(read(text).expect(text), expected, "{text}");
        }
    }

    #[test]
    fn errors_name_their_place() {
        for (text, expected) in [
            ("WEBVTT\n\n00:01.000 --> 00:0x.000\nA", "line 3, column 15: expected a time"),
            ("WEBVTT\n\n  00:61:00.000 --> 00:02.000\nA", "line 3, column 3: expected a time"),
            ("WEBVTT\n\n00:01.000 -->\nA", "line 3, column 14: expected a time"),
            ("1\n00:00:01,000 --> 99999:00:00,000\nA", "line 2, column 18: expected a time"),
            ("WEBVTT\n\nA", "line 3, column 1: expected a cue"),
            ("Hello", "line 1, column 1: expected a cue: a number"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.starts_with(expected), "{text}: {error}");
        }
        let lines = source::lines("\nHello").expect("lines");
        assert_eq!(
            vtt(&lines).expect_err("no header").to_string(),
            "line 2, column 1: expected WEBVTT as the file's first word"
        );
    }

    #[test]
    fn lines_of_spaces_end_no_cue_of_webvtt() {
        let text = "WEBVTT\n\n00:01.000 --> 00:02.000\n \nA\n00:02.000 --> 00:03.000\nB\n \n\n12345678-aaaa/7-0\n00:03.000 --> 00:04.000\nC";
        let expected = [
            cue("", 1_000, 2_000, &["A"]),
            cue("", 2_000, 3_000, &["B"]),
            cue("12345678-aaaa/7-0", 3_000, 4_000, &["C"]),
        ];
        assert_eq!(read(text).expect("cues"), expected);
    }
}
