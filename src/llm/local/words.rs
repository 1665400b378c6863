//! English words of spoken text: content words, numbers, sentences.
//!
//! Knows no meanings; only which words carry content, and which are numbers. [`crate::base::text`] splits the text.

use std::collections::HashSet;
use std::sync::LazyLock;

use crate::base::text;

/// English words without content, including contractions and fillers of speech.
static STOP_WORDS: &str = "a about above after again against all am an and any are aren't as at be because been before \
    being below between both but by can can't cannot could couldn't did didn't do does doesn't doing don't down during each \
    few for from further get got had hadn't has hasn't have haven't having he he'd he'll he's her here here's hers herself \
    him himself his how how's i i'd i'll i'm i've if in into is isn't it it's its itself let's me more most mustn't my \
    myself no nor not of off on once only or other ought our ours ourselves out over own same shan't she she'd she'll \
    she's should shouldn't so some such than that that's the their theirs them themselves then there there's these they \
    they'd they'll they're they've this those through to too under until up very was wasn't we we'd we'll we're we've were \
    weren't what what's when when's where where's which while who who's whom why why's with won't would wouldn't you you'd \
    you'll you're you've your yours yourself yourselves um uh er hmm mm mhm uhhuh yeah yes yep okay ok right well just \
    like know mean think thing things really actually kind sort gonna wanna lot bit maybe say said go going one two oh ah \
    hey hi hello also even still back way see look want need make good sure now";

/// Words for numbers.
static NUMBER_WORDS: &str = "zero oh nought nil one two three four five six seven eight nine ten eleven twelve thirteen \
    fourteen fifteen sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred \
    thousand million billion first second third fourth fifth sixth seventh eighth ninth tenth double triple half quarter";

/// Words that begin a question.
static ASKING: &str = "which what who where when why how can could may do does did is are would will";

/// Abbreviations after which a full stop does not end a sentence.
static ABBREVIATIONS: &str = "mr mrs ms dr prof st no vs etc approx jr sr";

static STOPS: LazyLock<HashSet<&'static str>> = LazyLock::new(|| STOP_WORDS.split_whitespace().collect());
static NUMBERS: LazyLock<HashSet<&'static str>> = LazyLock::new(|| NUMBER_WORDS.split_whitespace().collect());

/// Lower-case words with their apostrophes. A letter that is repeated three times or more is kept twice.
pub(crate) fn plain(text: &str) -> impl Iterator<Item = String> {
    text::words(text).map(fold).filter(|word| !word.is_empty())
}

/// Stems of the content words. In scripts without spaces, each character is a word.
pub(crate) fn content(text: &str) -> Vec<String> {
    plain(text).filter_map(|word| content_stem(&word).map(str::to_owned)).collect()
}

/// The stem of a word as [`plain`] returns it; `None` if the word has no content.
pub(crate) fn content_stem(word: &str) -> Option<&str> {
    let carries = word.chars().any(text::is_unspaced) || (word.len() > 2 && !is_stop(word));
    carries.then(|| stem(word))
}

/// Returns true for a word without content.
pub(super) fn is_stop(word: &str) -> bool {
    STOPS.contains(word)
}

/// Returns true for a number or a part of one, in digits or in words: `441`, `four`, `oh`, `third`, `twenty-one`.
/// `word` is lower case.
pub(crate) fn is_number(word: &str) -> bool {
    word.chars().any(char::is_numeric) || word.split('-').all(|part| NUMBERS.contains(part))
}

/// Returns true for a spelled letter. `word` is lower case. The words `a` and `i` may be letters too, which only their
/// neighbours show.
pub(super) fn is_letter(word: &str) -> bool {
    let mut characters = word.chars();
    characters.next().is_some_and(char::is_alphabetic)
        && characters.next().is_none()
        && !word.chars().any(text::is_unspaced)
}

/// Number of words in a text.
pub(super) fn count(text: &str) -> usize {
    text::count(text)
}

/// The sentences of a text, unchanged.
pub(super) fn sentences(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start();
        if rest.is_empty() {
            return None;
        }
        let end = rest.char_indices().find_map(|(at, character)| {
            let end = at + character.len_utf8();
            ends_sentence(rest, at, end, character).then_some(end)
        });
        let (sentence, after) = rest.split_at(end.unwrap_or(rest.len()));
        rest = after;
        Some(sentence.trim_end())
    })
}

