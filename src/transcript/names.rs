//! Recognises names before speech: `Name: text`.
//!
//! The text before a colon is a name if it looks like one and, unless the format guarantees names, if enough lines of
//! the file have one. Knows no list of names and no format.

use std::collections::HashMap;

/// Longest name, characters.
const MAX_CHARS: usize = 80;
/// Maximum number of words in a name, without a part in brackets after it.
const MAX_WORDS: usize = 6;
/// A full stop after a word of at most this many letters belongs to a title or an initial: `Dr.`, `Prof.`, `J.`
const ABBREVIATED: usize = 4;
/// Punctuation that occurs in sentences but not in names.
const NOT_IN_NAMES: &[char] = &['?', '!', ';', '"', '“', '”', '„', '«', '»', '…', '=', '{', '}', '<', '>', '|', '\\'];
/// Words in names that are written in lower case.
const PARTICLES: &[&str] = &[
    "al", "and", "ben", "bin", "da", "das", "de", "del", "della", "den", "der", "di", "do", "dos", "du", "e", "el",
    "et", "ibn", "la", "le", "of", "ten", "ter", "the", "und", "van", "vom", "von", "y", "zu",
];

/// If the format does not guarantee names, at least this share of lines must begin with one, in percent.
const SHARE: usize = 10;

/// The name at the start of a line, unchanged, and the speech after it; `None` if there is no name.
pub(super) fn split(line: &str) -> Option<(&str, &str)> {
    cut(line).filter(|(name, _)| is_name(name))
}

/// The text before a line's first colon, which need not be a name, and the text after it. A colon inside a word belongs
/// to a time or an address.
pub(super) fn cut(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    for (at, colon) in line.char_indices().take(MAX_CHARS + 8).filter(|(_, character)| matches!(character, ':' | '：'))
    {
        let (before, after) = (line.get(..at)?, line.get(at + colon.len_utf8()..)?);
        // `**Name:** text` and `[Name:] text`.
        let within = match before.chars().next() {
            Some('*') => after.strip_prefix("**"),
            Some('[') => after.strip_prefix(']'),
            _ => None,
        };
        if within.is_some() || colon == '：' || after.is_empty() || after.starts_with(char::is_whitespace) {
            return Some((undecorated(before), within.unwrap_or(after).trim()));
        }
    }
    None
}

/// A name without brackets or stars around it.
fn undecorated(name: &str) -> &str {
    let name = name.trim();
    let inner = name.strip_prefix('[').map(|inner| inner.strip_suffix(']').unwrap_or(inner));
    inner.filter(|inner| !inner.contains(']')).unwrap_or(name).trim_matches('*').trim()
}

/// Returns true if a text looks like a name: few words, each capitalised (or of a script without capitals, or a number,
/// or one of the lower-case words of names), without punctuation of a sentence. A single word may be in lower case:
/// `agent`.
pub(super) fn is_name(text: &str) -> bool {
    let text = text.trim();
    // Removes pronouns or a company: `Ana Pérez (she/her)`.
    let bare = match text.rsplit_once('(') {
        Some((before, inner)) if inner.ends_with(')') && !before.trim().is_empty() => before.trim(),
        _ => text,
    };
    let words: Vec<&str> = bare.split_whitespace().collect();
    let fits = words.len() <= MAX_WORDS && text.chars().count() <= MAX_CHARS;
    let is_address = text.contains("//");
    if !fits || is_address || text.contains(NOT_IN_NAMES) || !is_known_by_letters(bare) {
        return false;
    }
    if words.iter().all(|word| PARTICLES.contains(word)) {
        return false;
    }
    let small = words.iter().filter(|word| is_small(word)).count();
    let numbers = words.iter().filter(|word| word.starts_with(|first: char| first.is_ascii_digit())).count();
    let ends = |(index, word): (usize, &&str)| index + 1 < words.len() && ends_sentence(word);
    let is_time = |word: &&str| {
        let mut parts = word.split(':');
        parts.next().is_some_and(|part| part.ends_with(|last: char| last.is_ascii_digit())) && parts.next().is_some()
    };
    !words.iter().enumerate().any(ends)
        && !words.iter().any(is_time)
        // `agent`, `speaker 1`.
        && (small == 0 || (small == 1 && words.len() == 1 + numbers))
}

/// Returns true for a text with a letter, or for a telephone number.
fn is_known_by_letters(text: &str) -> bool {
    let digits = text.chars().filter(char::is_ascii_digit).count();
    text.chars().any(char::is_alphabetic) || (digits >= 5 && text.starts_with(['+', '(']))
}

fn is_small(word: &str) -> bool {
    let bare = word.trim_start_matches(|first: char| !first.is_alphanumeric());
    let small = bare.starts_with(char::is_lowercase);
    small && !PARTICLES.contains(&bare.trim_end_matches(['.', ',']))
        // `d'Artagnan`, `iPhone`, `al-Amin`
        && !bare.chars().skip(1).any(char::is_uppercase)
}

