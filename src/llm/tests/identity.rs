//! Tool calls and their results, as they are encoded for every vendor and decoded from it.

use std::collections::HashSet;

use super::formats::format_of;
use super::*;

/// A conversation with answers of other models, which restart the numbering of their calls each time: the ids of each
/// answer's calls, in the order in which their results follow.
const ANSWERS: &[&[&str]] = &[
    &["call_0"],
    &["call_0", "call_0"],
    &["functions.find:0"],
    &["functions/find:0", ""],
    &["call_0~ts~sig", "AbCd12345"],
];

/// The conversation. Each function is named after its position.
fn conversation() -> Value {
    let mut messages = vec![json!({"role":"user","content":"go"})];
    for (at, ids) in ANSWERS.iter().enumerate() {
        let call = |(number, id): (usize, &&str)| json!({"id":id,"type":"function","function":{"name":format!("f_{at}_{number}"),"arguments":"{}"}});
        let calls: Vec<Value> = ids.iter().enumerate().map(call).collect();
        messages.push(json!({"role":"assistant","content":null,"tool_calls":calls}));
        for (number, id) in ids.iter().enumerate() {
            messages.push(json!({"role":"tool","tool_call_id":id,"content":format!("{{\"of\":\"f_{at}_{number}\"}}")}));
        }
    }
    json!({"model":"m","messages":messages})
}

#[test]
fn a_conversation_that_uses_ids_again_reaches_every_vendor_with_unique_ones() {
    let (request, _) = ChatRequest::from_json(conversation().to_string().as_bytes()).expect("request");
    request.check().expect("every result has its call");
    for provider in PROVIDERS {
        let name = provider.name();
        let call = Call {
            model: "m",
            stream: false,
            schema_mode: SchemaMode::Prompt,
            api_version: None,
            marks: Marks::default(),
        };
        let body = || provider.encode(&request, &call).unwrap_or_else(|error| panic!("{name}: {error}")).body;
        let (calls, results) = (format_of(*provider).sent)(&serde_json::from_slice(&body()).expect("JSON"));
        assert_eq!(body(), body(), "{name}: the same request is the same body");
        assert_eq!(calls.len(), ANSWERS.iter().map(|ids| ids.len()).sum::<usize>(), "{name}");
        let ids: HashSet<&str> = calls.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(ids.len(), calls.len(), "{name}: ids are unique: {calls:?}");
        let of = |(id, function): &(String, String)| (id.clone(), format!("{{\"of\":\"{function}\"}}"));
        assert_eq!(results, calls.iter().map(of).collect::<Vec<_>>(), "{name}: each result has the id of its call");
        for (id, _) in &calls {
            let word = |id: &str| id.bytes().all(|byte| byte.is_ascii_alphanumeric());
            let lawful = match name {
                "mistral" => id.len() == 9 && word(id),
                "anthropic" => !id.is_empty() && word(&id.replace(['_', '-'], "")),
                _ => (1..=40).contains(&id.len()) && !id.contains("~ts~"),
            };
            assert!(lawful, "{name}: {id:?}");
        }
        assert!(name == "mistral" || calls[0].0 == "call_0", "{name}: an id that is lawful and free stays");
        assert_eq!(calls.last().map(|(id, _)| id.as_str()), Some("AbCd12345"), "{name}");
    }
}

#[test]
fn a_result_that_answers_no_call_is_named() {
    let mut body = conversation();
    let messages = body["messages"].as_array_mut().expect("messages");
    messages.push(json!({"role":"tool","tool_call_id":"call_9","content":"x"}));
    let last = messages.len() - 1;
    let (request, _) = ChatRequest::from_json(body.to_string().as_bytes()).expect("request");
    let error = request.check().expect_err("no such call");
    assert_eq!(error.param, Some(format!("messages[{last}].tool_call_id")));
    assert!(error.message.contains("\"call_9\""), "{error}");
}

/// Whole answers with two calls of one function, and ids that are equal, missing or distinct.
#[test]
fn whole_answers_have_unique_ids_with_every_vendor() {
    for provider in PROVIDERS {
        for ids in [[json!("x"), json!("x")], [json!(""), json!(null)], [json!(7), json!(7)], [json!("x"), json!("y")]]
        {
            let body = (format_of(*provider).two_calls)(&ids);
            let answer = provider.answer(body.to_string().as_bytes()).expect("answer");
            let calls = &answer.choices[0].tool_calls;
            let found: Vec<&str> = calls.iter().map(|call| call.arguments.as_str()).collect();
            assert_eq!(found, ["{\"n\":1}", "{\"n\":2}"], "{} {ids:?}", provider.name());
            assert!(calls[0].id != calls[1].id, "{} {ids:?}", provider.name());
            assert!(calls.iter().all(|call| !call.id.is_empty()), "{} {ids:?}", provider.name());
        }
    }
}

/// Streams with two calls, each complete in one chunk, numbered as vendors number them.
#[test]
fn streams_have_unique_ids_and_dense_indexes_with_every_vendor() {
    for provider in PROVIDERS {
        for (indexes, ids) in [
            ([json!(0), json!(0)], [json!("x"), json!("y")]),
            ([json!(0), json!(0)], [json!("x"), json!("x")]),
            ([json!(0), json!(0)], [json!(null), json!(null)]),
            ([json!(null), json!(null)], [json!("x"), json!("y")]),
            ([json!(null), json!(null)], [json!(""), json!("")]),
            ([json!("0"), json!("1")], [json!("x"), json!("y")]),
            ([json!(1), json!(2)], [json!("x"), json!("y")]),
            ([json!(3), json!(9)], [json!("x"), json!("x")]),
            ([json!(-1), json!(1.0)], [json!(1), json!(2)]),
        ] {
            let what = format!("{} {indexes:?} {ids:?}", provider.name());
            let (mut decoder, mut answer, mut out) = (provider.stream(), ChatResponse::default(), Vec::new());
            for (number, (index, id)) in (1..).zip(indexes.iter().zip(&ids)) {
                for event in (format_of(*provider).call)(index, id, number) {
                    let data = event.to_string();
                    decoder.decode(sse::Event { name: "", data: data.as_bytes() }, &mut out).expect(&what);
                }
            }
            for piece in &out {
                assert!(!matches!(piece, Piece::ToolCall { index, .. } if *index > 1), "{what}: {out:?}");
                answer.absorb(piece);
            }
            let calls = &answer.choices[0].tool_calls;
            let found: Vec<&str> = calls.iter().map(|call| call.arguments.as_str()).collect();
            assert_eq!(found, ["{\"n\":1}", "{\"n\":2}"], "{what}");
            assert!(calls.iter().all(|call| call.name == "f" && !call.id.is_empty()), "{what}: {calls:?}");
            assert!(calls[0].id != calls[1].id, "{what}");
        }
    }
}
