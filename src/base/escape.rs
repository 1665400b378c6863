//! Escapes spoken text, labels and `meta`, so that data never becomes structure of a prompt.
//!
//! Knows no prompt: one rule for every text that others wrote. The structure of prompts is line breaks, `<` (it opens
//! the transcript's delimiters, and every chat template's own marks such as `<|im_start|>`), and, for labels, the
//! characters around them. Ordinary text is returned unchanged and is not copied.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde_json::Value;

/// Marks that some chat templates read as roles although they begin with a bracket.
const BRACKET_MARKS: [&str; 4] = ["[INST", "[/INST", "[SYSTEM_PROMPT", "[/SYSTEM_PROMPT"];

/// Escapes spoken text: the result has no line break in any form, no control or invisible steering character, and no
/// delimiter.
pub fn text(text: &str) -> Cow<'_, str> {
    escape(text, |rest, character| match character {
        '<' => true,
        '[' => BRACKET_MARKS.iter().any(|mark| rest.get(..mark.len()).is_some_and(|at| at.eq_ignore_ascii_case(mark))),
        _ => false,
    })
}

/// Escapes a speaker's label: as [`text`], and without the brackets that surround it in a line.
pub fn label(label: &str) -> Cow<'_, str> {
    escape(label, |_, character| matches!(character, '<' | '[' | ']' | '(' | ')'))
}

/// Escapes a speaker's label in a line `label: text`: as [`label`], and without a colon, which would end it early.
pub fn line_label(label: &str) -> Cow<'_, str> {
    escape(label, |_, character| matches!(character, '<' | '[' | ']' | '(' | ')' | ':'))
}

/// A value as one line of JSON that is still JSON after escaping.
pub fn json(value: &Value) -> String {
    // `\u003c` and similar sequences occur only inside JSON strings, where they mean the same character; escape
    // sequences that the serializer wrote begin with a backslash that must stay one.
    let plain = value.to_string();
    let mut out = String::with_capacity(plain.len());
    for character in plain.chars() {
        if character == '<' || is_structure(character) { push(&mut out, character) } else { out.push(character) }
    }
    out
}

/// Escapes the characters that data may not bring into a prompt, and those that `also` selects.
fn escape(text: &str, also: impl Fn(&str, char) -> bool) -> Cow<'_, str> {
    let must = |at: usize, character: char| {
        is_structure(character)
            || also(&text[at..], character)
            // Keeps the escaping reversible: a `\u003c` in the original text must not look like one that was written
            // here.
            || (character == '\\' && text[at + 1..].starts_with('u'))
    };
    let Some(first) = text.char_indices().find_map(|(at, character)| must(at, character).then_some(at)) else {
        return Cow::Borrowed(text);
    };
    let mut out = String::with_capacity(text.len() + 16);
    out.push_str(&text[..first]);
    for (at, character) in text[first..].char_indices() {
        if must(first + at, character) { push(&mut out, character) } else { out.push(character) }
    }
    Cow::Owned(out)
}

/// Returns true for line breaks in every form, controls, and invisible characters that models read: bidirectional
/// overrides, Unicode tags, interlinear marks, noncharacters.
fn is_structure(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{2028}' | '\u{2029}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{fdd0}'..='\u{fdef}'
            | '\u{e0000}'..='\u{e007f}')
        || u32::from(character) & 0xfffe == 0xfffe
}

/// Appends `\uXXXX`, as JSON writes it: two of them above the basic plane.
fn push(out: &mut String, character: char) {
    for unit in character.encode_utf16(&mut [0; 2]) {
        // Writing to a String cannot fail.
        let _ = write!(out, "\\u{unit:04x}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::base::testing::kept;

    #[test]
    fn ordinary_text_is_neither_changed_nor_copied() {
        for plain in ["Thanks, Ms. Shah; that's 5 > 4 & [sic].", "¿Qué? — 你好 👩‍👩‍👧", "C:\\temp {{ x }}"]
        {
            assert!(matches!(text(plain), Cow::Borrowed(_)), "{plain}");
        }
        assert!(matches!(label("Agent 1: +1 555"), Cow::Borrowed(_)));
    }

    #[test]
    fn breaks_and_delimiters_are_escaped() {
        assert_eq!(
            text("a\r\n\u{85}\u{2028}\u{2029}\u{b}\u{c}</transcript>"),
            "a\\u000d\\u000a\\u0085\\u2028\\u2029\\u000b\\u000c\\u003c/transcript>"
        );
        assert_eq!(text("<|im_start|>[inst] \u{e0041}"), "\\u003c|im_start|>\\u005binst] \\udb40\\udc41");
        assert_eq!(label("B (0:01): x"), "B \\u00280:01\\u0029: x");
        assert_eq!(line_label("B: yes\nC"), "B\\u003a yes\\u000aC");
        assert_eq!(text("\\u003c"), "\\u005cu003c");
    }

    #[test]
    fn json_stays_json() {
        let value = json!({"a<": "x\u{2028}\n\"\\u003c", "b": [1, null]});
        let escaped = json(&value);
        assert!(!escaped.contains(['<', '\n', '\u{2028}']));
        assert_eq!(serde_json::from_str::<Value>(&escaped).expect("json"), value);
    }

    proptest! {
        #![proptest_config(kept())]

        #[test]
        fn escaped_text_reads_back_unchanged(given in "\\PC*|[\\\\u<\\[\\n\u{2028}0-9a-f]{0,40}") {
            let escaped = text(&given);
            prop_assert!(!escaped.chars().any(|character| character == '<' || is_structure(character)));
            // Decoding the escapes returns the original text.
            let quoted = format!("\"{}\"", reread(&escaped));
            prop_assert_eq!(serde_json::from_str::<String>(&quoted).expect("json"), given);
        }
    }

    /// Decodes the escaped text as the inside of a JSON string.
    fn reread(escaped: &str) -> String {
        let mut out = String::new();
        let mut rest = escaped;
        while let Some(next) = rest.chars().next() {
            let taken = if rest.starts_with("\\u") { 6 } else { next.len_utf8() };
            match next {
                '\\' if taken == 6 => out.push_str(&rest[..6]),
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                other => out.push(other),
            }
            rest = &rest[taken..];
        }
        out
    }
}
