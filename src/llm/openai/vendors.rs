//! The vendors with OpenAI's format: one struct holds their differences, one value is one vendor.
//!
//! Knows no request. To add a vendor, add a value here, its line in `PROVIDERS`, and its fixtures.

use super::cache::Dialect;
use crate::llm::calls::IdRule;
use crate::llm::{AuthScheme, KeyHeader, SchemaMode};

/// The differences between OpenAI-compatible vendors.
#[derive(Debug)]
pub(in crate::llm) struct OpenAi {
    pub(super) name: &'static str,
    pub(super) base_url: Option<&'static str>,
    pub(super) auth: AuthScheme,
    /// Name of the token limit. OpenAI's reasoning models refuse the older name; most other vendors know only that one.
    pub(super) max_tokens: &'static str,
    /// Set if the role `developer` is known; otherwise it is sent as `system`.
    pub(super) developer: bool,
    /// Set if `stream_options` is known.
    pub(super) stream_options: bool,
    /// Set if there is a JSON mode without a schema; otherwise the prompt asks for JSON.
    pub(super) json_object: bool,
    /// Set if fields that other vendors put into an assistant's message (its thinking, signatures of its calls) may be
    /// sent back with it. Strict vendors refuse fields that they do not know.
    pub(super) extras: bool,
    /// Set if the effort is sent as `reasoning.effort`.
    pub(super) reasoning_object: bool,
    /// The name of `seed`.
    pub(super) seed: &'static str,
    /// Set if `user` is known.
    pub(super) user: bool,
    /// Set if a parameter may be sent that only repeats the default. Otherwise it is left out, because it is refused if
    /// a model does not list it.
    pub(super) defaults: bool,
    /// The rule for tool call ids that the vendor accepts; other ids are replaced by ones that follow it.
    pub(super) call_ids: IdRule,
    /// Features that the vendor is known to ignore silently: `n`, `tool_choice`, `logit_bias`.
    pub(super) ignores: &'static [&'static str],
    /// Set if the vendor's list of models is in AssemblyAI's form.
    pub(super) own_list: bool,
    /// How the vendor's prompt cache is addressed.
    pub(super) cache: Dialect,
    pub(super) schema_modes: &'static [SchemaMode],
}

/// At most 40 characters.
const SHORT_IDS: IdRule = IdRule { fits: |id| (1..=40).contains(&id.len()), length: 32 };
/// Nine letters and digits.
const NINE_IDS: IdRule =
    IdRule { fits: |id| id.len() == 9 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()), length: 9 };

const ALL_MODES: &[SchemaMode] = &[SchemaMode::JsonSchema, SchemaMode::JsonObject, SchemaMode::Prompt];

const BASE: OpenAi = OpenAi {
    name: "openai_compatible",
    base_url: None,
    auth: AuthScheme::Key(KeyHeader::BEARER),
    max_tokens: "max_tokens",
    developer: false,
    stream_options: true,
    json_object: true,
    extras: true,
    reasoning_object: false,
    seed: "seed",
    user: true,
    defaults: true,
    call_ids: SHORT_IDS,
    ignores: &[],
    own_list: false,
    cache: Dialect::None,
    schema_modes: ALL_MODES,
};

pub(in crate::llm) static OPENAI: OpenAi = OpenAi {
    name: "openai",
    base_url: Some("https://api.openai.com/v1"),
    max_tokens: "max_completion_tokens",
    developer: true,
    extras: false,
    cache: Dialect::OpenAi,
    ..BASE
};
pub(in crate::llm) static COMPATIBLE: OpenAi = BASE;
/// AssemblyAI's LLM Gateway. It refuses parameters that a model does not support, and documents no `json_object`.
pub(in crate::llm) static ASSEMBLYAI: OpenAi = OpenAi {
    name: "assemblyai",
    base_url: Some("https://llm-gateway.assemblyai.com/v1"),
    json_object: false,
    extras: false,
    reasoning_object: true,
    user: false,
    defaults: false,
    own_list: true,
    cache: Dialect::AssemblyAi,
    schema_modes: &[SchemaMode::JsonSchema, SchemaMode::Prompt],
    ..BASE
};
/// Azure's `v1` API: `https://RESOURCE.openai.azure.com/openai/v1`.
pub(in crate::llm) static AZURE: OpenAi = OpenAi {
    name: "azure",
    auth: AuthScheme::Key(KeyHeader::named("api-key")),
    max_tokens: "max_completion_tokens",
    developer: true,
    extras: false,
    ..BASE
};
pub(in crate::llm) static GROQ: OpenAi = OpenAi {
    name: "groq",
    base_url: Some("https://api.groq.com/openai/v1"),
    max_tokens: "max_completion_tokens",
    extras: false,
    ..BASE
};
/// llama.cpp's servers. The Python one answers 500 to `json_schema`; both constrain `json_object` with a schema.
pub(in crate::llm) static LLAMACPP: OpenAi = OpenAi {
    name: "llamacpp",
    base_url: Some("http://127.0.0.1:8080/v1"),
    schema_modes: &[SchemaMode::JsonObject, SchemaMode::Prompt],
    ..BASE
};
/// Mistral refuses fields that it does not know. Its last chunk contains the usage without being asked for it.
pub(in crate::llm) static MISTRAL: OpenAi = OpenAi {
    name: "mistral",
    base_url: Some("https://api.mistral.ai/v1"),
    stream_options: false,
    extras: false,
    seed: "random_seed",
    user: false,
    call_ids: NINE_IDS,
    ..BASE
};
/// Ollama silently ignores parameters that it does not know.
pub(in crate::llm) static OLLAMA: OpenAi = OpenAi {
    name: "ollama",
    base_url: Some("http://127.0.0.1:11434/v1"),
    ignores: &["n", "tool_choice", "logit_bias"],
    ..BASE
};
pub(in crate::llm) static OPENROUTER: OpenAi =
    OpenAi { name: "openrouter", base_url: Some("https://openrouter.ai/api/v1"), ..BASE };
pub(in crate::llm) static TOGETHER: OpenAi =
    OpenAi { name: "together", base_url: Some("https://api.together.xyz/v1"), ..BASE };
pub(in crate::llm) static VLLM: OpenAi = OpenAi { name: "vllm", base_url: Some("http://127.0.0.1:8000/v1"), ..BASE };
