//! `LLMGatewayResponse`: the form in which the client gets answers, insights and errors of the daemon.
//!
//! Knows no socket. No frame here has a top-level `error` key, which the vendor's JavaScript client would take for the
//! end of the session.

use serde_json::{Value, json};

use crate::base::ws::Utf8Bytes;
use crate::protocol::FailureCode;
use crate::session::command::{Failed, Replied};
use crate::types::MAX_FRAME_BYTES;

/// `LLMGatewayResponse` in the format that both of the vendor's packages deliver to their user. If it exceeds the frame
/// limit, it becomes a failure with an empty transcript.
pub(super) fn response(turn_order: i64, transcript: &str, data: &Value) -> Utf8Bytes {
    let frame = |transcript: &str, data: &Value| {
        json!({"type": "LLMGatewayResponse", "turn_order": turn_order, "transcript": transcript, "data": data})
            .to_string()
    };
    let mut text = frame(transcript, data);
    if text.len() > MAX_FRAME_BYTES {
        let message = format!("the answer and its turn have {} bytes, more than a frame may have", text.len());
        let failed = Failed { code: FailureCode::AnswerTooLarge, message, temporary: false };
        text = frame("", &failure(&failed));
    }
    Utf8Bytes::from(text)
}

/// The `data` of a failed answer.
pub(super) fn failure(failed: &Failed) -> Value {
    let Failed { code, message, temporary } = failed;
    json!({"failed": {"code": code.as_str(), "message": message, "temporary": temporary}})
}

/// The `data` of an answer: a chat completion that fits both the vendor's format and OpenAI's.
pub(super) fn answer(replied: &Replied) -> Value {
    // A count that the vendor did not report is unknown, not zero.
    let usage = replied.usage.input.zip(replied.usage.output).map(|(input, output)| {
        json!({
            "input_tokens": input, "output_tokens": output, "total_tokens": input.saturating_add(output),
            "prompt_tokens": input, "completion_tokens": output,
        })
    });
    let id = if replied.id.is_empty() { crate::types::id::random_suffix() } else { replied.id.clone() };
    json!({
        "id": id, "request_id": id, "object": "chat.completion", "model": replied.vendor_model,
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": replied.text},
            "finish_reason": replied.finish,
        }],
        "usage": usage,
        "sidetone": {
            "model": replied.model, "endpoint": replied.endpoint, "attempts": replied.attempts,
            "cost_usd": replied.cost_usd, "degraded": replied.degraded,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::TokenUsage;

    #[test]
    fn uncounted_tokens_are_null_and_not_zero() {
        let mut replied = Replied {
            text: "yes".to_owned(),
            id: String::new(),
            finish: "stop",
            model: "m".into(),
            endpoint: "e".into(),
            vendor_model: "v".into(),
            attempts: 1,
            usage: TokenUsage { input: Some(3), cached: None, output: Some(2) },
            cost_usd: None,
            degraded: false,
        };
        let data = answer(&replied);
        assert_eq!((&data["usage"]["total_tokens"], &data["id"]), (&json!(5), &data["request_id"]));
        assert!(data["id"].as_str().is_some_and(|id| !id.is_empty()));
        replied.usage = TokenUsage::default();
        assert_eq!(answer(&replied)["usage"], Value::Null);
    }

    #[test]
    fn nothing_injected_has_a_top_level_error() {
        let failed = Failed { code: FailureCode::Timeout, message: "late".to_owned(), temporary: true };
        let frame: Value = serde_json::from_str(&response(1, "x", &failure(&failed))).expect("JSON");
        assert!(frame.get("error").is_none() && frame["data"]["failed"]["code"] == "timeout");
    }

    #[test]
    fn answer_over_the_limit_of_a_frame_is_a_failure() {
        let frame: Value = serde_json::from_str(&response(1, &"x".repeat(MAX_FRAME_BYTES), &json!({}))).expect("JSON");
        assert_eq!((&frame["transcript"], &frame["data"]["failed"]["code"]), (&json!(""), &json!("answer_too_large")));
    }
}
