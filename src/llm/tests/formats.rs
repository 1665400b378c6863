//! Answers and requests in the formats of all vendors, for the tests that check every provider. A provider with a format of
//! its own has an entry in [`FORMATS`].

use serde_json::{Value, json};

use crate::llm::Provider;

/// Calls as id and name, or results as id and content.
pub(in crate::llm) type Pairs = Vec<(String, String)>;

/// What the tests must know of a vendor's format.
pub(in crate::llm) struct Format {
    /// The provider's name; for OpenAI's format, of any provider that has it.
    provider: &'static str,
    /// Finish reason of an answer that is complete.
    pub(in crate::llm) stop: &'static str,
    /// Finish reason of an answer that reached the limit of tokens.
    pub(in crate::llm) length: &'static str,
    /// A whole answer, with a text or an empty one, this finish reason, and 3 prompt tokens.
    pub(in crate::llm) answer: fn(said: bool, finish: &Value) -> Value,
    /// A whole answer with two calls of `f`, which have these ids and the arguments `{"n":1}` and `{"n":2}`.
    pub(in crate::llm) two_calls: fn(&[Value; 2]) -> Value,
    /// The events of a stream that are one call of `f`: its number, its id, and `n` of its arguments.
    pub(in crate::llm) call: fn(index: &Value, id: &Value, n: u32) -> Vec<Value>,
    /// The calls and the results in the body of a request.
    pub(in crate::llm) sent: fn(body: &Value) -> (Pairs, Pairs),
}

