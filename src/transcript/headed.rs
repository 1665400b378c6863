//! Transcripts with a line above each turn that names the speaker and the time: `Name  0:15`.
//!
//! Knows no product: the caller recognises such lines.

use super::names;
use super::pace::{self, Open};
use super::{LeftOut, Line, Times, Transcript, append, time};

/// The contents of the line above a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head<'a> {
    pub(super) speaker: Option<&'a str>,
    pub(super) start_ms: u64,
    /// Speech on the same line.
    pub(super) text: &'a str,
}

/// `Name  0:15`, or `0:15` alone. Between name and time are two spaces or more, or a tab; with a single space the line must
/// follow a gap and the name must look like one.
pub(super) fn name_then_time<'a>(line: &Line<'a>, after_gap: bool) -> Option<Head<'a>> {
    let whole = line.text.trim();
    let stamp = whole.rsplit(char::is_whitespace).next()?;
    let before = whole.strip_suffix(stamp)?;
    let start_ms = time::stamp(stamp)?;
    let name = before.trim_end();
    if name.is_empty() {
        return after_gap.then_some(Head { speaker: None, start_ms, text: "" });
    }
    let is_apart = before.len() > name.len() + 1 || before.ends_with('\t');
    let is_name = name.chars().count() <= 80 && name.chars().any(char::is_alphabetic);
    let fits = if is_apart { is_name } else { after_gap && names::is_name(name) };
    fits.then_some(Head { speaker: Some(name), start_ms, text: "" })
}

/// The turns below their head lines. Lines before the first one are the file's heading, whose first line is the title.
pub(super) fn read<'a>(
    lines: &[Line<'a>],
    head: impl Fn(&Line<'a>, bool) -> Option<Head<'a>>,
    is_text: impl Fn(&Line<'a>) -> bool,
) -> Transcript {
    let mut turns: Vec<Open> = Vec::new();
    let mut heading: Vec<&Line<'a>> = Vec::new();
    let mut after_gap = true;
    for line in lines {
        let is_after_gap = std::mem::replace(&mut after_gap, line.is_blank());
        if line.is_blank() {
            continue;
        }
        if let Some(head) = head(line, is_after_gap) {
            let speaker = head.speaker.map(str::to_owned);
            let (text, start_ms) = (head.text.to_owned(), Some(head.start_ms));
            turns.push(Open { line: line.number, speaker, text, start_ms });
            continue;
        }
        if !is_text(line) {
            continue;
        }
        match turns.last_mut() {
            Some(turn) => append(&mut turn.text, line.text.trim()),
            None => heading.push(line),
        }
    }
    let (turns, times, names) = pace::close(turns);
    let title = heading.first().map(|line| line.text.trim().to_owned());
    let above = heading.first().zip(heading.last()).map(|(first, last)| {
        let to = if first.number == last.number { String::new() } else { format!(", up to line {}", last.number) };
        LeftOut { line: first.number, message: format!("a heading above the first turn{to}") }
    });
    Transcript { title, turns, times, left_out: above.into_iter().chain(names).collect() }
}

/// Converts times of day to times since the first one; a time that goes back by more than half a day belongs to the
/// next day.
pub(super) fn from_clock(transcript: &mut Transcript) {
    const DAY_MS: u64 = 24 * 3600 * 1000;
    let Some(first) = transcript.turns.first().map(|turn| turn.start_ms) else { return };
    let (mut day, mut before) = (0, first);
    for turn in &mut transcript.turns {
        if turn.start_ms + DAY_MS / 2 < before {
            day += DAY_MS;
        }
        before = turn.start_ms;
        let offset = |ms: u64| (ms + day).saturating_sub(first);
        (turn.start_ms, turn.end_ms) = (offset(turn.start_ms), offset(turn.end_ms));
    }
    transcript.times = Times::Starts;
}

#[cfg(test)]
mod tests {
    use super::super::source;
    use super::*;

    #[test]
    fn headings_are_distinguished_from_speech() {
        for (text, after_gap, expected) in [
            ("Ann Lee  0:15  ", false, Some((Some("Ann Lee"), 15_000))),
            ("Ann Lee\t1:02:03", false, Some((Some("Ann Lee"), 3_723_000))),
            ("Unknown Speaker   0:03", false, Some((Some("Unknown Speaker"), 3_000))),
            ("Ann Lee 0:15", true, Some((Some("Ann Lee"), 15_000))),
            ("Ann Lee 0:15", false, None),
            ("See you at 10:30", true, None),
            ("0:24", true, Some((None, 24_000))),
            ("10:30", false, None),
            ("Ann Lee  15", true, None),
            ("", true, None),
        ] {
            let head = name_then_time(&Line { number: 1, text }, after_gap);
            assert_eq!(head.map(|head| (head.speaker, head.start_ms)), expected, "{text}");
        }
    }

    #[test]
    fn a_clock_counts_from_its_first_time_and_over_midnight() {
        let lines = source::lines("A  23:59:50\nx\n\nB  0:00:10\ny\n\nA  0:00:08\nz").expect("lines");
        let mut transcript = read(&lines, name_then_time, |_| true);
        from_clock(&mut transcript);
        let starts: Vec<u64> = transcript.turns.iter().map(|turn| turn.start_ms).collect();
        assert_eq!(starts, [0, 20_000, 18_000]);
        assert!(transcript.turns.iter().all(|turn| turn.end_ms >= turn.start_ms));
    }
}
