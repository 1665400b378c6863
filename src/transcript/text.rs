//! Plain text: `Name: text`, optionally with times, such as `[0:15] Name: text` or `Name (0:15): text`. A turn
//! continues in the lines below it.

use super::names::{self, Speakers};
use super::pace::{self, Open};
use super::{Fit, Format, Line, Transcript, TranscriptError, append, time};

pub(super) struct Text;

/// Number of lines that are examined to recognise a file.
const FIRST_LINES: usize = 1_000;
/// A file is recognised if this share of the lines has a name, in percent, or if the first one has.
const NAMED_SHARE: usize = 30;

impl Format for Text {
    fn name(&self) -> &'static str {
        "text"
    }

    fn about(&self) -> &'static str {
        "plain text: lines such as Name: text, [0:15] Name: text, or Name (0:15): text"
    }

    fn fit(&self, lines: &[Line<'_>]) -> Fit {
        let said = || lines.iter().filter(|line| !line.is_blank()).take(FIRST_LINES);
        let is_named = |line: &Line<'_>| lead(line.text).is_some_and(|lead| lead.name.is_some());
        let named = said().filter(|line| is_named(line)).count();
        let fits = said().next().is_some_and(is_named) || named * 100 >= said().count().max(1) * NAMED_SHARE;
        if fits { Fit::Maybe } else { Fit::No }
    }

    fn read(&self, lines: &[Line<'_>]) -> Result<Transcript, TranscriptError> {
        let leads: Vec<Option<Lead<'_>>> = lines.iter().map(|line| lead(line.text)).collect();
        let said = leads.iter().zip(lines).filter(|(_, line)| !line.is_blank());
        let speakers = Speakers::count(said.map(|(lead, _)| (true, lead.as_ref().and_then(|lead| lead.name))));
        // A lower-case word may begin any line.
        let is_speaker = |name: &str| !name.starts_with(char::is_lowercase) || speakers.has(name);
        let mut turns: Vec<Open> = Vec::new();
        let (mut alone, mut after_gap) = (None, false);
        for (line, lead) in lines.iter().zip(&leads) {
            let is_after_gap = std::mem::replace(&mut after_gap, line.is_blank());
            if line.is_blank() {
                continue;
            }
            let open = |speaker: Option<&str>, text: &str, start_ms: Option<u64>| Open {
                line: line.number,
                speaker: speaker.map(str::to_owned),
                text: text.to_owned(),
                start_ms,
            };
            let text = line.text.trim();
            match lead.as_ref().filter(|lead| lead.name.is_none_or(is_speaker)) {
                Some(Lead { name: None, start_ms, text: "" }) => alone = *start_ms,
                Some(lead) => turns.push(open(lead.name, lead.text, lead.start_ms.or(alone.take()))),
                None if alone.is_some() => turns.push(open(None, text, alone.take())),
                None => match turns.last_mut() {
                    Some(turn) if !is_after_gap || turn.text.is_empty() => append(&mut turn.text, text),
                    // Another paragraph of the same speaker.
                    Some(turn) => {
                        let speaker = turn.speaker.clone();
                        turns.push(open(speaker.as_deref(), text, None));
                    }
                    None => turns.push(open(None, text, None)),
                },
            }
        }
        let (turns, times, left_out) = pace::close(turns);
        Ok(Transcript { title: None, turns, times, left_out })
    }
}

/// The name and time at the start of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lead<'a> {
    start_ms: Option<u64>,
    name: Option<&'a str>,
    text: &'a str,
}

/// A name, a time, or both; `None` for a line that continues the speech before it.
fn lead(line: &str) -> Option<Lead<'_>> {
    let line = line.trim();
    let (before, rest) = bracketed(line).map_or((None, line), |(start_ms, rest)| (Some(start_ms), rest));
    if let Some(lead) = named(rest) {
        return Some(Lead { start_ms: before.or(lead.start_ms), ..lead });
    }
    if before.is_some() {
        return Some(Lead { start_ms: before, name: None, text: rest });
    }
    // A time without brackets may be a part of speech, unless it comes before a name or alone.
    let (stamp, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let start_ms = Some(time::stamp(stamp)?);
    if rest.trim().is_empty() {
        return Some(Lead { start_ms, name: None, text: "" });
    }
    let lead = named(rest.trim_start_matches([' ', '\t', '-', '–', '|']))?;
    Some(Lead { start_ms, ..lead })
}

/// `Name: text`, `Name (0:15): text`, or `Name (0:15)` alone.
fn named(text: &str) -> Option<Lead<'_>> {
    let cut = names::cut(text);
    let (before, said) = cut.unwrap_or((text, ""));
    let (name, start_ms) = match timed(before) {
        Some((name, start_ms)) => (name, Some(start_ms)),
        None => (cut?.0, None),
    };
    names::is_name(name).then_some(Lead { start_ms, name: Some(name), text: said })
}

