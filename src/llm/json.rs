//! Writes JSON directly into a body buffer: a prompt is escaped once, and no tree of it is built. Also reads JSON, a
//! little faster than from bytes.
//!
//! Knows no meaning of the data.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Serialize;
use serde::de::{DeserializeOwned, Error as _};
use serde_json::Value;

use crate::base::budget::{Bound, Exceeded};
use crate::base::surrogates;

/// Maximum memory of the values of one document that is read, bytes; see [`footprint`]. Without it, a document of 16 MiB
/// such as `[{},{},…]` would take more than a gigabyte.
const MEMORY: Bound = Bound::new("json_memory_bytes", 64 * 1024 * 1024);
/// Memory of a parsed value without its text, bytes. Includes that lists double as they grow.
pub(super) const VALUE_BYTES: u64 = 112;
/// Memory of an object beside its members, and of a member beside its value, bytes.
const OBJECT_BYTES: u64 = 512;
const MEMBER_BYTES: u64 = 48;
/// A shorter document stays below [`MEMORY`], whatever is in it.
const SMALL_BYTES: u64 = MEMORY.most / OBJECT_BYTES;

/// The escape letter of each character that JSON strings must escape, `u` for the `\u00xx` form; 0 for all other bytes.
const ESCAPES: [u8; 256] = {
    let mut table = [0u8; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = b'u';
        byte += 1;
    }
    table[0x08] = b'b';
    table[0x09] = b't';
    table[0x0a] = b'n';
    table[0x0c] = b'f';
    table[0x0d] = b'r';
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table
};

/// Returns true if one of eight bytes must be escaped: the usual bit tricks for "has a byte less than" and "has a byte
/// equal to" on one word.
const fn needs_escape(word: u64) -> bool {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let quote = word ^ (LOW * b'"' as u64);
    let slash = word ^ (LOW * b'\\' as u64);
    let control = word.wrapping_sub(LOW * 0x20);
    ((quote.wrapping_sub(LOW) & !quote) | (slash.wrapping_sub(LOW) & !slash) | (control & !word)) & HIGH != 0
}

/// Appends `text` escaped, without quotes.
pub fn escape(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bytes = text.as_bytes();
    let mut written = 0;
    let mut at = 0;
    while at < bytes.len() {
        if let Some(chunk) = bytes[at..].first_chunk::<8>()
            && !needs_escape(u64::from_le_bytes(*chunk))
        {
            at += 8;
            continue;
        }
        let stop = bytes.len().min(at + 8);
        while at < stop {
            let byte = bytes[at];
            let escape = ESCAPES[usize::from(byte)];
            if escape != 0 {
                out.extend_from_slice(&bytes[written..at]);
                out.extend_from_slice(&[b'\\', escape]);
                if escape == b'u' {
                    out.extend_from_slice(&[b'0', b'0', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
                }
                written = at + 1;
            }
            at += 1;
        }
    }
    out.extend_from_slice(&bytes[written..]);
}

/// Appends a JSON string.
pub fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    escape(out, text);
    out.push(b'"');
}

/// Appends segments as one JSON string.
pub fn segments<'a>(out: &mut Vec<u8>, segments: impl IntoIterator<Item = &'a Arc<str>>) {
    out.push(b'"');
    for segment in segments {
        escape(out, segment);
    }
    out.push(b'"');
}

/// Reads a document that is one value. A byte order mark before it is skipped; bytes that are not UTF-8 and halves of
/// surrogate pairs are read as U+FFFD. One UTF-8 check of the whole document is cheaper than one for each string.
///
/// # Errors
/// The document is not JSON, does not match `T`, or its values are over `json_memory_bytes`; the last error has no line.
pub fn read<T: DeserializeOwned>(bytes: &[u8]) -> serde_json::Result<T> {
    match std::str::from_utf8(unmarked(bytes)) {
        Ok(text) => {
            check(text).map_err(over_limit)?;
            surrogates::from_str(text).or_else(|error| repeated(&surrogates::repaired(text), error))
        }
        Err(_) => parse(&whole(bytes)),
    }
}

