use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::base::testing::kept;
use crate::llm::ChatResponse;

fn part(index: Option<u64>, id: &str, name: &str, arguments: &str) -> Part {
    let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    Part { index, id: given(id), name: given(name), arguments: arguments.to_owned() }
}

/// The calls (id, name, arguments) that a client assembles by our indexes, and true if every chunk could have been
/// passed on unchanged.
fn together(parts: Vec<Part>) -> (Vec<(String, String, String)>, bool) {
    let (mut calls, mut pieces, mut trusted) = (Calls::default(), Vec::new(), true);
    for part in parts {
        trusted &= calls.part(0, part, &mut pieces).expect("few calls");
    }
    calls.check(0).expect("named calls");
    let mut answer = ChatResponse::default();
    let mut announced = HashSet::new();
    for piece in &pieces {
        let Piece::ToolCall { index, id, .. } = piece else { panic!("{piece:?}") };
        assert_eq!(id.is_some(), announced.insert(*index), "an id goes out once, first: {pieces:?}");
        assert!(*index < announced.len() as u32, "indexes have no gaps: {pieces:?}");
        answer.absorb(piece);
    }
    let found = answer.choices.pop().map(|choice| choice.tool_calls).unwrap_or_default();
    let ids: HashSet<&str> = found.iter().map(|call| call.id.as_str()).collect();
    assert!(ids.len() == found.len() && !ids.contains(""), "ids are unique: {found:?}");
    (found.into_iter().map(|call| (call.id, call.name, call.arguments)).collect(), trusted)
}

