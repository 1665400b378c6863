//! Repairs JSON text that escapes one half of a UTF-16 surrogate pair without the other, such as `"\ud83d"`, which a
//! program writes that cuts its strings between the two. Such an escape stands for no character, and a JSON parser
//! refuses the whole text because of it; here it becomes U+FFFD, and the rest of the text is not changed.
//!
//! Knows no message, and no parser except the functions of serde_json.

use std::borrow::Cow;

use serde::de::DeserializeOwned;

/// The replacement of a lone half: the escape of U+FFFD, which has the same length.
const REPLACEMENT: &str = r"\ufffd";
/// Bytes of an escape `\uXXXX`.
const ESCAPE: usize = 6;

/// `json` with each lone surrogate escape replaced by `\ufffd`; borrowed if there is none. Everything else is unchanged
/// byte for byte, including syntax errors. For a text without escapes it costs one search for backslashes.
pub fn repaired(json: &str) -> Cow<'_, str> {
    let Some(mut lone) = next_lone(json, 0) else { return Cow::Borrowed(json) };
    let mut text = String::with_capacity(json.len());
    let mut copied = 0;
    loop {
        text.push_str(&json[copied..lone]);
        text.push_str(REPLACEMENT);
        copied = lone + ESCAPE;
        match next_lone(json, copied) {
            Some(next) => lone = next,
            None => break,
        }
    }
    text.push_str(&json[copied..]);
    Cow::Owned(text)
}

/// As `serde_json::from_str`. If that fails and the text contains something to repair, the [`repaired`] text is parsed.
///
/// # Errors
/// As `serde_json::from_str` for the original text.
pub fn from_str<T: DeserializeOwned>(json: &str) -> serde_json::Result<T> {
    serde_json::from_str(json).or_else(|error| match repaired(json) {
        Cow::Borrowed(_) => Err(error),
        Cow::Owned(json) => serde_json::from_str(&json).map_err(|_| error),
    })
}

/// As [`from_str`], for bytes.
///
/// # Errors
/// As `serde_json::from_slice` for the original bytes.
pub fn from_slice<T: DeserializeOwned>(json: &[u8]) -> serde_json::Result<T> {
    serde_json::from_slice(json).or_else(|error| match std::str::from_utf8(json).map(repaired) {
        Ok(Cow::Owned(json)) => serde_json::from_str(&json).map_err(|_| error),
        _ => Err(error),
    })
}

/// Offset of the next lone surrogate escape from the byte `at` on, which is not within an escape.
fn next_lone(json: &str, mut at: usize) -> Option<usize> {
    loop {
        at += json.get(at..)?.find('\\')?;
        match unit(json, at) {
            // Any other escape is a backslash and one character: `\\u0041` contains no escape of a letter.
            None => at += 2,
            Some(0xD800..=0xDBFF) if unit(json, at + ESCAPE).is_some_and(|low| (0xDC00..=0xDFFF).contains(&low)) => {
                at += 2 * ESCAPE;
            }
            Some(0xD800..=0xDFFF) => return Some(at),
            Some(_) => at += ESCAPE,
        }
        // A backslash before a multi-byte character is not valid JSON; the search continues after that character.
        while at < json.len() && !json.is_char_boundary(at) {
            at += 1;
        }
    }
}

