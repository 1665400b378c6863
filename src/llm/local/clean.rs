//! Removes filler sounds, filler phrases and stammers from transcribed speech.
//!
//! Only what carries no meaning is removed. Numbers, spelled letters, names and every other content word stay as they
//! were said, however often: "four four one" is three digits, not a stammer.

use std::collections::HashSet;
use std::sync::LazyLock;

use super::words::{bare, is_letter, is_number, is_stop};
use crate::base::text;

/// Filler sounds that are never words.
static SOUNDS: &str = "um umm uh uhh erm hmm mhm mm-hmm uh-huh";
/// Filler sounds that are words beside a number or a letter: `four oh seven`, `25 mm`, `ER`.
static LIKELY_SOUNDS: &str = "er mm mmm ah oh";

/// Words that nobody repeats on purpose.
static LINKS: &str = "the a an i we he she it they you to of and in on is was my your our for that this with it's i'm";

/// Filler phrases between commas.
static ASIDES: &[&str] = &["you know", "i mean", "sort of", "kind of"];
/// Longest note of a transcriber, in characters.
const MAX_NOTE_CHARS: usize = 30;

/// Words with which a speaker begins a turn, if a pause follows.
static OPENERS: &str = "well so oh ah okay ok alright right yeah yes yep now and but hey hi hello sure look anyway actually \
    because then fine great";
/// Words of [`OPENERS`] that only begin a turn even without a pause after them.
static JOINERS: &str = "so and but because oh okay yeah";
/// "So" before one of these words does not begin a turn.
static DEGREES: &str = "much many far long that few";
/// Minimum number of words that must remain after a removed opening word.
const OPENED_WORDS: usize = 3;

static SOUND_SET: LazyLock<HashSet<&'static str>> = LazyLock::new(|| SOUNDS.split_whitespace().collect());
static LINK_SET: LazyLock<HashSet<&'static str>> = LazyLock::new(|| LINKS.split_whitespace().collect());

/// The sentence without filler sounds, filler phrases and stammers.
pub(super) fn cleaned(sentence: &str) -> String {
    let unmarked = without_notes(sentence);
    let tokens: Vec<&str> = unmarked.split_whitespace().collect();
    let bares: Vec<String> = tokens.iter().map(|token| bare(token)).collect();
    let spelled = |index: Option<usize>| {
        index
            .and_then(|index| bares.get(index))
            .is_some_and(|word| is_number(word) || (is_letter(word) && !matches!(word.as_str(), "a" | "i")))
    };
    let mut kept: Vec<&str> = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        let word = bares[index].as_str();
        let beside = spelled(index.checked_sub(1)) || spelled(Some(index + 1));
        let capitals = word.chars().count() > 1 && token.chars().all(|character| !character.is_lowercase());
        let sound = SOUND_SET.contains(word) || (!beside && LIKELY_SOUNDS.split(' ').any(|sound| sound == word));
        if (word.is_empty() && kept.is_empty()) || (sound && !capitals) {
            // The comma or full stop after a removed sound stays with the word before it.
            continue;
        }
        if !beside
            && let Some(last) = kept.last()
            && is_stammer(last, token)
        {
            kept.pop();
        }
        kept.push(token);
        drop_aside(&mut kept);
        drop_repetition(&mut kept);
    }
    let mut text = kept.join(" ");
    for mark in [" ,", " .", " ?", " !"] {
        text = text.replace(mark, &mark[1..]);
    }
    text.trim_matches([' ', ',', ';']).to_owned()
}

/// Number of disfluencies that remain in a cleaned sentence: a word said twice in a row, a single letter, a word that
/// breaks off.
pub(super) fn stumbles(sentence: &str) -> usize {
    let tokens: Vec<&str> = sentence.split_whitespace().collect();
    let broken = |token: &&&str| {
        let word = bare(token);
        token.ends_with(['-', '—', '–', '_']) || (is_letter(&word) && !matches!(word.as_str(), "a" | "i"))
    };
    let twice = tokens.windows(2).filter(|pair| bare(pair[0]) == bare(pair[1])).count();
    twice + tokens.iter().filter(broken).count()
}

/// A cleaned sentence without opening words that only begin the turn ("Yes, and the bill is late" becomes "The bill is
/// late"). Numbers and spelled letters stay whole, so "oh seven" is not changed.
pub(super) fn without_opening(sentence: &str) -> String {
    let is_in = |list: &str, word: &str| list.split_whitespace().any(|known| known == word);
    let mut rest = sentence;
    while let Some(token) = rest.split_whitespace().next() {
        let word = bare(token);
        let paused = token.ends_with([',', '.', '!', ';', ':', '-', '—', '…']);
        let after = rest[token.len()..].trim_start();
        let next = after.split_whitespace().next().map(bare).unwrap_or_default();
        let spelled = is_number(&next) || (is_letter(&next) && !matches!(next.as_str(), "a" | "i"));
        let opens = is_in(OPENERS, &word) && (paused || (is_in(JOINERS, &word) && !is_in(DEGREES, &next)));
        if !opens || spelled || text::count(after) < OPENED_WORDS {
            break;
        }
        rest = after;
    }
    let capital = rest.len() < sentence.len() && sentence.starts_with(char::is_uppercase);
    let mut characters = rest.chars();
    match characters.next() {
        Some(first) if capital => first.to_uppercase().chain(characters).collect(),
        _ => rest.to_owned(),
    }
}

