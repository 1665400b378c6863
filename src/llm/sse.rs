//! Parses server-sent events from bytes, however they are split: the event stream format of the HTML standard, as far
//! as LLM vendors use it (`event`, `data`, comments; LF, CRLF or CR line ends).
//!
//! Does not know the meaning of the data.

/// Longest event that is accepted, in bytes. No LLM's stream has longer events.
pub const MAX_EVENT_BYTES: usize = 4 * 1024 * 1024;

/// An event longer than [`MAX_EVENT_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of more than {MAX_EVENT_BYTES} bytes (answer_event_bytes)")]
pub struct TooLong;

/// Splits a byte stream into events. Feed it with [`Parser::push`], then call [`Parser::next`] until it returns `None`.
#[derive(Debug, Default)]
pub struct Parser {
    buffer: Vec<u8>,
    /// Number of bytes of `buffer` that are parsed already.
    read: usize,
    /// Number of bytes after `read` that were already searched for a line end.
    searched: usize,
    event: String,
    data: Vec<u8>,
    has_data: bool,
    /// Set if the event was returned: the next call begins a new one.
    lent: bool,
    /// Set if the last line ended in CR: an LF right after it belongs to the same line end.
    after_cr: bool,
    /// Set once a line was parsed: a byte order mark is removed only before the first line.
    begun: bool,
}

/// One event: its name (empty if it has none) and its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// The `event:` field.
    pub name: &'a str,
    /// The `data:` lines, joined by line breaks. They may not be UTF-8; the caller must check that.
    pub data: &'a [u8],
}

impl Parser {
    /// Adds bytes.
    ///
    /// # Errors
    /// An unfinished event and `bytes` together are over the limit, with a tolerance of 64 KiB.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        if self.read > 0 {
            self.buffer.drain(..self.read);
            self.read = 0;
        }
        if self.buffer.len() + self.data.len() + bytes.len() > MAX_EVENT_BYTES + 64 * 1024 {
            return Err(TooLong);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// The next complete event; `None` if its end has not arrived.
    #[expect(clippy::should_implement_trait, reason = "an iterator cannot return a borrow from itself")]
    pub fn next(&mut self) -> Option<Event<'_>> {
        self.advance().then_some(())?;
        Some(Event { name: &self.event, data: &self.data })
    }

    /// Must be called at the end of the stream. Returns a last event without its closing empty line, which some servers
    /// leave out.
    pub fn finish(&mut self) -> Option<Event<'_>> {
        if self.buffer.len() > self.read {
            self.buffer.push(b'\n');
        }
        if self.advance() {
            return Some(Event { name: &self.event, data: &self.data });
        }
        let rest = std::mem::take(&mut self.has_data);
        self.lent = true;
        rest.then_some(Event { name: &self.event, data: &self.data })
    }

    fn advance(&mut self) -> bool {
        if std::mem::take(&mut self.lent) {
            self.data.clear();
            self.event.clear();
        }
        loop {
            let from = self.read + self.searched;
            let Some(found) = self.buffer[from..].iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
                self.searched = self.buffer.len() - self.read;
                return false;
            };
            let start = self.read;
            let end = from + found;
            let ended_by = self.buffer[end];
            self.read = end + 1;
            self.searched = 0;
            let ghost = self.after_cr && ended_by == b'\n' && end == start;
            self.after_cr = ended_by == b'\r';
            if ghost {
                continue;
            }
            if end == start {
                if std::mem::take(&mut self.has_data) {
                    self.lent = true;
                    return true;
                }
                self.event.clear();
                continue;
            }
            self.line(start, end);
        }
    }

    fn line(&mut self, start: usize, end: usize) {
        let mut line = &self.buffer[start..end];
        if !std::mem::replace(&mut self.begun, true) {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        let (field, value) = match line.iter().position(|byte| *byte == b':') {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &line[line.len()..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => {
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(value);
                self.has_data = true;
            }
            b"event" => {
                self.event.clear();
                self.event.push_str(&String::from_utf8_lossy(value));
            }
            // Comments (an empty field name), `id` and `retry` are not needed here.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::testing::kept;

    fn events(parts: &[&[u8]]) -> Vec<(String, String)> {
        let mut parser = Parser::default();
        let mut found = Vec::new();
        for part in parts {
            parser.push(part).expect("short");
            while let Some(event) = parser.next() {
                found.push((event.name.to_owned(), String::from_utf8(event.data.to_vec()).expect("UTF-8")));
            }
        }
        if let Some(event) = parser.finish() {
            found.push((event.name.to_owned(), String::from_utf8(event.data.to_vec()).expect("UTF-8")));
        }
        found
    }

    const STREAM: &str = ": hello\n\nevent: a\ndata: {\"x\":\"ä\u{1f600}\"}\n\ndata:1\ndata: 2\r\n\r\ndata: [DONE]\n\n";

    #[test]
    fn names_data_comments_and_line_ends() {
        let found = events(&[STREAM.as_bytes()]);
        let expected =
            [("a", "{\"x\":\"ä\u{1f600}\"}"), ("", "1\n2"), ("", "[DONE]")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(found, expected);
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_line() {
        let found = events(&[b"\xef\xbb", b"\xbfdata: x\n\n\xef\xbb\xbfdata: y\n\ndata: z\n\n"]);
        assert_eq!(found, [("".into(), "x".into()), ("".into(), "z".into())]);
    }

    #[test]
    fn an_event_without_its_empty_line_is_found_at_the_end() {
        assert_eq!(events(&[b"data: x\n\ndata: y"]), [("".into(), "x".into()), ("".into(), "y".into())]);
        assert_eq!(events(&[b"data: y\n"]), [("".into(), "y".into())]);
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let mut parser = Parser::default();
        let block = vec![b'x'; 1024 * 1024];
        let refused = (0..6).any(|_| parser.push(&block).is_err());
        assert!(refused);
    }

    #[test]
    fn one_cut_anywhere_changes_nothing() {
        let bytes = STREAM.as_bytes();
        for cut in 0..=bytes.len() {
            assert_eq!(events(&[&bytes[..cut], &bytes[cut..]]), events(&[bytes]), "cut at {cut}");
        }
    }

    proptest! {
        #![proptest_config(kept())]

        #[test]
        fn cutting_changes_nothing(cuts in proptest::collection::vec(0..STREAM.len(), 0..12)) {
            let bytes = STREAM.as_bytes();
            let mut cuts = cuts;
            cuts.sort_unstable();
            let mut parts = Vec::new();
            let mut from = 0;
            for cut in cuts {
                parts.push(&bytes[from..cut]);
                from = cut;
            }
            parts.push(&bytes[from..]);
            prop_assert_eq!(events(&parts), events(&[bytes]));
        }
    }
}