/// Reads a text of [`whole`].
///
/// # Errors
/// As [`read`].
pub fn parse<T: DeserializeOwned>(text: &str) -> serde_json::Result<T> {
    check(text).map_err(over_limit)?;
    serde_json::from_str(text).or_else(|error| repeated(text, error))
}

/// Reads a document again that failed with `error`, if an object in it has a member twice: the last one counts, as in
/// other JSON parsers.
fn repeated<T: DeserializeOwned>(text: &str, error: serde_json::Error) -> serde_json::Result<T> {
    match serde_json::from_str::<T>(text) {
        Err(again) if again.to_string().starts_with("duplicate field") => {
            serde_json::from_str::<Value>(text).and_then(serde_json::from_value)
        }
        _ => Err(error),
    }
}

/// Checks the memory of a document's values before it is parsed.
///
/// # Errors
/// It is over `json_memory_bytes`.
pub fn check(text: &str) -> Result<(), Exceeded> {
    if text.len() as u64 <= SMALL_BYTES { Ok(()) } else { MEMORY.check(footprint(text)) }
}

fn over_limit(exceeded: Exceeded) -> serde_json::Error {
    serde_json::Error::custom(format_args!("its values are {exceeded}"))
}

/// Upper estimate of the memory of a document's values without their text, bytes.
fn footprint(text: &str) -> u64 {
    let (mut bytes, mut quoted, mut escaped) = (0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = quoted,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b',' | b'[' => bytes += VALUE_BYTES,
            b'{' => bytes += OBJECT_BYTES,
            b':' => bytes += MEMBER_BYTES,
            _ => {}
        }
    }
    bytes
}

/// The document as [`read`] interprets it; borrowed if nothing had to be replaced.
pub fn whole(bytes: &[u8]) -> Cow<'_, str> {
    match String::from_utf8_lossy(unmarked(bytes)) {
        Cow::Borrowed(text) => surrogates::repaired(text),
        Cow::Owned(text) => match surrogates::repaired(&text) {
            Cow::Borrowed(_) => Cow::Owned(text),
            Cow::Owned(text) => Cow::Owned(text),
        },
    }
}

