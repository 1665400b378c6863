//! Framing: splits the bytes of a stream into events, in the way that the vendor's wire format names.
//!
//! Knows no vendor and no meaning of an event. To add a framing, add one file here, a variant of [`Framing`], and its
//! two lines below.

mod aws_event_stream;
mod json_lines;

use crate::llm::Framing;
use crate::llm::form::{self, Form};
use crate::llm::sse::{self, Event};

/// Why the bytes of a stream cannot be split into events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// An event is longer than the limit, bytes.
    #[error("an event of more than {0} bytes")]
    TooLong(usize),
    /// A checksum does not match.
    #[error("a checksum of the stream does not match")]
    Checksum,
    /// The bytes are not in this framing.
    #[error("{0}")]
    Malformed(&'static str),
}

/// Splits a stream into events. Feed it with [`Parser::push`], then call [`Parser::next`] until it returns `None`.
#[derive(Debug)]
pub struct Parser(Kind);

#[derive(Debug)]
enum Kind {
    Sse(sse::Parser),
    AwsEventStream(aws_event_stream::Parser),
    JsonLines(json_lines::Parser),
}

impl Parser {
    /// A parser for a new stream.
    pub fn new(framing: Framing) -> Self {
        Self(match framing {
            Framing::Sse => Kind::Sse(sse::Parser::default()),
            Framing::AwsEventStream => Kind::AwsEventStream(aws_event_stream::Parser::default()),
            Framing::JsonLines => Kind::JsonLines(json_lines::Parser::default()),
        })
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// [`FramingError::TooLong`].
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), FramingError> {
        match &mut self.0 {
            Kind::Sse(parser) => parser.push(bytes).map_err(|_| FramingError::TooLong(sse::MAX_EVENT_BYTES)),
            Kind::AwsEventStream(parser) => parser.push(bytes),
            Kind::JsonLines(parser) => parser.push(bytes),
        }
    }

    /// The next complete event; `None` if its end has not arrived.
    ///
    /// # Errors
    /// See [`FramingError`]; the stream cannot be read any further.
    #[expect(clippy::should_implement_trait, reason = "an iterator cannot return a borrow from itself")]
    pub fn next(&mut self) -> Result<Option<Event<'_>>, FramingError> {
        match &mut self.0 {
            Kind::Sse(parser) => Ok(parser.next()),
            Kind::AwsEventStream(parser) => parser.next(),
            Kind::JsonLines(parser) => Ok(parser.next().map(|data| Event { name: "", data })),
        }
    }

    /// The last event, if its end is missing but it is known to be complete. Must be called at the end of the stream.
    ///
    /// # Errors
    /// The stream ended within an event.
    pub fn finish(&mut self) -> Result<Option<Event<'_>>, FramingError> {
        match &mut self.0 {
            Kind::Sse(parser) => Ok(parser.finish()),
            Kind::AwsEventStream(parser) => parser.finish().map(|()| None),
            Kind::JsonLines(parser) => Ok(parser.finish().map(|data| Event { name: "", data })),
        }
    }
}

/// Returns true if the media type is that of a stream in this framing.
pub fn is_stream(framing: Framing, media_type: &str) -> bool {
    let known: &[&str] = match framing {
        Framing::Sse => &["text/event-stream"],
        Framing::AwsEventStream => &["application/vnd.amazon.eventstream"],
        Framing::JsonLines => &["application/x-ndjson", "application/jsonl", "application/stream+json"],
    };
    known.iter().any(|known| media_type.eq_ignore_ascii_case(known))
}

/// Number of bytes before the content of a body that begins with `head`.
pub fn blank(framing: Framing, head: &[u8]) -> usize {
    match framing {
        Framing::Sse | Framing::JsonLines => form::blank(head),
        // Binary: every byte counts.
        Framing::AwsEventStream => 0,
    }
}

/// The form of a body that begins with `head`, after its [`blank`] bytes; `None` if more bytes are needed. `stream`: the
/// media type is that of a stream. Only server-sent events are recognised by their bytes too, because many servers send
/// them with a wrong media type.
pub fn form(framing: Framing, head: &[u8], stream: bool) -> Option<Form> {
    match framing {
        Framing::Sse => form::of(head, stream),
        Framing::AwsEventStream | Framing::JsonLines => Some(if stream { Form::Events } else { Form::Document }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(framing: Framing, stream: &[u8]) -> Vec<(String, Vec<u8>)> {
        let mut parser = Parser::new(framing);
        parser.push(stream).expect("short");
        let mut found = Vec::new();
        while let Some(event) = parser.next().expect("an event") {
            found.push((event.name.to_owned(), event.data.to_vec()));
        }
        found
            .extend(parser.finish().expect("a whole stream").map(|event| (event.name.to_owned(), event.data.to_vec())));
        found
    }

    #[test]
    fn each_framing_yields_the_same_kind_of_events() {
        let expected = [(String::new(), b"{\"a\":1}".to_vec()), (String::new(), b"{\"b\":2}".to_vec())];
        assert_eq!(events(Framing::Sse, b"data: {\"a\":1}\n\ndata: {\"b\":2}"), expected);
        assert_eq!(events(Framing::JsonLines, b"{\"a\":1}\n{\"b\":2}"), expected);
        assert_eq!(
            events(Framing::AwsEventStream, b"\x00\x00\x00\x1d\x00\x00\x00\x00\xfdR\x8cZ{'foo':'bar'}\xc3e96"),
            [(String::new(), b"{'foo':'bar'}".to_vec())]
        );
    }

    #[test]
    fn media_type_decides_except_for_server_sent_events() {
        assert!(is_stream(Framing::AwsEventStream, "Application/vnd.amazon.eventstream"));
        assert!(!is_stream(Framing::AwsEventStream, "application/json"));
        assert_eq!(form(Framing::Sse, b"data: {}", false), Some(Form::Events));
        assert_eq!(form(Framing::JsonLines, b"{\"a\":1}", true), Some(Form::Events));
        assert_eq!(form(Framing::JsonLines, b"{\"error\":1}", false), Some(Form::Document));
        assert_eq!(form(Framing::AwsEventStream, b"\x00\x00", true), Some(Form::Events));
        assert_eq!((blank(Framing::Sse, b" \n{"), blank(Framing::AwsEventStream, b" \n{")), (2, 0));
    }
}