/// Parts as vendors send them, and the calls that they form.
#[test]
fn calls_are_separated_without_usable_indexes_and_ids() {
    let at = Some;
    type Case = (&'static str, Vec<Part>, Vec<(&'static str, &'static str)>);
    let two = || vec![("f", r#"{"a":1}"#), ("g", r#"{"b":2}"#)];
    let twice = || vec![("f", r#"{"a":1}"#), ("f", r#"{"a":2}"#)];
    let one = || vec![("get_weather", r#"{"city":"Ulm"}"#)];
    let cases: Vec<Case> = vec![
        (
            "OpenAI",
            vec![
                part(at(0), "x", "f", ""),
                part(at(0), "", "", r#"{"a""#),
                part(at(0), "", "", ":1}"),
                part(at(1), "y", "g", ""),
                part(at(1), "", "", r#"{"b":2}"#),
            ],
            two(),
        ),
        (
            "two at a time",
            vec![
                part(at(0), "x", "f", r#"{"a""#),
                part(at(1), "y", "g", r#"{"b""#),
                part(at(0), "", "", ":1}"),
                part(at(1), "", "", ":2}"),
            ],
            two(),
        ),
        ("all of index 0", vec![part(at(0), "x", "f", r#"{"a":1}"#), part(at(0), "y", "g", r#"{"b":2}"#)], two()),
        (
            "all of index 0, without ids",
            vec![part(at(0), "", "f", r#"{"a":1}"#), part(at(0), "", "g", r#"{"b":2}"#)],
            two(),
        ),
        (
            "all of index 0, in pieces",
            vec![
                part(at(0), "x", "f", ""),
                part(at(0), "", "", r#"{"a":1}"#),
                part(at(0), "y", "g", ""),
                part(at(0), "", "", r#"{"b":"#),
                part(at(0), "", "", "2}"),
            ],
            two(),
        ),
        ("one function twice", vec![part(at(0), "x", "f", r#"{"a":1}"#), part(at(0), "y", "f", r#"{"a":2}"#)], twice()),
        (
            "one function twice, without ids",
            vec![part(None, "", "f", r#"{"a":1}"#), part(None, "", "f", r#"{"a":2}"#)],
            twice(),
        ),
        (
            "one function twice with the same arguments",
            vec![part(at(0), "x", "f", "{}"), part(at(0), "y", "f", "{}")],
            vec![("f", "{}"), ("f", "{}")],
        ),
        ("one id for two", vec![part(at(0), "x", "f", r#"{"a":1}"#), part(at(1), "x", "g", r#"{"b":2}"#)], two()),
        (
            "one id and index for two",
            vec![part(at(0), "x", "f", r#"{"a":1}"#), part(at(0), "x", "g", r#"{"b":2}"#)],
            two(),
        ),
        ("no index", vec![part(None, "x", "f", r#"{"a":1}"#), part(None, "y", "g", r#"{"b":2}"#)], two()),
        (
            "no index, in pieces by id",
            vec![
                part(None, "x", "f", ""),
                part(None, "y", "g", r#"{"b""#),
                part(None, "x", "", r#"{"a":1}"#),
                part(None, "y", "", ":2}"),
            ],
            two(),
        ),
        (
            "indexes that begin at 1 and jump",
            vec![part(at(1), "x", "f", ""), part(at(1), "", "", r#"{"a":1}"#), part(at(7), "y", "g", r#"{"b":2}"#)],
            two(),
        ),
        (
            "an index a piece",
            vec![
                part(at(0), "x", "get_weather", ""),
                part(at(1), "", "", r#"{"city":"#),
                part(at(2), "", "", r#""Ulm"}"#),
            ],
            one(),
        ),
        (
            "id and name with each piece",
            vec![
                part(at(0), "x", "get_weather", ""),
                part(at(0), "x", "get_weather", r#"{"city":"#),
                part(at(0), "x", "get_weather", r#""Ulm"}"#),
                part(at(0), "x", "get_weather", ""),
            ],
            one(),
        ),
        (
            "another id with each piece",
            vec![
                part(at(0), "x", "get_weather", ""),
                part(at(0), "y", "", r#"{"city":"#),
                part(at(0), "z", "", r#""Ulm"}"#),
                part(at(0), "w", "", ""),
            ],
            one(),
        ),
        (
            "another id and the name with each piece",
            vec![
                part(at(0), "x", "get_weather", ""),
                part(at(0), "y", "get_weather", r#"{"city":"#),
                part(at(0), "z", "get_weather", r#""Ulm"}"#),
                part(at(0), "w", "get_weather", ""),
            ],
            one(),
        ),
        (
            "all so far with each piece",
            vec![
                part(at(0), "x", "get_weather", r#"{"ci"#),
                part(at(0), "x", "get_weather", r#"{"city":"Ul"#),
                part(at(0), "x", "get_weather", r#"{"city":"Ulm"}"#),
            ],
            one(),
        ),
        (
            "the whole call again",
            vec![
                part(at(0), "x", "get_weather", r#"{"city":"Ulm"}"#),
                part(at(0), "x", "get_weather", r#"{"city":"Ulm"}"#),
            ],
            one(),
        ),
        (
            "the whole call again, without index",
            vec![
                part(None, "x", "get_weather", r#"{"city":"Ulm"}"#),
                part(None, "x", "get_weather", r#"{"city":"Ulm"}"#),
            ],
            one(),
        ),
        (
            "a name in pieces",
            vec![
                part(at(0), "x", "get_", ""),
                part(at(0), "", "weather", ""),
                part(at(0), "", "", r#"{"city":"Ulm"}"#),
            ],
            one(),
        ),
        (
            "more of the name with each piece",
            vec![
                part(at(0), "x", "get_", ""),
                part(at(0), "x", "get_weather", ""),
                part(at(0), "x", "get_weather", r#"{"city":"Ulm"}"#),
            ],
            one(),
        ),
        (
            "the name after the arguments have begun",
            vec![part(at(0), "x", "", r#"{"city":"#), part(at(0), "", "get_weather", r#""Ulm"}"#)],
            one(),
        ),
        ("the name last", vec![part(at(0), "x", "", r#"{"city":"Ulm"}"#), part(at(0), "", "get_weather", "")], one()),
        (
            "more than the object",
            vec![
                part(at(0), "x", "get_weather", r#"{"city":"Ulm"}}"#),
                part(at(0), "", "", "\n"),
                part(at(0), "", "", "}"),
            ],
            one(),
        ),
        (
            "brackets and quotes in a string",
            vec![
                part(at(0), "x", "f", r#"{"a":"}\"{"#),
                part(at(0), "", "", r#"]\\","b":[1,{}]"#),
                part(at(0), "", "", "}"),
            ],
            vec![("f", r#"{"a":"}\"{]\\","b":[1,{}]}"#)],
        ),
        ("no arguments", vec![part(at(0), "x", "f", ""), part(at(0), "y", "g", "")], vec![("f", ""), ("g", "")]),
        ("nothing", vec![part(at(0), "", "", ""), part(None, "", "", " ")], vec![]),
    ];
    for (name, parts, expected) in cases {
        let (calls, _) = together(parts);
        let found: Vec<(&str, &str)> = calls.iter().map(|(_, name, arguments)| (&**name, &**arguments)).collect();
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn indexes_are_trusted_only_of_vendors_that_follow_the_format() {
    let openai = || vec![part(Some(0), "x", "f", ""), part(Some(0), "", "", "{}"), part(Some(1), "y", "g", "{}")];
    let (calls, trusted) = together(openai());
    assert!(trusted, "its chunks can go out as they came");
    assert_eq!((calls[0].0.as_str(), calls[1].0.as_str()), ("x", "y"));
    for (name, other) in [
        ("no id", part(Some(0), "", "f", "{}")),
        ("no index", part(None, "x", "f", "{}")),
        ("an index that jumps", part(Some(1), "x", "f", "{}")),
        ("more than the object", part(Some(0), "x", "f", "{}}")),
    ] {
        assert!(!together(vec![other]).1, "{name}");
    }
    for (name, other) in [
        ("the id again", part(Some(0), "x", "", "1}")),
        ("the name again", part(Some(0), "", "f", "1}")),
        ("an empty id", Part { index: Some(0), id: Some(String::new()), name: None, arguments: "1}".to_owned() }),
    ] {
        let (calls, trusted) = together(vec![part(Some(0), "x", "f", r#"{"a":"#), other]);
        assert!(!trusted, "{name}");
        assert_eq!(calls.len(), 1, "{name}");
    }
}

#[test]
fn generated_ids_never_repeat() {
    let ids: HashSet<String> = (0..100).map(|_| together(vec![part(Some(0), "", "f", "{}")]).0.remove(0).0).collect();
    assert_eq!(ids.len(), 100, "ids of one conversation's answers");
    let mut calls = Calls::default();
    let mut pieces = Vec::new();
    for choice in [0, 1] {
        calls.part(choice, part(Some(0), "x", "f", "{}"), &mut pieces).expect("few calls");
    }
    let ids: HashSet<&Option<String>> =
        pieces.iter().map(|piece| if let Piece::ToolCall { id, .. } = piece { id } else { &None }).collect();
    assert_eq!(ids.len(), 2, "one id in two choices of an answer");
}

#[test]
fn a_call_that_names_no_function_is_an_error() {
    let mut calls = Calls::default();
    let mut pieces = Vec::new();
    calls.part(0, part(Some(0), "x", "", r#"{"a":1}"#), &mut pieces).expect("few calls");
    assert_eq!(pieces, []);
    assert!(calls.check(1).is_ok());
    let error = calls.check(0).expect_err("nameless").to_string();
    assert!(error.contains("tool call 0") && error.contains("no function name"), "{error}");
}

#[test]
fn calls_without_number_are_refused() {
    let mut calls = Calls::default();
    let mut pieces = Vec::new();
    let refused = (0..2000).any(|index| calls.part(0, part(Some(index), "", "f", "{}"), &mut pieces).is_err());
    assert!(refused && pieces.len() == MAX_CALLS);
}

/// How a vendor identifies its calls.
#[derive(Debug, Clone)]
struct Habits {
    index: fn(u64) -> Option<u64>,
    ids: bool,
    repeats_id: bool,
    repeats_name: bool,
    size: usize,
}

fn habits() -> impl Strategy<Value = Habits> {
    let index = prop_oneof![
        Just((|at| Some(at)) as fn(u64) -> Option<u64>),
        Just((|at| Some(2 * at + 1)) as fn(u64) -> Option<u64>),
        Just((|_| Some(0)) as fn(u64) -> Option<u64>),
        Just((|_| None) as fn(u64) -> Option<u64>),
    ];
    (index, any::<bool>(), any::<bool>(), any::<bool>(), 1_usize..9)
        .prop_map(|(index, ids, repeats_id, repeats_name, size)| Habits { index, ids, repeats_id, repeats_name, size })
}

proptest! {
    #![proptest_config(kept())]

    #[test]
    fn calls_are_assembled_from_parts_of_any_form(
        habits in habits(),
        calls in proptest::collection::vec(("[fg]", "[a-c{}\\[\\]\"\\\\]{0,6}"), 1..5),
    ) {
        let mut parts = Vec::new();
        let mut expected = Vec::new();
        for (at, (name, text)) in calls.iter().enumerate() {
            // Each call has a unique value: without ids, the same call twice counts as a repetition.
            let arguments = serde_json::json!({"n": at, "text": text}).to_string();
            let id = if habits.ids { format!("id{at}") } else { String::new() };
            let index = (habits.index)(at as u64);
            let bytes: Vec<char> = arguments.chars().collect();
            for (piece, chunk) in bytes.chunks(habits.size).enumerate() {
                let chunk: String = chunk.iter().collect();
                let id = if piece == 0 || habits.repeats_id { id.as_str() } else { "" };
                let name = if piece == 0 || habits.repeats_name { name.as_str() } else { "" };
                parts.push(part(index, id, name, &chunk));
            }
            expected.push((name.clone(), arguments));
        }
        let (found, _) = together(parts);
        let found: Vec<(String, String)> = found.into_iter().map(|(_, name, arguments)| (name, arguments)).collect();
        prop_assert_eq!(found, expected);
    }
}
