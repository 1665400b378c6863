//! The quotes of an earlier value, after turns were corrected.

use super::*;
use crate::types::Evidence;

/// The call, with the text of turn 1 replaced.
fn corrected(texts: &[&str], text: &str) -> Context {
    let mut context = context(texts);
    let turn = context.snapshot(&mut Window::default()).turn(1).map(|turn| Turn::clone(turn)).expect("the turn");
    context.upsert(&Arc::new(Turn { rev: 1, text: text.to_owned(), ..turn }));
    context
}

fn item(id: &str, text: &str, evidence: &Value) -> Value {
    json!({"id": id, "text": text, "owner": null, "due": null, "state": "open", "evidence": evidence})
}

fn recheck(value: &Value, evidence: &[Evidence], snapshot: &Snapshot) -> Reading {
    Analysis::recheck(value.clone(), evidence.to_vec(), snapshot, &mut Budget::new(READING)).expect("in its budget")
}

const SAID: [&str; 3] = ["Hello, thanks for calling.", "I want to cancel my plan.", "I will send you the form."];

/// Operations that leave an item alone leave its quote, whose words may be gone.
#[test]
fn item_that_an_answer_leaves_alone_is_marked_once_its_words_are_gone() {
    let registry = Registry::builtin();
    let analysis = registry.get("action_items").expect("there");
    let current = json!({"items": [
        item("i1_1", "Cancel the plan.", &json!({"turn": 1, "quote": "cancel my plan"})),
        item("i1_2", "Send the form.", &json!({"turn": 2, "quote": "send you the form"})),
    ]});
    let conclude = |snapshot: &Snapshot, current: &Value| {
        let checked = recheck(current, &[], snapshot).value;
        let reading = Reading { value: json!({"items": []}), ..Reading::default() };
        let (current, checked) = (Some(current), Some(&checked));
        let answering = Answering { current, checked, form: Form::Operations, rev: 2 };
        analysis.conclude(reading, &answering)
    };
    let same = conclude(&snapshot(&SAID), &current);
    assert_eq!((same.value, same.changes), (current.clone(), Some(Vec::new())));
    let gone = corrected(&SAID, "I want to keep my plan.").snapshot(&mut Window::default());
    let marked = json!({"turn": 1, "quote": "cancel my plan", "unverified": true});
    let Reading { value, changes, .. } = conclude(&gone, &current);
    assert_eq!(value["items"][0], item("i1_1", "Cancel the plan.", &marked));
    assert_eq!(value["items"][1], current["items"][1]);
    let changes = serde_json::to_value(changes).expect("json");
    assert_eq!(changes, json!([{"op": "update", "list": "/items", "id": "i1_1", "evidence": marked}]));
    // The words come back.
    let back = conclude(&snapshot(&SAID), &value).value;
    assert_eq!(back["items"][0]["evidence"]["unverified"], false);
}

#[test]
fn quote_is_checked_again_only_where_its_turn_is_in_the_prompt() {
    let quote = |turn, unverified| Evidence { turn, quote: "cancel my plan".to_owned(), unverified };
    let evidence = [quote(1, false), quote(0, false), quote(u64::MAX, true)];
    let marks = |snapshot: &Snapshot| -> Vec<bool> {
        recheck(&json!({}), &evidence, snapshot).evidence.iter().map(|quote| quote.unverified).collect()
    };
    assert_eq!(marks(&snapshot(&SAID)), [false, true, true]);
    assert_eq!(marks(&corrected(&SAID, "").snapshot(&mut Window::default())), [true, true, true], "withdrawn");
    let context = context(&SAID);
    let newest = context.tokens(2);
    let snapshot = context.snapshot(&mut Window::new(newest));
    assert_eq!(snapshot.covers().from, Some(2));
    assert_eq!(marks(&snapshot), [false, false, true], "out of the window: as it was");
}

/// A subscriber that has no such member gets it, null or not.
#[test]
fn member_that_comes_as_null_is_a_change() {
    let schema = json!({"type": "object", "properties": {
        "items": {"type": "array", "items": {"type": "object", "properties": {"id": {"type": "string"}, "text": {"type": "string"}}}},
        "note": {"type": ["string", "null"]}}});
    let lists = Lists::of(&schema).expect("lists");
    let (old, new) = (json!({"items": []}), json!({"items": [], "note": null}));
    let applied = lists.apply((Some(&old), None), new.clone(), Form::Operations, 2);
    assert_eq!(applied.value, new);
    let changes = serde_json::to_value(applied.changes).expect("json");
    assert_eq!(changes, json!([{"op": "set", "field": "/note", "value": null}]));
}