fn ends_sentence(word: &str) -> bool {
    word.ends_with('.') && word.chars().filter(|letter| letter.is_alphabetic()).count() > ABBREVIATED
}

/// Decides which names at the start of a file's lines are those of speakers.
#[derive(Debug, Default)]
pub(super) struct Speakers<'a> {
    counts: HashMap<&'a str, usize>,
    lines: usize,
    named: usize,
}

impl<'a> Speakers<'a> {
    /// Counts the names of a file's lines. The share is that of the lines at which a speaker may begin: those with
    /// `true`.
    pub(super) fn count(lines: impl Iterator<Item = (bool, Option<&'a str>)>) -> Self {
        let mut speakers = Self::default();
        for (begins, name) in lines {
            speakers.lines += usize::from(begins);
            if let Some(name) = name {
                speakers.named += usize::from(begins);
                *speakers.counts.entry(name).or_default() += 1;
            }
        }
        speakers
    }

    /// Returns true if `name` is a speaker's: most lines have a name, or [`SHARE`] of them have one and this name
    /// occurs again. So a single `Note: …` in captions without names is text.
    pub(super) fn has(&self, name: &str) -> bool {
        let count = self.counts.get(name).copied().unwrap_or(0);
        let most = self.named * 2 >= self.lines;
        count > 0 && (most || (count > 1 && self.named * 100 >= self.lines * SHARE))
    }

    /// As [`Self::has`], for a line on which the speaker before may well continue: there a lower-case name must occur
    /// again.
    pub(super) fn has_below(&self, name: &str) -> bool {
        let again = self.counts.get(name).is_some_and(|count| *count > 1);
        self.has(name) && (again || !name.starts_with(char::is_lowercase))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinguished_from_sentences() {
        for (line, expected) in [
            ("Alice: Hi.", Some(("Alice", "Hi."))),
            ("Dr. Smith: Hi: there.", Some(("Dr. Smith", "Hi: there."))),
            ("Prof. J. R. van der Berg: So.", Some(("Prof. J. R. van der Berg", "So."))),
            ("Speaker 1: Hi.", Some(("Speaker 1", "Hi."))),
            ("speaker 2: Hi.", Some(("speaker 2", "Hi."))),
            ("agent: Hi.", Some(("agent", "Hi."))),
            ("SPEAKER_00: Hi.", Some(("SPEAKER_00", "Hi."))),
            ("Ana Pérez (she/her): Hola.", Some(("Ana Pérez (she/her)", "Hola."))),
            ("Smith, Jane: Hi.", Some(("Smith, Jane", "Hi."))),
            ("jane@example.com: Hi.", Some(("jane@example.com", "Hi."))),
            ("+1 (555) 0100: Hi.", Some(("+1 (555) 0100", "Hi."))),
            ("[Speaker 1]: Hi.", Some(("Speaker 1", "Hi."))),
            ("**Bob:** Hi.", Some(("Bob", "Hi."))),
            ("Bob:", Some(("Bob", ""))),
            ("张伟：你好。", Some(("张伟", "你好。"))),
            ("محمد: مرحبا", Some(("محمد", "مرحبا"))),
            ("iPhone von Anna: Ja.", Some(("iPhone von Anna", "Ja."))),
            ("Well, look: it is late.", None),
            ("So here is the thing: no.", None),
            ("at 10:30: the train", None),
            ("At 10:30: the train", None),
            ("https://example.com/a: see", None),
            ("It is 10:30.", None),
            ("He said. Then Bob: no.", None),
            ("What? Bob: no.", None),
            ("10: no.", None),
            ("No colon here", None),
            (": nothing", None),
            ("One Two Three Four Five Six Seven: too many.", None),
        ] {
            assert_eq!(split(line), expected, "{line}");
        }
        let long = "A".repeat(100_000) + ": x";
        assert_eq!(split(&long), None);
    }

    #[test]
    fn name_counts_if_the_file_repeats_it() {
        let speakers = |names: &[&'static str], unnamed: usize| {
            let named = names.iter().map(|name| (true, Some(*name)));
            Speakers::count(named.chain(std::iter::repeat_n((true, None), unnamed)))
        };
        assert!(speakers(&["Ann", "Bob"], 2).has("Bob"), "most lines have one");
        assert!(speakers(&["Ann", "Ann", "Bob"], 20).has("Ann"), "it comes again");
        assert!(!speakers(&["Ann", "Ann", "Note"], 20).has("Note"), "once, in a file where few lines have one");
        assert!(!speakers(&["Note", "Note"], 100).has("Note"), "twice in a long file");
        assert!(!speakers(&["Ann"], 0).has("Bob"));
        assert!(speakers(&["Ann", "Bob"], 0).has_below("Bob"));
        assert!(!speakers(&["Ann", "question"], 0).has_below("question"));
        assert!(speakers(&["agent", "agent"], 0).has_below("agent"));
    }
}
