use std::sync::Arc;

use super::*;
use crate::analysis::{Analysis, Facts, Registry};
use crate::context::{Context, Window};
use crate::llm::ResponseFormat;
use crate::llm::schema::{Validator, Verdict};
use crate::types::{CallId, JsonMap, StreamId};

/// A made-up call.
const CALL: &[(&str, &str)] = &[
    ("agent", "Thank you for calling Northwind Energy, this is Ada speaking. How can I help you?"),
    ("customer", "Hi. Um, I moved house in March and the, the electricity bill still goes to my old address."),
    ("agent", "I'm sorry to hear that. Which address should the bill go to?"),
    ("customer", "To twelve Mill Lane. And I was charged twice, which is really annoying!"),
    ("agent", "I see the double charge. I will refund the forty euros for the second bill today."),
    ("customer", "Oh, that's great."),
    ("agent", "And I have changed the address to twelve Mill Lane, so the next electricity bill goes there."),
    ("customer", "Wonderful, thank you so much for your help!"),
    ("agent", "You're welcome. Goodbye."),
];

fn context(call: &[(&str, &str)]) -> Context {
    let mut context = Context::new();
    for (at, (speaker, text)) in call.iter().enumerate() {
        context.upsert(&Arc::new(Turn {
            turn: at as u64,
            stream_id: StreamId::parse("s_1").expect("id"),
            turn_order: at as u64,
            vendor_turn: None,
            rev: 0,
            speaker: Some((*speaker).to_owned()),
            text: (*text).to_owned(),
            start_ms: at as u64 * 4_000,
            end_ms: at as u64 * 4_000 + 3_000,
            language: None,
            confidence: None,
            words: Vec::new(),
        }));
    }
    context
}

fn ask(task: &str, call: &[(&str, &str)]) -> Value {
    let transcript = context(call).snapshot(&mut Window::new(u64::MAX)).transcript();
    let answer = answer(Some(task), &ChatRequest::default(), Some(&transcript)).expect("an answer");
    serde_json::from_str(answer.text()).expect("json")
}

#[test]
fn answers_are_true_to_the_built_in_schemas_and_their_quotes_to_the_turns() {
    let registry = Registry::builtin();
    for name in registry.names() {
        let analysis = registry.get(name).expect("there");
        let context = context(CALL);
        let snapshot = context.snapshot(&mut Window::new(u64::MAX));
        let turn = (name == "sentiment_turn").then_some(8);
        let facts = Facts { call_id: CallId::parse("c_1").expect("id"), meta: JsonMap::new(), turn };
        let request = analysis.request(&analysis.prompt(None).expect("prompt"), &snapshot, &facts).expect("request");
        let answer = answer(Some(name), &request, Some(&snapshot.transcript())).expect("an answer");
        let validator = Validator::compile(&analysis.schema).expect("compiles");
        let Verdict::Valid(_, value) = validator.check(answer.text()) else { panic!("invalid under the schema") };
        let reading = Analysis::read(value, &snapshot);
        assert!(reading.evidence.iter().all(|quote| !quote.unverified), "{name} {:?}", reading.evidence);
        assert_eq!(reading.evidence.is_empty(), name == "sentiment_turn", "{name}");
    }
}

#[test]
fn a_summary_says_what_matters_and_who_said_it() {
    let summary = ask("summary", CALL);
    let points = summary["points"].as_array().expect("points");
    let said = points.iter().map(|point| point["text"].as_str().expect("text")).collect::<Vec<_>>().join(" ");
    assert!(said.contains("bill") && said.contains("address"), "{said}");
    assert!(!said.contains("Um") && !said.contains("the, the"), "{said}");
    assert!(points.iter().all(|point| point["speaker"].is_string()));
    assert!(summary["headline"].as_str().expect("headline").split_whitespace().count() <= HEADLINE_WORDS);
}

#[test]
fn sentiment_is_overall_by_speaker_and_over_time() {
    let sentiment = ask("sentiment", CALL);
    assert_eq!(sentiment["trend"], "improving", "{sentiment}");
    let speakers = sentiment["speakers"].as_array().expect("speakers");
    assert_eq!(
        speakers.iter().map(|entry| entry["speaker"].as_str().expect("label")).collect::<Vec<_>>(),
        ["agent", "customer"]
    );
    let worse = [
        ("A", "Good morning, lovely to hear you!"),
        ("B", "Hi! I love the new heater."),
        ("A", "Great, and what can I do?"),
        ("B", "It is making a strange noise."),
        ("A", "That's a problem that we don't cover."),
        ("B", "What? That's ridiculous, I'm really angry!"),
    ];
    let judged = ask("sentiment", &worse);
    assert_eq!(judged["trend"], "worsening", "{judged}");
    assert_eq!(ask("sentiment", &CALL[..1])["trend"], "stable");
    assert_eq!(ask("sentiment_turn", CALL)["label"], "neutral");
    assert_eq!(ask("sentiment_turn", &CALL[..8])["label"], "positive");
}

#[test]
fn what_it_cannot_do_it_refuses() {
    let transcript = context(CALL).snapshot(&mut Window::default()).transcript();
    let plain = ChatRequest::default();
    let refused = answer(Some("translation"), &plain, Some(&transcript)).expect_err("refused");
    assert!(refused.to_string().contains("not analysis \"translation\""), "{refused}");
    assert_eq!(answer(Some("summary"), &plain, None), Err(LocalError::NoTranscript));
    assert_eq!(answer(Some("summary"), &plain, Some(&Transcript::default())), Err(LocalError::NoTranscript));
    let formatted = ChatRequest { response_format: Some(ResponseFormat::JsonObject), ..ChatRequest::default() };
    assert!(matches!(answer(None, &formatted, Some(&transcript)), Err(LocalError::Unsupported(_))));
    let text = answer(None, &plain, Some(&transcript)).expect("a summary");
    let text = text.text().to_owned();
    assert!(text.lines().all(|line| line.starts_with("agent: ") || line.starts_with("customer: ")), "{text}");
}

#[test]
fn any_call_gives_an_answer() {
    for call in
        [&[("A", "Um.")][..], &[("", "。")], &[("A", "你好，我想换一张卡。"), ("B", "好的。")], &[("A", "[unclosed {")]]
    {
        for task in ["summary", "sentiment", "sentiment_turn"] {
            assert!(ask(task, call).is_object(), "{task} {call:?}");
        }
    }
}
