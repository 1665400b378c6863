//! The fields of a chat request beyond OpenAI's schema: `transcript`, and AssemblyAI's `fallbacks`, `fallback_config`,
//! `post_processing_steps`, `max_timeout` and `prompt`.
//!
//! Only reads them; the gateway acts on them.

use std::time::Duration;

use serde_json::Value;

use crate::gateway::Fallback;
use crate::gateway::transcript::Spec;
use crate::llm::{ChatRequest, Message, RequestError, Role};
use crate::types::JsonMap;

/// Maximum number of fallbacks of one request; AssemblyAI's gateway has the same limit.
const MAX_FALLBACKS: usize = 2;

/// The extensions of one request.
#[derive(Debug, Default)]
pub(super) struct Extensions {
    /// `transcript`: the turns that the request includes.
    pub(super) transcript: Option<Spec>,
    /// `fallbacks`, as many as `fallback_config.depth` allows.
    pub(super) fallbacks: Vec<Fallback>,
    /// True if `fallback_config.retry` is false: each candidate is then tried only once.
    pub(super) once: bool,
    /// True if `post_processing_steps` contains `json-repair`.
    pub(super) repair_json: bool,
    /// `max_timeout`: time limit of the whole request.
    pub(super) deadline: Option<Duration>,
}

impl Extensions {
    /// Removes the extensions from the request, so that no vendor receives them.
    ///
    /// # Errors
    /// The first field that is invalid.
    pub(super) fn take(request: &mut ChatRequest) -> Result<Self, RequestError> {
        let mut extensions = Self::default();
        if request.rest.is_empty() {
            return Ok(extensions);
        }
        let mut take = |name: &str| request.rest.shift_remove(name).filter(|value| !value.is_null());
        extensions.transcript = take("transcript").map(Spec::read).transpose()?;
        let (depth, once) = read_config(take("fallback_config"))?;
        extensions.once = once;
        extensions.fallbacks = read_fallbacks(take("fallbacks"), depth)?;
        extensions.repair_json = read_steps(take("post_processing_steps"))?;
        if extensions.repair_json && request.stream {
            let message = "a streamed answer cannot be repaired; leave out either \"stream\" or json-repair";
            return Err(RequestError::field("post_processing_steps", message));
        }
        if take("transcript_id").is_some() {
            let message = "this gateway has no transcripts of AssemblyAI; use \"transcript\" instead";
            return Err(RequestError::field("transcript_id", message));
        }
        extensions.deadline = match take("max_timeout") {
            None => None,
            Some(seconds) => {
                let seconds = seconds.as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
                let seconds = seconds.filter(|seconds| !seconds.is_zero());
                Some(
                    seconds
                        .ok_or_else(|| RequestError::field("max_timeout", "expected a number of seconds above 0"))?,
                )
            }
        };
        let prompt = take("prompt");
        if let Some(prompt) = prompt.as_ref().and_then(Value::as_str)
            && request.messages.is_empty()
        {
            request.messages.push(Message::text(Role::User, prompt));
        }
        Ok(extensions)
    }
}

/// Number of fallbacks that are used, and whether each candidate is tried only once.
fn read_config(value: Option<Value>) -> Result<(usize, bool), RequestError> {
    let config = match value {
        None => return Ok((MAX_FALLBACKS, false)),
        Some(Value::Object(config)) => config,
        Some(other) => {
            let message = format!("expected {{\"depth\":1 or 2,\"retry\":true or false}}, found {other}");
            return Err(RequestError::field("fallback_config", message));
        }
    };
    let given = |name: &str| config.get(name).filter(|value| !value.is_null());
    let depth = match given("depth") {
        None => MAX_FALLBACKS,
        Some(depth) => depth
            .as_u64()
            .and_then(|depth| usize::try_from(depth).ok())
            .filter(|depth| (1..=MAX_FALLBACKS).contains(depth))
            .ok_or_else(|| RequestError::field("fallback_config.depth", format!("expected 1 or 2, found {depth}")))?,
    };
    let once = match given("retry") {
        None | Some(Value::Bool(true)) => false,
        Some(Value::Bool(false)) => true,
        Some(other) => {
            let message = format!("expected true or false, found {other}");
            return Err(RequestError::field("fallback_config.retry", message));
        }
    };
    Ok((depth, once))
}

