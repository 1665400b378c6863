//! Words and patterns that a rule searches for in the text of a turn.
//!
//! Knows no turn and no speaker. Words are compared as quotes are (see [`crate::base::text`]): letter case, punctuation
//! and normal form are ignored, and word boundaries are respected in scripts that have them. A pattern is matched
//! against the original text, ignoring letter case. The work is counted in advance.

use std::ops::Range;

use regex::{Regex, RegexBuilder};

use crate::base::budget::{Bound, Exceeded};
use crate::base::pattern;
use crate::base::text::{Quote, Words, is_unspaced};

/// Longest quote of an alert, bytes: of a longer turn, only the part around the words.
pub const QUOTE_BYTES: usize = 240;
/// Maximum number of steps for all rules that check one turn.
pub const TURN_STEPS: Bound = Bound::new("rule_turn_steps", 400_000);
/// Maximum number of steps for searching all turns of a call.
pub const SCAN_STEPS: Bound = Bound::new("rule_scan_steps", 2_000_000);

/// Number of bytes of text that are normalised per step.
const FOLDED_BYTES: u64 = 8;
/// Number of bytes of text that are searched for words per step.
const SEARCHED_BYTES: u64 = 64;
/// Number of pattern states per step, counted for each byte of the text in the worst case.
const LOOKED_STATES: u64 = 32;
/// Maximum memory of one compiled pattern, bytes.
const PATTERN_BYTES: Bound = Bound::new("rule_pattern_bytes", 1024 * 1024);
/// Cache of a pattern while it matches, bytes.
const PATTERN_CACHE: usize = 256 * 1024;
/// Deepest nesting of a pattern's groups, as [`pattern::states`] counts it.
const NESTING: u32 = 64;

/// Remaining steps of a bound.
#[derive(Debug)]
pub struct Steps {
    bound: Bound,
    spent: u64,
}

impl Steps {
    /// Starts with all steps of `bound`.
    pub fn new(bound: Bound) -> Self {
        Self { bound, spent: 0 }
    }

    fn spend(&mut self, steps: u64) -> Result<(), Exceeded> {
        self.spent = self.spent.saturating_add(steps);
        self.bound.check(self.spent)
    }
}

/// A text, normalised once for all rules that search it.
#[derive(Debug)]
pub struct Text<'a> {
    raw: &'a str,
    words: Words,
}

impl<'a> Text<'a> {
    /// Normalises a text.
    ///
    /// # Errors
    /// The steps are used up.
    pub fn of(raw: &'a str, steps: &mut Steps) -> Result<Self, Exceeded> {
        steps.spend(1 + raw.len() as u64 / FOLDED_BYTES)?;
        Ok(Self { raw, words: Words::of(raw) })
    }
}

#[derive(Debug)]
enum Phrase {
    /// The given words, in this order.
    Words(Quote),
    /// A pattern, which ignores letter case.
    Pattern { regex: Regex, states: u64 },
}

/// Words and patterns, any one of which must occur.
#[derive(Debug, Default)]
pub struct Phrases(Vec<Phrase>);

