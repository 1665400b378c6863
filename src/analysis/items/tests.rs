use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::base::testing::kept;

fn schema() -> Value {
    json!({"type": "object", "required": ["headline", "items", "current"], "additionalProperties": false, "properties": {
        "headline": {"type": "string"},
        "items": {"type": "array", "maxItems": 20, "items": {"type": "object", "additionalProperties": false,
            "required": ["id", "text", "owner", "state"], "properties": {
                "id": {"type": "string"},
                "text": {"type": "string"},
                "owner": {"type": ["string", "null"]},
                "state": {"type": "string", "enum": ["open", "done", "dropped"]}}}},
        "current": {"type": ["string", "null"]}}})
}

fn lists() -> Lists {
    Lists::of(&schema()).expect("lists")
}

fn item(id: &str, text: &str, state: &str) -> Value {
    json!({"id": id, "text": text, "owner": null, "state": state})
}

fn value(items: &[Value]) -> Value {
    json!({"headline": "h", "items": items, "current": null})
}

/// Applies changes as a subscriber does, who sees only their wire form.
fn replay(mut value: Value, changes: &[Change]) -> Value {
    for change in changes {
        let mut change = serde_json::to_value(change).expect("json");
        let fields = change.as_object_mut().expect("an object");
        let op = fields.remove("op").expect("an operation");
        if op == "set" {
            *value.pointer_mut(change["field"].as_str().expect("a pointer")).expect("a member") =
                change["value"].take();
            continue;
        }
        let list = fields.remove("list").expect("a list");
        let id = fields["id"].clone();
        let items = value.pointer_mut(list.as_str().expect("a pointer")).expect("a list");
        let items = items.as_array_mut().expect("a list");
        let place = |items: &[Value], id: &Value| items.iter().position(|item| item["id"] == *id).expect("an item");
        match op.as_str().expect("a name") {
            "add" => {
                let before = fields.remove("before");
                let at = before.map_or(items.len(), |before| place(items, &before));
                items.insert(at, change);
            }
            "retract" => drop(items.remove(place(items, &id))),
            _ => {
                let at = place(items, &id);
                items[at].as_object_mut().expect("an item").extend(fields.clone());
            }
        }
    }
    value
}