fn read_fallbacks(value: Option<Value>, depth: usize) -> Result<Vec<Fallback>, RequestError> {
    let Some(value) = value else { return Ok(Vec::new()) };
    let Value::Array(items) = value else {
        return Err(RequestError::field("fallbacks", "expected a list of {\"model\":…}"));
    };
    items
        .into_iter()
        .take(depth)
        .enumerate()
        .map(|(position, item)| {
            let (model, overrides) = match item {
                Value::String(model) => (Some(model), JsonMap::new()),
                Value::Object(mut overrides) => {
                    let model = overrides.shift_remove("model");
                    (model.and_then(|model| model.as_str().map(str::to_owned)), overrides)
                }
                _ => (None, JsonMap::new()),
            };
            let model = model.ok_or_else(|| {
                RequestError::field(format!("fallbacks[{position}].model"), "expected a model's name")
            })?;
            Ok(Fallback { model, overrides })
        })
        .collect()
}

fn read_steps(value: Option<Value>) -> Result<bool, RequestError> {
    let Some(value) = value else { return Ok(false) };
    let kinds: Option<Vec<&str>> =
        value.as_array().and_then(|steps| steps.iter().map(|step| step.get("type")?.as_str()).collect());
    match kinds {
        Some(kinds) if kinds.iter().all(|kind| *kind == "json-repair") => Ok(!kinds.is_empty()),
        _ => Err(RequestError::field("post_processing_steps", "expected a list of {\"type\":\"json-repair\"}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn take(body: &Value) -> Result<(Extensions, ChatRequest), RequestError> {
        let (mut request, _) = ChatRequest::from_json(body.to_string().as_bytes()).expect("request");
        Extensions::take(&mut request).map(|extensions| (extensions, request))
    }

    #[test]
    fn extensions_are_taken_out_of_the_request() {
        let body = json!({
            "messages":[{"role":"user","content":"a"}], "temperature":0.1, "top_k":5,
            "transcript":{"text":"x"}, "post_processing_steps":[{"type":"json-repair"}], "max_timeout":1.5,
            "fallbacks":[{"model":"b","temperature":0.9,"messages":[{"role":"user","content":"c"}]},"d","e"],
            "fallback_config":{"depth":2,"retry":true}});
        let (extensions, request) = take(&body).expect("extensions");
        assert_eq!(request.rest.keys().collect::<Vec<_>>(), ["top_k"]);
        assert!(extensions.repair_json && !extensions.once);
        assert_eq!(extensions.deadline, Some(Duration::from_millis(1500)));
        assert_eq!(extensions.fallbacks.len(), 2);
        let names: Vec<&str> = extensions.fallbacks.iter().map(|fallback| fallback.model.as_str()).collect();
        assert_eq!(names, ["b", "d"]);
        let keys: Vec<&str> = extensions.fallbacks[0].overrides.keys().map(String::as_str).collect();
        assert_eq!(keys, ["temperature", "messages"]);
    }

    #[test]
    fn invalid_extension_is_named() {
        for (extra, param) in [
            (json!({"fallback_config":{"depth":3}}), "fallback_config.depth"),
            (json!({"fallback_config":{"retry":"no"}}), "fallback_config.retry"),
            (json!({"fallback_config":2}), "fallback_config"),
            (json!({"post_processing_steps":[{"type":"json-repair"}],"stream":true}), "post_processing_steps"),
            (json!({"transcript":{"text":"x","window":{"turns":1}}}), "transcript.window"),
            (json!({"fallbacks":[{"temperature":1}]}), "fallbacks[0].model"),
            (json!({"post_processing_steps":[{"type":"x"}]}), "post_processing_steps"),
            (json!({"transcript":{"text":"x","render":"y"}}), "transcript.render"),
            (json!({"transcript_id":"t"}), "transcript_id"),
        ] {
            let mut body = json!({"messages":[]});
            for (key, value) in extra.as_object().expect("object") {
                body[key] = value.clone();
            }
            assert_eq!(take(&body).expect_err("wrong").param.as_deref(), Some(param));
        }
    }
}
