use serde_json::json;

use super::*;
use crate::context::{Context, Window};
use crate::llm::Content;
use crate::types::{CallId, StreamId, Turn};

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
    Facts { call_id: CallId::parse("c_1").expect("id"), meta, speakers: JsonMap::new(), turn }
}

fn shown(prompt: &Prompt, context: &Context, facts: &Facts) -> String {
    let snapshot = match facts.turn {
        Some(turn) => context.snapshot_turn(turn, 6, u64::MAX),
        None => context.snapshot(&mut Window::default()),
    };
    let messages = prompt.messages(&snapshot, facts, Shown::default()).expect("rendered");
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
    let messages = prompt.messages(&snapshot, &facts(json!({}), None), Shown::default()).expect("rendered");
    let Content::Blocks(blocks) = &messages[0].content else { panic!("blocks") };
    assert_eq!(blocks.len(), 2, "the parts of the snapshot, and what follows");
    for (block, part) in blocks.iter().zip(snapshot.parts()) {
        assert!(Arc::ptr_eq(&block.text, part));
    }
}

#[test]
fn prefix_ends_with_the_transcript_if_nothing_before_it_changes() {
    let marked = |source: &str| {
        let prompt = rolling(source).expect("prompt");
        let mut context = Context::new();
        let mut window = Window::default();
        context.upsert(&turn(0, "A", "Hi"));
        context.snapshot(&mut window);
        context.upsert(&turn(1, "B", "Ho"));
        let messages = prompt
            .messages(&context.snapshot(&mut window), &facts(json!({"a": 1}), None), Shown::default())
            .expect("rendered");
        let Content::Blocks(blocks) = &messages.last().expect("a message").content else { panic!("blocks") };
        blocks.iter().map(|block| block.ends_prefix).collect::<Vec<_>>()
    };
    for source in [
        "T:\n{{ transcript }}{{ meta }} {{ turns }}",
        "=== system ===\nYou read {{ call_id }}.\n=== user ===\nT:\n{{- transcript }}{{ meta }}",
        "{% set x = 1 %}T{{ x }}:{{ transcript }}end",
    ] {
        assert_eq!(marked(source), [false, false, true, false], "{source}");
    }
    for source in [
        "T {{ turns }}:\n{{ transcript }}end",
        "=== system ===\nKnown: {{ meta }}\n=== user ===\nT:\n{{ transcript }}end",
        "T{% for x in [1] %}{{ transcript }}{% endfor %}end",
        "T{% if meta.a %}!{% endif %}{{ transcript }}end",
    ] {
        assert_eq!(marked(source), [false; 4], "{source}");
    }
}

#[test]
fn corrections_are_written_after_the_transcript() {
    let prompt = rolling("<t>\n{{ transcript }}</t>").expect("prompt");
    let mut context = Context::new();
    let mut window = Window::default();
    context.upsert(&turn(0, "A", "Hi"));
    context.snapshot(&mut window);
    context.upsert(&turn(0, "A", "Hi, I am Ada."));
    let messages =
        prompt.messages(&context.snapshot(&mut window), &facts(json!({}), None), Shown::default()).expect("rendered");
    assert_eq!(
        messages[0].content.plain(),
        "<t>\n[0] A (0:00): Hi\nCorrected since; each line stands in place of the one above with its number:\n\
         [0] A (0:00): Hi, I am Ada.\n</t>"
    );
}

#[test]
fn instructions_are_one_section_without_the_transcript() {
    let prompt = rolling("=== instructions ===\nSay {{ meta.what }} of {{ turns }}.\n").expect("prompt");
    assert!(prompt.bundles() && !rolling("{{ transcript }}").expect("prompt").bundles());
    let snapshot = Context::new().snapshot(&mut Window::default());
    assert_eq!(
        prompt.instructions(&snapshot, &facts(json!({"what": "<all>"}), None), Shown::default()).as_deref(),
        Ok("Say \\u003call> of 0.")
    );
    let alone =
        rolling("{{ transcript }}").expect("prompt").instructions(&snapshot, &facts(json!({}), None), Shown::default());
    assert_eq!(alone.map_err(|error| error.kind), Err(RenderErrorKind::BadPrompt));
    let fault = |source: &str, scope| read(source, scope).expect_err("a fault");
    assert!(
        fault("=== instructions ===\nSay {{ transcript }}", Scope::Rolling)
            .contains("must be left out of instructions")
    );
    assert!(
        fault("=== system ===\nx\n=== instructions ===\ny", Scope::Rolling)
            .starts_with("v1.j2:3:1: === instructions === must")
    );
    assert!(
        fault("=== instructions ===\nSay {{ text }}", Scope::Turn)
            .starts_with("v1.j2:1:1: === instructions === is for")
    );
}

