use serde_json::json;

use super::*;

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
    spec.render(&spec.select(&transcript.turns))
}

#[test]
fn transcript_is_rendered_in_every_form_and_window() {
    assert_eq!(written(json!({})), "A: one\\ntwo\nB\\: C: {{ transcript }}\nthree");
    assert_eq!(
        written(json!({"render":"timed"})),
        "[0:01] A: one\\ntwo\n[1:01] B\\: C: {{ transcript }}\n[2:05] three"
    );
    assert_eq!(written(json!({"render":"plain","window":{"turns":1}})), "three");
    assert_eq!(written(json!({"render":"plain","window":{"tokens":3}})), "three");
    assert_eq!(written(json!({"window":{"from_ms":1500,"to_ms":61_000}})), "A: one\\ntwo");
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
    let whole = spec(json!({"render":"plain"}));
    let Source::Turns(transcript) = &whole.source else { panic!("turns") };
    let written = |room| {
        let fitting = whole.fitting(room);
        fitting.render(&fitting.select(&transcript.turns))
    };
    assert_eq!(written(None), written(Some(1000)));
    assert_eq!(written(Some(3)), "three");
    assert_eq!(written(Some(0)), "");
    let named = spec(json!({"window":{"turns":2}}));
    assert_eq!(named.fitting(Some(1)).window, Window::Turns(2), "a named window stands");
    let text = Spec::read(json!({"text":"first line\nsecond line\nthird","window":{"tokens":5}})).expect("spec");
    assert_eq!(text.cut("first line\nsecond line\nthird"), "second line\nthird");
    assert_eq!(text.cut("short"), "short");
    assert_eq!(text.cut("ééééééééééééééé"), "éééééééééé");
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
