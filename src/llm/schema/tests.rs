use serde_json::{Map, json};

use super::*;

fn checked(schema: &Value, text: &str) -> Result<Verdict, Exceeded> {
    let validator = Validator::compile(schema).unwrap_or_else(|error| panic!("{schema}: {error}"));
    validator.check(text, &mut Budget::new(CHECKING))
}

fn is_valid(schema: &Value, answer: &Value) -> bool {
    matches!(checked(schema, &answer.to_string()), Ok(Verdict::Valid(..)))
}

/// The limit that the schema exceeds.
fn limit(schema: &Value) -> &'static str {
    match Validator::compile(schema).map(|_| ()) {
        Err(SchemaError::TooComplex(Exceeded::Limit(bound))) => bound.name,
        other => panic!("{other:?}"),
    }
}

/// Definitions `d0` to `d<count>`: `define` makes each one from a reference to the next; the last is empty.
fn chained(count: usize, define: impl Fn(Value) -> Value) -> Value {
    let mut definitions = Map::new();
    for number in 0..count {
        let next = json!({"$ref": format!("#/$defs/d{}", number + 1)});
        definitions.insert(format!("d{number}"), define(next));
    }
    definitions.insert(format!("d{count}"), json!({}));
    json!({"$ref": "#/$defs/d0", "$defs": definitions})
}

fn nested(depth: usize, around: impl Fn(Value) -> Value) -> Value {
    (0..depth).fold(json!(1), |inner, _| around(inner))
}

#[test]
fn valid_repaired_and_invalid() {
    let schema = json!({"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]});
    let validator = Validator::compile(&schema).expect("schema");
    let check = |text| validator.check(text, &mut Budget::new(CHECKING)).expect("in its budget");
    assert_eq!(check(" {\"a\": 1}\n"), Verdict::Valid("{\"a\": 1}".into(), json!({"a": 1})));
    assert_eq!(check("```\n{\"a\":1,}\n```"), Verdict::Valid("{\"a\":1}".into(), json!({"a": 1})));
    let Verdict::Invalid(errors) = check("{\"a\":\"x\"}") else { panic!("valid") };
    assert!(errors.starts_with("/a: "), "{errors}");
    assert!(matches!(check("hm"), Verdict::Invalid(_)));
}

#[test]
fn limits_of_a_callers_schema() {
    assert!(matches!(Validator::compile(&json!({"$ref":"http://example.com/x"})), Err(SchemaError::RemoteRef(_))));
    assert!(Validator::compile(&json!({"$defs":{"a":{}},"$ref":"#/$defs/a"})).is_ok());
    let mut deep = json!({});
    for _ in 0..40 {
        deep = json!({"properties":{"a":deep}});
    }
    assert_eq!(Validator::compile(&deep).map(|_| ()), Err(SchemaError::TooDeep));
    let large = json!({"description":"x".repeat(MAX_SCHEMA_BYTES)});
    assert!(matches!(Validator::compile(&large), Err(SchemaError::TooLarge(_))));
    assert!(matches!(Validator::compile(&json!({"type":"nonsense"})), Err(SchemaError::Invalid { .. })));
}

#[test]
fn schema_that_doubles_with_each_definition_is_refused_before_it_is_compiled() {
    for keyword in ["allOf", "anyOf", "oneOf"] {
        assert_eq!(limit(&chained(16, |next| json!({ keyword: [next, next] }))), "schema_steps", "{keyword}");
        // Below the limit, the schema works.
        let few = chained(8, |next| json!({ keyword: [next, next] }));
        assert_eq!(is_valid(&few, &json!(1)), keyword != "oneOf", "{keyword}");
    }
    for (keyword, other) in [("not", "if"), ("then", "else")] {
        assert_eq!(limit(&chained(16, |next| json!({ keyword: next, other: next }))), "schema_steps", "{keyword}");
    }
    assert_eq!(limit(&chained(16, |next| json!({"dependentSchemas": {"a": next, "b": next}}))), "schema_steps");
    // References through all kinds of anchors.
    let anchored = chained(16, |next| next);
    let mut definitions = anchored["$defs"].as_object().expect("definitions").clone();
    for number in 0..16 {
        let next = [json!({"$ref": format!("#a{}", number + 1)}), json!({"$dynamicRef": format!("#a{}", number + 1)})];
        definitions.insert(format!("d{number}"), json!({"$anchor": format!("a{number}"), "allOf": next}));
    }
    definitions.insert("d16".to_owned(), json!({"$dynamicAnchor": "a16"}));
    assert_eq!(limit(&json!({"$ref": "#a0", "$defs": definitions})), "schema_steps");
}

#[test]
fn schema_that_applies_to_itself_in_place_is_refused() {
    for schema in [
        json!({"$ref": "#"}),
        json!({"allOf": [{"$ref": "#"}]}),
        json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"anyOf": [{"$ref": "#/$defs/a"}, true]}}, "$ref": "#/$defs/a"}),
        json!({"$schema": "https://json-schema.org/draft/2019-09/schema", "not": {"$recursiveRef": "#"}}),
        chained(1_000, |next| next),
    ] {
        assert_eq!(limit(&schema), "schema_chain", "{schema}");
    }
    assert!(Validator::compile(&chained(30, |next| next)).is_ok());
}

