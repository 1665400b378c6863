//! An attempt past its commit point, whole or streamed.

use super::record::AttemptRecord;
use super::start::Start;
use super::stream::AttemptStream;
use crate::llm::ChatResponse;

/// An attempt past its commit point, with its record.
pub(in crate::gateway) enum Opened {
    /// A whole answer.
    Whole(Box<ChatResponse>, Box<AttemptRecord>),
    /// A stream whose first token has arrived; it holds its record.
    Stream(Box<AttemptStream>),
}

impl Opened {
    pub(in crate::gateway) fn new(start: Start, record: Box<AttemptRecord>) -> Self {
        match start {
            Start::Whole(response) => Self::Whole(response, record),
            Start::Stream(mut stream) => {
                stream.record = Some(record);
                Self::Stream(stream)
            }
        }
    }
}
