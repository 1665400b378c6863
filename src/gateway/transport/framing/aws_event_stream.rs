//! AWS event streams (`application/vnd.amazon.eventstream`): binary messages with headers, a payload and two checksums.
//!
//! Does not look into payloads. A message is
//! `total length (4) | headers length (4) | CRC-32 of both (4) | headers | payload | CRC-32 of everything before (4)`,
//! all numbers big-endian; a header is `name length (1) | name | type (1) | value`.

use super::FramingError;
use crate::llm::sse::Event;

/// Longest message that is accepted, in bytes. No LLM's stream has longer messages.
const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// Size of a message's prelude: two lengths and their checksum, bytes.
const PRELUDE_BYTES: usize = 12;
/// The checksum at the end.
const CRC_BYTES: usize = 4;

/// Splits bytes into events. Feed it with [`Parser::push`], then call [`Parser::next`] until it returns `None`.
#[derive(Debug, Default)]
pub(super) struct Parser {
    buffer: Vec<u8>,
    /// Number of bytes of `buffer` that were returned already.
    read: usize,
    name: String,
    data: Vec<u8>,
}

/// What the headers of a message say about it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Kind<'a> {
    message: Option<&'a str>,
    event: Option<&'a str>,
    exception: Option<&'a str>,
    error_code: Option<&'a str>,
    error_message: Option<&'a str>,
}

impl Parser {
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), FramingError> {
        if self.read > 0 {
            self.buffer.drain(..self.read);
            self.read = 0;
        }
        if self.buffer.len() + bytes.len() > MAX_MESSAGE_BYTES + 64 * 1024 {
            return Err(FramingError::TooLong(MAX_MESSAGE_BYTES));
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// The next complete event; `None` if its end has not arrived.
    ///
    /// # Errors
    /// The bytes are not a message, or a checksum is wrong; the stream cannot be read any further.
    pub(super) fn next(&mut self) -> Result<Option<Event<'_>>, FramingError> {
        let rest = &self.buffer[self.read..];
        let Some((prelude, _)) = rest.split_at_checked(PRELUDE_BYTES) else { return Ok(None) };
        // Checked before the lengths are used: a wrong length would make us wait for bytes that never come.
        if crc32fast::hash(&prelude[..8]) != number(&prelude[8..]) {
            return Err(FramingError::Checksum);
        }
        let (total, headers) = (length(prelude), length(&prelude[4..]));
        if total > MAX_MESSAGE_BYTES {
            return Err(FramingError::TooLong(MAX_MESSAGE_BYTES));
        }
        let payload_from = PRELUDE_BYTES.saturating_add(headers);
        let Some(payload_to) = total.checked_sub(CRC_BYTES).filter(|payload_to| *payload_to >= payload_from) else {
            return Err(FramingError::Malformed("the lengths of a message contradict each other"));
        };
        let Some((message, _)) = rest.split_at_checked(total) else { return Ok(None) };
        if crc32fast::hash(&message[..payload_to]) != number(&message[payload_to..]) {
            return Err(FramingError::Checksum);
        }
        let kind = read_headers(&message[PRELUDE_BYTES..payload_from])?;
        let payload = &message[payload_from..payload_to];
        self.data.clear();
        let name = match kind.message {
            Some("error") => {
                let said = kind.error_message.unwrap_or_default();
                self.data.extend_from_slice(serde_json::json!({ "message": said }).to_string().as_bytes());
                kind.error_code
            }
            Some("exception") => {
                self.data.extend_from_slice(payload);
                kind.exception
            }
            _ => {
                self.data.extend_from_slice(payload);
                kind.event
            }
        };
        self.name.clear();
        self.name.push_str(name.unwrap_or_default());
        self.read += total;
        Ok(Some(Event { name: &self.name, data: &self.data }))
    }

    /// Must be called at the end of the stream.
    ///
    /// # Errors
    /// The stream ended within a message.
    pub(super) fn finish(&self) -> Result<(), FramingError> {
        if self.read < self.buffer.len() {
            return Err(FramingError::Malformed("the stream ended within a message"));
        }
        Ok(())
    }
}