#[test]
fn schema_with_too_many_parts_or_too_long_addresses_is_refused() {
    let many = vec![json!({}); 3_000];
    assert_eq!(limit(&json!({ "allOf": many })), "schema_parts");
    assert_eq!(limit(&json!({"allOf": vec![1; 3_000]})), "schema_parts", "of values that are none, too");
    assert_eq!(limit(&json!({"$defs": {"a": {"anyOf": many}}})), "schema_parts", "whether they apply or not");
    let members: Map<String, Value> = (0..1_500).map(|number| (format!("p{number}"), json!({}))).collect();
    let long = json!({"properties": {"k".repeat(20_000): {"properties": members}}});
    assert_eq!(limit(&long), "schema_address_bytes");
}

#[test]
fn common_schemas_are_accepted() {
    let tree = json!({"type":"object","properties":{"name":{"type":"string"},"children":{"type":"array","items":{"$ref":"#"}}},
        "required":["name"],"additionalProperties":false});
    let leaf = json!({"name":"leaf"});
    let answer = (0..20).fold(leaf, |inner, _| json!({"name":"node","children":[inner, {"name":"other"}]}));
    assert!(is_valid(&tree, &answer));
    let json_of_any_kind = json!({"$defs":{"json":{"anyOf":[{"type":["null","boolean","number","string"]},
        {"type":"array","items":{"$ref":"#/$defs/json"}},{"type":"object","additionalProperties":{"$ref":"#/$defs/json"}}]}},
        "$ref":"#/$defs/json"});
    assert!(is_valid(&json_of_any_kind, &nested(15, |inner| json!({"a": [inner, "x", null]}))));
    // Many variants, distinguished by a constant, each with different fields.
    let variants: Vec<Value> = (0..100)
        .map(|number| {
            let fields: Map<String, Value> =
                (0..12).map(|field| (format!("f{field}"), json!({"type":"string"}))).collect();
            let mut properties = json!({"kind": {"const": format!("k{number}")}});
            properties.as_object_mut().expect("an object").extend(fields);
            json!({"type":"object","properties":properties,"required":["kind"]})
        })
        .collect();
    let events = json!({"type":"object","properties":{"events":{"type":"array","items":{"anyOf":variants}}}});
    let items: Vec<Value> = (0..50).map(|number| json!({"kind": format!("k{number}"), "f1": "x"})).collect();
    assert!(is_valid(&events, &json!({ "events": items })));
}

/// Each level of the answer doubles the work; the schema alone does not show it.
#[test]
fn answer_that_doubles_with_each_level_is_too_complex() {
    let twice = json!({"anyOf": [{"type":"array","items":{"$ref":"#"}}, {"type":"array","items":{"$ref":"#"}},
        {"type":"integer","maximum":0}]});
    let shallow = nested(5, |inner| json!([inner]));
    assert!(matches!(checked(&twice, &shallow.to_string()), Ok(Verdict::Invalid(_))));
    let deep = nested(30, |inner| json!([inner]));
    assert_eq!(checked(&twice, &deep.to_string()), Err(Exceeded::Limit(CHECKING.steps)));
}

#[test]
fn answer_that_is_nested_too_deep_is_too_complex() {
    let schema = json!({"items": {"allOf": [{"allOf": [{"$ref": "#"}]}]}});
    assert!(is_valid(&schema, &nested(24, |inner| json!([inner]))));
    let deep = nested(100, |inner| json!([inner]));
    assert_eq!(checked(&schema, &deep.to_string()), Err(Exceeded::Limit(cost::VALIDATION_DEPTH)));
}

