//! Splits text into words.
//!
//! Knows no letter case and no normal form: it returns slices of the original text.

use icu_properties::props::{GeneralCategory, LineBreak, Script};
use icu_properties::{CodePointMapData, CodePointMapDataBorrowed};
use unicode_segmentation::UnicodeSegmentation as _;

const SCRIPTS: CodePointMapDataBorrowed<'static, Script> = CodePointMapData::<Script>::new();
const LINE_BREAKS: CodePointMapDataBorrowed<'static, LineBreak> = CodePointMapData::<LineBreak>::new();
const CATEGORIES: CodePointMapDataBorrowed<'static, GeneralCategory> = CodePointMapData::<GeneralCategory>::new();

/// Returns true for a character of a script that writes no spaces between words: Chinese, Japanese, Thai, Lao, Khmer,
/// Burmese and their relatives, Tibetan. False for Hangul, because Korean uses spaces.
pub fn is_unspaced(character: char) -> bool {
    // All of these scripts come after this character, so most text needs no further check.
    if character < '\u{e00}' {
        return false;
    }
    let script = SCRIPTS.get(character);
    [Script::Han, Script::Hiragana, Script::Katakana, Script::Bopomofo, Script::Yi, Script::Tibetan].contains(&script)
        || LINE_BREAKS.get(character) == LineBreak::ComplexContext
        // The marks that lengthen a kana belong to both kana scripts, so Unicode assigns them to neither.
        || matches!(character, '\u{30fc}' | '\u{ff70}')
}

/// Returns true for the characters of words: letters, digits, and marks on them.
pub(super) fn is_of_word(character: char) -> bool {
    if character.is_ascii() {
        return character.is_ascii_alphanumeric();
    }
    character.is_alphanumeric()
        || matches!(
            CATEGORIES.get(character),
            GeneralCategory::NonspacingMark | GeneralCategory::SpacingMark | GeneralCategory::EnclosingMark
        )
}

/// The bare words of a text, without white space and punctuation around them. A word such as `don't`, `3.5` or `e.g` is
/// one; `well-known` is two; a character of a script without spaces is one.
pub fn words(text: &str) -> impl Iterator<Item = &str> {
    segments(text).map(|(_, segment)| segment).filter(|segment| has_word(segment))
}

/// Number of words of a text, as [`words`] returns them.
pub fn count(text: &str) -> usize {
    words(text).count()
}

/// The words of a text as written, each with its adjacent punctuation, without white space: split at white space, and
/// in scripts without spaces between characters. Nothing except white space is left out.
pub fn written(text: &str) -> impl Iterator<Item = &str> {
    text.split_whitespace().flat_map(|chunk| {
        // Latin text is not scanned twice.
        let mut cuts = if chunk.chars().any(is_unspaced) { cuts(chunk) } else { Vec::new() };
        cuts.push(chunk.len());
        let mut from = 0;
        cuts.into_iter().map(move |to| &chunk[std::mem::replace(&mut from, to)..to])
    })
}

/// The separator between two texts that are joined: a space, or nothing if one side is of a script without spaces, has
/// white space already, or is empty.
pub fn gap(before: &str, after: &str) -> &'static str {
    // East Asian punctuation includes its own space.
    let closed = |character: char| {
        character.is_whitespace()
            || is_unspaced(character)
            || matches!(character, '\u{3000}'..='\u{303f}' | '\u{ff00}'..='\u{ff65}')
    };
    match (before.chars().next_back(), after.chars().next()) {
        (Some(last), Some(first)) if !closed(last) && !closed(first) => " ",
        _ => "",
    }
}

/// Joins texts, with the [`gap`] of their scripts between them.
pub fn join<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    parts.into_iter().fold(String::new(), |mut whole, part| {
        whole.push_str(gap(&whole, part));
        whole.push_str(part);
        whole
    })
}

