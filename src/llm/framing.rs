//! How a vendor cuts a stream into events, as a name: the transport does it.

/// A framing of streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Server-sent events.
    Sse,
    /// AWS event streams, `application/vnd.amazon.eventstream`. An event's name is its `:event-type`, its
    /// `:exception-type` or its `:error-code`.
    AwsEventStream,
    /// One JSON document a line. Events have no name.
    JsonLines,
}