/// The deepest schema and the deepest answer, on the stack that the daemon's threads have.
#[test]
fn deepest_schemas_and_answers_fit_on_the_stack() {
    let run = || {
        let schema = (0..MAX_SCHEMA_DEPTH).fold(json!({}), |inner, _| json!({ "items": inner }));
        assert!(Validator::compile(&schema).is_ok());
        let members = (0..MAX_SCHEMA_DEPTH / 2).fold(json!(1), |inner, _| json!({"properties": {"a": inner}}));
        assert!(matches!(Validator::compile(&members), Err(SchemaError::Invalid { .. })));
        let recursive = json!({"properties": {"a": {"allOf": [{"$ref": "#"}]}}, "items": {"anyOf": [{"$ref": "#"}]}});
        for answer in [nested(33, |inner| json!([inner])), nested(33, |inner| json!({ "a": inner }))] {
            assert!(is_valid(&recursive, &answer));
        }
    };
    let small = std::thread::Builder::new().stack_size(2 * 1024 * 1024 - 256 * 1024).spawn(run).expect("a thread");
    small.join().expect("no panic");
}

#[test]
fn answer_under_costly_keywords_is_too_complex() {
    let numbers: Vec<u64> = (0..3_000).map(|number| (1 << 62) + number).collect();
    let texts: Vec<String> = (0..2_000).map(|number| "ab".repeat(500) + &number.to_string()).collect();
    for (schema, answer) in [
        // Numbers with equal hashes in the validator.
        (json!({"uniqueItems": true}), json!(numbers)),
        (json!({"items": {"pattern": "^([ab]{1,20}){1,20}$"}}), json!(texts)),
        (json!({"$schema":"http://json-schema.org/draft-07/schema#","format":"regex"}), json!("\\d".repeat(10_000))),
        (json!({"items": {"enum": (0..10_000).collect::<Vec<_>>()}}), json!((0..600).collect::<Vec<_>>())),
    ] {
        assert_eq!(checked(&schema, &answer.to_string()), Err(Exceeded::Limit(CHECKING.steps)), "{schema}");
    }
    let many = format!("[{}]", vec!["0"; 1_000_000].join(","));
    assert_eq!(checked(&json!({}), &many), Err(Exceeded::Limit(CHECKING.bytes)));
}

/// Only a few of the errors in an answer are reported, and only briefly.
#[test]
fn answer_that_is_wrong_everywhere_is_answered_in_a_few_lines() {
    let schema = json!({"items": {"type": "string"}});
    for items in [100, 1_000, 30_000] {
        let Ok(Verdict::Invalid(errors)) = checked(&schema, &json!(vec![1; items]).to_string()) else {
            panic!("{items}")
        };
        assert!(errors.lines().count() <= MAX_ERRORS && errors.len() < 2_000, "{errors}");
    }
    let long = json!({"k".repeat(100_000): {"k".repeat(100_000): 1}});
    let schema = json!({"additionalProperties": {"additionalProperties": {"enum": ["x".repeat(10_000)]}}});
    let Ok(Verdict::Invalid(errors)) = checked(&schema, &long.to_string()) else { panic!("valid") };
    assert!(errors.len() < 1_000, "{}", errors.len());
}

#[test]
fn work_of_a_check_is_not_more_than_was_said_before() {
    let tree =
        json!({"type":"object","properties":{"a":{"type":"string"},"b":{"type":"array","items":{"type":"integer"}}}});
    let validator = Validator::compile(&tree).expect("schema");
    for text in [
        json!({"a": "x", "b": [1, 2, 3]}).to_string(),
        json!({"a": "some words, and more", "b": vec![7; 500]}).to_string(),
        "prose {\"a\": \"x\", b: [1,2,]}".to_owned(),
    ] {
        let mut budget = Budget::new(CHECKING);
        validator.check(&text, &mut budget).expect("in its budget");
        // An invalid value is checked again for its errors.
        assert!(budget.steps() <= 4 * validator.work(&text), "{text}: {} {}", budget.steps(), validator.work(&text));
    }
    let recursive = Validator::compile(&json!({"items": {"$ref": "#"}})).expect("schema");
    assert_eq!(recursive.work("[]"), u64::MAX, "nobody knows before");
}

#[test]
fn footprint_grows_with_the_schema_and_with_what_patterns_match() {
    let of = |schema: &Value| Validator::compile(schema).expect("schema").footprint();
    let small = of(&json!({"type": "string"}));
    assert!(of(&json!({"allOf": vec![json!({}); 100]})) > small + 100 * 1_024);
    let validator = Validator::compile(&json!({"pattern": "^[ab]*a[ab]{10}$"})).expect("schema");
    let before = validator.footprint();
    let text = json!("ab".repeat(1_000)).to_string();
    validator.check(&text, &mut Budget::new(CHECKING)).expect("in its budget");
    assert!(validator.footprint() >= before + 2_000, "{before} {}", validator.footprint());
    for _ in 0..100 {
        validator.check(&text, &mut Budget::new(CHECKING)).expect("in its budget");
    }
    assert!(validator.footprint() <= before + MATCHER_BYTES, "a pattern's memory has an end");
}
