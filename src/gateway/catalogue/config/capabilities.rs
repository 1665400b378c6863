//! `[endpoints.NAME] capabilities`: what models can and cannot do, if the vendor's list does not say it or is wrong.

use super::values::read_day;
use crate::base::settings::Section;
use crate::llm::models::Traits;

/// Reads `capabilities = [{model, tools, json_schema, vision, reasoning, parallel_tools, stream, context_length,
/// max_output_tokens, cache_floor_tokens, cache_ttl_ms, retires}]`.
pub(in crate::gateway) fn read_capabilities(section: &mut Section<'_>) -> Vec<(String, Traits)> {
    let mut all = Vec::new();
    for (path, table) in section.tables("capabilities").unwrap_or_default() {
        let mut entry = Section::new(path, Some(table), section.problems());
        let model = entry.string("model");
        if model.is_none() && !entry.has("model") {
            entry.problem("model", "missing; expected a vendor's model id, or \"*\" for all");
        }
        let traits = Traits {
            tools: entry.boolean("tools"),
            json_schema: entry.boolean("json_schema"),
            vision: entry.boolean("vision"),
            reasoning: entry.boolean("reasoning"),
            parallel_tools: entry.boolean("parallel_tools"),
            stream: entry.boolean("stream"),
            context_length: entry.integer("context_length", 1..=1_000_000_000),
            max_output_tokens: entry.integer("max_output_tokens", 1..=1_000_000_000),
            cache_floor_tokens: entry.integer("cache_floor_tokens", 0..=1_000_000_000),
            cache_ttl_ms: entry.integer("cache_ttl_ms", 0..=86_400_000),
            retires_ms: read_day(&mut entry, "retires"),
            parameters: None,
        };
        entry.finish();
        if let Some(model) = model {
            all.push((model, traits));
        }
    }
    all
}
