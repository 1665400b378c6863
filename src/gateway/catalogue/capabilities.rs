//! Adapts a request to a model's capabilities before the model is asked. A missing capability is replaced if that does
//! not change the answer; otherwise the candidate is skipped, with the reason. Nothing is left out silently.
//!
//! JSON schemas are not checked here, because every model can be made to follow one (see
//! `EndpointModel::schema_modes`).

use std::borrow::Cow;

use super::endpoint::EndpointModel;
use crate::llm::models::Traits;
use crate::llm::{ChatRequest, Content};

/// Lower bound: no tokenizer packs more than 8 bytes into one token (runs of one character aside).
const BYTES_PER_TOKEN: u64 = 8;

/// The request, adapted to the model.
///
/// # Errors
/// What the model lacks, and which setting overrides that.
pub(in crate::gateway) fn adapt<'a>(
    remote: &EndpointModel,
    request: &'a ChatRequest,
) -> Result<Cow<'a, ChatRequest>, String> {
    adapt_to(&remote.traits(), request).map_err(|lacks| {
        let (endpoint, model) = (&remote.endpoint.name, &remote.vendor_model);
        format!("{endpoint}/{model} {lacks} (according to the vendor's list, or to endpoints.{endpoint}.capabilities)")
    })
}

fn adapt_to<'a>(traits: &Traits, request: &'a ChatRequest) -> Result<Cow<'a, ChatRequest>, String> {
    let no = |what: &str| Err(format!("does not support {what}"));
    if traits.tools == Some(false) && !request.tools.is_empty() {
        return no("tools");
    }
    if traits.vision == Some(false) && has_image(request) {
        return no("images");
    }
    let effort = request.reasoning_effort.as_deref();
    if traits.reasoning == Some(false) && effort.is_some_and(|effort| effort != "none") {
        return no("reasoning_effort");
    }
    if let (Some(most), Some(asked)) = (traits.max_output_tokens, request.max_tokens)
        && asked > most
    {
        return Err(format!("can answer with at most {most} tokens, but {asked} are requested"));
    }
    if let Some(most) = traits.context_length {
        let least = prompt_bytes(request) / BYTES_PER_TOKEN;
        if least > most {
            return Err(format!("has a context of {most} tokens, but the prompt has more than {least}"));
        }
    }
    let mut adapted = Cow::Borrowed(request);
    let listed = |name: &str| traits.parameters.as_ref().is_none_or(|known| known.iter().any(|known| known == name));
    if request.parallel_tool_calls.is_some() && (traits.parallel_tools == Some(false) || !listed("parallel_tool_calls"))
    {
        // The model never makes two calls at once, which suits either value; or only the first call is passed on (see
        // `attempt::context`).
        adapted.to_mut().parallel_tool_calls = None;
    }
    if traits.reasoning == Some(false) && effort.is_some() {
        adapted.to_mut().reasoning_effort = None;
    }
    if traits.stream == Some(false) && request.stream {
        // The answer is requested whole and passed on in pieces.
        adapted.to_mut().stream = false;
    }
    if let Some(name) = sent(&adapted).find(|name| !listed(name)) {
        return Err(format!("does not accept {name}"));
    }
    Ok(adapted)
}

/// The fields of the request that change its answer and that vendors' parameter lists name.
fn sent(request: &ChatRequest) -> impl Iterator<Item = &'static str> {
    let given = |name: &str| request.rest.contains_key(name);
    [
        ("temperature", request.temperature.is_some()),
        ("top_p", request.top_p.is_some()),
        ("top_k", given("top_k")),
        ("stop", !request.stop.is_empty()),
        ("seed", request.seed.is_some()),
        ("presence_penalty", request.presence_penalty.is_some_and(|penalty| penalty != 0.0)),
        ("frequency_penalty", request.frequency_penalty.is_some_and(|penalty| penalty != 0.0)),
        ("logit_bias", given("logit_bias")),
        ("logprobs", given("logprobs")),
    ]
    .into_iter()
    .filter_map(|(name, there)| there.then_some(name))
}

fn has_image(request: &ChatRequest) -> bool {
    request.messages.iter().any(|message| match &message.content {
        Content::Parts(parts) => parts.iter().any(|part| part.get("image_url").is_some()),
        _ => false,
    })
}

/// Counts text only: how many tokens an image takes differs by vendor.
fn prompt_bytes(request: &ChatRequest) -> u64 {
    let text = |part: &serde_json::Value| part.get("text").and_then(|text| text.as_str()).map_or(0, str::len);
    let bytes = request.messages.iter().map(|message| match &message.content {
        content @ (Content::Text(_) | Content::Blocks(_)) => {
            content.segments().map(|segment| segment.len()).sum::<usize>()
        }
        Content::Parts(parts) => parts.iter().map(text).sum(),
        Content::None => 0,
    });
    bytes.sum::<usize>() as u64
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(body: serde_json::Value) -> ChatRequest {
        let mut whole = json!({"model":"m","messages":[{"role":"user","content":"hello, hello, hello"}]});
        for (key, value) in body.as_object().expect("object") {
            whole[key] = value.clone();
        }
        ChatRequest::from_json(whole.to_string().as_bytes()).expect("request").0
    }

    #[test]
    fn missing_capability_is_named() {
        let none = Traits {
            tools: Some(false),
            vision: Some(false),
            reasoning: Some(false),
            context_length: Some(100),
            max_output_tokens: Some(50),
            parameters: Some(vec!["temperature".into()]),
            ..Traits::default()
        };
        let image = json!([{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://x/y.png"}}]}]);
        for (body, lacks) in [
            (json!({"tools":[{"type":"function","function":{"name":"f"}}]}), "does not support tools"),
            (json!({"messages":image}), "does not support images"),
            (json!({"reasoning_effort":"low"}), "does not support reasoning_effort"),
            (json!({"max_tokens":51}), "can answer with at most 50 tokens, but 51 are requested"),
            (
                json!({"messages":[{"role":"user","content":"x".repeat(808)}]}),
                "has a context of 100 tokens, but the prompt has more than 101",
            ),
            (json!({"stop":["x"]}), "does not accept stop"),
        ] {
            assert_eq!(adapt_to(&none, &request(body.clone())).map(|_| ()), Err(lacks.to_owned()), "{body}");
            assert!(adapt_to(&Traits::default(), &request(body)).is_ok(), "unknown is not no");
        }
        assert!(adapt_to(&none, &request(json!({"temperature":0.5,"max_tokens":50}))).is_ok());
    }

    #[test]
    fn missing_capability_is_replaced_where_the_answer_stays_the_same() {
        let lacking = Traits {
            parallel_tools: Some(false),
            reasoning: Some(false),
            stream: Some(false),
            parameters: Some(vec!["tools".into()]),
            ..Traits::default()
        };
        let asked = request(json!({"parallel_tool_calls":false,"reasoning_effort":"none","stream":true}));
        let adapted = adapt_to(&lacking, &asked).expect("fits");
        assert_eq!(
            (adapted.parallel_tool_calls, adapted.reasoning_effort.as_deref(), adapted.stream),
            (None, None, false)
        );
        assert!(matches!(adapt_to(&lacking, &request(json!({}))), Ok(Cow::Borrowed(_))));
        let unlisted = Traits { parallel_tools: None, ..lacking };
        assert_eq!(adapt_to(&unlisted, &asked).expect("fits").parallel_tool_calls, None);
        assert_eq!(adapt_to(&Traits::default(), &asked).expect("fits").parallel_tool_calls, Some(false));
    }
}
