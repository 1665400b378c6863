//! Converts cues to stretches of speech: removes markup and the repetitions of rolling captions, and separates the
//! speakers.
//!
//! Knows WebVTT and SubRip; the caller knows the peculiarities of a product.

use super::cues::Cue;
use super::markup::{self, Run};
use super::merge::{Piece, merge};
use super::names::{self, Speakers};
use super::{Times, Transcript, append, rolling};

/// Where cues without voice tags name the speaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Naming {
    /// Names stand before the text, but count only if enough cues of the file have one.
    Perhaps,
    /// Every cue has a name before its text.
    Always,
    /// A cue has a name before its text if the speaker changes; a cue without one belongs to the last speaker.
    AtChanges,
}

/// A line of a cue without its markup.
struct Shown {
    cue: usize,
    runs: Vec<Run>,
}

/// The turns of a file's cues.
pub(super) fn transcript(cues: &[Cue<'_>], naming: Naming) -> Transcript {
    let mut shown = shown(cues);
    drop_repetitions(cues, &mut shown);
    let has_voices = shown.iter().flat_map(|line| &line.runs).any(|run| run.voice.is_some());
    let pieces = if has_voices { by_voice(cues, &shown) } else { by_name(cues, &shown, naming) };
    let (turns, left_out) = merge(pieces);
    Transcript { title: None, turns, times: Times::Given, left_out }
}

/// Returns true if a file has voice tags.
pub(super) fn has_voices(cues: &[Cue<'_>]) -> bool {
    cues.iter().flat_map(|cue| &cue.text).any(|line| {
        let mut voice = None;
        markup::runs(line.text, &mut voice).iter().any(|run| run.voice.is_some()) || voice.is_some()
    })
}

/// Share of cues that begin with a name, in percent.
pub(super) fn named_share(cues: &[Cue<'_>]) -> usize {
    let name = |cue: &Cue<'_>| cue.text.first().and_then(|line| names::split(line.text)).is_some();
    let named = cues.iter().filter(|cue| name(cue)).count();
    named * 100 / cues.len().max(1)
}

fn shown(cues: &[Cue<'_>]) -> Vec<Shown> {
    let lines = cues.iter().enumerate().flat_map(|(cue, read)| {
        let mut voice = None;
        read.text.iter().map(|line| Shown { cue, runs: markup::runs(line.text, &mut voice) }).collect::<Vec<_>>()
    });
    lines.filter(|line| !line.runs.is_empty()).collect()
}

/// Removes the words that rolling captions show again. They are compared in the order in which they are shown.
fn drop_repetitions(cues: &[Cue<'_>], shown: &mut Vec<Shown>) {
    let mut order: Vec<usize> = (0..cues.len()).collect();
    order.sort_by_key(|cue| cues[*cue].start_ms);
    let mut texts: Vec<Vec<String>> = vec![Vec::new(); cues.len()];
    for line in &*shown {
        texts[line.cue].push(line.runs.iter().map(|run| run.text.as_str()).collect());
    }
    let in_order: Vec<Vec<&str>> = order.iter().map(|cue| texts[*cue].iter().map(String::as_str).collect()).collect();
    let mut left = vec![0; cues.len()];
    for (cue, count) in order.iter().zip(rolling::repeated(&in_order)) {
        left[*cue] = count;
    }
    for line in &mut *shown {
        for run in &mut line.runs {
            let words = run.text.split_whitespace().count();
            let dropped = words.min(left[line.cue]);
            if dropped > 0 {
                left[line.cue] -= dropped;
                run.text = run.text.split_whitespace().skip(dropped).collect::<Vec<_>>().join(" ");
            }
        }
        line.runs.retain(|run| !run.text.is_empty());
    }
    shown.retain(|line| !line.runs.is_empty());
}

fn by_voice(cues: &[Cue<'_>], shown: &[Shown]) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut last_cue = None;
    for line in shown {
        for run in &line.runs {
            let text = run.text.trim();
            match pieces.last_mut().filter(|piece| last_cue == Some(line.cue) && piece.speaker == run.voice) {
                Some(piece) => append(&mut piece.text, text),
                None => pieces.push(piece(&cues[line.cue], run.voice.clone(), text)),
            }
            last_cue = Some(line.cue);
        }
    }
    pieces
}

fn piece(cue: &Cue<'_>, speaker: Option<String>, text: &str) -> Piece {
    let (line, start_ms, end_ms) = (cue.line, cue.start_ms, cue.end_ms);
    Piece { line, speaker, text: text.to_owned(), start_ms, end_ms, apart: false }
}

fn by_name(cues: &[Cue<'_>], shown: &[Shown], naming: Naming) -> Vec<Piece> {
    let texts: Vec<String> = shown.iter().map(|line| line.runs.iter().map(|run| run.text.as_str()).collect()).collect();
    let is_first = |index: usize| index == 0 || shown[index - 1].cue != shown[index].cue;
    let dialogue = dialogues(cues.len(), shown, &texts);
    let said: Vec<(bool, &str)> =
        texts.iter().zip(shown).map(|(text, line)| unmarked(text.trim(), dialogue[line.cue])).collect();
    let named: Vec<Option<(&str, &str)>> = said.iter().map(|(_, text)| names::split(text)).collect();
    let begins = |index: usize| is_first(index) || said[index].0;
    let names = named.iter().enumerate().map(|(index, named)| (begins(index), named.map(|(name, _)| name)));
    let speakers = Speakers::count(names);
    let mut pieces: Vec<Piece> = Vec::new();
    let mut last: Option<&str> = None;
    for (index, line) in shown.iter().enumerate() {
        let cue = &cues[line.cue];
        let (apart, text) = said[index];
        let believed = |name: &str| match naming {
            // After the first line of a cue, any word may come before a colon.
            Naming::Always | Naming::AtChanges if is_first(index) => true,
            _ if begins(index) => speakers.has(name),
            _ => speakers.has_below(name),
        };
        if let Some((name, text)) = named[index].filter(|(name, _)| believed(name)) {
            last = Some(name);
            pieces.push(Piece { apart, ..piece(cue, Some(name.to_owned()), text) });
        } else if is_first(index) || apart {
            let by_id = quoted(cue.id).filter(|_| naming == Naming::Always);
            let kept = last.filter(|_| naming == Naming::AtChanges && !apart);
            let speaker = by_id.or(kept).map(str::to_owned);
            pieces.push(Piece { apart, ..piece(cue, speaker, text) });
        } else if let Some(piece) = pieces.last_mut() {
            append(&mut piece.text, text);
        }
    }
    pieces
}

/// The cues in which at least two lines begin with a dash: each such line is another speaker's.
fn dialogues(cues: usize, shown: &[Shown], texts: &[String]) -> Vec<bool> {
    let mut dashes = vec![0_u32; cues];
    for (line, text) in shown.iter().zip(texts) {
        dashes[line.cue] += u32::from(without_dash(text.trim(), true).is_some());
    }
    dashes.into_iter().map(|count| count > 1).collect()
}

/// A line without the marks of another speaker, and whether it had any: `- text`, `>> text`, and within a dialogue
/// `-text`.
fn unmarked(text: &str, is_dialogue: bool) -> (bool, &str) {
    if let Some(rest) = text.strip_prefix(">>") {
        return (true, rest.trim_start_matches('>').trim_start());
    }
    without_dash(text, is_dialogue).map_or((false, text), |rest| (true, rest))
}

fn without_dash(text: &str, is_dialogue: bool) -> Option<&str> {
    let rest = text.strip_prefix(['-', '\u{2010}', '\u{2013}'])?;
    // `-5 degrees` does not begin a dialogue.
    let is_mark = rest.starts_with(char::is_whitespace) || (is_dialogue && rest.starts_with(char::is_alphabetic));
    is_mark.then(|| rest.trim_start())
}

/// The name in an identifier such as `7 "Ann Lee" (3456)`.
fn quoted(id: &str) -> Option<&str> {
    let (number, rest) = id.split_once('"')?;
    let is_number = number.trim().bytes().all(|byte| byte.is_ascii_digit());
    let (name, _) = rest.rsplit_once('"').filter(|_| is_number)?;
    Some(name.trim()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::{cues, source};
    use super::*;

    fn read(text: &str, naming: Naming) -> Vec<(String, String)> {
        let lines = source::lines(text).expect("lines");
        let read = if cues::is_vtt(&lines) { cues::vtt(&lines) } else { cues::srt(&lines) };
        let turns = transcript(&read.expect("cues"), naming).turns.into_iter();
        turns.map(|turn| (turn.speaker.unwrap_or_else(|| "?".to_owned()), turn.text)).collect()
    }

    fn srt(cues: &[&str]) -> String {
        let cue = |(index, text): (usize, &&str)| {
            format!("{index}\n00:{index:02}:00,000 --> 00:{index:02}:02,000\n{text}\n\n")
        };
        cues.iter().enumerate().map(cue).collect()
    }

    fn turns(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(speaker, text)| ((*speaker).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn names_before_a_colon_follow_the_rules_of_the_format() {
        let one = srt(&["Ann: Hi.", "Note: it rains.", "So.\nBob: what?", "I see.", "a", "b", "c", "d", "e"]);
        let plain = [("?", "Ann: Hi."), ("?", "Note: it rains."), ("?", "So. Bob: what?"), ("?", "I see.")];
        assert_eq!(read(&one, Naming::Perhaps)[..4], turns(&plain));
        let always = [("Ann", "Hi."), ("Note", "it rains."), ("?", "So. Bob: what?"), ("?", "I see.")];
        assert_eq!(read(&one, Naming::Always)[..4], turns(&always));
        let kept = [("Ann", "Hi."), ("Note", "it rains."), ("Note", "So. Bob: what?"), ("Note", "I see.")];
        assert_eq!(read(&one, Naming::AtChanges)[..4], turns(&kept));
        let most = srt(&["Ann: Hi.\nBob: Hello.", "Bob: Well:\nAnn: yes.", "I see."]);
        let expected = [("Ann", "Hi."), ("Bob", "Hello."), ("Bob", "Well:"), ("Ann", "yes."), ("?", "I see.")];
        assert_eq!(read(&most, Naming::Perhaps), turns(&expected));
    }

    #[test]
    fn dashes_and_arrows_are_other_speakers() {
        let text =
            srt(&["- What?\n- Where?", "-Here.\n-There, I\nthink.", "-5 degrees", "- Cold.", ">> JO: Yes.", ">>> No."]);
        let expected = [
            ("?", "What?"),
            ("?", "Where?"),
            ("?", "Here."),
            ("?", "There, I think."),
            ("?", "-5 degrees"),
            ("?", "Cold."),
            ("?", "JO: Yes."),
            ("?", "No."),
        ];
        assert_eq!(read(&text, Naming::Perhaps), turns(&expected));
        assert_eq!(
            read(&srt(&["- Ann: Hi.\n- Bob: Yes."]), Naming::Perhaps),
            turns(&[("Ann", "Hi."), ("Bob", "Yes.")])
        );
    }

    #[test]
    fn voices_are_names_and_colons_are_text_beside_them() {
        let text = "WEBVTT\n\n00:01.000 --> 00:02.000\n<v Ann>Note: one</v> <v Bob>two\nthree</v>\n\n00:09.000 --> 00:10.000\nfour\n";
        assert_eq!(read(text, Naming::Always), turns(&[("Ann", "Note: one"), ("Bob", "two three"), ("?", "four")]));
    }

    #[test]
    fn identifiers_can_hold_the_name() {
        let text = "WEBVTT\n\n1 \"Ann Lee\" (3456)\n00:01.000 --> 00:02.000\nHi.\n\n2 \"\" (1)\n00:09.000 --> 00:10.000\nYes.\n";
        assert_eq!(read(text, Naming::Always), turns(&[("Ann Lee", "Hi."), ("?", "Yes.")]));
        assert_eq!(read(text, Naming::Perhaps), turns(&[("?", "Hi."), ("?", "Yes.")]));
    }

    #[test]
    fn text_of_rolling_captions_appears_once() {
        let text = "WEBVTT\nKind: captions\n\n00:00.100 --> 00:02.000 align:start position:0%\n \nso<00:00.500><c> today</c><c> we</c>\n\n\
                    00:02.000 --> 00:02.010 align:start position:0%\nso today we\n \n\n\
                    00:02.010 --> 00:04.000 align:start position:0%\nso today we\nlook<c> at</c>\n\n\
                    00:04.000 --> 00:04.010 align:start position:0%\nlook at\n \n\n\
                    00:04.010 --> 00:06.000 align:start position:0%\nlook at\na house.\n";
        assert_eq!(read(text, Naming::Perhaps), turns(&[("?", "so today we look at a house.")]));
    }
}
