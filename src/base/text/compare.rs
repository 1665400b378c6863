//! Decides whether a quote occurs in a spoken text.
//!
//! Knows no turn. Two texts have the same words if they differ only in: normal form (NFKC), letter case, white space,
//! punctuation and its style (quotes, dashes, ellipses), and invisible characters (soft hyphens, zero-width ones).
//! Punctuation within numbers counts: `3.5` is not `35`. In a script with word boundaries a quote must respect them; a
//! character of a script without spaces is a word here, so a quote may begin and end anywhere in it.

use std::borrow::Cow;

use icu_normalizer::{ComposingNormalizer, ComposingNormalizerBorrowed};
use icu_properties::props::DefaultIgnorableCodePoint;
use icu_properties::{CodePointSetData, CodePointSetDataBorrowed};
use unicode_segmentation::UnicodeSegmentation as _;

use super::cut::{is_of_word, is_unspaced, segments};

const NFKC: ComposingNormalizerBorrowed<'static> = ComposingNormalizer::new_nfkc();
const IGNORED: CodePointSetDataBorrowed<'static> = CodePointSetData::new::<DefaultIgnorableCodePoint>();
/// Separates words. A normalised word contains no space.
const SPACE: char = ' ';

/// The normalised words of a text as one string for fast search: a space before each and one after the last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Words(String);

impl Words {
    /// Splits a text into words and normalises them. Takes time linear in its length.
    pub fn of(text: &str) -> Self {
        let folded = fold(text);
        let mut out = String::with_capacity(folded.len() + 8);
        for (_, segment) in segments(&folded) {
            let before = out.len();
            out.push(SPACE);
            let mut empty = true;
            let mut characters = segment.chars().peekable();
            let mut previous = None;
            while let Some(character) = characters.next() {
                let in_number = |other: Option<char>| other.is_some_and(char::is_numeric);
                if is_of_word(character) {
                    out.push(character);
                    empty &= !character.is_alphanumeric();
                } else if in_number(previous) && in_number(characters.peek().copied()) {
                    out.push(character);
                }
                previous = Some(character);
            }
            if empty {
                out.truncate(before);
            }
        }
        if !out.is_empty() {
            out.push(SPACE);
        }
        Self(out)
    }

    /// Returns true if there is no word.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The normalised words.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.split(SPACE).filter(|word| !word.is_empty())
    }

    /// Returns true if these words contain the quote: each of its parts completely, one after the other. A quote
    /// without words occurs in no text.
    pub fn hold(&self, quote: &Quote) -> bool {
        let mut rest = self.0.as_str();
        !quote.0.is_empty()
            && quote.0.iter().all(|part| {
                // The space after a part is also the one before the next.
                let found = rest.find(&part.0).and_then(|at| rest.get(at + part.0.len() - SPACE.len_utf8()..));
                found.is_some_and(|after| {
                    rest = after;
                    true
                })
            })
    }

    /// The significance of a match of these words, in words: in a script without spaces, two characters count as one.
    fn weight(&self) -> usize {
        let (short, whole): (Vec<&str>, Vec<&str>) = self.iter().partition(|word| word.starts_with(is_unspaced));
        whole.len() + short.len() / 2
    }
}

/// The ASCII character for an apostrophe, a prime or a slash: between digits they count, so `1’000` is `1'000`, and `1⁄2`
/// is `1/2`.
fn plain(mark: char) -> char {
    match mark {
        '‘' | '’' | '‛' | '′' => '\'',
        '⁄' | '∕' => '/',
        other => other,
    }
}

/// A quote: words, and ellipses that stand for omitted words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quote(Vec<Words>);

impl Quote {
    /// Reads a quote. Ellipses in any style split it into parts.
    pub fn of(text: &str) -> Self {
        let plain: Cow<'_, str> = NFKC.normalize(text);
        let plain = plain.replace('⋯', "...").replace("。。。", "...").replace("・・・", "...");
        Self(plain.split("..").map(Words::of).filter(|part| !part.is_empty()).collect())
    }

    /// Returns true if the quote contains no word.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The significance of a match of it, in words.
    pub fn weight(&self) -> usize {
        self.0.iter().map(Words::weight).sum()
    }
}

/// Normalises a text for comparison: NFKC, without letter case and without invisible characters. Punctuation and white
/// space stay.
pub fn fold(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::Owned(text.to_ascii_lowercase())
        } else {
            Cow::Borrowed(text)
        };
    }
    let seen: String = text.chars().filter(|character| !IGNORED.contains(*character)).collect();
    let mut folded = String::with_capacity(seen.len());
    for character in NFKC.normalize(&seen).chars() {
        // Converts through upper case, so that characters with two lower-case forms (ς, ß, ı) get one.
        for upper in character.to_uppercase() {
            for lower in upper.to_lowercase() {
                // Drops the dot of a Turkish capital İ, which its small i has anyway.
                if !(lower == '\u{307}' && folded.ends_with('i')) {
                    folded.push(plain(lower));
                }
            }
        }
    }
    Cow::Owned(NFKC.normalize(&folded).into_owned())
}

/// Number of bytes at the start of `text` that normalise to the same as `word`; `None` if it begins differently.
pub fn prefix_of(text: &str, word: &str) -> Option<usize> {
    if word.is_empty() || text.starts_with(word) {
        return Some(word.len());
    }
    let wanted = fold(word);
    let mut rest = wanted.as_ref();
    for (at, part) in text.grapheme_indices(true) {
        if rest.is_empty() {
            return Some(at);
        }
        rest = rest.strip_prefix(fold(part).as_ref())?;
    }
    rest.is_empty().then_some(text.len())
}

#[cfg(test)]
mod tests;
