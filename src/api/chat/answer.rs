//! Writes whole completions as JSON: OpenAI's format, with AssemblyAI's fields beside it and the daemon's own fields in
//! `sidetone`.

use std::time::Duration;

use crate::gateway::Provenance;
use crate::llm::json::{self, Object};
use crate::llm::{ChatResponse, Choice, Usage};
use crate::types::id;

pub(super) fn whole(
    response: &ChatResponse,
    provenance: &Provenance,
    cost_usd: Option<f64>,
    took: Duration,
) -> Vec<u8> {
    let text: usize = response.choices.iter().filter_map(|choice| choice.text.as_ref()).map(String::len).sum();
    let mut out = Vec::with_capacity(1200 + text + text / 8);
    let mut object = Object::new(&mut out);
    let minted;
    let id = if response.id.is_empty() {
        minted = mint_id();
        &minted
    } else {
        &response.id
    };
    object.string("id", id);
    object.string("request_id", id);
    object.string("object", "chat.completion");
    object.value("created", &response.created.unwrap_or_else(unix_seconds));
    object.string("model", model_name(&response.model, provenance));
    json::list(object.key("choices"), &response.choices, write_choice);
    usage(object.key("usage"), response.usage);
    for (key, value) in &response.rest {
        object.other(key, value);
    }
    let mut request = Object::new(object.key("request"));
    request.string("model", &provenance.name);
    request.end();
    object.value("http_status_code", &200);
    object.value("llm_status_code", &200);
    object.value("response_time", &u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    sidetone(object.key("sidetone"), provenance, cost_usd);
    object.end();
    out
}

/// The model's name as the vendor gives it, or the configured name if the vendor gives none.
pub(super) fn model_name<'a>(vendor: &'a str, provenance: &'a Provenance) -> &'a str {
    if vendor.is_empty() { &provenance.model } else { vendor }
}

/// The current time, Unix seconds.
pub(super) fn unix_seconds() -> u64 {
    u64::try_from(crate::base::time::unix_ms() / 1000).unwrap_or(0)
}

/// Mints an id for an answer to which the vendor gave none.
pub(super) fn mint_id() -> String {
    format!("chatcmpl-{}", id::random_suffix())
}

/// Writes the `sidetone` object: which candidate answered, and how.
pub(super) fn sidetone(out: &mut Vec<u8>, provenance: &Provenance, cost_usd: Option<f64>) {
    let mut object = Object::new(out);
    object.string("route", &provenance.route);
    object.string("variant", &provenance.variant);
    object.string("model", &provenance.model);
    object.string("endpoint", &provenance.endpoint);
    object.value("attempts", &provenance.attempts);
    object.value("cost_usd", &cost_usd);
    object.end();
}

/// Writes the usage under OpenAI's and AssemblyAI's names, with all details; `null` if the vendor did not report it.
pub(super) fn usage(out: &mut Vec<u8>, usage: Usage) {
    let (Some(input), Some(output)) = (usage.input, usage.output) else {
        out.extend_from_slice(b"null");
        return;
    };
    let mut object = Object::new(out);
    for (name, tokens) in [
        ("prompt_tokens", input),
        ("input_tokens", input),
        ("completion_tokens", output),
        ("output_tokens", output),
        ("total_tokens", input.saturating_add(output)),
    ] {
        object.value(name, &tokens);
    }
    let written = usage.cache_write.unwrap_or(0);
    for name in ["prompt_tokens_details", "input_tokens_details"] {
        let mut details = Object::new(object.key(name));
        details.value("cached_tokens", &usage.cached.unwrap_or(0));
        details.value("cache_write_tokens", &written);
        details.key("audio_tokens").push(b'0');
        if name == "prompt_tokens_details" {
            let mut creation = Object::new(details.key("cache_creation"));
            creation.value("ephemeral_5m_input_tokens", &written);
            creation.key("ephemeral_1h_input_tokens").push(b'0');
            creation.end();
        }
        details.end();
    }
    for name in ["completion_tokens_details", "output_tokens_details"] {
        let mut details = Object::new(object.key(name));
        details.value("reasoning_tokens", &usage.reasoning.unwrap_or(0));
        // No vendor reports these, but OpenAI's clients expect the fields.
        for zero in ["audio_tokens", "accepted_prediction_tokens", "rejected_prediction_tokens"] {
            details.key(zero).push(b'0');
        }
        details.end();
    }
    object.end();
}

fn write_choice(out: &mut Vec<u8>, choice: &Choice) {
    let mut object = Object::new(out);
    object.value("index", &choice.index);
    let mut message = Object::new(object.key("message"));
    message.string("role", "assistant");
    message.value("content", &choice.text);
    message.value("refusal", &choice.refusal);
    if let Some(reasoning) = &choice.reasoning {
        message.string("reasoning_content", reasoning);
    }
    if !choice.tool_calls.is_empty() {
        json::list(message.key("tool_calls"), &choice.tool_calls, crate::llm::write_tool_call);
    }
    for (key, value) in &choice.rest {
        message.other(key, value);
    }
    message.end();
    object.value("logprobs", &choice.logprobs);
    object.value("finish_reason", &choice.finish.map_or("stop", crate::llm::Finish::as_str));
    object.end();
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::llm::{Finish, ToolCall};

    #[test]
    fn completion_has_the_fields_of_every_client() {
        let response = ChatResponse {
            id: "x".into(),
            created: Some(5),
            model: "v".into(),
            choices: vec![Choice {
                text: Some("hi".into()),
                tool_calls: vec![ToolCall {
                    id: "c".into(),
                    name: "f".into(),
                    arguments: "{}".into(),
                    ..ToolCall::default()
                }],
                finish: Some(Finish::ToolCalls),
                ..Choice::default()
            }],
            usage: Usage { input: Some(3), cached: Some(1), output: Some(2), ..Usage::default() },
            ..ChatResponse::default()
        };
        let provenance = Provenance {
            name: "r".into(),
            route: "r".into(),
            variant: "a".into(),
            model: "m".into(),
            endpoint: "e".into(),
            vendor_model: "v".into(),
            attempts: 1,
        };
        let body = whole(&response, &provenance, None, Duration::from_millis(1));
        let value: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!((&value["id"], &value["request_id"]), (&json!("x"), &json!("x")));
        assert_eq!(value["usage"]["total_tokens"], 5);
        assert_eq!(value["usage"]["input_tokens"], value["usage"]["prompt_tokens"]);
        assert_eq!(value["usage"]["prompt_tokens_details"]["cached_tokens"], 1);
        assert_eq!(value["choices"][0]["message"]["tool_calls"][0]["function"]["name"], "f");
        assert_eq!(value["choices"][0]["finish_reason"], "tool_calls");
        assert_eq!(
            value["sidetone"],
            json!({"route":"r","variant":"a","model":"m","endpoint":"e","attempts":1,"cost_usd":null})
        );
        let unknown = ChatResponse { usage: Usage::default(), ..response };
        let value: Value = serde_json::from_slice(&whole(&unknown, &provenance, None, Duration::ZERO)).expect("JSON");
        assert_eq!(value["usage"], Value::Null);
    }
}