/// A big-endian number of four bytes.
fn number(bytes: &[u8]) -> u32 {
    bytes.iter().take(4).fold(0, |number, byte| number << 8 | u32::from(*byte))
}

fn length(bytes: &[u8]) -> usize {
    usize::try_from(number(bytes)).unwrap_or(usize::MAX)
}

/// Reads the headers of a message; those that are not needed are skipped.
fn read_headers(mut rest: &[u8]) -> Result<Kind<'_>, FramingError> {
    let mut kind = Kind::default();
    while !rest.is_empty() {
        let (name_length, after) = take(rest, 1)?;
        let (name, after) = take(after, usize::from(name_length[0]))?;
        let (value_type, after) = take(after, 1)?;
        let size = match value_type[0] {
            // true, false
            0 | 1 => 0,
            // byte, short, int, long
            2 => 1,
            3 => 2,
            4 => 4,
            5 => 8,
            // bytes and text, after their length
            6 | 7 => {
                let (size, _) = take(after, 2)?;
                2 + usize::from(u16::from_be_bytes([size[0], size[1]]))
            }
            // timestamp, UUID
            8 => 8,
            9 => 16,
            _ => return Err(FramingError::Malformed("a header has an unknown type")),
        };
        let (value, after) = take(after, size)?;
        rest = after;
        let text = (value_type[0] == 7).then(|| std::str::from_utf8(&value[2..]).ok()).flatten();
        match name {
            b":message-type" => kind.message = text,
            b":event-type" => kind.event = text,
            b":exception-type" => kind.exception = text,
            b":error-code" => kind.error_code = text,
            b":error-message" => kind.error_message = text,
            _ => {}
        }
    }
    Ok(kind)
}