/// Returns true if a text ends with a question, including one without a question mark from speech recognition.
pub(crate) fn is_question(text: &str) -> bool {
    let asks = || {
        let first = plain(text).next().unwrap_or_default();
        ASKING.split(' ').any(|word| word == first)
    };
    text.ends_with(['?', '？', '؟']) || (text.ends_with(char::is_alphanumeric) && asks())
}

/// Returns true if the punctuation at `at..end` ends a sentence.
fn ends_sentence(text: &str, at: usize, end: usize, mark: char) -> bool {
    let after = &text[end..];
    match mark {
        '。' | '？' | '！' | '।' | '؟' => true,
        '?' | '!' => after.chars().next().is_none_or(char::is_whitespace),
        '.' => {
            let word = text[..at].rsplit(char::is_whitespace).next().unwrap_or_default();
            let bare = word.trim_start_matches(|character: char| !character.is_alphanumeric());
            // The initial of a name, or a title before it.
            let initial =
                bare.chars().count() == 1 && bare.chars().all(|letter| letter.is_uppercase() && letter != 'I');
            let short = ABBREVIATIONS.split(' ').any(|known| bare.eq_ignore_ascii_case(known));
            let goes_on = after.trim_start().chars().next().is_some_and(char::is_lowercase);
            after.chars().next().is_none_or(|next| next.is_whitespace() && !initial && !short && !goes_on)
        }
        _ => false,
    }
}

/// A token without the punctuation around its letters and digits, in lower case.
pub(super) fn bare(token: &str) -> String {
    token.trim_matches(|character: char| !character.is_alphanumeric()).to_lowercase()
}

/// A word in lower case, with plain apostrophes; a letter that is repeated three times or more is kept twice.
pub(super) fn fold(word: &str) -> String {
    let mut folded = String::with_capacity(word.len());
    let (mut last, mut run) = ('\0', 0);
    for character in text::fold(word).trim_matches(['\'', '’', '‘']).chars() {
        let character = if matches!(character, '’' | '‘') { '\'' } else { character };
        run = if character == last { run + 1 } else { 1 };
        last = character;
        if run <= 2 || !character.is_alphabetic() {
            folded.push(character);
        }
    }
    folded
}

/// A word without the most common English endings.
fn stem(word: &str) -> &str {
    let word = word.strip_suffix("'s").unwrap_or(word);
    let shorter = ["ing", "ed", "es", "s", "ly"].iter().find_map(|ending| word.strip_suffix(ending));
    shorter.filter(|shorter| shorter.len() >= 3).unwrap_or(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_end_where_they_end() {
        let split = |text| sentences(text).collect::<Vec<_>>();
        assert_eq!(split(" It is 3.5 km. Really? yes"), ["It is 3.5 km.", "Really?", "yes"]);
        assert_eq!(split("好。再见"), ["好。", "再见"]);
        assert_eq!(split("  "), [""; 0]);
        assert_eq!(split("Thank you, Mr. Okafor. J. Smith is here."), ["Thank you, Mr. Okafor.", "J. Smith is here."]);
        assert_eq!(split("Wait... let me see. So am I. Go on."), ["Wait... let me see.", "So am I.", "Go on."]);
    }

    #[test]
    fn content_is_stems_without_stop_words() {
        assert_eq!(content("I'm waiting for the bills, the bill's late"), ["wait", "bill", "bill", "late"]);
        assert_eq!(content("会议"), ["会", "议"]);
        assert_eq!(plain("Nooooo — DON’T!").collect::<Vec<_>>(), ["noo", "don't"]);
    }

    #[test]
    fn numbers_and_letters_are_known_by_their_words() {
        assert!(["441", "four", "oh", "twenty-one", "3.5", "b2"].into_iter().all(is_number));
        assert!(!["for", "to", "won", "well-known", "-"].into_iter().any(is_number));
        assert!(
            is_question("Is it?")
                && is_question("which card would you like")
                && !is_question("I see")
                && !is_question("Is it.")
        );
        assert!(is_letter("b") && !is_letter("be") && !is_letter("会") && !is_letter("4"));
    }
}