#[test]
fn spoken_text_cannot_contain_the_section_mark() {
    let prompt = read("{{ text }}|{{ speaker }}|{{ meta.a }}|{{ transcript }}", Scope::Turn).expect("prompt");
    let mut context = Context::new();
    context.upsert(&turn(0, MARK, MARK));
    let shown = shown(&prompt, &context, &facts(json!({"a": MARK}), Some(0)));
    assert!(!shown.contains('\u{fdd0}'));
    assert_eq!(shown.matches("[0] ").count(), 1);
}

#[test]
fn missing_meta_is_empty_and_a_default_applies() {
    let prompt = rolling("{{ transcript }}{{ meta.a.b }}{% if meta.c %}no{% endif %}{{ meta.d | default('yes') }}")
        .expect("prompt");
    assert_eq!(shown(&prompt, &Context::new(), &facts(json!({}), None)), "<user>yes\n");
}

#[test]
fn problems_name_their_line_and_column() {
    let fault = |source: &str| rolling(source).expect_err("a fault");
    assert_eq!(
        fault("=== user ===\n{{ transcript }}\nHello {{ customer }}"),
        "v1.j2:3:10: unknown variable \"customer\"; there are: call_id, meta, questions, to, transcript, turns"
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
        "v1.j2:3:1: expected === instructions ===, === system ===, === user === or === assistant ===, found \"=== boss ===\""
    );
    assert_eq!(fault("{{ transcript }}\n=== user ===\nx"), "v1.j2:1:1: text before the first === role === line");
    assert_eq!(fault("=== system ===\n{{ transcript }}"), "v1.j2:1:1: there is no === user === message");
    assert!(fault("=== system ===\n\n=== user ===\n{{ transcript }}").ends_with(": the section is empty"));
    let places = [
        "{{ transcript }}\n{{ transcript }}",
        "nothing",
        "{% if meta.agent %}{{ transcript }}{% endif %}",
        "{{ transcript | upper }}",
    ];
    for source in places {
        let fault = fault(source);
        assert!(fault.contains("must be in it exactly once"), "{fault}");
        assert!(fault.starts_with("v1.j2:1:"), "{fault}");
    }
    assert!(fault("{{ text }} {{ transcript }}").contains("unknown variable \"text\""), "of a turn alone");
}

