//! What a meeting is about: the noun phrases that several speakers use repeatedly.
//!
//! Knows no dictionary and no grammar. A phrase is one or two content words beside each other; it counts as a noun phrase
//! if a determiner often stands before it, and if what follows it is seldom another content word. A phrase weighs more
//! the more often it is said, and the more parts of the meeting have it. English.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::LazyLock;

use super::words;
use crate::base::text;
use crate::types::Turn;

/// A conversation with this many turns and speakers is a meeting.
const MEETING_TURNS: usize = 60;
const MEETING_SPEAKERS: usize = 3;
/// Maximum number of topics, and maximum number of words of all topics together.
const MOST: usize = 8;
const MOST_WORDS: usize = 15;
/// Minimum number of times that a topic is said.
const LEAST_TIMES: u32 = 3;
/// Weight of a phrase of two words, relative to a single word.
const PAIR: f64 = 1.8;
/// Number of parts of a meeting for which it is counted whether a phrase occurs in them.
const PARTS: usize = 10;
/// Number of letters at the start of a word that are compared: words with the same start are one topic.
const STEM: usize = 5;
/// Minimum share of English function words in an English text.
const ENGLISH: f64 = 0.3;

/// Determiners: words that come before a noun phrase.
static DETERMINERS: &str = "the a an our this these those your my its their his her some any each every new";
/// Nouns that name no topic, and words that are often taken for nouns.
static DULL: &str = "thing things way bit lot kind sort time times people person point points question questions idea ideas \
    meeting minute minutes moment example problem reason word words part number numbers sense case end beginning start side \
    day week guy guys something anything everything nothing everybody everyone somebody someone stuff hour year years today \
    fact rest course name set last next thank thanks please guess thought work works working used use using different \
    important nice able interesting little big long better best great morning afternoon okay call conference";

type Set = HashSet<&'static str>;

static DETERMINER_SET: LazyLock<Set> = LazyLock::new(|| DETERMINERS.split_whitespace().collect());
static DULL_SET: LazyLock<Set> = LazyLock::new(|| DULL.split_whitespace().collect());

/// Counts of one phrase.
#[derive(Default)]
struct Phrase<'a> {
    times: u32,
    /// How often a determiner comes before the phrase, and how often that is "the".
    determined: u32,
    the: u32,
    /// How often no content word follows the phrase.
    ends: u32,
    speaker: Option<&'a str>,
    shared: bool,
    /// The parts of the meeting in which the phrase occurs, as bits.
    parts: u32,
    first: usize,
    /// The ways in which the phrase was written, with their counts.
    forms: BTreeMap<String, u32>,
}

impl Phrase<'_> {
    fn is_topic(&self) -> bool {
        self.times >= LEAST_TIMES
            && self.shared
            && self.determined * 10 >= self.times * 3
            && self.ends * 2 >= self.times
    }

    /// The most common form; among equally common ones, the one in lower case.
    fn form(&self) -> &str {
        self.forms
            .iter()
            .max_by_key(|(form, times)| (**times, *form))
            .map(|(form, _)| form.as_str())
            .unwrap_or_default()
    }

    fn weight(&self) -> f64 {
        let pair = if self.form().contains(' ') { PAIR } else { 1.0 };
        f64::from(self.times).powf(0.7) * f64::from(self.parts.count_ones()).sqrt() * pair
    }
}

/// Returns true if a conversation is a meeting, by its length and the number of its speakers.
pub(super) fn is_meeting(turns: &[&Turn]) -> bool {
    let speakers: BTreeSet<&str> = turns.iter().filter_map(|turn| turn.speaker.as_deref()).collect();
    turns.len() >= MEETING_TURNS && speakers.len() >= MEETING_SPEAKERS
}

