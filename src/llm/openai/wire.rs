//! The members of OpenAI's answers and chunks, under all the names that its imitators give them.
//!
//! Does not know the order of chunks: `decode` puts a stream together.

use serde::Deserialize;
use serde_json::{Value, json};

use super::text::WireText;
use crate::llm::{StreamError, Usage, complete, failure, lenient};

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct WireAnswer {
    #[serde(deserialize_with = "lenient::text")]
    pub(super) id: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    pub(super) request_id: Option<String>,
    #[serde(deserialize_with = "lenient::count")]
    pub(super) created: Option<u64>,
    #[serde(deserialize_with = "lenient::text")]
    pub(super) model: Option<String>,
    #[serde(deserialize_with = "lenient::list")]
    pub(super) choices: Vec<WireChoice>,
    #[serde(deserialize_with = "lenient::object")]
    pub(super) usage: Option<WireUsage>,
    #[serde(deserialize_with = "lenient::error")]
    pub(super) error: Option<Value>,
    pub(super) system_fingerprint: Option<Value>,
    pub(super) service_tier: Option<Value>,
    /// Groq's field for the usage, besides OpenAI's.
    #[serde(deserialize_with = "lenient::object")]
    pub(super) x_groq: Option<WireGroq>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct WireGroq {
    #[serde(deserialize_with = "lenient::object")]
    pub(super) usage: Option<WireUsage>,
}

impl WireAnswer {
    pub(super) fn take_usage(&mut self) -> Option<Usage> {
        let beside = self.x_groq.take().and_then(|groq| groq.usage);
        self.usage.take().or(beside).map(WireUsage::into_usage)
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct WireChoice {
    #[serde(deserialize_with = "lenient::count")]
    pub(super) index: Option<u32>,
    #[serde(deserialize_with = "lenient::object")]
    pub(super) message: Option<WireMessage>,
    #[serde(deserialize_with = "lenient::object")]
    pub(super) delta: Option<WireMessage>,
    /// AssemblyAI's reference places them here.
    #[serde(deserialize_with = "lenient::list")]
    pub(super) tool_calls: Vec<WireToolCall>,
    #[serde(deserialize_with = "lenient::text")]
    pub(super) finish_reason: Option<String>,
    /// OpenRouter's field: the finish reason of the vendor behind it.
    #[serde(deserialize_with = "lenient::text")]
    pub(super) native_finish_reason: Option<String>,
    pub(super) logprobs: Option<Value>,
    /// OpenRouter's field: the error of a model behind it that broke off.
    #[serde(deserialize_with = "lenient::error")]
    pub(super) error: Option<Value>,
}

impl WireChoice {
    /// The error that ended this answer, if there is one.
    pub(super) fn broken(&mut self) -> Option<StreamError> {
        let error = self.error.take().map(|error| StreamError::Vendor(in_band(error)));
        // The finish reason of the model behind a router may report a failure that the router's own does not.
        error.or_else(|| complete::reason(self.native_finish_reason.as_deref(), None).err())
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct WireMessage {
    pub(super) content: Option<WireText>,
    #[serde(deserialize_with = "lenient::text")]
    pub(super) refusal: Option<String>,
    pub(super) reasoning_content: Option<WireText>,
    /// The name at OpenRouter and Groq; newer vLLM versions send both.
    pub(super) reasoning: Option<WireText>,
    /// AssemblyAI's name.
    pub(super) thinking: Option<WireText>,
    #[serde(deserialize_with = "lenient::list")]
    pub(super) tool_calls: Vec<WireToolCall>,
    /// OpenAI's older form, from before tools: a single call.
    #[serde(deserialize_with = "lenient::object")]
    pub(super) function_call: Option<WireFunction>,
    pub(super) annotations: Option<Value>,
    pub(super) audio: Option<Value>,
    /// OpenRouter's signed thinking, which the client must send back.
    pub(super) reasoning_details: Option<Value>,
}

impl WireMessage {
    /// Takes the thinking, under any of its names, and the text.
    pub(super) fn take_texts(&mut self) -> (Option<String>, Option<String>) {
        let names = [self.reasoning_content.take(), self.reasoning.take(), self.thinking.take()];
        let thinking = names.into_iter().flatten().filter_map(WireText::thoughts).next();
        match self.content.take().map(WireText::split) {
            None => (thinking, None),
            Some((within, text)) => (thinking.or(within), text),
        }
    }

    /// Takes the tool calls: those of the message, the additional ones of its choice, or else a call in the older form.
    pub(super) fn take_calls(&mut self, beside: Vec<WireToolCall>) -> Vec<WireToolCall> {
        let mut calls = std::mem::take(&mut self.tool_calls);
        let others: Vec<WireToolCall> = beside.into_iter().filter(|call| !calls.contains(call)).collect();
        calls.extend(others);
        if calls.is_empty() {
            let call = |function| WireToolCall { index: Some(0), function: Some(function), ..WireToolCall::default() };
            calls.extend(self.function_call.take().map(call));
        }
        calls
    }
}

#[derive(Deserialize, Default, PartialEq)]
#[serde(default)]
pub(super) struct WireToolCall {
    #[serde(deserialize_with = "lenient::count")]
    pub(super) index: Option<u64>,
    #[serde(deserialize_with = "lenient::text")]
    pub(super) id: Option<String>,
    #[serde(deserialize_with = "lenient::object")]
    pub(super) function: Option<WireFunction>,
    pub(super) extra_content: Option<Value>,
}

impl WireToolCall {
    pub(super) fn says_nothing(&self) -> bool {
        let empty = |text: &Option<String>| text.as_deref().unwrap_or_default().trim().is_empty();
        let function = self.function.as_ref();
        function.is_none_or(|function| empty(&function.name) && empty(&function.arguments))
    }
}

#[derive(Deserialize, Default, PartialEq)]
#[serde(default)]
pub(super) struct WireFunction {
    #[serde(deserialize_with = "lenient::text")]
    pub(super) name: Option<String>,
    /// JSON as text, or (from Ollama's older servers) the object itself.
    #[serde(deserialize_with = "lenient::arguments")]
    pub(super) arguments: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct WireUsage {
    #[serde(deserialize_with = "lenient::tokens")]
    pub(super) prompt_tokens: Option<u64>,
    #[serde(deserialize_with = "lenient::tokens")]
    pub(super) completion_tokens: Option<u64>,
    #[serde(deserialize_with = "lenient::tokens")]
    pub(super) input_tokens: Option<u64>,
    #[serde(deserialize_with = "lenient::tokens")]
    pub(super) output_tokens: Option<u64>,
    #[serde(deserialize_with = "lenient::object")]
    pub(super) prompt_tokens_details: Option<PromptDetails>,
    #[serde(deserialize_with = "lenient::object")]
    pub(super) completion_tokens_details: Option<CompletionDetails>,
    /// DeepSeek's name for the cached tokens.
    #[serde(deserialize_with = "lenient::tokens")]
    pub(super) prompt_cache_hit_tokens: Option<u64>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct PromptDetails {
    #[serde(deserialize_with = "lenient::tokens")]
    pub(super) cached_tokens: Option<u64>,
    #[serde(deserialize_with = "lenient::tokens")]
    pub(super) cache_write_tokens: Option<u64>,
    /// AssemblyAI's names for the tokens that Anthropic wrote to its cache.
    #[serde(deserialize_with = "lenient::object")]
    pub(super) cache_creation: Option<CacheCreation>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct CacheCreation {
    #[serde(deserialize_with = "lenient::tokens")]
    pub(super) ephemeral_5m_input_tokens: Option<u64>,
    #[serde(deserialize_with = "lenient::tokens")]
    pub(super) ephemeral_1h_input_tokens: Option<u64>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct CompletionDetails {
    #[serde(deserialize_with = "lenient::tokens")]
    pub(super) reasoning_tokens: Option<u64>,
}

impl WireUsage {
    /// OpenAI's prompt tokens include the cached ones, and its completion tokens include the reasoning.
    pub(super) fn into_usage(self) -> Usage {
        let prompt = self.prompt_tokens_details;
        let written = prompt.as_ref().and_then(|details| {
            let created = details.cache_creation.as_ref().and_then(|created| {
                let parts = [created.ephemeral_5m_input_tokens, created.ephemeral_1h_input_tokens];
                parts.into_iter().flatten().reduce(u64::saturating_add)
            });
            details.cache_write_tokens.or(created)
        });
        Usage {
            input: self.prompt_tokens.or(self.input_tokens),
            cached: prompt.and_then(|details| details.cached_tokens).or(self.prompt_cache_hit_tokens),
            cache_write: written,
            output: self.completion_tokens.or(self.output_tokens),
            reasoning: self.completion_tokens_details.and_then(|details| details.reasoning_tokens),
        }
    }
}

/// An error object inside a 200. Its `code` or `status` is the status that it stands for, if that is an error status.
pub(super) fn in_band(error: Value) -> failure::VendorError {
    let status = ["code", "status"].iter().find_map(|key| lenient::count_of(error.get(key)?));
    let named = ["type", "code"].iter().find_map(|key| match error.get(key)?.as_str()? {
        "rate_limit_error" | "rate_limit_exceeded" | "insufficient_quota" => Some(429),
        "invalid_request_error" => Some(400),
        _ => None,
    });
    let status = status.and_then(|code| u16::try_from(code).ok()).filter(|code| (400..600).contains(code));
    failure::read_value(status.or(named).unwrap_or(500), &json!({ "error": error }))
}