#[test]
fn template_over_its_fuel_is_refused_when_read_and_when_rendered() {
    let endless = "{{ transcript }}{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}";
    let fault = rolling(endless).expect_err("a fault");
    assert!(fault.ends_with("too_complex: rendering is over the limit template_fuel (100000)"), "{fault}");
    let large = "{{ transcript }}{{ 'x' * 100000000 }}";
    assert!(rolling(large).expect_err("a fault").contains("template_fuel"), "text counts too");
    let prompt = rolling(
        "{{ transcript }}{% for a in meta.many %}{% for b in meta.many %}{{ a }}{{ b }}{% endfor %}{% endfor %}",
    )
    .expect("no call has so much, for all that is known");
    let context = Context::new();
    let rendered = |many: usize| {
        let facts = facts(json!({"many": (0..many).collect::<Vec<_>>()}), None);
        prompt.messages(&context.snapshot(&mut Window::default()), &facts, Shown::default()).map_err(|error| error.kind)
    };
    assert!(rendered(10).is_ok());
    assert_eq!(rendered(1_000).map(|_| ()), Err(RenderErrorKind::TooComplex));
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

#[test]
fn before_has_the_turns_before_this_one_as_lines() {
    let prompt =
        read("{% if before %}Before:\n{{ before }}{% endif %}{{ speaker }}: {{ text }}", Scope::Turn).expect("prompt");
    let mut context = Context::new();
    for (number, text) in ["Hello.", "<b>\nYes", "No"].into_iter().enumerate() {
        context.upsert(&turn(number as u64, "A", text));
    }
    let shown = |number, before| {
        let messages = prompt.messages(
            &context.snapshot_turn(number, before, 1_000),
            &facts(json!({}), Some(number)),
            Shown::default(),
        );
        messages.expect("rendered")[0].content.plain()
    };
    assert_eq!(shown(2, 6), "Before:\n[0] A (0:00): Hello.\n[1] A (0:01): \\u003cb>\\u000aYes\nA: No");
    assert_eq!(shown(2, 1), "Before:\n[1] A (0:01): \\u003cb>\\u000aYes\nA: No");
    assert_eq!(shown(0, 6), "A: Hello.");
    assert_eq!(shown(1, 0), "A: \\u003cb>\\u000aYes");
}

#[test]
fn variable_that_the_scope_lacks_is_a_problem() {
    const TURN: &str = "there are: before, call_id, language, meta, questions, speaker, text, to, transcript, turn";
    const ROLLING: &str = "there are: call_id, meta, questions, to, transcript, turns";
    for (scope, source, place, names) in [
        (Scope::Turn, "{{ turn.text }}", "v1.j2:1:4: turn has no member \"text\"", TURN),
        (
            Scope::Turn,
            "Say:\n{{ text }} {{ turn.speaker | upper }}",
            "v1.j2:2:15: turn has no member \"speaker\"",
            TURN,
        ),
        (Scope::Turn, "{{ turn['text'] }}", "v1.j2:1:4: uses a variable", TURN),
        (Scope::Turn, "{% set t = turn %}{{ t.text }}", "v1.j2:1:22: uses a variable", TURN),
        (Scope::Turn, "{% if turn.text %}x{% endif %}", "v1.j2:1:7: turn has no member", TURN),
        (Scope::Turn, "{{ before.text }}", "v1.j2:1:4: before has no member", TURN),
        (Scope::Turn, "{{ turns }}", "v1.j2:1:4: unknown variable \"turns\"", TURN),
        (Scope::Turn, "{{ mood }}{{ turn.text }}", "v1.j2:1:4: unknown variable \"mood\"", TURN),
        (Scope::Rolling, "{{ transcript }}{{ text }}", "v1.j2:1:20: unknown variable \"text\"", ROLLING),
        (Scope::Rolling, "{{ transcript }}{{ before }}", "v1.j2:1:20: unknown variable \"before\"", ROLLING),
        (Scope::Rolling, "{{ transcript }}{{ turns.count }}", "v1.j2:1:20: turns has no member \"count\"", ROLLING),
        (Scope::Rolling, "{{ transcript.text }}", "v1.j2:1:4: transcript has no member", ROLLING),
        (Scope::Rolling, "{{ transcript }}{{ call_id.x.y }}", "v1.j2:1:20: call_id has no member \"x.y\"", ROLLING),
    ] {
        let fault = read(source, scope).expect_err(source);
        assert!(fault.starts_with(place) && fault.ends_with(names), "{source}: {fault}");
    }
    for (scope, source) in [
        (Scope::Turn, "{{ text }} {{ meta.a.b }} {{ meta['c'] }} {{ meta.d | default('x') }} {{ turn + 1 }}"),
        (Scope::Turn, "{% for name in meta.names %}{{ name.first }} {{ loop.index }}{% endfor %}{{ text }}"),
        (Scope::Turn, "{% set n = namespace(a=1) %}{{ n.a }}{{ text }}{% if meta.n > 3 %}!{% endif %}"),
        (
            Scope::Rolling,
            "{{ transcript }}{{ meta.a | upper }}{% if meta.b is defined %}{{ meta.b }}{% endif %}{{ turns }}",
        ),
    ] {
        read(source, scope).map(|_| ()).expect(source);
    }
}

#[test]
fn variables_of_the_documentation_are_those_of_the_scopes() {
    let page = crate::docs::topic("analyses").expect("the page").text;
    let (_, table) = page.split_once("| variable | rolling | per turn | meaning |").expect("the table");
    let (mut rolling, mut per_turn) = (Vec::new(), Vec::new());
    for row in table.lines().skip(2).take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let name = cells[0].trim_matches('`');
        if !cells[1].is_empty() {
            rolling.push(name);
        }
        if !cells[2].is_empty() {
            per_turn.push(name);
        }
    }
    rolling.sort_unstable();
    per_turn.sort_unstable();
    assert_eq!(rolling, variables::names(Scope::Rolling));
    assert_eq!(per_turn, variables::names(Scope::Turn));
}