/// All formats; OpenAI's is the last.
static FORMATS: [Format; 4] = [
    Format {
        provider: "anthropic",
        stop: "end_turn",
        length: "max_tokens",
        answer: |said, finish| {
            let content = if said { json!([{"type":"text","text":"x"}]) } else { json!([]) };
            json!({"type":"message","id":"i","model":"m","role":"assistant","content":content,"stop_reason":finish,
                "usage":{"input_tokens":3,"output_tokens":1}})
        },
        two_calls: |[first, second]| {
            json!({"type":"message","content":[
                {"type":"tool_use","id":first,"name":"f","input":{"n":1}},
                {"type":"tool_use","id":second,"name":"f","input":{"n":2}}],"stop_reason":"tool_use"})
        },
        call: |index, id, n| {
            vec![
                json!({"type":"content_block_start","index":index,
                    "content_block":{"type":"tool_use","id":id,"name":"f","input":{}}}),
                json!({"type":"content_block_delta","index":index,
                    "delta":{"type":"input_json_delta","partial_json":format!("{{\"n\":{n}}}")}}),
                json!({"type":"content_block_stop","index":index}),
            ]
        },
        sent: |body| {
            let (mut calls, mut results) = (Vec::new(), Vec::new());
            for block in items(&body["messages"]).iter().flat_map(|message| items(&message["content"])) {
                match block["type"].as_str() {
                    Some("tool_use") => calls.push((text(&block, "/id"), text(&block, "/name"))),
                    Some("tool_result") => results.push((text(&block, "/tool_use_id"), text(&block, "/content"))),
                    _ => {}
                }
            }
            (calls, results)
        },
    },
    Format {
        provider: "google",
        stop: "STOP",
        length: "MAX_TOKENS",
        answer: |said, finish| {
            json!({"candidates":[{"index":0,"content":{"role":"model","parts":[{"text":if said { "x" } else { "" }}]},
                "finishReason":finish}],"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":1}})
        },
        two_calls: |[first, second]| {
            json!({"candidates":[{"content":{"parts":[
                {"functionCall":{"id":first,"name":"f","args":{"n":1}}},
                {"functionCall":{"id":second,"name":"f","args":{"n":2}}}]},"finishReason":"STOP"}]})
        },
        call: |_, id, n| {
            let call = json!({"functionCall":{"id":id,"name":"f","args":{"n":n}}});
            vec![json!({"candidates":[{"index":0,"content":{"parts":[call]}}]})]
        },
        sent: |body| {
            let (mut calls, mut results) = (Vec::new(), Vec::new());
            for part in items(&body["contents"]).iter().flat_map(|content| items(&content["parts"])) {
                if part.get("functionCall").is_some() {
                    calls.push((text(&part, "/functionCall/id"), text(&part, "/functionCall/name")));
                } else if part.get("functionResponse").is_some() {
                    let (named, of) =
                        (text(&part, "/functionResponse/name"), text(&part, "/functionResponse/response/of"));
                    assert_eq!(named, of, "a result has the name of its call");
                    results.push((text(&part, "/functionResponse/id"), format!("{{\"of\":\"{of}\"}}")));
                }
            }
            (calls, results)
        },
    },
    Format {
        provider: "cohere",
        stop: "COMPLETE",
        length: "MAX_TOKENS",
        answer: |said, finish| {
            let content = if said { json!([{"type":"text","text":"x"}]) } else { json!([]) };
            json!({"id":"i","message":{"role":"assistant","content":content},"finish_reason":finish,
                "usage":{"tokens":{"input_tokens":3,"output_tokens":1}}})
        },
        two_calls: |[first, second]| {
            json!({"message":{"tool_calls":[
                {"id":first,"function":{"name":"f","arguments":"{\"n\":1}"}},
                {"id":second,"function":{"name":"f","arguments":{"n":2}}}]},"finish_reason":"TOOL_CALL"})
        },
        call: |index, id, n| {
            vec![
                json!({"type":"tool-call-start","index":index,"delta":{"message":{"tool_calls":
                    {"id":id,"type":"function","function":{"name":"f","arguments":""}}}}}),
                json!({"type":"tool-call-delta","index":index,"delta":{"message":{"tool_calls":
                    {"function":{"arguments":format!("{{\"n\":{n}}}")}}}}}),
            ]
        },
        sent: sent_in_messages,
    },
    Format {
        provider: "openai_compatible",
        stop: "stop",
        length: "length",
        answer: |said, finish| {
            let message = json!({"role":"assistant","content":if said { "x" } else { "" }});
            json!({"id":"i","object":"chat.completion","created":1,"model":"m",
                "choices":[{"index":0,"message":message,"finish_reason":finish}],
                "usage":{"prompt_tokens":3,"completion_tokens":1}})
        },
        two_calls: |[first, second]| {
            json!({"choices":[{"index":0,"finish_reason":"tool_calls","message":{"content":null,"tool_calls":[
                {"id":first,"function":{"name":"f","arguments":"{\"n\":1}"}},
                {"id":second,"index":0,"function":{"name":"f","arguments":{"n":2}}}]}}]})
        },
        call: |index, id, n| {
            let function = json!({"name":"f","arguments":format!("{{\"n\":{n}}}")});
            let call = json!({"index":index,"id":id,"type":"function","function":function});
            vec![json!({"id":"c","choices":[{"index":0,"delta":{"tool_calls":[call]}}]})]
        },
        sent: sent_in_messages,
    },
];

/// The format of a provider.
pub(in crate::llm) fn format_of(provider: &dyn Provider) -> &'static Format {
    let [.., openai] = &FORMATS;
    let own = FORMATS.iter().find(|format| format.provider == provider.name());
    assert!(own.is_some() || provider.speaks_openai(), "FORMATS has no entry for {}", provider.name());
    own.unwrap_or(openai)
}

/// Calls and results as OpenAI's format has them.
fn sent_in_messages(body: &Value) -> (Pairs, Pairs) {
    let (mut calls, mut results) = (Vec::new(), Vec::new());
    for message in items(&body["messages"]) {
        let made = items(&message["tool_calls"]);
        calls.extend(made.iter().map(|call| (text(call, "/id"), text(call, "/function/name"))));
        if message["role"] == "tool" {
            results.push((text(&message, "/tool_call_id"), text(&message, "/content")));
        }
    }
    (calls, results)
}

fn items(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

fn text(value: &Value, path: &str) -> String {
    let value = value.pointer(path).unwrap_or_else(|| panic!("{path} of {value}"));
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
