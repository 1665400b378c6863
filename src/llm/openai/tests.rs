//! Requests in OpenAI's format as vendors receive them, and chunks as clients receive them.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::llm::{Marks, Message, ResponseFormat, Role};

fn body(provider: &OpenAi, request: &ChatRequest, mode: SchemaMode) -> Value {
    let call = Call { model: "m", stream: true, schema_mode: mode, api_version: None, marks: Marks::default() };
    let wire = provider.encode(request, &call).expect("encodes");
    serde_json::from_slice(&wire.body).expect("JSON")
}

#[test]
fn a_client_request_goes_through_unchanged() {
    let sent = json!({
        "model":"m",
        "messages":[
            {"role":"developer","content":"be\nbrief"},
            {"role":"user","content":[{"type":"text","text":"hi"}],"name":"ann"},
            {"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"},"extra_content":{"google":{"thought_signature":"x"}}}]},
            {"role":"tool","content":"1","tool_call_id":"c"}],
        "stream":true,"stream_options":{"include_usage":true},
        "temperature":0.5,"top_p":1.0,"max_completion_tokens":5,"stop":["x"],"n":2,"seed":-1,
        "tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object"},"strict":true}},{"type":"custom","custom":{}}],
        "tool_choice":{"type":"function","function":{"name":"f"}},"parallel_tool_calls":false,
        "response_format":{"type":"json_schema","json_schema":{"name":"s","schema":{"type":"object"},"strict":true}},
        "reasoning_effort":"low","user":"u","service_tier":"flex","metadata":{"a":"b"}});
    let (request, model) = ChatRequest::from_json(sent.to_string().as_bytes()).expect("request");
    assert_eq!(model.as_deref(), Some("m"));
    assert_eq!(body(&OpenAi { extras: true, ..OPENAI }, &request, SchemaMode::JsonSchema), sent);
    // A field for another vendor, which OpenAI refuses.
    let mut strict = sent;
    if let Some(Value::Object(call)) = strict.pointer_mut("/messages/2/tool_calls/0") {
        call.remove("extra_content");
    }
    assert_eq!(body(&OPENAI, &request, SchemaMode::JsonSchema), strict);
}

#[test]
fn thinking_has_one_name_in_a_stream_as_in_a_whole_answer() {
    let as_it_is = |delta: &str| {
        let data = format!(
            r#"{{"id":"x","object":"chat.completion.chunk","created":1,"model":"m","choices":[{{"index":0,"delta":{delta},"finish_reason":null}}]}}"#
        );
        let (mut decoder, mut out) = (OPENAI.stream(), Vec::new());
        decoder.decode(crate::llm::sse::Event { name: "", data: data.as_bytes() }, &mut out).expect("chunk");
        assert_eq!(out.last(), Some(&crate::llm::Piece::Reasoning { choice: 0, text: "hm".into() }));
        decoder.as_openai(data.as_bytes())
    };
    assert!(!as_it_is(r#"{"reasoning":"hm"}"#), "no client looks for it there");
    assert!(as_it_is(r#"{"reasoning":"hm","reasoning_content":"hm"}"#));
    assert!(as_it_is(r#"{"reasoning":"hm","reasoning_details":[{"type":"reasoning.text","text":"hm"}]}"#));
}

#[test]
fn schemas_are_emulated_where_the_vendor_has_no_mode() {
    let mut request = ChatRequest {
        messages: vec![Message::text(Role::System, "rules"), Message::text(Role::User, "go")],
        response_format: Some(ResponseFormat::JsonSchema {
            name: "s".into(),
            schema: Arc::new(json!({"type":"object"})),
            strict: true,
        }),
        ..ChatRequest::default()
    };
    let sent = body(&COMPATIBLE, &request, SchemaMode::JsonObject);
    assert_eq!(sent["response_format"], json!({"type":"json_object","schema":{"type":"object"}}));
    let system = sent["messages"][0]["content"].as_str().expect("text");
    assert!(system.starts_with("rules\n\nAnswer with one JSON value"), "{system}");
    assert_eq!(sent["messages"].as_array().map(Vec::len), Some(2));
    request.messages.remove(0);
    let sent = body(&COMPATIBLE, &request, SchemaMode::Prompt);
    assert_eq!(sent.get("response_format"), None);
    assert_eq!(sent["messages"][0]["role"], "system");
    assert_eq!(sent["messages"][1]["content"], "go");
}

#[test]
fn wrong_fields_are_named() {
    for (body, param) in [
        (r#"{"messages":[{"role":"user","content":5}]}"#, Some("messages[0].content")),
        (r#"{"messages":[{"role":"boss"}]}"#, Some("messages[0].role")),
        (r#"{"messages":[],"tools":[{}]}"#, Some("tools[0]")),
        (r#"{"messages":[],"temperature":"hot"}"#, Some("temperature")),
        (r#"{"messages":[]"#, None),
    ] {
        let error = ChatRequest::from_json(body.as_bytes()).expect_err(body);
        if let Some(param) = param {
            assert_eq!(error.param.as_deref(), Some(param), "{error}");
        }
    }
}