fn unmarked(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// Appends any plain value. A value that cannot be serialised is written as `null`; no type here is like that.
pub fn value(out: &mut Vec<u8>, value: &impl Serialize) {
    let start = out.len();
    if serde_json::to_writer(&mut *out, value).is_err() {
        out.truncate(start);
        out.extend_from_slice(b"null");
    }
}

/// An object that is being written; [`Object::end`] closes it.
pub struct Object<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl<'a> Object<'a> {
    /// Opens an object.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, first: true }
    }

    /// Writes the name of the next field and returns the buffer for its value. Our own names need no escaping; others
    /// are written by [`Object::other`].
    pub fn key(&mut self, name: &'static str) -> &mut Vec<u8> {
        debug_assert!(name.bytes().all(|byte| ESCAPES[usize::from(byte)] == 0), "{name:?}");
        self.out.reserve(name.len() + 4);
        if !self.first {
            self.out.push(b',');
        }
        self.first = false;
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    /// Writes a field whose name is not ours and may need escaping.
    pub fn other(&mut self, name: &str, field: &impl Serialize) {
        if !self.first {
            self.out.push(b',');
        }
        self.first = false;
        string(self.out, name);
        self.out.push(b':');
        value(self.out, field);
    }

    /// Writes a string field.
    pub fn string(&mut self, name: &'static str, text: &str) {
        string(self.key(name), text);
    }

    /// Writes a field with any plain value.
    pub fn value(&mut self, name: &'static str, field: &impl Serialize) {
        value(self.key(name), field);
    }

    /// Writes a field if there is a value.
    pub fn option(&mut self, name: &'static str, field: Option<&impl Serialize>) {
        if let Some(field) = field {
            self.value(name, field);
        }
    }

    /// Closes the object.
    pub fn end(self) {
        self.out.push(b'}');
    }
}

/// Writes a list, with one call of `write` per item.
pub fn list<T>(out: &mut Vec<u8>, items: impl IntoIterator<Item = T>, mut write: impl FnMut(&mut Vec<u8>, T)) {
    out.push(b'[');
    for (position, item) in items.into_iter().enumerate() {
        if position > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::testing::kept;

    proptest! {
        #![proptest_config(kept())]

        #[test]
        fn escaping_reads_back(text in "\\PC{0,20}[\u{0}-\u{7f}]{0,40}\\PC{0,20}") {
            let mut out = Vec::new();
            string(&mut out, &text);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).expect("valid JSON"), text);
        }
    }

    #[test]
    fn last_of_a_repeated_member_counts() {
        #[derive(serde::Deserialize, Debug, PartialEq)]
        struct Message {
            text: String,
        }
        for json in [r#"{"text":"a","text":"b"}"#, r#"{"text":"a\ud83d","text":"b"}"#] {
            assert_eq!(read::<Message>(json.as_bytes()).expect(json), Message { text: "b".to_owned() });
            assert_eq!(parse::<Message>(&whole(json.as_bytes())).expect(json), Message { text: "b".to_owned() });
        }
        assert!(read::<Message>(br#"{"x":1,"x":2}"#).is_err());
    }

    #[test]
    fn document_of_too_many_values_is_refused_before_it_is_parsed() {
        for item in ["0", "{}", "[]", r#"{"a":0}"#, r#"{"role":"user","content":"a"}"#] {
            let document = |bytes: usize| format!("[{}{item}]", format!("{item},").repeat(bytes / (item.len() + 1)));
            assert!(read::<serde_json::Value>(document(100_000).as_bytes()).is_ok(), "{item}");
            let error = read::<serde_json::Value>(document(8 << 20).as_bytes()).expect_err(item);
            assert!(error.line() == 0 && error.to_string().contains("json_memory_bytes"), "{error}");
        }
        // Text needs no more memory than its length, whatever it contains.
        let text = serde_json::to_string(&"{[,:\"\\".repeat(2 << 20)).expect("JSON");
        assert!(read::<String>(text.as_bytes()).is_ok());
        assert!(check(&text).is_ok() && text.len() > 8 << 20);
    }

    #[test]
    fn every_byte_at_every_place_of_a_word() {
        for byte in 0..=0x7fu8 {
            for place in 0..20 {
                let mut text = "x".repeat(20);
                text.insert(place, char::from(byte));
                let mut out = Vec::new();
                string(&mut out, &text);
                assert_eq!(serde_json::from_slice::<String>(&out).expect("valid JSON"), text, "{byte} at {place}");
            }
        }
    }

    #[test]
    fn what_is_no_text_is_read_as_the_replacement_character() {
        for (bytes, expected) in [
            (&b"\"a\xffb\""[..], "a\u{fffd}b"),
            (b"\"\xf0\x9f\x98\"", "\u{fffd}"),
            (b"\"\\ud83d\"", "\u{fffd}"),
            (b"\"\\ud83d \xff\"", "\u{fffd} \u{fffd}"),
            (b"\xef\xbb\xbf\"a\"", "a"),
            ("\"\u{e9}\\ud83d\\ude00\"".as_bytes(), "\u{e9}\u{1f600}"),
        ] {
            assert_eq!(read::<String>(bytes).expect("JSON"), expected, "{bytes:?}");
            assert_eq!(serde_json::from_str::<String>(&whole(bytes)).expect("JSON"), expected, "{bytes:?}");
        }
        assert!(read::<String>(b"\"a").is_err());
    }

    #[test]
    fn objects_and_lists() {
        let mut out = Vec::new();
        let mut object = Object::new(&mut out);
        object.string("a", "x\n");
        object.option("b", None::<&u8>);
        list(object.key("c"), [1, 2], |out, item| value(out, &item));
        object.end();
        assert_eq!(out, br#"{"a":"x\n","c":[1,2]}"#);
    }
}