/// A name with a time in brackets after it.
fn timed(name: &str) -> Option<(&str, u64)> {
    let name = name.trim();
    let (before, stamp) = match name.strip_suffix(')') {
        Some(open) => open.rsplit_once('(')?,
        None => name.strip_suffix(']')?.rsplit_once('[')?,
    };
    Some((before.trim(), time::stamp(stamp.trim())?)).filter(|(before, _)| !before.is_empty())
}

/// The time in brackets at the start of a line, or the first of two such times; and the rest of the line.
fn bracketed(line: &str) -> Option<(u64, &str)> {
    let close = match line.chars().next()? {
        '[' => ']',
        '(' => ')',
        '<' => '>',
        _ => return None,
    };
    let (inner, rest) = line.get(1..)?.split_once(close)?;
    let first = inner.split(|character: char| character.is_whitespace() || matches!(character, '-' | '–')).next()?;
    let start_ms = time::stamp(inner.trim()).or_else(|| time::stamp(first))?;
    Some((start_ms, rest.trim_start_matches([' ', '\t', '-', '–', '|'])))
}

#[cfg(test)]
mod tests {
    use super::super::source;
    use super::*;

    #[test]
    fn a_line_begins_with_a_name_or_a_time_or_goes_on() {
        for (line, expected) in [
            ("Ann: Hi.", Some((None, Some("Ann"), "Hi."))),
            ("[00:12] Ann: Hi.", Some((Some(12_000), Some("Ann"), "Hi."))),
            ("(1:02:03) Ann: Hi.", Some((Some(3_723_000), Some("Ann"), "Hi."))),
            ("[00:00:12.500 - 00:00:15.000] Ann: Hi.", Some((Some(12_500), Some("Ann"), "Hi."))),
            ("00:12 Ann: Hi.", Some((Some(12_000), Some("Ann"), "Hi."))),
            ("00:12 - Ann: Hi.", Some((Some(12_000), Some("Ann"), "Hi."))),
            ("Ann (00:12): Hi.", Some((Some(12_000), Some("Ann"), "Hi."))),
            ("Ann [00:12]: Hi.", Some((Some(12_000), Some("Ann"), "Hi."))),
            ("Ann Lee (00:12):", Some((Some(12_000), Some("Ann Lee"), ""))),
            ("Ann Lee (00:12)", Some((Some(12_000), Some("Ann Lee"), ""))),
            ("[00:12] Hi there.", Some((Some(12_000), None, "Hi there."))),
            ("[00:12]", Some((Some(12_000), None, ""))),
            ("0:12", Some((Some(12_000), None, ""))),
            ("at 10:30: the train", None),
            ("10:30 is fine.", None),
            ("https://example.com is up", None),
            ("(laughs) yes", None),
            ("We said (at 10:30)", None),
            ("and so on", None),
        ] {
            let found = lead(line).map(|lead| (lead.start_ms, lead.name, lead.text));
            assert_eq!(found, expected, "{line}");
        }
    }

    fn read(text: &str) -> Vec<(String, String, u64)> {
        let transcript = Text.read(&source::lines(text).expect("lines")).expect("turns");
        let plain =
            |turn: super::super::Turn| (turn.speaker.unwrap_or_else(|| "?".to_owned()), turn.text, turn.start_ms);
        transcript.turns.into_iter().map(plain).collect()
    }

    #[test]
    fn paragraphs_go_on_and_unnamed_ones_are_the_last_speakers() {
        let text = "A heading\n\nAnn: One,\ntwo at 10:30: three\nand then: four.\n\nFive.\n\nBob:\n\nsix\n[1:00]\nseven\n[2:00] eight\n";
        let expected = [
            ("?", "A heading"),
            ("Ann", "One, two at 10:30: three and then: four."),
            ("Ann", "Five."),
            ("Bob", "six"),
            ("?", "seven"),
            ("?", "eight"),
        ];
        let found = read(text);
        let found: Vec<(&str, &str)> = found.iter().map(|(name, text, _)| (name.as_str(), text.as_str())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn lower_case_labels_count_only_if_repeated() {
        let text =
            "agent: One.\ncustomer: Two.\nwhich means\nremember: this\nagent: Three.\ncustomer: Four.\nand\nso\non\n";
        let names: Vec<String> = read(text).into_iter().map(|(name, ..)| name).collect();
        assert_eq!(names, ["agent", "customer", "remember", "agent", "customer"], "most lines have a name");
        let text = format!("{text}{}", "more\n".repeat(20));
        let names: Vec<String> = read(&text).into_iter().map(|(name, ..)| name).collect();
        assert_eq!(names, ["agent", "customer", "agent", "customer"]);
    }
}
