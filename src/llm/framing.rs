//! Names how a vendor splits a stream into events. The transport does it.

/// A framing of streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Server-sent events.
    Sse,
    /// AWS event streams, `application/vnd.amazon.eventstream`. An event's name is its `:event-type`, its
    /// `:exception-type` or its `:error-code`.
    AwsEventStream,
    /// One JSON document per line. Events have no name.
    JsonLines,
}
