//! Sizes of values as JSON, computed without serializing them; and truncation of a text to a number of bytes.
//!
//! Knows no limits.

use std::io;

use serde::Serialize;

/// Maximum number of bytes that one byte of text takes in JSON: a control character is escaped as `\u0001`.
pub const WORST: usize = 6;

/// Size of a text as a JSON string, in bytes, without the quotes.
pub fn text(text: &str) -> usize {
    let size = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..0x20 => WORST,
        _ => 1,
    };
    text.bytes().map(size).sum()
}

/// Size of a text as a JSON string, in bytes without the quotes, if it exceeds `limit`. A text that is within the limit
/// even if every byte were escaped is not scanned.
pub fn over(text: &str, limit: usize) -> Option<usize> {
    if text.len().saturating_mul(WORST) <= limit {
        return None;
    }
    Some(self::text(text)).filter(|bytes| *bytes > limit)
}

/// Size of plain data as JSON, in bytes.
pub fn value<T: Serialize + ?Sized>(value: &T) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    let counted = serde_json::to_writer(&mut count, value);
    debug_assert!(counted.is_ok(), "plain data into a counter cannot fail");
    count.0
}

/// Truncates a text to at most `bytes`, at a character boundary.
pub fn cut(text: &mut String, bytes: usize) {
    text.truncate(text.floor_char_boundary(bytes));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_measured_as_it_is_written() {
        let every: String = (0..0x250).filter_map(char::from_u32).chain("はい, 🎈 \"\\".chars()).collect();
        for sample in ["", "plain", "\u{1}\u{1f}\u{7f}\"\\\n\t\r\u{8}\u{c}", &every] {
            let written = serde_json::to_string(sample).expect("text").len() - 2;
            assert_eq!((text(sample), value(sample)), (written, written + 2), "{sample:?}");
            assert_eq!(over(sample, written), None, "{sample:?}");
            if let Some(less) = written.checked_sub(1) {
                assert_eq!(over(sample, less), Some(written), "{sample:?}");
            }
        }
    }

    #[test]
    fn text_is_cut_between_characters() {
        for (bytes, left) in [(0, ""), (1, "a"), (2, "a"), (3, "aé"), (9, "aé")] {
            let mut text = "aé".to_owned();
            cut(&mut text, bytes);
            assert_eq!(text, left, "{bytes}");
        }
    }
}