fn applied(current: &Value, answer: &Value, form: Form) -> (Value, Vec<Value>, Vec<(&'static str, u64)>) {
    let Applied { value, changes, dropped } = lists().apply((Some(current), None), answer.clone(), form, 7);
    let changes = changes.expect("changes");
    assert_eq!(replay(current.clone(), &changes), value);
    let shown = changes.iter().map(|change| serde_json::to_value(change).expect("json")).collect();
    (value, shown, dropped.iter().collect())
}

#[test]
fn lists_of_items_are_found_and_asked_in_operations() {
    let lists = lists();
    assert_eq!(lists.0.iter().map(|list| list.pointer.as_str()).collect::<Vec<_>>(), ["/items"]);
    let asked = lists.operations_schema(&schema());
    assert_eq!(asked["properties"]["headline"], schema()["properties"]["headline"]);
    assert_eq!(
        asked["properties"]["items"],
        json!({"type": "array", "items": {"type": "object", "properties": {
            "op": {"type": "string", "enum": ["add", "update", "resolve", "retract"]},
            "id": {"type": ["string", "null"]},
            "text": {"type": ["string", "null"]},
            "owner": {"type": ["string", "null"]},
            "state": {"type": ["string", "null"], "enum": ["open", "done", "dropped", null]}},
            "required": ["op", "id", "text", "owner", "state"], "additionalProperties": false}})
    );
    let words = lists.explanation(Form::Operations);
    assert!(words.contains("\"items\"") && words.contains("resolve") && words.contains("new1"), "{words}");
    assert!(!lists.explanation(Form::Whole).contains("retract"));
}

#[test]
fn schema_without_ids_has_no_lists_of_items() {
    let list = |item: Value| json!({"type": "object", "properties": {"a": {"properties": {"l/~": {"type": "array", "items": item}}}}});
    assert!(Lists::of(&list(json!({"type": "object", "properties": {"text": {}}}))).expect("lists").is_empty());
    assert!(Lists::of(&json!({"type": "array", "items": {"properties": {"id": {}}}})).expect("lists").is_empty());
    let found = Lists::of(&list(
        json!({"properties": {"id": {}, "n": {"type": "number"}, "x": {"anyOf": [{"type": "string"}]}}}),
    ));
    let found = found.expect("lists");
    assert_eq!(found.0[0].pointer, "/a/l~1~0");
    let asked = found.operations_schema(&list(
        json!({"properties": {"id": {}, "n": {"type": "number"}, "x": {"anyOf": [{"type": "string"}]}}}),
    ));
    let item = &asked["properties"]["a"]["properties"]["l/~"]["items"];
    assert_eq!(item["properties"]["op"]["enum"], json!(["add", "update", "retract"]), "nothing to resolve");
    assert_eq!(item["properties"]["n"], json!({"type": ["number", "null"]}));
    assert_eq!(item["properties"]["x"], json!({"anyOf": [{"anyOf": [{"type": "string"}]}, {"type": "null"}]}));
    let (at, message) = Lists::of(&list(json!({"properties": {"id": {}, "op": {}}}))).expect_err("a reserved name");
    assert_eq!(at, "/properties/a/properties/l~1~0/items/properties/op");
    assert!(message.contains("op, list, before"), "{message}");
}

#[test]
fn operations_are_applied_in_order_and_get_ids() {
    let current = value(&[item("i1_1", "Send the form", "open"), item("i2_1", "Call the branch", "open")]);
    let answer = json!({"headline": "new", "current": "new1", "items": [
        {"op": "add", "id": "new1", "text": "Refund 20 euros", "owner": "agent", "state": null},
        {"op": "update", "id": "new1", "text": null, "owner": "customer", "state": null},
        {"op": "resolve", "id": "i1_1", "text": null, "owner": null, "state": null},
        {"op": "retract", "id": "i2_1", "text": null, "owner": null, "state": null},
    ]});
    let (value, changes, dropped) = applied(&current, &answer, Form::Operations);
    assert_eq!(
        value,
        json!({"headline": "new", "current": "i7_1", "items": [
            {"id": "i1_1", "text": "Send the form", "owner": null, "state": "done"},
            {"id": "i7_1", "text": "Refund 20 euros", "owner": "customer", "state": "open"}]})
    );
    assert_eq!(
        changes,
        [
            json!({"op": "add", "list": "/items", "id": "i7_1", "text": "Refund 20 euros", "owner": "agent", "state": "open"}),
            json!({"op": "update", "list": "/items", "id": "i7_1", "owner": "customer"}),
            json!({"op": "resolve", "list": "/items", "id": "i1_1", "state": "done"}),
            json!({"op": "retract", "list": "/items", "id": "i2_1"}),
            json!({"op": "set", "field": "/headline", "value": "new"}),
            json!({"op": "set", "field": "/current", "value": "i7_1"}),
        ]
    );
    assert_eq!(dropped, []);
}

#[test]
fn operations_with_a_clear_meaning_are_repaired() {
    let current =
        value(&[item("i1_1", "Send the form to Ms. Shah", "open"), item("i2_1", "Call the branch on Monday", "done")]);
    let answer = |operation: Value| json!({"headline": "h", "current": null, "items": [operation]});
    // Repeated in nearly the same words: it is the same item, and stays settled.
    let again = answer(
        json!({"op": "add", "id": null, "text": "Call the branch on Monday!", "owner": "agent", "state": "open"}),
    );
    let (new, ..) = applied(&current, &again, Form::Operations);
    assert_eq!(
        new["items"][1],
        json!({"id": "i2_1", "text": "Call the branch on Monday!", "owner": "agent", "state": "done"})
    );
    // An unknown id with the words of an existing item.
    let misnamed = answer(
        json!({"op": "resolve", "id": "item 1", "text": "Send the form to Ms Shah", "owner": null, "state": "dropped"}),
    );
    let (new, ..) = applied(&current, &misnamed, Form::Operations);
    assert_eq!((&new["items"][0]["state"], &new["items"][0]["id"]), (&json!("dropped"), &json!("i1_1")));
    // A `current` with an unknown id names no item.
    let (new, ..) = applied(&current, &json!({"headline": "h", "current": "i9_9", "items": []}), Form::Operations);
    assert_eq!(new["current"], Value::Null);
}

#[test]
fn operations_without_a_meaning_are_left_out_and_counted() {
    let current = value(&[item("i1_1", "Send the form", "open"), item("i2_1", "Send the forms", "open")]);
    let answer = json!({"headline": "h", "current": null, "items": [
        {"op": "update", "id": "i9_9", "text": "something else", "owner": null, "state": null},
        {"op": "retract", "id": "i9_9", "text": null, "owner": null, "state": null},
        {"op": "add", "id": null, "text": null, "owner": "agent", "state": null},
        {"op": "move", "id": "i1_1"},
        "add",
        {"op": "retract", "id": "i1_1", "text": null, "owner": null, "state": null},
        {"op": "retract", "id": "i1_1", "text": null, "owner": null, "state": null},
    ]});
    let (new, changes, dropped) = applied(&current, &answer, Form::Operations);
    assert_eq!(new["items"], json!([item("i2_1", "Send the forms", "open")]));
    assert_eq!(changes.len(), 1);
    assert_eq!(dropped, [("incomplete", 1), ("malformed", 2), ("unknown_id", 3)]);
}

#[test]
fn items_over_the_limit_are_left_out_and_counted() {
    let add = |number: usize| json!({"op": "add", "id": null, "text": format!("item {number}"), "owner": null, "state": null});
    let many = |count| json!({"headline": "h", "current": null, "items": (0..count).map(add).collect::<Vec<_>>()});
    let (new, _, dropped) = applied(&value(&[]), &many(450), Form::Operations);
    assert_eq!(new["items"].as_array().expect("items").len(), 200);
    assert_eq!(dropped, [("too_many", 250)]);
    let (new, _, dropped) = applied(&value(&[]), &many(250), Form::Whole);
    assert_eq!((new["items"].as_array().expect("items").len(), dropped), (200, vec![("too_many", 50)]));
}

#[test]
fn whole_list_keeps_the_ids_of_repeated_items() {
    let current = value(&[
        item("i1_1", "The customer wants a new card", "open"),
        item("i1_2", "The old card was stolen in Lyon", "open"),
        item("i2_1", "Nothing of that", "open"),
    ]);
    let answer = json!({"headline": "h", "current": "i1_1", "items": [
        item("", "A fee of 12 euros applies", "open"),
        item("1", "the old card was stolen in Lyon.", "open"),
        item("2", "It arrives on Friday", "open"),
        item("", "The customer wants a new debit card", "done"),
        item("", "It arrives on Friday", "open"),
    ]});
    let (new, changes, dropped) = applied(&current, &answer, Form::Whole);
    let ids: Vec<&str> =
        new["items"].as_array().expect("items").iter().map(|item| item["id"].as_str().expect("id")).collect();
    assert_eq!(ids, ["i7_1", "i1_1", "i1_2", "i7_2"], "new ones behind the one before them, others in their old order");
    assert_eq!(new["current"], "i1_1");
    let kinds: Vec<&str> = changes.iter().map(|change| change["op"].as_str().expect("op")).collect();
    assert_eq!(kinds, ["retract", "add", "update", "add", "resolve", "set"]);
    assert_eq!(changes[1]["before"], "i1_1");
    assert_eq!(dropped, [("duplicate", 1)]);
    // The same list a second time changes nothing.
    let (_, changes, _) = applied(&new, &new, Form::Whole);
    assert_eq!(changes, [Value::Null; 0]);
}

#[test]
fn different_numbers_are_different_items() {
    let current = value(&[item("i1_1", "Refund of 20 euros to the card", "open")]);
    let answer = value(&[item("", "Refund of 30 euros to the card", "open")]);
    let (new, ..) = applied(&current, &answer, Form::Whole);
    assert_eq!(new["items"][0]["id"], "i7_1");
}

#[test]
fn value_of_another_form_is_not_continued() {
    let add = json!({"headline": "h", "current": null, "items": [{"op": "add", "id": null, "text": "a", "owner": null, "state": null}]});
    let twice = value(&[item("i1_1", "a", "open"), item("i1_1", "b", "open")]);
    for current in
        [None, Some(json!({"items": [{"text": "x"}]})), Some(json!({"items": 5})), Some(Value::Null), Some(twice)]
    {
        let applied = lists().apply((current.as_ref(), None), add.clone(), Form::Operations, 1);
        assert_eq!(applied.changes, None);
        assert_eq!(applied.value["items"], json!([item("i1_1", "a", "open")]), "{current:?}");
    }
    // A removed member appears in no change.
    let old = json!({"headline": "h", "items": [], "current": null, "gone": 1});
    assert_eq!(lists().apply((Some(&old), None), add, Form::Operations, 1).changes, None);
}

/// An operation on the simple model.
#[derive(Debug, Clone)]
enum Step {
    Add(u16),
    Update(usize, u16),
    Resolve(usize),
    Retract(usize),
    Unknown(&'static str),
    Incomplete,
    Nonsense,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..400_u16).prop_map(Step::Add),
        3 => (any::<prop::sample::Index>(), 0..400_u16).prop_map(|(at, text)| Step::Update(at.index(1_000), text)),
        2 => any::<prop::sample::Index>().prop_map(|at| Step::Resolve(at.index(1_000))),
        2 => any::<prop::sample::Index>().prop_map(|at| Step::Retract(at.index(1_000))),
        1 => prop::sample::select(vec!["update", "resolve", "retract"]).prop_map(Step::Unknown),
        1 => Just(Step::Incomplete),
        1 => Just(Step::Nonsense),
    ]
}

