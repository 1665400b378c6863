//! Splits a file's bytes into lines of text.
//!
//! Knows no format.

use std::borrow::Cow;

use super::{MAX_BYTES, MAX_LINE_BYTES, MAX_LINES, TranscriptError};

/// One line, without its line break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// Line number, from 1.
    pub number: usize,
    /// The line's text.
    pub text: &'a str,
}

impl Line<'_> {
    /// Returns true if the line contains only white space.
    pub fn is_blank(&self) -> bool {
        self.text.trim().is_empty()
    }

    /// An error at byte `at` of this line.
    pub(super) fn fault(&self, at: usize, message: impl Into<String>) -> TranscriptError {
        let before = self.text.get(..at).unwrap_or(self.text);
        TranscriptError::new(self.number, before.chars().count() + 1, message)
    }
}

/// The text of a file: UTF-8, or UTF-16 with a byte order mark, which is removed.
///
/// # Errors
/// The file is too long, or the place where it is not text.
pub(super) fn decode(bytes: &[u8]) -> Result<Cow<'_, str>, TranscriptError> {
    if bytes.len() > MAX_BYTES {
        let message = format!("the file has {} bytes; at most {MAX_BYTES} are read (transcript_bytes)", bytes.len());
        return Err(TranscriptError::new(1, 1, message));
    }
    match bytes {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes).map(Cow::Owned),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes).map(Cow::Owned),
        _ => {
            let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
            std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|error| {
                let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
                no_text(&String::from_utf8_lossy(before))
            })
        }
    }
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String, TranscriptError> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let mut text = String::with_capacity(bytes.len());
    for character in char::decode_utf16(pairs.iter().map(|pair| unit(*pair))) {
        match character {
            Ok(character) => text.push(character),
            Err(_) => return Err(no_text(&text)),
        }
    }
    if rest.is_empty() { Ok(text) } else { Err(no_text(&text)) }
}

/// The error at the place after `before`.
fn no_text(before: &str) -> TranscriptError {
    let last = breaks(before).last();
    let number = breaks(before).count() + 1;
    let column = before.get(last.unwrap_or(0)..).unwrap_or_default().chars().count() + 1;
    TranscriptError::new(number, column, "not text; expected UTF-8, or UTF-16 with a byte order mark")
}

/// The offsets after the line breaks of a text.
fn breaks(text: &str) -> impl Iterator<Item = usize> {
    let bytes = text.as_bytes();
    let breaks = bytes.iter().enumerate().filter(|(at, byte)| match byte {
        b'\n' => true,
        b'\r' => bytes.get(at + 1) != Some(&b'\n'),
        _ => false,
    });
    breaks.map(|(at, _)| at + 1)
}

/// The lines of a text. Line breaks are LF, CRLF and CR.
///
/// # Errors
/// A limit that the text exceeds, or a character that does not occur in text.
pub(super) fn lines(text: &str) -> Result<Vec<Line<'_>>, TranscriptError> {
    let mut lines = Vec::new();
    let mut from = 0;
    for to in breaks(text).chain(std::iter::once(text.len())) {
        let whole = text.get(from..to).unwrap_or_default();
        let line = Line { number: lines.len() + 1, text: whole.trim_end_matches(['\n', '\r']) };
        from = to;
        if line.number > MAX_LINES {
            return Err(line.fault(0, format!("more than {MAX_LINES} lines (transcript_lines)")));
        }
        if line.text.len() > MAX_LINE_BYTES {
            let message = format!(
                "the line has {} bytes; at most {MAX_LINE_BYTES} are read (transcript_line_bytes)",
                line.text.len()
            );
            return Err(line.fault(0, message));
        }
        if let Some(at) = line.text.find('\0') {
            return Err(line.fault(at, "a NUL character; expected text: UTF-8, or UTF-16 with a byte order mark"));
        }
        lines.push(line);
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<&str> {
        lines(text).expect("lines").into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn every_kind_of_line_break_ends_a_line() {
        assert_eq!(texts("a\r\nb\rc\n\nd"), ["a", "b", "c", "", "d"]);
        assert_eq!(texts("a\n"), ["a", ""]);
        assert_eq!(texts("\r\r\n"), ["", "", ""]);
        assert_eq!(texts(""), [""]);
    }

    #[test]
    fn byte_order_marks_set_the_encoding_and_are_left_out() {
        let text = "Grüße 👋\n";
        let units = |bytes: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
        let le = [&[0xff, 0xfe][..], &units(u16::to_le_bytes)].concat();
        let be = [&[0xfe, 0xff][..], &units(u16::to_be_bytes)].concat();
        let marked = ["\u{feff}".as_bytes(), text.as_bytes()].concat();
        for bytes in [le, be, marked, text.as_bytes().to_vec()] {
            assert_eq!(decode(&bytes).expect("text"), text);
        }
    }

    #[test]
    fn what_is_no_text_is_an_error_with_its_place() {
        for (bytes, line, column) in [
            (&b"a\nbc\xff"[..], 2, 3),
            (b"\xe9t\xe9", 1, 1),
            // The first half of a surrogate pair alone, and an odd number of bytes.
            (&[0xff, 0xfe, b'a', 0, b'\r', 0, b'\n', 0, 0x3d, 0xd8], 2, 1),
            (&[0xff, 0xfe, b'a', 0, b'b'], 1, 2),
        ] {
            let error = decode(bytes).expect_err("no text");
            assert_eq!((error.line, error.column), (line, column), "{bytes:?}");
            assert!(error.message.contains("UTF-8"), "{error}");
        }
        let error = lines("a\nb\0").expect_err("binary");
        assert_eq!(
            error.to_string(),
            "line 2, column 2: a NUL character; expected text: UTF-8, or UTF-16 with a byte order mark"
        );
    }

    #[test]
    fn limits_are_named() {
        let named = |result: Result<(), TranscriptError>, name: &str| {
            let error = result.expect_err(name);
            assert!(error.message.contains(name), "{error}");
        };
        named(decode(&vec![b' '; MAX_BYTES + 1]).map(|_| ()), "transcript_bytes");
        named(lines(&"\n".repeat(MAX_LINES)).map(|_| ()), "transcript_lines");
        named(lines(&"x".repeat(MAX_LINE_BYTES + 1)).map(|_| ()), "transcript_line_bytes");
        assert!(lines(&"\n".repeat(MAX_LINES - 1)).is_ok());
    }
}