fn take(bytes: &[u8], count: usize) -> Result<(&[u8], &[u8]), FramingError> {
    bytes.split_at_checked(count).ok_or(FramingError::Malformed("a header is incomplete"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::testing::kept;

    /// Messages of AWS's published test vectors, with their contents.
    const EMPTY: &[u8] = b"\x00\x00\x00\x10\x00\x00\x00\x00\x05\xc2H\xeb}\x98\xc8\xff";
    const EVENT: &[u8] = b"\x00\x00\x00~\x00\x00\x00O\xc5\xa3\xdd\xc6\r:message-type\x07\x00\x05event\
        \x0b:event-type\x07\x00\x10initial-response\r:content-type\x07\x00\ttext/json\
        {\"InitialResponse\": \"sometext\"}\xf6\x98$\x83";
    const ALL_TYPES: &[u8] = b"\x00\x00\x00\x62\x00\x00\x00\x52\x03\xb5\xcb\x9c\x010\x00\x011\x01\x012\x02\x02\
        \x013\x03\x00\x03\x014\x04\x00\x00\x00\x04\x015\x05\x00\x00\x00\x00\x00\x00\x00\x05\
        \x016\x06\x00\x05bytes\x017\x07\x00\x04utf8\x018\x08\x00\x00\x00\x00\x00\x00\x00\x08\
        \x019\x090123456789abcdef\x63\x35\x36\x71";
    const ERROR: &[u8] = b"\x00\x00\x00\x52\x00\x00\x00\x42\xbf\x23\x63\x7e\x0d:message-type\x07\x00\x05error\
        \x0b:error-code\x07\x00\x04code\x0e:error-message\x07\x00\x07message\x6b\x6c\xea\x3d";
    /// Both checksums are right, the lengths are not.
    const WRONG_LENGTHS: &[u8] = b"\x00\x00\x00\x3d\xff\x00\x01\x02\x15\x83\xf5\xc2\x0ccontent-type\x07\x00\x10\
        application/json{'foo':'bar'}\x2f\x37\x7f\x5d";

    /// An event as Bedrock's ConverseStream sends it.
    fn message(kind: &str, type_header: &str, name: &str, payload: &[u8]) -> Vec<u8> {
        let mut headers = Vec::new();
        for (name, value) in [(":message-type", kind), (type_header, name), (":content-type", "application/json")] {
            headers.push(u8::try_from(name.len()).expect("short"));
            headers.extend_from_slice(name.as_bytes());
            headers.push(7);
            headers.extend_from_slice(&u16::try_from(value.len()).expect("short").to_be_bytes());
            headers.extend_from_slice(value.as_bytes());
        }
        let total = u32::try_from(PRELUDE_BYTES + headers.len() + payload.len() + CRC_BYTES).expect("short");
        let mut whole = total.to_be_bytes().to_vec();
        whole.extend_from_slice(&u32::try_from(headers.len()).expect("short").to_be_bytes());
        whole.extend_from_slice(&crc32fast::hash(&whole).to_be_bytes());
        whole.extend_from_slice(&headers);
        whole.extend_from_slice(payload);
        whole.extend_from_slice(&crc32fast::hash(&whole).to_be_bytes());
        whole
    }

    /// The events of a stream that arrives in these parts.
    fn events(parts: &[&[u8]]) -> Result<Vec<(String, String)>, FramingError> {
        let mut parser = Parser::default();
        let mut found = Vec::new();
        for part in parts {
            parser.push(part)?;
            while let Some(event) = parser.next()? {
                found.push((event.name.to_owned(), String::from_utf8_lossy(event.data).into_owned()));
            }
        }
        parser.finish()?;
        Ok(found)
    }

    fn event(name: &str, data: &str) -> (String, String) {
        (name.to_owned(), data.to_owned())
    }

    #[test]
    fn published_messages_are_read() {
        for (whole, expected) in [
            (EMPTY, event("", "")),
            (EVENT, event("initial-response", "{\"InitialResponse\": \"sometext\"}")),
            (ALL_TYPES, event("", "")),
            (ERROR, event("code", "{\"message\":\"message\"}")),
        ] {
            assert_eq!(events(&[whole]), Ok(vec![expected]));
        }
    }

    #[test]
    fn vendor_exception_has_its_type_as_name() {
        let text = "{\"message\":\"Too many requests\"}";
        let whole = message("exception", ":exception-type", "throttlingException", text.as_bytes());
        assert_eq!(events(&[&whole]), Ok(vec![event("throttlingException", text)]));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        for position in 0..EVENT.len() {
            for bit in 0..8 {
                let mut whole = EVENT.to_vec();
                whole[position] ^= 1 << bit;
                assert_eq!(events(&[&whole]), Err(FramingError::Checksum), "bit {bit} of byte {position}");
            }
        }
    }

    #[test]
    fn lengths_that_contradict_each_other_are_refused() {
        assert!(matches!(events(&[WRONG_LENGTHS]), Err(FramingError::Malformed(_))));
        let cut = &EVENT[..EVENT.len() - 1];
        assert!(matches!(events(&[cut]), Err(FramingError::Malformed(_))));
    }

    #[test]
    fn message_over_the_limit_is_refused_before_it_arrives() {
        let mut prelude = u32::try_from(MAX_MESSAGE_BYTES + 1).expect("short").to_be_bytes().to_vec();
        prelude.extend_from_slice(&[0; 4]);
        prelude.extend_from_slice(&crc32fast::hash(&prelude).to_be_bytes());
        assert_eq!(events(&[&prelude]), Err(FramingError::TooLong(MAX_MESSAGE_BYTES)));
    }

    proptest! {
        #![proptest_config(kept())]

        #[test]
        fn events_are_the_same_however_they_are_split(mut cuts in proptest::collection::vec(0_usize..700, 0..12)) {
            let payload = "{\"delta\":{\"text\":\"ä\"}}".as_bytes();
            let delta = message("event", ":event-type", "contentBlockDelta", payload);
            let stream = [EVENT, &delta, EMPTY, ERROR, &delta].concat();
            cuts.iter_mut().for_each(|cut| *cut = (*cut).min(stream.len()));
            cuts.sort_unstable();
            let (mut parts, mut from) = (Vec::new(), 0);
            for cut in cuts {
                parts.push(&stream[from..cut]);
                from = cut;
            }
            parts.push(&stream[from..]);
            prop_assert_eq!(events(&parts), events(&[&stream]));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = events(&[&bytes]);
        }
    }
}