/// Texts that are similar only if they are equal: the number is one of their words.
fn text(number: u16) -> String {
    format!("thing {number}")
}

/// A list in the simple model: id, text, settled.
type Model = Vec<(String, u16, bool)>;

/// Plays one answer: the operations that it contains, and their effect on the simple model.
fn play(model: &mut Model, steps: &[Step], rev: u64) -> (Value, u64) {
    let (mut operations, mut dropped, mut minted) = (Vec::new(), 0, 0);
    let operation = |op: &str, id: &str, text: Option<String>| json!({"op": op, "id": id, "text": text, "owner": null, "state": null});
    for step in steps {
        let at = |index: usize| (!model.is_empty()).then(|| index % model.len());
        match step {
            Step::Add(number) => {
                operations.push(operation("add", "", Some(text(*number))));
                if !model.iter().any(|item| item.1 == *number) {
                    minted += 1;
                    model.push((format!("i{rev}_{minted}"), *number, false));
                }
            }
            Step::Update(index, number) => match at(*index) {
                Some(at) => {
                    operations.push(operation("update", &model[at].0, Some(text(*number))));
                    model[at].1 = *number;
                }
                None => {
                    operations.push(operation("update", "i0_0", None));
                    dropped += 1;
                }
            },
            Step::Resolve(index) => match at(*index) {
                Some(at) => {
                    operations.push(operation("resolve", &model[at].0, None));
                    model[at].2 = true;
                }
                None => {
                    dropped += u64::from({
                        operations.push(operation("resolve", "i0_0", None));
                        true
                    })
                }
            },
            Step::Retract(index) => match at(*index) {
                Some(at) => {
                    operations.push(operation("retract", &model[at].0, None));
                    model.remove(at);
                }
                None => {
                    dropped += u64::from({
                        operations.push(operation("retract", "i0_0", None));
                        true
                    })
                }
            },
            Step::Unknown(op) => {
                operations.push(operation(op, "i0_9", None));
                dropped += 1;
            }
            Step::Incomplete => {
                operations.push(operation("add", "", None));
                dropped += 1;
            }
            Step::Nonsense => {
                operations.push(json!({"op": "explode", "id": "i1_1"}));
                dropped += 1;
            }
        }
    }
    (json!({"headline": format!("rev {rev}"), "items": operations, "current": null}), dropped)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, ..kept() })]

    /// Compares random operations, some of them invalid, with a simple model over several revisions: the same items
    /// have the same ids; operations that cannot be carried out are counted; a subscriber that applies the changes has
    /// the same value.
    #[test]
    fn random_operations_do_what_a_simple_model_does(answers in prop::collection::vec(prop::collection::vec(step(), 0..8), 1..6)) {
        let lists = lists();
        let (mut model, mut value, mut subscriber) = (Model::new(), value(&[]), value(&[]));
        for (rev, steps) in answers.iter().enumerate() {
            let (answer, dropped) = play(&mut model, steps, rev as u64 + 1);
            let applied = lists.apply((Some(&value), None), answer, Form::Operations, rev as u64 + 1);
            subscriber = replay(subscriber, &applied.changes.expect("changes"));
            prop_assert_eq!(&subscriber, &applied.value);
            prop_assert_eq!(applied.dropped.total(), dropped);
            value = applied.value;
            let items: Vec<Value> = model.iter().map(|(id, number, settled)| item(id, &text(*number), if *settled { "done" } else { "open" })).collect();
            prop_assert_eq!(&value["items"], &Value::from(items));
        }
    }

    /// Whole lists in any order: no id occurs twice, every text occurs once, and the changes lead to the value.
    #[test]
    fn random_whole_lists_are_reached_by_their_changes(lists_of in prop::collection::vec(prop::collection::vec(0..30_u16, 0..12), 1..6)) {
        let lists = lists();
        let mut value = value(&[]);
        for (rev, numbers) in lists_of.iter().enumerate() {
            let before = value.clone();
            let elements: Vec<Value> = numbers.iter().map(|number| item("", &text(*number), "open")).collect();
            let answer = json!({"headline": "h", "items": elements, "current": null});
            let applied = lists.apply((Some(&before), None), answer, Form::Whole, rev as u64 + 1);
            prop_assert_eq!(&replay(before.clone(), &applied.changes.expect("changes")), &applied.value);
            value = applied.value;
            let shown = |value: &Value| -> BTreeMap<String, String> {
                value["items"].as_array().expect("items").iter()
                    .map(|item| (item["text"].as_str().expect("text").to_owned(), item["id"].as_str().expect("id").to_owned())).collect()
            };
            let (old, new) = (shown(&before), shown(&value));
            prop_assert_eq!(new.len(), value["items"].as_array().expect("items").len());
            let wanted: std::collections::BTreeSet<String> = numbers.iter().map(|number| text(*number)).collect();
            prop_assert!(new.keys().eq(wanted.iter()));
            for (text, id) in &new {
                prop_assert!(old.get(text).is_none_or(|known| known == id), "{text} keeps its id");
            }
        }
    }
}