/// The topics of `sentences` (each with its speaker), in the order in which they first occur. They are returned as they
/// were written, with "the" if that is common. Empty if the sentences are not English.
pub(super) fn of<'a>(sentences: &[(&'a str, Option<&'a str>)]) -> Vec<String> {
    let (mut phrases, mut total, mut function) = (BTreeMap::<String, Phrase<'a>>::new(), 0, 0);
    for (index, (text, speaker)) in sentences.iter().enumerate() {
        let written: Vec<(&str, String)> =
            text::words(text).map(|word| (word, words::fold(word))).filter(|(_, folded)| !folded.is_empty()).collect();
        total += written.len();
        function += written.iter().filter(|(_, folded)| words::is_stop(folded)).count();
        for at in 0..written.len() {
            for length in 1..=2 {
                let Some(part) =
                    written.get(at..at + length).filter(|part| part.iter().all(|(_, word)| is_content(word)))
                else {
                    break;
                };
                let before = at.checked_sub(1).map(|before| written[before].1.as_str());
                let follows = written.get(at + length).is_some_and(|(_, word)| is_content(word));
                let key = part.iter().map(|(_, word)| singular(word)).collect::<Vec<_>>().join(" ");
                let phrase = phrases.entry(key).or_insert_with(|| Phrase {
                    speaker: *speaker,
                    first: index,
                    ..Phrase::default()
                });
                phrase.times += 1;
                phrase.determined += u32::from(before.is_some_and(|word| DETERMINER_SET.contains(word)));
                phrase.the += u32::from(before == Some("the"));
                phrase.ends += u32::from(!follows);
                phrase.shared |= phrase.speaker != *speaker;
                phrase.parts |= 1 << (index * PARTS / sentences.len());
                let form = part.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(" ");
                *phrase.forms.entry(form).or_default() += 1;
            }
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "the number of words in a meeting is far below 2^53")]
    let is_english = function as f64 >= ENGLISH * total as f64;
    if is_english { chosen(&phrases) } else { Vec::new() }
}

fn chosen(phrases: &BTreeMap<String, Phrase<'_>>) -> Vec<String> {
    let mut ranked: Vec<&Phrase<'_>> =
        phrases.values().filter(|phrase| phrase.is_topic() && !is_verb(phrase.form())).collect();
    // The sort is stable: topics of equal weight stay in alphabetical order.
    ranked.sort_by(|one, other| other.weight().total_cmp(&one.weight()));
    let mut topics: Vec<(usize, String)> = Vec::new();
    let (mut taken, mut used) = (HashSet::new(), 0);
    for phrase in ranked {
        let shown =
            if phrase.the * 3 >= phrase.times { format!("the {}", phrase.form()) } else { phrase.form().to_owned() };
        let stems: Vec<String> =
            phrase.form().split(' ').map(|word| words::fold(word).chars().take(STEM).collect()).collect();
        let length = words::count(&shown);
        if topics.len() >= MOST || used + length > MOST_WORDS || stems.iter().any(|stem| taken.contains(stem)) {
            continue;
        }
        used += length;
        taken.extend(stems);
        topics.push((phrase.first, shown));
    }
    topics.sort_by_key(|(first, _)| *first);
    topics.into_iter().map(|(_, shown)| shown).collect()
}

/// Returns true for a single word that looks like a form of a verb.
fn is_verb(form: &str) -> bool {
    !form.contains(' ') && (form.ends_with("ing") || form.ends_with("ed"))
}

fn is_content(word: &str) -> bool {
    word.len() > 2
        && !word.ends_with("ly")
        && word.chars().all(char::is_alphabetic)
        && !words::is_stop(word)
        && !words::is_number(word)
        && !DULL_SET.contains(word)
}

fn singular(word: &str) -> String {
    match word.strip_suffix("ies") {
        Some(start) => format!("{start}y"),
        None => match word.strip_suffix('s').filter(|start| start.len() > 2 && !start.ends_with('s')) {
            Some(start) => start.to_owned(),
            None => word.to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_noun_phrases_of_several_speakers_as_they_were_written() {
        let said = [
            ("So we want to talk about the remote control and the price.", Some("A")),
            ("The remote control needs an LCD screen, I think.", Some("B")),
            ("And the price of the remote control is what we can sell.", Some("B")),
            ("An LCD screen is more than the price that we have.", Some("A")),
            ("I would like a rabbit. The rabbit is mine. And my rabbit is white.", Some("A")),
            ("Is this LCD screen in it?", Some("C")),
        ];
        assert_eq!(of(&said), ["the remote control", "the price", "LCD screen"]);
        let german: Vec<_> = said.iter().map(|_| ("Der Preis der Fernbedienung ist der Preis.", Some("A"))).collect();
        assert_eq!(of(&german), [""; 0]);
        assert_eq!(of(&[]), [""; 0]);
    }
}