impl Phrases {
    /// Adds words, or a pattern between slashes. Returns the states of a pattern.
    ///
    /// # Errors
    /// The text contains no word, or the pattern cannot be used.
    pub(super) fn add(&mut self, text: &str) -> Result<Option<u64>, String> {
        let Some(source) = text.strip_prefix('/').and_then(|rest| rest.strip_suffix('/')) else {
            let quote = Quote::of(text);
            // One slash, or flags after the second, as in "/refund/i", begin a pattern that no turn would match as words.
            let is_half = text.trim().starts_with('/') || text.trim().ends_with('/');
            if quote.is_empty() || is_half {
                return Err(format!("expected words, or a pattern between slashes, found {text:?}"));
            }
            self.0.push(Phrase::Words(quote));
            return Ok(None);
        };
        let unusable = |why: &dyn std::fmt::Display| format!("the pattern {source:?} cannot be used: {why}");
        let states = pattern::states(source).map_err(|why| unusable(&why))?;
        let built = RegexBuilder::new(source)
            .case_insensitive(true)
            .nest_limit(NESTING)
            .size_limit(usize::try_from(PATTERN_BYTES.most).unwrap_or(usize::MAX))
            .dfa_size_limit(PATTERN_CACHE)
            .build();
        let regex = built.map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => unusable(&Exceeded::Limit(PATTERN_BYTES)),
            other => unusable(&other.to_string().lines().last().unwrap_or_default()),
        })?;
        if regex.is_match("") {
            return Err(unusable(&"it matches the empty text and therefore every turn"));
        }
        self.0.push(Phrase::Pattern { regex, states });
        Ok(Some(states))
    }

    /// The first of the phrases that occurs in the text: the original text around it.
    ///
    /// # Errors
    ///
    /// The steps are used up.
    pub fn find(&self, text: &Text<'_>, steps: &mut Steps) -> Result<Option<String>, Exceeded> {
        let bytes = text.raw.len() as u64;
        for phrase in &self.0 {
            let place = match phrase {
                Phrase::Words(quote) => {
                    steps.spend(1 + bytes / SEARCHED_BYTES)?;
                    text.words.hold(quote).then(|| place_of(text.raw, quote))
                }
                Phrase::Pattern { regex, states } => {
                    steps.spend(1 + bytes.saturating_mul(*states) / LOOKED_STATES)?;
                    regex.find(text.raw).map(|found| found.range())
                }
            };
            if let Some(place) = place {
                return Ok(Some(excerpt(text.raw, &place)));
            }
        }
        Ok(None)
    }
}

/// A text cut to the longest quote of an alert.
pub fn quote_of(text: &str) -> String {
    text[..text.floor_char_boundary(QUOTE_BYTES)].to_owned()
}

/// The first place of the words of `quote` in a text; the whole of a short text.
fn place_of(raw: &str, quote: &Quote) -> Range<usize> {
    if raw.len() <= QUOTE_BYTES {
        return 0..raw.len();
    }
    let cuts = cuts(raw);
    // If a beginning of the text contains the words, every longer one does, so the search can bisect; the same holds
    // for ends.
    let first = cuts.partition_point(|end| !Words::of(&raw[..*end]).hold(quote));
    let end = cuts.get(first).copied().unwrap_or(raw.len());
    let after = cuts.partition_point(|start| *start < end && Words::of(&raw[*start..end]).hold(quote));
    let start = after.checked_sub(1).and_then(|last| cuts.get(last)).copied().unwrap_or(0);
    start..end
}

/// Offsets at which a text can be cut without cutting a word.
fn cuts(raw: &str) -> Vec<usize> {
    let mut cuts = vec![0];
    let mut before = None;
    for (at, character) in raw.char_indices() {
        let apart = |other: char| other.is_whitespace() || is_unspaced(other);
        if before.is_some_and(|before| apart(before) || is_unspaced(character)) {
            cuts.push(at);
        }
        before = Some(character);
    }
    cuts.push(raw.len());
    cuts
}

