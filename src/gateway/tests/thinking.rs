//! Thinking that a model writes into its text, for every kind of request.

use std::time::Duration;

use serde_json::json;

use super::fake::{Fake, Reply, Step, finish, plain, sse_head, stream, text};
use super::*;
use crate::llm::{ChatResponse, ResponseFormat};

const SAID: &str = "\n<think>\nmaybe {\"a\":1}\n</think>\n\n{\"a\":2}";

/// Returns reasoning and text of a streamed answer, and how many of its chunks were passed on as they came.
async fn streamed(gateway: &Gateway, request: Request) -> (Option<String>, String, usize) {
    let mut stream = open(gateway, request).await.expect("stream");
    let (mut answer, mut frames, mut raw) = (ChatResponse::default(), Vec::new(), 0);
    while stream.next(&mut frames).await.expect("a whole stream") {
        for frame in frames.drain(..) {
            raw += usize::from(frame.raw.is_some());
            frame.pieces.iter().for_each(|piece| answer.absorb(piece));
        }
    }
    let choice = answer.choices.remove(0);
    (choice.reasoning, choice.text.unwrap_or_default(), raw)
}

fn in_parts(size: usize) -> Reply {
    let letters: Vec<char> = SAID.chars().collect();
    let parts: Vec<String> = letters.chunks(size).map(|part| part.iter().collect()).collect();
    stream(&parts.iter().map(String::as_str).collect::<Vec<_>>())
}

#[tokio::test]
async fn thinking_between_tags_follows_think_tags() {
    for (tags, reasoning, said) in [
        ("", Some("maybe {\"a\":1}"), "{\"a\":2}"),
        ("think_tags = \"auto\"", Some("maybe {\"a\":1}"), "{\"a\":2}"),
        ("think_tags = \"keep\"", None, SAID),
        ("think_tags = \"strip\"", None, "{\"a\":2}"),
    ] {
        for reply in [in_parts(1), in_parts(7), in_parts(1000), plain(SAID)] {
            let fake = Fake::start(vec![reply]).await;
            let (gateway, _) = limited(&[&fake], &[tags], "");
            let (found, text, _) = streamed(&gateway, request(&gateway)).await;
            assert_eq!((found.as_deref(), text.as_str()), (reasoning, said), "streamed, {tags}");
            let answer = gateway.complete(request(&gateway)).await.expect("answer");
            let choice = &answer.response.choices[0];
            assert_eq!((choice.reasoning.as_deref(), &*answer.text), (reasoning, said), "whole, {tags}");
        }
    }
}

#[tokio::test]
async fn answer_under_a_schema_begins_after_the_thinking() {
    let behind = SAID.split_once("<think>").map_or("", |(_, rest)| rest);
    for (tags, said) in [("", SAID), ("think_tags = \"keep\"", SAID), ("think_tags = \"strip\"", SAID), ("", behind)] {
        for reply in [stream(&[said]), plain(said)] {
            let fake = Fake::start(vec![reply]).await;
            let (gateway, _) = limited(&[&fake], &[tags], "");
            let under_schema = || {
                let mut request = request(&gateway);
                let schema = Arc::new(json!({"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]}));
                let format = ResponseFormat::JsonSchema { name: "s".into(), schema, strict: true };
                request.chat.response_format = Some(format);
                request
            };
            let answer = gateway.complete(under_schema()).await.expect("answer");
            assert_eq!((answer.value, answer.provenance.attempts), (Some(json!({"a":2})), 1), "{tags} {said}");
            if tags != "think_tags = \"keep\"" {
                let (_, text, _) = streamed(&gateway, under_schema()).await;
                assert_eq!(text, "{\"a\":2}", "{tags} {said}");
            }
        }
    }
}

#[tokio::test]
async fn chunks_without_tags_are_passed_on_unchanged() {
    let fake = Fake::start(vec![stream(&["It", " is <think> and", " </think>."])]).await;
    let (gateway, _) = over(&[&fake], "");
    let (reasoning, text, raw) = streamed(&gateway, request(&gateway)).await;
    assert_eq!((reasoning, text.as_str()), (None, "It is <think> and </think>."));
    assert_eq!(raw, 3, "chunks of text as they came");
}

#[tokio::test]
async fn model_that_thinks_without_an_opening_tag_is_remembered() {
    let unmarked = || stream(&["Okay, ", "hm.\n", "</think>", "\n\nIt", " is."]);
    let fake = Fake::start(vec![unmarked(), unmarked(), stream(&["It", " is."]), stream(&["It", " is."])]).await;
    let (gateway, _) = over(&[&fake], "");
    // Text that was sent cannot be taken back; from the first answer, the gateway learns that the model writes such
    // tags.
    let (reasoning, text, _) = streamed(&gateway, request(&gateway)).await;
    assert_eq!((reasoning.as_deref(), text.as_str()), (None, "Okay, hm.\n</think>\n\nIt is."));
    let (reasoning, text, _) = streamed(&gateway, request(&gateway)).await;
    assert_eq!((reasoning.as_deref(), text.as_str()), (Some("Okay, hm."), "It is."));
    for raw in [0, 2] {
        let (reasoning, text, as_it_came) = streamed(&gateway, request(&gateway)).await;
        assert_eq!((reasoning, text.as_str(), as_it_came), (None, "It is.", raw), "without, nothing waits any more");
    }
}

#[tokio::test]
async fn stripped_thinking_still_counts_for_the_timeouts() {
    let mut steps = vec![sse_head(), text("<think>")];
    // Longer than a timeout in total, while each wait is much shorter.
    for _ in 0..6 {
        steps.extend([Step::Wait(Duration::from_millis(400)), text("hm ")]);
    }
    steps.push(text("</think>It is."));
    steps.extend(finish());
    let fake = Fake::start(vec![steps]).await;
    let timeouts = "first_token_timeout_ms = 2000\nbetween_tokens_timeout_ms = 2000";
    let (gateway, _) = limited(&[&fake], &["think_tags = \"strip\""], timeouts);
    let (reasoning, text, _) = streamed(&gateway, request(&gateway)).await;
    assert_eq!((reasoning, text.as_str()), (None, "It is."));
}