/// Returns true if `last` is a false start of `token`: the same linking word, or its first letter or two.
fn is_stammer(last: &str, token: &str) -> bool {
    let (first, word) = (bare(last), bare(token));
    if first.is_empty() || word.is_empty() || is_number(&word) || is_number(&first) {
        return false;
    }
    let links = first == word && LINK_SET.contains(word.as_str());
    if !last.ends_with(|character: char| character.is_alphanumeric() || character == '-') {
        // A repeated "No, no" is intended, a repeated "the, the" is not.
        return links && last.ends_with(',');
    }
    let shorter = first.chars().count() <= 2 && !is_stop(&first) && word.chars().count() > first.chars().count();
    // A name may follow its initial ("J Johnson"), so a false start is removed only before words without content.
    let fragment = shorter && is_stop(&word) && last.chars().all(|character| !character.is_uppercase());
    links || (fragment && word.starts_with(&first))
}

/// Removes a filler phrase that ends with a comma, and comes after a comma or at the start.
fn drop_aside(kept: &mut Vec<&str>) {
    let Some(start) = kept.len().checked_sub(2) else { return };
    let ends = kept[start + 1].ends_with(',');
    let begins = start == 0 || kept[start - 1].ends_with(',');
    if ends && begins {
        let said = format!("{} {}", bare(kept[start]), bare(kept[start + 1]));
        if ASIDES.contains(&said.as_str()) {
            kept.truncate(start);
        }
    }
}

/// Removes one of two identical pairs of words without content in a row ("I think I think").
fn drop_repetition(kept: &mut Vec<&str>) {
    let Some(start) = kept.len().checked_sub(4) else { return };
    let (one, two) = (bare(kept[start]), bare(kept[start + 1]));
    let empty = LINK_SET.contains(one.as_str()) && is_stop(&two) && !is_number(&two) && !is_letter(&two);
    if empty && one == bare(kept[start + 2]) && two == bare(kept[start + 3]) {
        kept.drain(start..start + 2);
    }
}

/// Removes notes in `{…}` and `[…]` with which transcribers mark sounds, in lower case. Redactions in brackets
/// (`[NAME]`), numbers, and an opening bracket without a closing one stay.
fn without_notes(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['{', '[']) {
        let close = if rest[at..].starts_with('{') { '}' } else { ']' };
        let inner = rest[at + 1..].split_once(close).map(|(inner, _)| inner);
        let is_note = |inner: &&str| {
            inner.chars().count() <= MAX_NOTE_CHARS
                && inner.chars().all(|character| character.is_lowercase() || matches!(character, ' ' | '-' | '_'))
        };
        match inner.filter(is_note) {
            Some(inner) => {
                out.push_str(&rest[..at]);
                rest = &rest[at + inner.len() + 2..];
            }
            None => {
                out.push_str(&rest[..=at]);
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::testing::kept;

    #[test]
    fn fillers_are_removed_and_the_meaning_stays() {
        for (said, clean) in [
            ("Um so we we need a a f for the uh new remote.", "so we need a a f for the new remote."),
            ("Don't you know that yellow means slow down?", "Don't you know that yellow means slow down?"),
            ("It is, you know, quite, I mean, late.", "It is, quite, late."),
            ("I think I think we go.", "I think we go."),
            ("Hmm.", ""),
            ("{vocalsound} Okay [laughs] then.", "Okay then."),
            ("It's five [four", "It's five [four"),
            ("No, no, the, the other.", "No, no, the other."),
        ] {
            assert_eq!(cleaned(said), clean, "{said}");
        }
    }

    #[test]
    fn words_that_only_take_the_turn_are_left_out() {
        for (said, kept) in [
            ("And for the three days I will credit you.", "For the three days I will credit you."),
            ("Fine, but I have restarted it five times.", "I have restarted it five times."),
            ("yeah so we need a new remote", "we need a new remote"),
            ("Well done to all of you.", "Well done to all of you."),
            ("So far it is fine.", "So far it is fine."),
            ("No, that is not right.", "No, that is not right."),
            ("Okay, thanks.", "Okay, thanks."),
            ("Oh seven seven, that is all.", "Oh seven seven, that is all."),
            ("And B B six is the code.", "And B B six is the code."),
            ("", ""),
        ] {
            assert_eq!(without_opening(said), kept, "{said}");
        }
    }

    #[test]
    fn numbers_letters_and_names_stay_as_they_were_said() {
        for said in [
            "It's Daniel Okafor, and the account is four four one, seven zero nine.",
            "four four four four",
            "nine nine, nine nine",
            "seven oh oh seven",
            "twenty one twenty one",
            "five 5 five",
            "B B C, that is b b c",
            "The plate is a a b, i i nine.",
            "My name is J Johnson.",
            "i am bo bond",
            "Tom Tom and New York New York",
            "double double u",
            "the ER is oh five mm wide",
            "call [NAME] at [PHONE_NUMBER]",
            "very very bad",
        ] {
            assert_eq!(cleaned(said), said, "{said}");
        }
        assert_eq!(cleaned("Four um four uh one."), "Four four one.");
    }

    proptest! {
        #![proptest_config(kept())]

        #[test]
        fn no_number_and_no_letter_is_lost(words in prop::collection::vec(
            prop::sample::select(vec!["four", "four", "oh", "one", "44", "b", "c", "the", "um", "is", "twenty", "one,", "Smith", "uh,", "mm", "1,", "a"]), 0..14)) {
            let numbers = |text: &str| text.split_whitespace().map(bare)
                .filter(|word| word != "oh" && (is_number(word) || word == "b" || word == "c" || word == "smith")).collect::<Vec<_>>();
            let said = words.join(" ");
            prop_assert_eq!(numbers(&cleaned(&said)), numbers(&said), "{:?}", said);
        }
    }
}