/// The original text around `place`; the whole of a short text.
fn excerpt(raw: &str, place: &Range<usize>) -> String {
    if raw.len() <= QUOTE_BYTES {
        return raw.trim().to_owned();
    }
    let room = QUOTE_BYTES.saturating_sub(place.len()) / 2;
    let from = raw.floor_char_boundary(place.start.saturating_sub(room));
    // Cuts between words if possible.
    let lead = &raw[from..place.start];
    let start = if from == 0 { 0 } else { from + lead.find(char::is_whitespace).unwrap_or(0) };
    let to = raw.floor_char_boundary((start + QUOTE_BYTES).min(raw.len()));
    let tail = raw.get(place.end..to).unwrap_or_default();
    let end = if to == raw.len() { to } else { tail.rfind(char::is_whitespace).map_or(to, |at| place.end + at) };
    raw[start..end].trim().to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::testing::kept;

    fn phrases(all: &[&str]) -> Phrases {
        let mut phrases = Phrases::default();
        for text in all {
            phrases.add(text).expect(text);
        }
        phrases
    }

    fn found(all: &[&str], raw: &str) -> Option<String> {
        let mut steps = Steps::new(TURN_STEPS);
        let text = Text::of(raw, &mut steps).expect("short");
        phrases(all).find(&text, &mut steps).expect("short")
    }

    #[test]
    fn words_are_found_at_their_boundaries_in_any_case() {
        for (words, raw, expected) in [
            ("cancel", "I want to CANCEL, please.", true),
            ("cancel", "The cancellation came.", false),
            ("can cel", "I can … cel", true),
            ("don't", "I don’t know", true),
            ("解約", "解約したいです。", true),
            ("straße", "In der STRASSE.", true),
            ("3.5", "It is 35.", false),
        ] {
            assert_eq!(found(&[words], raw).is_some(), expected, "{words} in {raw}");
        }
    }

    #[test]
    fn patterns_see_the_text_as_it_was_said_in_any_case() {
        assert_eq!(found(&["/refund(ed)?/"], "A Refunded order."), Some("A Refunded order.".to_owned()));
        assert_eq!(found(&[r"/\border [0-9]{4}\b/"], "It is order 12345."), None);
        assert_eq!(found(&["cancel", "/refund/"], "refund or cancel"), Some("refund or cancel".to_owned()));
    }

    #[test]
    fn what_is_no_phrase_says_why() {
        let add = |text: &str| Phrases::default().add(text).expect_err(text);
        assert_eq!(add(" … "), "expected words, or a pattern between slashes, found \" … \"");
        for half in ["/refund(ed)?/i", "/refund", "refund/", " /refund/"] {
            assert_eq!(add(half), format!("expected words, or a pattern between slashes, found {half:?}"));
        }
        assert!(add("/(/").contains("cannot be used: unclosed group"), "{}", add("/(/"));
        assert!(add("/x*/").contains("empty text"), "{}", add("/x*/"));
        assert!(add("//").contains("empty text"), "{}", add("//"));
        assert!(add("/((\\w{100}){100}){100}/").contains("bytes"), "{}", add("/((\\w{100}){100}){100}/"));
    }

    #[test]
    fn work_over_the_bound_names_it() {
        let long = "word ".repeat(20_000);
        let mut steps = Steps::new(TURN_STEPS);
        let text = Text::of(&long, &mut steps).expect("folded");
        let refused = phrases(&[r"/\w{3}x/"]).find(&text, &mut steps).expect_err("too much");
        assert_eq!(refused.to_string(), "over the limit rule_turn_steps (400000)");
        assert!(phrases(&["word"]).find(&text, &mut Steps::new(TURN_STEPS)).expect("words are cheap").is_some());
    }

    #[test]
    fn quote_of_a_long_turn_is_the_part_around_the_words() {
        let before = "We have talked about many other things before. ".repeat(30);
        let after = " And after that there was much more to say.".repeat(30);
        let raw = format!("{before}Now I want to cancel the contract.{after}");
        for words in ["cancel the contract", "/cancel the contract/"] {
            let quote = found(&[words], &raw).expect(words);
            assert!(quote.contains("want to cancel the contract.") && quote.len() <= QUOTE_BYTES, "{quote}");
            assert!(raw.contains(&format!(" {quote} ")), "whole words: {quote}");
        }
        let unspaced = format!("{}解約したい{}", "今日は天気がいいです".repeat(30), "それから".repeat(60));
        let quote = found(&["解約したい"], &unspaced).expect("found");
        assert!(quote.contains("解約したい") && quote.len() <= QUOTE_BYTES, "{quote}");
    }

    proptest! {
        #![proptest_config(kept())]

        #[test]
        fn quotes_are_short_and_verbatim(raw in "[a-z 解約é]{0,600}", words in "[a-c 解]{1,4}") {
            let mut phrases = Phrases::default();
            if phrases.add(&words).is_ok() {
                let mut steps = Steps::new(TURN_STEPS);
                let text = Text::of(&raw, &mut steps).expect("short");
                if let Some(quote) = phrases.find(&text, &mut steps).expect("short") {
                    prop_assert!(quote.len() <= QUOTE_BYTES && raw.contains(&quote));
                    prop_assert!(Words::of(&quote).hold(&Quote::of(&words)) || words.split_whitespace().count() > 1);
                }
            }
        }
    }
}
