use proptest::prelude::*;

use super::*;
use crate::analysis::Registry;
use crate::base::testing::kept;
use crate::context::{Context, Window};
use crate::llm::schema::{CHECKING, Validator, Verdict};
use crate::llm::{Call, Content, Marks, PROVIDERS, SchemaMode};
use crate::types::{StreamId, Turn};

fn turn(number: u64, text: &str) -> Arc<Turn> {
    Arc::new(Turn {
        turn: number,
        stream_id: StreamId::parse("s_1").expect("id"),
        turn_order: number,
        vendor_turn: None,
        rev: 0,
        speaker: Some(if number.is_multiple_of(2) { "agent" } else { "customer" }.to_owned()),
        text: text.to_owned(),
        start_ms: number * 2_000,
        end_ms: number * 2_000 + 1_900,
        language: None,
        confidence: None,
        words: Vec::new(),
    })
}

fn facts(meta: &Value) -> Facts {
    let meta = meta.as_object().cloned().unwrap_or_default();
    Facts { call_id: CallId::parse("c_42").expect("id"), meta, speakers: JsonMap::new(), turn: None }
}

/// A request for the named built-in analyses, with a sample value for each.
fn ask(names: &[&str], current: Option<&Value>, snapshot: &Snapshot, facts: &Facts) -> ChatRequest {
    ask_due(names, names, current, snapshot, facts)
}

/// The same, of which only some are due.
fn ask_due(names: &[&str], due: &[&str], current: Option<&Value>, snapshot: &Snapshot, facts: &Facts) -> ChatRequest {
    let registry = Registry::builtin();
    let prompts: Vec<_> = names
        .iter()
        .map(|name| {
            let analysis = registry.get(name).expect("built in");
            (Arc::clone(analysis), analysis.prompt(None).expect("prompt"))
        })
        .collect();
    let asked = prompts.iter().map(|(analysis, prompt)| {
        let due = due.contains(&&*analysis.name);
        Asked { analysis, prompt, current, last: false, due }
    });
    let asked: Vec<Asked<'_>> = asked.collect();
    request(&asked, snapshot, facts).expect("request")
}

fn plain(request: &ChatRequest) -> Vec<String> {
    request.messages.iter().map(|message| message.content.plain()).collect()
}

#[test]
fn changing_parts_come_after_the_transcript() {
    let mut context = Context::new();
    let mut window = Window::default();
    context.upsert(&turn(0, "Hello."));
    context.upsert(&turn(1, "My card is broken."));
    let current = json!({"headline": "A <card>."});
    let before = ask(&["summary"], None, &context.snapshot(&mut window), &facts(&json!({})));
    context.upsert(&turn(1, "My cart is broken."));
    context.upsert(&turn(2, "Which one?"));
    let after = ask(&["summary"], Some(&current), &context.snapshot(&mut window), &facts(&json!({"tier": "gold"})));
    assert_eq!(plain(&before)[0], plain(&after)[0]);
    let system = &plain(&before)[0];
    assert!(!system.contains("headline"), "instructions of one analysis change nothing for another");
    let tail = after.messages[1].content.plain();
    let places: Vec<usize> = [
        "[0] agent (0:00): Hello.",
        "[2] agent (0:04): Which one?",
        "Corrected since",
        "[1] customer (0:02): My cart is broken.",
        "</transcript>",
        "{\"tier\":\"gold\"}",
        "The value that you gave before (data): {\"headline\":\"A \\u003ccard>.\"}",
        "Keep the running summary",
        "Answer for the conversation up to here.",
    ]
    .iter()
    .map(|text| tail.find(text).unwrap_or_else(|| panic!("{text}: {tail}")))
    .collect();
    assert!(places.is_sorted(), "{places:?}: {tail}");
    let Content::Blocks(blocks) = &after.messages[1].content else { panic!("blocks") };
    let marks: Vec<bool> = blocks.iter().map(|block| block.ends_prefix).collect();
    assert_eq!(marks, [false, false, true, false], "one part a snapshot, the last one marked");
    let caching = after.caching.expect("rolling analyses share a prefix");
    assert!(!caching.last && caching.key.len() == KEY_DIGITS && !caching.key.contains("c_42"));
}

#[test]
fn several_analyses_are_one_object_of_values_or_null() {
    let mut context = Context::new();
    context.upsert(&turn(0, "Hello."));
    let snapshot = context.snapshot(&mut Window::default());
    let request = ask(&["summary", "sentiment"], None, &snapshot, &facts(&json!({})));
    let Some(ResponseFormat::JsonSchema { schema, strict, .. }) = &request.response_format else { panic!("a schema") };
    assert!(*strict);
    assert_eq!(schema["required"], json!(["summary", "sentiment"]));
    assert_eq!(request.max_tokens, Some(900 + 500 + 2 * MEMBER_TOKENS));
    let validator = Validator::compile(schema).expect("compiles");
    let is_valid = |answer: &Value| {
        let verdict = validator.check(&answer.to_string(), &mut crate::base::budget::Budget::new(CHECKING));
        matches!(verdict.expect("in its budget"), Verdict::Valid(..))
    };
    let summary = json!({"headline": "A greeting.", "points": [], "outcome": null, "evidence": []});
    assert!(is_valid(&json!({"summary": summary, "sentiment": null})));
    assert!(is_valid(&json!({"summary": null, "sentiment": null})));
    assert!(!is_valid(&json!({"summary": summary})), "a member that is left out is not the same as null");
    assert!(!is_valid(&json!({"summary": {"headline": 1}, "sentiment": null})));
    let tail = request.messages[1].content.plain();
    assert!(tail.contains("these members: \"summary\", \"sentiment\"."), "{tail}");
    assert!(!tail.contains("or null if the value"), "nothing stands yet");
    let current = json!({"headline": "x"});
    let again = ask(&["summary", "sentiment"], Some(&current), &snapshot, &facts(&json!({})));
    assert!(again.messages[1].content.plain().contains("or null if the value"));
    assert_eq!(again.response_format, request.response_format, "the schema stands before the prompt");
}

