//! JSON Lines: one document per line, with LF or CRLF line ends. Empty lines are skipped.
//!
//! Does not look into the documents.

use super::FramingError;

/// Longest line that is accepted, in bytes.
const MAX_LINE_BYTES: usize = 4 * 1024 * 1024;

/// Splits bytes into lines. Feed it with [`Parser::push`], then call [`Parser::next`] until it returns `None`.
#[derive(Debug, Default)]
pub(super) struct Parser {
    buffer: Vec<u8>,
    /// Number of bytes of `buffer` that were returned already.
    read: usize,
    /// Number of bytes after `read` that were already searched for a line end.
    searched: usize,
}

impl Parser {
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), FramingError> {
        if self.read > 0 {
            self.buffer.drain(..self.read);
            self.read = 0;
        }
        if self.buffer.len() + bytes.len() > MAX_LINE_BYTES + 64 * 1024 {
            return Err(FramingError::TooLong(MAX_LINE_BYTES));
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// The next complete line that is not empty; `None` if its end has not arrived.
    pub(super) fn next(&mut self) -> Option<&[u8]> {
        loop {
            let from = self.read + self.searched;
            let Some(found) = self.buffer[from..].iter().position(|byte| *byte == b'\n') else {
                self.searched = self.buffer.len() - self.read;
                return None;
            };
            let (start, end) = (self.read, from + found);
            self.read = end + 1;
            self.searched = 0;
            if !self.buffer[start..end].trim_ascii().is_empty() {
                return Some(self.buffer[start..end].trim_ascii());
            }
        }
    }

    /// Must be called at the end of the stream. Returns the last line if it has no line end.
    pub(super) fn finish(&mut self) -> Option<&[u8]> {
        let start = std::mem::replace(&mut self.read, self.buffer.len());
        self.searched = 0;
        Some(self.buffer[start..].trim_ascii()).filter(|line| !line.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_the_same_however_they_are_split() {
        let stream = b"{\"a\":1}\r\n\n  \n{\"b\":\"\xc3\xa4\"}\n{\"done\":true}";
        for cut in 0..=stream.len() {
            let mut parser = Parser::default();
            let mut lines: Vec<Vec<u8>> = Vec::new();
            for part in [&stream[..cut], &stream[cut..]] {
                parser.push(part).expect("short");
                while let Some(line) = parser.next() {
                    lines.push(line.to_vec());
                }
            }
            lines.extend(parser.finish().map(<[u8]>::to_vec));
            assert_eq!(parser.finish(), None);
            let expected: [&[u8]; 3] = [b"{\"a\":1}", b"{\"b\":\"\xc3\xa4\"}", b"{\"done\":true}"];
            assert_eq!(lines, expected, "cut at {cut}");
        }
    }

    #[test]
    fn line_without_end_is_refused() {
        let mut parser = Parser::default();
        let block = vec![b'x'; 1024 * 1024];
        assert!((0..6).any(|_| parser.push(&block).is_err()));
    }
}
