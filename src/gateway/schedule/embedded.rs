//! Asks the embedded provider.
//!
//! Knows no candidate: it always answers, or says why it cannot.

use std::sync::Arc;

use crate::gateway::code::Code;
use crate::gateway::error::GatewayError;
use crate::gateway::request::Request;
use crate::llm::ChatResponse;
use crate::llm::local::{self, LocalError};
use crate::types::provider::LOCAL;

/// Asks the embedded provider on a blocking thread, off the runtime's own threads.
pub(super) fn ask(request: &Request) -> impl Future<Output = Result<ChatResponse, GatewayError>> + use<> {
    let (analysis, method, parts) = (request.origin.analysis.clone(), request.local, request.parts.clone());
    let (chat, transcript) = (request.chat.clone(), request.transcript.clone());
    async move {
        let unsupported = |error: LocalError| GatewayError::new(Code::Unsupported, error.to_string());
        if let (Some(analysis), None, []) = (analysis, method, &parts[..]) {
            return Err(unsupported(LocalError::Unsupported(format!("analysis {analysis:?}"))));
        }
        let answered = tokio::task::spawn_blocking(move || {
            let transcript = transcript.map(|make| make());
            if parts.is_empty() {
                return local::answer(method, &chat, transcript.as_deref());
            }
            let parts: Vec<_> = parts.iter().map(|part| (part.member.as_str(), part.local)).collect();
            local::answer_parts(&parts, &chat, transcript.as_deref())
        });
        match answered.await {
            Ok(answer) => answer.map_err(unsupported),
            Err(_) => Err(GatewayError::new(Code::UpstreamError, "the embedded provider failed").temporarily()),
        }
    }
}

/// The name of the embedded endpoint and of its model.
pub(super) fn name() -> Arc<str> {
    Arc::from(LOCAL)
}