/// Offsets within a chunk without white space at which a new written word begins.
fn cuts(chunk: &str) -> Vec<usize> {
    let mut cuts = Vec::new();
    // The last word character of the open piece, and the offset where opening punctuation begins.
    let (mut last, mut opened): (Option<char>, Option<usize>) = (None, None);
    for (at, segment) in segments(chunk) {
        let Some(first) = segment.chars().next() else { continue };
        if has_word(segment) {
            let apart = last.is_some_and(|last| is_unspaced(last) || is_unspaced(first));
            if apart {
                cuts.push(opened.unwrap_or(at));
            }
            last = segment.chars().next_back();
            opened = None;
        } else if matches!(
            CATEGORIES.get(first),
            GeneralCategory::OpenPunctuation | GeneralCategory::InitialPunctuation
        ) {
            opened = opened.or(Some(at));
        } else {
            opened = None;
        }
    }
    cuts
}

fn has_word(segment: &str) -> bool {
    segment.chars().any(char::is_alphanumeric)
}

/// Unicode's words and the text between them; runs of a script without spaces (Katakana) are split into their
/// characters.
pub(super) fn segments(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split_word_bound_indices().flat_map(|(at, segment)| {
        let whole = !segment.chars().any(is_unspaced);
        let one = whole.then_some((at, segment));
        let many = (!whole).then(|| segment.grapheme_indices(true).map(move |(inner, part)| (at + inner, part)));
        one.into_iter().chain(many.into_iter().flatten())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::testing::kept;

    #[test]
    fn words_are_cut_in_every_script() {
        for (text, expected) in [
            ("Well, I don't know: 3.5% of 1,000?", &["Well", "I", "don't", "know", "3.5", "of", "1,000"][..]),
            ("well-known e-mail/fax", &["well", "known", "e", "mail", "fax"]),
            ("“Grüße,” sagte er…", &["Grüße", "sagte", "er"]),
            ("解約したい。", &["解", "約", "し", "た", "い"]),
            ("スーパーでiPhoneを2台", &["ス", "ー", "パ", "ー", "で", "iPhone", "を", "2", "台"]),
            ("我想取消订单", &["我", "想", "取", "消", "订", "单"]),
            ("ช้ามาก", &["ช้", "า", "ม", "า", "ก"]),
            ("배송이 너무", &["배송이", "너무"]),
            ("إلغاء الطلب", &["إلغاء", "الطلب"]),
            ("क्या हुआ?", &["क्या", "हुआ"]),
            (" … !? ", &[]),
        ] {
            assert_eq!(words(text).collect::<Vec<_>>(), expected, "{text}");
            assert_eq!(count(text), expected.len(), "{text}");
        }
    }

    #[test]
    fn written_words_keep_their_punctuation() {
        for (text, expected) in [
            ("Hi, there! (Yes.)", &["Hi,", "there!", "(Yes.)"][..]),
            ("はい、分かった。", &["は", "い、", "分", "か", "っ", "た。"]),
            ("彼は「いい」と", &["彼", "は", "「い", "い」", "と"]),
            ("用iPhone 12吧！", &["用", "iPhone", "12", "吧！"]),
            ("  ", &[]),
        ] {
            assert_eq!(written(text).collect::<Vec<_>>(), expected, "{text}");
        }
    }

    #[test]
    fn spaces_are_written_only_in_scripts_that_have_them() {
        for (before, after, expected) in [
            ("Hello", "there", " "),
            ("Hello,", "there", " "),
            ("Hello ", "there", ""),
            ("", "there", ""),
            ("解約", "したい", ""),
            ("はい。", "OK", ""),
            ("ช้า", "มาก", ""),
            ("너무", "늦어서", " "),
        ] {
            assert_eq!(gap(before, after), expected, "{before:?} {after:?}");
            assert_eq!(join([before, after]), format!("{before}{expected}{after}"));
        }
    }

    proptest! {
        #![proptest_config(kept())]

        #[test]
        fn written_words_lose_nothing_but_white_space(text in "[a-z'., 解約しスー「」。ช้ามาก\u{301}배송]{0,30}|\\PC{0,30}") {
            let kept: String = written(&text).collect();
            let expected: String = text.split_whitespace().collect();
            prop_assert_eq!(kept, expected);
        }
    }
}