/// The UTF-16 code unit that is escaped at the byte `at`.
fn unit(json: &str, at: usize) -> Option<u16> {
    let digits = json.get(at..at + ESCAPE)?.strip_prefix(r"\u")?;
    // `from_str_radix` would also accept a sign.
    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::base::testing::kept;

    #[test]
    fn repaired_lone_half_becomes_the_replacement_character() {
        for (json, expected) in [
            (r#""plain""#, None),
            (r#""a\n\"\\\u0041 \u00e9""#, None),
            (r#""\ud83d\ude00 \uD83D\uDE00 \ud83D\uDe00""#, None),
            (r#""cut \ud83d""#, Some(r#""cut \ufffd""#)),
            (r#""cut \uD83D in \uDe00 caps""#, Some(r#""cut \ufffd in \ufffd caps""#)),
            (r#""\ude00 low first""#, Some(r#""\ufffd low first""#)),
            (r#""\ude00\ud83d swapped""#, Some(r#""\ufffd\ufffd swapped""#)),
            (r#""\ud83d\ud83d\ude00 twice""#, Some(r#""\ufffd\ud83d\ude00 twice""#)),
            (r#""\ud83d\ude00\ude00 more""#, Some(r#""\ud83d\ude00\ufffd more""#)),
            (r#""\ud83d\u0041""#, Some(r#""\ufffd\u0041""#)),
            (r#""\ud83d\n""#, Some(r#""\ufffd\n""#)),
            // An escaped backslash followed by letters.
            (r#""C:\\ud83d""#, None),
            (r#""C:\\\ud83d""#, Some(r#""C:\\\ufffd""#)),
            (r#""\ud83d\\ude00""#, Some(r#""\ufffd\\ude00""#)),
            (r#"{"\ud800":["\udfff"]}"#, Some(r#"{"\ufffd":["\ufffd"]}"#)),
            // Not JSON: nothing is repaired, and nothing breaks.
            (r"\ud8", None),
            (r"\u+d83", None),
            (r"\", None),
            ("\\é\\ud800", Some("\\é\\ufffd")),
            ("", None),
        ] {
            let got = repaired(json);
            assert_eq!(got, expected.unwrap_or(json), "{json}");
            assert_eq!(matches!(got, Cow::Owned(_)), expected.is_some(), "{json}");
        }
    }

    #[test]
    fn parsed_text_keeps_everything_but_the_lone_half() {
        let json = r#"{"text":"well \ud83d then","n":1}"#;
        assert!(serde_json::from_str::<Value>(json).is_err());
        let expected = serde_json::json!({"text": "well \u{fffd} then", "n": 1});
        assert_eq!(from_str::<Value>(json).expect("parsed"), expected);
        assert_eq!(from_slice::<Value>(json.as_bytes()).expect("parsed"), expected);
        // The error has the position in the original text.
        let error = from_str::<Value>("{\"a\":\"\\ud83d\"\n\n,}").expect_err("no JSON");
        assert_eq!(error.line(), 1);
        assert!(from_slice::<Value>(b"\"\xff\"").is_err());
    }

    /// How one code unit of a JSON string is written.
    fn piece() -> impl Strategy<Value = (String, Vec<u16>)> {
        prop_oneof![
            any::<u16>().prop_map(|unit| (format!("\\u{unit:04x}"), vec![unit])),
            (0xD800_u16..=0xDFFF).prop_map(|unit| (format!("\\u{unit:04X}"), vec![unit])),
            prop::char::range(' ', '\u{1F600}')
                .prop_filter("written as it is", |letter| !matches!(letter, '"' | '\\'))
                .prop_map(|letter| (letter.to_string(), letter.encode_utf16(&mut [0; 2]).to_vec())),
            Just(("\\\\".to_owned(), vec![u16::from(b'\\')])),
            Just(("\\n".to_owned(), vec![u16::from(b'\n')])),
        ]
    }

    proptest! {
        #![proptest_config(kept())]

        // The reference is the decoder of the standard library, on the same code units.
        #[test]
        fn repaired_text_decodes_as_utf16_does(pieces in prop::collection::vec(piece(), 0..24)) {
            let json: String = pieces.iter().map(|(text, _)| text.as_str()).collect();
            let json = format!("\"{json}\"");
            // An escaped half of a pair does not combine with an unescaped letter outside of the basic plane.
            let mut expected = String::new();
            let mut units: Vec<u16> = Vec::new();
            for (text, more) in &pieces {
                if text.starts_with("\\u") {
                    units.extend(more);
                } else {
                    expected.push_str(&String::from_utf16_lossy(&std::mem::take(&mut units)));
                    expected.push_str(&String::from_utf16_lossy(more));
                }
            }
            expected.push_str(&String::from_utf16_lossy(&units));
            let got: String = serde_json::from_str(&repaired(&json)).expect("JSON");
            prop_assert_eq!(got, expected);
            let strict = serde_json::from_str::<String>(&json);
            prop_assert_eq!(strict.is_ok(), matches!(repaired(&json), Cow::Borrowed(_)));
        }

        #[test]
        fn repaired_takes_any_text(text in "(\\\\|u|d8|DF|[0-9a-f]|é|\\PC){0,40}") {
            let once = repaired(&text);
            prop_assert_eq!(once.len(), text.len());
            prop_assert_eq!(repaired(&once), once.as_ref());
        }
    }
}
