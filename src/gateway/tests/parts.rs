//! Answers to several analyses: each member is validated by itself.

use serde_json::{Value, json};

use super::fake::{Fake, plain, reply, stream};
use super::*;
use crate::llm::ResponseFormat;

/// A request with three members, of which `c` is not asked. Nothing is known of `a` yet.
fn bundle(gateway: &Gateway) -> Request {
    let mut asked = upstream_streamed(gateway);
    let value = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": false});
    let member = json!({"anyOf": [value, {"type": "null"}]});
    let schema = json!({"type": "object", "properties": {"a": member, "b": member, "c": member},
        "required": ["a", "b", "c"], "additionalProperties": false});
    asked.chat.response_format =
        Some(ResponseFormat::JsonSchema { name: "answers".into(), schema: Arc::new(schema), strict: true });
    asked.origin.analysis = Some("a+b+c".into());
    let part = |member: &str, needed| Part { analysis: member.into(), member: member.to_owned(), needed, local: None };
    asked.parts = vec![part("a", true), part("b", false)];
    asked
}

async fn answered(texts: &[&str]) -> (Result<Answer, GatewayError>, Fake, Arc<Tape>) {
    let fake = Fake::start(texts.iter().map(|text| stream(&[text])).collect()).await;
    let (gateway, tape) = over(&[&fake], "");
    let answer = gateway.complete(bundle(&gateway)).await;
    (answer, fake, tape)
}

async fn value(texts: &[&str]) -> (Value, usize) {
    let (answer, fake, _) = answered(texts).await;
    let answer = answer.unwrap_or_else(|error| panic!("{texts:?}: {error}"));
    assert_eq!(serde_json::from_str::<Value>(&answer.text).ok(), answer.value, "{texts:?}");
    (answer.value.expect("a value"), fake.requests())
}

const RIGHT: &str = r#"{"a":{"n":1},"b":null,"c":null}"#;

#[tokio::test]
async fn answer_has_the_members_that_were_asked_and_each_its_share_of_the_attempt() {
    assert_eq!(value(&[RIGHT]).await, (json!({"a": {"n": 1}, "b": null}), 1));
    let (_, _, tape) = answered(&[RIGHT]).await;
    let done = tape.done.lock().expect("tape");
    assert_eq!(done[0].shares, [("a".into(), 7), ("b".into(), 4)]);
    assert_eq!(tape.begun.lock().expect("tape")[0].analysis.as_deref(), Some("a+b+c"));
}

#[tokio::test]
async fn member_that_is_not_asked_costs_nothing_if_it_is_wrong() {
    let wrong = r#"{"a":{"n":1},"b":{"n":2},"c":"no","d":0}"#;
    assert_eq!(value(&[wrong]).await, (json!({"a": {"n": 1}, "b": {"n": 2}}), 1));
}

#[tokio::test]
async fn only_what_is_wrong_is_repaired_and_what_was_right_stays() {
    for wrong in [r#"{"a":{"n":1},"b":{"n":"x"},"c":null}"#, r#"{"a":{"n":1},"c":null}"#] {
        let repaired = r#"{"a":null,"b":{"n":2},"c":null}"#;
        assert_eq!(value(&[wrong, repaired]).await, (json!({"a": {"n": 1}, "b": {"n": 2}}), 2), "{wrong}");
        let (_, fake, _) = answered(&[wrong, repaired]).await;
        let sent = fake.body(1)["messages"].to_string();
        assert!(
            sent.contains("/b") && sent.contains(r#"are valid and kept; give null for them now: \"a\"."#),
            "{sent}"
        );
    }
    let (_, requests) = value(&[r#"{"a":null,"b":null,"c":null}"#, RIGHT]).await;
    assert_eq!(requests, 2, "without a value before, null is no answer");
}

#[tokio::test]
async fn member_that_stays_wrong_is_left_out_and_nothing_else() {
    let wrong = r#"{"a":{"n":1},"b":5,"c":null}"#;
    assert_eq!(value(&[wrong, wrong]).await, (json!({"a": {"n": 1}}), 2));
    // The repair itself may fail.
    let fake = Fake::start(vec![stream(&[wrong]), reply(500, "", "{}")]).await;
    let (gateway, _) = over(&[&fake], "retries = 0\n");
    let answer = gateway.complete(bundle(&gateway)).await.expect("what was right");
    assert_eq!((answer.value, answer.provenance.attempts), (Some(json!({"a": {"n": 1}})), 2));
}

#[tokio::test]
async fn answer_without_a_right_member_is_a_mismatch() {
    for wrong in ["no JSON at all", "[1]", r#"{"a":1,"b":2,"c":null}"#, "{}"] {
        let (answer, fake, tape) = answered(&[wrong, wrong]).await;
        let error = answer.expect_err(wrong);
        assert_eq!((error.code(), error.temporary(), fake.requests()), (Code::SchemaMismatch, true, 2), "{wrong}");
        assert!(tape.done.lock().expect("tape").iter().all(|done| done.shares.len() == 2), "{wrong}");
    }
}

#[tokio::test]
async fn attempt_without_an_answer_is_divided_equally() {
    let fake = Fake::start(vec![reply(400, "", "{}")]).await;
    let (gateway, tape) = over(&[&fake], "retries = 0\n");
    gateway.complete(bundle(&gateway)).await.expect_err("refused");
    assert_eq!(tape.done.lock().expect("tape")[0].shares, [("a".into(), 1), ("b".into(), 1)]);
    let fake = Fake::start(vec![plain(RIGHT)]).await;
    let (gateway, tape) = over(&[&fake], "");
    gateway.complete(bundle(&gateway)).await.expect("a whole answer");
    assert_eq!(tape.done.lock().expect("tape")[0].shares, [("a".into(), 7), ("b".into(), 4)]);
}
