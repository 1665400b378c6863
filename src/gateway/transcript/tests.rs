use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::base::testing::kept;
use crate::base::tokens::Ratio;

fn spec(mut value: serde_json::Value) -> Spec {
    value["turns"] = json!([
        {"speaker":"A","text":"one\ntwo","start_ms":1000,"end_ms":2000},
        {"speaker":"B: C","text":"{{ transcript }}","start_ms":61_000,"end_ms":62_000},
        {"text":"","start_ms":70_000},
        {"text":"three","start_ms":125_000,"end_ms":126_000}]);
    Spec::read(value).expect("spec")
}

fn written(value: serde_json::Value) -> String {
    let spec = spec(value);
    let Source::Turns(transcript) = &spec.source else { panic!("turns") };
    spec.render(&spec.select(&transcript.turns, spec.limit(Fit::default())))
}

#[test]
fn transcript_is_rendered_in_every_form_and_window() {
    assert_eq!(written(json!({})), "A: one\\u000atwo\nB\\u003a C: {{ transcript }}\nthree");
    assert_eq!(
        written(json!({"render":"timed"})),
        "[0:01] A: one\\u000atwo\n[1:01] B\\u003a C: {{ transcript }}\n[2:05] three"
    );
    assert_eq!(written(json!({"render":"plain","window":{"turns":1}})), "three");
    assert_eq!(written(json!({"render":"plain","window":{"tokens":3}})), "three");
    assert_eq!(written(json!({"window":{"from_ms":1500,"to_ms":61_000}})), "A: one\\u000atwo");
    let json: serde_json::Value = serde_json::from_str(&written(json!({"render":"json"}))).expect("JSON");
    assert_eq!(json[0], json!({"speaker":"A","text":"one\ntwo","start_ms":1000,"end_ms":2000}));
    for bad in [
        json!({"text":"x","call_id":"c"}),
        json!({}),
        json!({"text":"x","render":"xml"}),
        json!({"text":"x","window":{"turns":1,"tokens":2}}),
        json!({"text":"x","window":{}}),
        json!({"call_id":"a/b"}),
        json!({"turns":[{"speaker":"A"}]}),
    ] {
        assert!(Spec::read(bad.clone()).is_err(), "{bad}");
    }
}

#[test]
fn transcript_without_a_window_is_cut_at_its_beginning_to_fit() {
    let fit = |room| Fit::new(Ratio::default(), room);
    let written = |spec: &Spec, fit| {
        let Source::Turns(transcript) = &spec.source else { panic!("turns") };
        spec.render(&spec.select(&transcript.turns, spec.limit(fit)))
    };
    let whole = spec(json!({"render":"plain"}));
    assert_eq!(written(&whole, fit(None)), written(&whole, fit(Some(1000))));
    assert_eq!(written(&whole, fit(Some(3))), "three");
    assert_eq!(written(&whole, fit(Some(0))), "");
    let named = spec(json!({"render":"plain","window":{"turns":2}}));
    assert_eq!(written(&named, fit(Some(1))), "{{ transcript }}\nthree", "a number of turns stands");
    let most = spec(json!({"render":"plain","window":{"tokens":1000}}));
    assert_eq!(written(&most, fit(Some(3))), "three", "a number of tokens is a maximum");
    let twice = Fit::new(Ratio::from_per_mille(2_000), Some(1000));
    assert_eq!(written(&spec(json!({"render":"plain","window":{"tokens":6}})), twice), "three", "as the model counts");
}

#[test]
fn text_is_cut_at_the_beginning_of_a_line_where_it_can_be() {
    assert_eq!(cut("first line\nsecond line\nthird", 5), "second line\nthird");
    assert_eq!(cut("first line\nsecond line\nthird", 7), "first line\nsecond line\nthird");
    assert_eq!(cut("short", 5), "short");
    assert_eq!(cut("one two three", 2), " two three");
}

proptest! {
    #![proptest_config(kept())]

    /// For any text and any token ratio, the rendered conversation fits the model's context.
    #[test]
    fn rendered_conversation_never_exceeds_the_room(
        texts in prop::collection::vec("[a-zA-Z0-9 .,<\\n你é]{0,40}", 0..20),
        render in prop::sample::select(vec!["dialogue", "timed", "plain", "json"]),
        per_mille in 0_u32..5_000, room in 0_u64..200, window in prop::option::of(0_u64..300),
    ) {
        let (ratio, mut value) = (Ratio::from_per_mille(per_mille), json!({"render": render}));
        if let Some(tokens) = window {
            value["window"] = json!({"tokens": tokens});
        }
        value["turns"] = texts.iter().map(|text| json!({"speaker": "A", "text": text})).collect();
        let spec = Spec::read(value).expect("spec");
        let Source::Turns(transcript) = &spec.source else { panic!("turns") };
        let conversation = Conversation { turns: transcript.turns.clone(), spec };
        let (_, text) = conversation.render(Fit::new(ratio, Some(room)));
        // The brackets of an empty list belong to no turn.
        let counted = if text == "[]" { 0 } else { ratio.apply(tokens::estimate(&text)) };
        prop_assert!(counted <= room.min(window.unwrap_or(u64::MAX)), "{text}");
    }
}

#[test]
fn transcript_is_inserted_once_and_not_into_results() {
    let text = |role, text: &str| Message::text(role, text);
    let mut request = ChatRequest {
        messages: vec![
            text(Role::Tool, "{{ transcript }}"),
            text(Role::User, "Sum up: {{ transcript }} and {{ transcript }}"),
        ],
        ..ChatRequest::default()
    };
    insert(&mut request, "A: {{ transcript }}");
    assert_eq!(request.messages[0].content.plain(), "{{ transcript }}");
    assert_eq!(request.messages[1].content.plain(), "Sum up: A: {{ transcript }} and {{ transcript }}");
    let mut request = ChatRequest { messages: vec![text(Role::System, "rules")], ..ChatRequest::default() };
    insert(&mut request, "x");
    assert_eq!(request.messages[1], text(Role::User, "x"));
}
