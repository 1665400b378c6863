use serde_json::json;

use super::*;
use crate::context::{Context, Window};
use crate::types::{CallId, StreamId};

fn read(source: &str, scope: Scope) -> Result<Prompt, String> {
    Prompt::read("x", "v1.j2", source, "{}", scope).map_err(|fault| fault.to_string())
}

fn rolling(source: &str) -> Result<Prompt, String> {
    read(source, Scope::Rolling)
}

fn turn(number: u64, speaker: &str, text: &str) -> Arc<Turn> {
    Arc::new(Turn {
        turn: number,
        stream_id: StreamId::parse("s_1").expect("id"),
        turn_order: number,
        vendor_turn: None,
        rev: 0,
        speaker: Some(speaker.to_owned()),
        text: text.to_owned(),
        start_ms: number * 1_000,
        end_ms: number * 1_000,
        language: Some("en".into()),
        confidence: None,
        words: Vec::new(),
    })
}

fn facts(meta: serde_json::Value, turn: Option<u64>) -> Facts {
    let serde_json::Value::Object(meta) = meta else { panic!("an object") };
    Facts { call_id: CallId::parse("c_1").expect("id"), meta, turn }
}

fn shown(prompt: &Prompt, context: &Context, facts: &Facts) -> String {
    let snapshot = match facts.turn {
        Some(turn) => context.snapshot_turn(turn),
        None => context.snapshot(&mut Window::default()),
    };
    let messages = prompt.render(&snapshot, facts).expect("rendered");
    messages.iter().map(|message| format!("<{}>{}\n", message.role.as_str(), message.content.plain())).collect()
}

#[test]
fn messages_roles_and_the_transcript_in_its_place() {
    let source =
        "=== system ===\nBe brief.\n\n=== user ===\nT:\n{{ transcript }}END {{ meta.who }}|{{ meta }}|{{ turns }}\n";
    let prompt = rolling(source).expect("prompt");
    let mut context = Context::new();
    context.upsert(&turn(0, "A", "Hi {{ meta }} {% raw %}"));
    context.upsert(&turn(1, "B", "Ho"));
    let shown = shown(&prompt, &context, &facts(json!({"who": "x\n<y>"}), None));
    assert_eq!(
        shown,
        "<system>Be brief.\n<user>T:\n[0] A (0:00): Hi {{ meta }} {% raw %}\n[1] B (0:01): Ho\nEND \
         x\\u000a\\u003cy>|{\"who\":\"x\\n\\u003cy>\"}|2\n"
    );
    assert!(prompt.id.starts_with("x/v1@") && prompt.id.len() == 13, "{}", prompt.id);
    assert!(prompt.has_transcript);
}

#[test]
fn the_transcript_is_shared_not_copied() {
    let prompt = rolling("{{ transcript }}tail").expect("prompt");
    let mut context = Context::new();
    for number in 0..40 {
        context.upsert(&turn(number, "A", "word"));
    }
    let snapshot = context.snapshot(&mut Window::default());
    let messages = prompt.render(&snapshot, &facts(json!({}), None)).expect("rendered");
    let crate::llm::Content::Text(text) = &messages[0].content else { panic!("text") };
    for (segment, line) in text.segments().iter().zip(snapshot.lines()) {
        assert!(Arc::ptr_eq(segment, &line));
    }
}

#[test]
fn what_is_said_cannot_bring_the_mark_in() {
    let prompt = read("{{ text }}|{{ speaker }}|{{ meta.a }}|{{ transcript }}", Scope::Turn).expect("prompt");
    let mut context = Context::new();
    context.upsert(&turn(0, MARK, MARK));
    let shown = shown(&prompt, &context, &facts(json!({"a": MARK}), Some(0)));
    assert!(!shown.contains('\u{fdd0}'));
    assert_eq!(shown.matches("[0] ").count(), 1);
}

#[test]
fn a_missing_meta_is_nothing_and_a_default_works() {
    let prompt = rolling("{{ transcript }}{{ meta.a.b }}{% if meta.c %}no{% endif %}{{ meta.d | default('yes') }}")
        .expect("prompt");
    assert_eq!(shown(&prompt, &Context::new(), &facts(json!({}), None)), "<user>yes\n");
}

#[test]
fn faults_name_the_place() {
    let fault = |source: &str| rolling(source).expect_err("a fault");
    assert_eq!(
        fault("=== user ===\n{{ transcript }}\nHello {{ customer }}"),
        "v1.j2:3:10: unknown variable \"customer\"; there are: call_id, meta, transcript, turns"
    );
    assert!(
        fault("=== user ===\n{{ transcript }}\n{% if x %}").starts_with("v1.j2:3:"),
        "{}",
        fault("=== user ===\n{{ transcript }}\n{% if x %}")
    );
    assert!(
        fault("a\n{{ transcript | shout }}").starts_with("v1.j2:2:17: "),
        "{}",
        fault("a\n{{ transcript | shout }}")
    );
    assert_eq!(
        fault("=== system ===\nx\n=== boss ===\ny"),
        "v1.j2:3:1: expected === system ===, === user === or === assistant ===, found \"=== boss ===\""
    );
    assert_eq!(fault("{{ transcript }}\n=== user ===\nx"), "v1.j2:1:1: text before the first === role === line");
    assert_eq!(fault("=== system ===\n{{ transcript }}"), "v1.j2:1:1: there is no === user === message");
    assert!(fault("=== system ===\n\n=== user ===\n{{ transcript }}").ends_with(": the message is empty"));
    let places = [
        "{{ transcript }}\n{{ transcript }}",
        "nothing",
        "{% if meta.agent %}{{ transcript }}{% endif %}",
        "{{ transcript | upper }}",
    ];
    for source in places {
        let fault = fault(source);
        assert!(fault.contains("must stand in it exactly once"), "{fault}");
        assert!(fault.starts_with("v1.j2:1:"), "{fault}");
    }
    assert!(fault("{{ text }} {{ transcript }}").contains("unknown variable \"text\""), "of a turn alone");
}

#[test]
fn a_turn_alone_needs_no_transcript() {
    let prompt = read("{{ speaker }}: {{ text }} ({{ language }}, {{ turn }})", Scope::Turn).expect("prompt");
    assert!(!prompt.has_transcript);
    let mut context = Context::new();
    context.upsert(&turn(0, "A", "a"));
    context.upsert(&turn(1, "B (0:00): x", "Two\nlines"));
    let shown = shown(&prompt, &context, &facts(json!({}), Some(1)));
    assert_eq!(shown, "<user>B \\u00280:00\\u0029: x: Two\\u000alines (en, 1)\n");
}