#[test]
fn member_that_is_not_due_is_in_the_schema_only() {
    let mut context = Context::new();
    context.upsert(&turn(0, "Hello."));
    let snapshot = context.snapshot(&mut Window::default());
    let (names, current) = (["action_items", "sentiment", "summary"], json!({"headline": "x"}));
    let all = ask(&names, Some(&current), &snapshot, &facts(&json!({})));
    let one = ask_due(&names, &["sentiment"], Some(&current), &snapshot, &facts(&json!({})));
    assert_eq!(one.response_format, all.response_format, "the same bytes before the prompt");
    assert_eq!(one.max_tokens, Some(500 + 3 * MEMBER_TOKENS));
    let tail = one.messages[1].content.plain();
    assert!(tail.contains("Not asked this time, and null: \"action_items\", \"summary\"."), "{tail}");
    assert!(tail.contains("## \"sentiment\"") && !tail.contains("## \"summary\""), "{tail}");
    assert!(!tail.contains("Keep the running summary"), "{tail}");
    assert!(!all.messages[1].content.plain().contains("Not asked this time"));
}

#[test]
fn members_are_unique_and_of_plain_characters() {
    let names = ["a:b", "a~b", "a_b", "x"];
    assert_eq!(members(names.into_iter()), ["a_b", "a_b_2", "a_b_3", "x"]);
}

#[test]
fn references_of_a_nested_schema_still_resolve() {
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "properties": {"$ref": {"$ref": "#/$defs/x"}, "default": {"$ref": "#"}, "e": {"enum": [{"$ref": "#"}]}},
        "$defs": {"x": {"type": "string"}},
    });
    assert_eq!(
        nested(&schema, "#/p"),
        json!({
            "properties": {"$ref": {"$ref": "#/p/$defs/x"}, "default": {"$ref": "#/p"}, "e": {"enum": [{"$ref": "#"}]}},
            "$defs": {"x": {"type": "string"}},
        })
    );
}

/// One step of a call.
#[derive(Debug, Clone)]
enum Step {
    /// A turn with this many words.
    Turn(usize),
    /// A revision of one of the turns.
    Revise(prop::sample::Index, usize),
    /// A new value in `meta`.
    Meta(u8),
    /// A request.
    Ask,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..30_usize).prop_map(Step::Turn),
        2 => (any::<prop::sample::Index>(), 0..30_usize).prop_map(|(turn, words)| Step::Revise(turn, words)),
        1 => any::<u8>().prop_map(Step::Meta),
        3 => Just(Step::Ask),
    ]
}

/// The text of a request before its mark and after it.
fn cut(request: &ChatRequest) -> (String, String) {
    let mut cut = (plain(request)[0].clone(), String::new());
    let Content::Blocks(blocks) = &request.messages[1].content else { panic!("blocks") };
    let prefix = blocks.iter().rposition(|block| block.ends_prefix).map_or(0, |last| last + 1);
    for (position, block) in blocks.iter().enumerate() {
        let into = if position < prefix { &mut cut.0 } else { &mut cut.1 };
        into.push_str(&block.text);
    }
    cut
}

/// Number of bytes that the two bodies have in common at their start.
fn common(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..kept() })]

    /// Invariant 5, over random calls, revisions and triggers: the bytes before the mark are the beginning of the next
    /// request, except after a compaction; this also holds for the body that each vendor gets.
    #[test]
    fn each_request_begins_with_the_prefix_of_the_previous_one(
        steps in prop::collection::vec(any_step(), 1..120),
        budget in 100..2_000_u64,
    ) {
        let names = ["summary", "sentiment"];
        let (mut context, mut window) = (Context::new(), Window::new(budget));
        let mut meta = json!({});
        let mut before: Option<(ChatRequest, u64)> = None;
        for (at, step) in steps.into_iter().enumerate() {
            let len = context.len();
            let text = |words: usize| "word ".repeat(words);
            match step {
                Step::Turn(words) => context.upsert(&turn(len as u64, &format!("{at} {}", text(words)))),
                Step::Revise(chosen, words) if len > 0 => {
                    context.upsert(&turn(chosen.index(len) as u64, &text(words)));
                }
                Step::Revise(..) => {}
                Step::Meta(value) => meta = json!({"value": value}),
                Step::Ask => {
                    let current = json!({"at": at});
                    let snapshot = context.snapshot(&mut window);
                    let request = ask(&names, Some(&current), &snapshot, &facts(&meta));
                    if let Some((then, from)) = &before
                        && *from == window.from()
                        && !(snapshot.parts().count() == 1 && then.messages != request.messages)
                    {
                        let prefix = cut(then).0;
                        prop_assert!(cut(&request).0.starts_with(&prefix));
                        prop_assert_eq!(&then.response_format, &request.response_format);
                        for provider in PROVIDERS {
                            let mode = SchemaMode::JsonSchema;
                            let call = Call { model: "m", stream: true, schema_mode: mode, api_version: None, marks: Marks::default() };
                            let body = |request: &ChatRequest| provider.encode(request, &call).expect("encodes").body;
                            // Escaping makes a text longer and never shorter.
                            prop_assert!(common(&body(then), &body(&request)) >= prefix.len(), "{}", provider.name());
                        }
                    }
                    before = Some((request, window.from()));
                }
            }
        }
    }
}
