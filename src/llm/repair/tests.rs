//! Texts as models write them, repaired or refused.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::base::testing::kept;

fn parse(text: &str) -> Option<(Value, bool)> {
    super::parse(text, &mut Budget::new(REPAIRING)).expect("in its budget")
}

fn parse_as(text: &str, valid: impl Fn(&Value) -> bool) -> Option<(Value, bool)> {
    super::parse_as(text, &mut Budget::new(REPAIRING), |value, _| Ok(valid(value))).expect("in its budget")
}

#[test]
fn typical_model_output_is_repaired() {
    let cases = [
        ("{\"a\":\"x\ny\"}", json!({"a":"x\ny"})),
        ("```json\n{\"a\":1}\n```", json!({"a":1})),
        ("Sure! Here is the [JSON] you asked for:\n{\"a\":[1,2,],}\nHope it helps {x}", json!({"a":[1,2]})),
        ("{'a': 'it\\'s', b: True, // why\n c: None}", json!({"a":"it's","b":true,"c":null})),
        ("{\"a\": {\"b\": [1, 2", json!({"a":{"b":[1,2]}})),
        ("{\"a\":\"she said \"no\" twice\"}", json!({"a":"she said \"no\" twice"})),
        ("{\"a\":\"\\ud83d\\ude00\"} trailing", json!({"a":"\u{1f600}"})),
        ("\u{feff}[{\"a\":+1}]", json!({"a":1})),
        ("{\"a\": \"x\"\n \"b\": \"y\"\n}", json!({"a":"x","b":"y"})),
        ("{\"a\": [\"x\"\n \"y\"]}", json!({"a":["x","y"]})),
    ];
    for (text, expected) in cases {
        let (value, clean) = parse(text).unwrap_or_else(|| panic!("{text}"));
        assert_eq!(value, expected, "{text}");
        assert!(!clean, "{text}");
    }
}

#[test]
fn last_complete_object_is_the_answer() {
    let calm = json!({"level":"calm"});
    let cases = [
        "Maybe {\"level\":\"tense\"}? No: {\"level\":\"calm\"}",
        "<think>maybe {\"level\":\"tense\"}</think>\n{\"level\":\"calm\",}",
        "<think>\nmaybe {\"level\":\"tense\"}\n</think>\n\n```json\n{\"level\":\"calm\"}\n```",
        "maybe {\"level\":\"tense\"}\n</think>\n{\"level\":\"calm\"}",
        "{\"level\":\"tense\"}, or rather\n```json\n{\"level\":\"calm\"}\n```\nand not {\"level\":\"tense\"}.",
        "{\"level\":\"calm\"}\nSources: [1], [2]",
        "[\"tense\"] {\"level\":\"calm\"}",
        "{\"level\":\"calm\"} then {\"level\":",
        "{\"level\":\"calm\"} then {\"other\": {\"level\":\"tense\"",
    ];
    for text in cases {
        assert_eq!(parse(text), Some((calm.clone(), false)), "{text}");
    }
    // A valid value is preferred to the last one.
    let level = |value: &Value| value.get("level").is_some();
    for text in ["{\"level\":\"calm\"}\nexample: {\"other\":1}", "{\"x\":{}} {\"level\":\"calm\"} {\"y\":[]}"] {
        assert_eq!(parse_as(text, level), Some((calm.clone(), false)), "{text}");
    }
    assert_eq!(parse_as("[1] {\"a\":2}", Value::is_array), Some((json!([1]), false)));
}

#[test]
fn half_a_surrogate_pair_is_the_replacement_character() {
    for (text, expected) in [
        ("{\"a\":\"x\\ud83d\",}", "x\u{fffd}"),
        ("{\"a\":\"\\ude00x\",}", "\u{fffd}x"),
        ("{\"a\":\"\\ud83d\\n\",}", "\u{fffd}\n"),
        ("{\"a\":\"\\ud83d\\u0041\",}", "\u{fffd}A"),
        ("{\"a\":\"\\ud83d\\ude00\",}", "\u{1f600}"),
    ] {
        assert_eq!(parse(text), Some((json!({ "a": expected }), false)), "{text}");
    }
}

#[test]
fn prose_full_of_brackets_is_read_in_steps_of_its_length() {
    for text in ["{\"a\":[".repeat(20_000), "[{".repeat(50_000), "{x ".repeat(50_000), "\"[".repeat(50_000)] {
        let mut budget = Budget::new(REPAIRING);
        super::parse(&text, &mut budget).expect("in its budget");
        let most = (text.len() * (2 + MAX_WORK / CHARACTERS_A_STEP)) as u64;
        assert!(budget.steps() <= most, "{}: {} steps of {most}", &text[..8], budget.steps());
    }
}

#[test]
fn text_over_the_step_limit_is_refused() {
    let few = Limits { steps: Bound::new("test_steps", 10_000), ..REPAIRING };
    let given_up = super::parse(&"[{".repeat(50_000), &mut Budget::new(few));
    assert_eq!(given_up, Err(Exceeded::Limit(few.steps)));
    let mut looked_at = 0;
    let costly = super::parse_as(&"{x: 1} ".repeat(1_000), &mut Budget::new(few), |_, budget| {
        looked_at += 1;
        budget.spend(1_000)?;
        Ok(false)
    });
    assert_eq!((costly, looked_at), (Err(Exceeded::Limit(few.steps)), 9), "what is asked of each value counts too");
}

#[test]
fn what_would_need_a_guess_is_refused() {
    for text in ["", "no json", "{\"a\":\"cut in the mid", "{\"a\" 1}", "{a: b c}"] {
        assert_eq!(parse(text), None, "{text}");
    }
    let deep = "[".repeat(100_000);
    assert_eq!(repair(&deep, &mut Budget::new(REPAIRING), |_, _| Ok(true)), Ok(None));
}

proptest! {
    #![proptest_config(kept())]

    #[test]
    fn any_input_ends_and_json_stays_itself(text in "[\\[\\]{}\",:a-c0-2\\\\\n' ]{0,60}") {
        if let (Ok(strict), found) = (serde_json::from_str::<Value>(&text), parse(&text)) {
            prop_assert_eq!(found, Some((strict, true)));
        }
    }
}
