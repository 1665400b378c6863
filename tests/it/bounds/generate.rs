//! Hostile input, from a seed: values and texts that are long, deep, repeated or at the limits of their types, and JSON
//! schemas with many paths to the same place.

use serde_json::{Map, Number};

use crate::support::{Chance, Json, json};

/// Returns true once in `times`.
pub(super) fn once_in(chance: &mut Chance, times: usize) -> bool {
    chance.below(times) == 0
}

pub(super) fn pick<'a, T>(chance: &mut Chance, of: &'a [T]) -> &'a T {
    &of[chance.below(of.len())]
}

/// A number of items: usually small, sometimes large.
pub(super) fn count(chance: &mut Chance, most: usize) -> usize {
    match chance.below(10) {
        0 => chance.below(most + 1),
        1 | 2 => chance.below(most.min(100) + 1),
        _ => chance.below(most.min(6) + 1),
    }
}

/// A text of up to about `most` bytes, made of a repeated piece.
pub(super) fn text(chance: &mut Chance, most: usize) -> String {
    let pieces = [
        "a",
        "ab",
        " ",
        "word ",
        "\\d",
        "\\",
        "\"",
        "{",
        "[{",
        "</think>",
        "<think>a</think>",
        "\u{301}",
        "解約",
        "🙂",
        "\n",
        "0",
        "..",
        "\\u0000",
        "//",
        "ſ",
        "ﬃ",
    ];
    let piece = pick(chance, &pieces);
    piece.repeat(count(chance, most / piece.len()))
}

pub(super) fn number(chance: &mut Chance) -> Json {
    let edges = [0, 1, u64::MAX, u64::MAX - 1, 1 << 53, (1 << 53) + 1, 1 << 62, i64::MAX as u64, u64::from(u32::MAX)];
    match chance.below(4) {
        0 => json!(pick(chance, &edges)),
        1 => json!(-(chance.next() as i64 >> 1)),
        2 => Number::from_f64(*pick(chance, &[1e308, -1e308, 0.5, 1e-308, 1e19])).map_or(Json::Null, Json::Number),
        _ => json!(chance.below(100)),
    }
}

/// Any JSON with up to about `most` values.
pub(super) fn value(chance: &mut Chance, most: usize) -> Json {
    if once_in(chance, 6) {
        // Deep and narrow. No parser here accepts a depth of more than 128.
        let depth = chance.below(most.min(120) + 1);
        let name = text(chance, 20);
        let list = once_in(chance, 2);
        return (0..depth)
            .fold(number(chance), |inner, _| if list { json!([inner]) } else { json!({ name.clone(): inner }) });
    }
    match chance.below(if most < 2 { 4 } else { 6 }) {
        0 => Json::Null,
        1 => json!(once_in(chance, 2)),
        2 => number(chance),
        3 => Json::String(text(chance, most * 4)),
        4 => {
            let items = count(chance, most);
            let each = value(chance, most / items.max(1));
            (0..items).map(|_| if once_in(chance, 8) { number(chance) } else { each.clone() }).collect()
        }
        _ => {
            let members = count(chance, most);
            let each = value(chance, most / members.max(1));
            let name = text(chance, 40);
            Json::Object((0..members).map(|at| (format!("{name}{at}"), each.clone())).collect())
        }
    }
}

/// Makes one place of a valid value invalid.
pub(super) fn spoil(chance: &mut Chance, place: &mut Json) {
    if !once_in(chance, 5) {
        match place {
            Json::Array(items) if !items.is_empty() => {
                let at = chance.below(items.len());
                return spoil(chance, &mut items[at]);
            }
            Json::Object(members) if !members.is_empty() => {
                let at = chance.below(members.len());
                return spoil(chance, members.values_mut().nth(at).expect("a member"));
            }
            _ => {}
        }
    }
    *place = match (&*place, chance.below(4)) {
        (Json::Array(items), 0 | 1) if !items.is_empty() => {
            let first = items[0].clone();
            vec![first; count(chance, 2_000)].into()
        }
        (Json::Object(members), 0) => {
            let mut more = members.clone();
            more.extend((0..count(chance, 1_000)).map(|at| (format!("m{at}"), number(chance))));
            Json::Object(more)
        }
        (Json::String(_), 0 | 1) => Json::String(text(chance, 100_000)),
        (_, 2) => number(chance),
        _ => self::value(chance, 2_000),
    };
}

/// A JSON document of up to `most` bytes with as many values as possible, in the places where an answer or a request
/// has lists.
pub(super) fn dense(chance: &mut Chance, most: usize) -> String {
    let lists = [
        ("[", "]"),
        (r#"{"choices":["#, "]}"),
        (r#"{"content":["#, "]}"),
        (r#"{"candidates":["#, "]}"),
        (r#"{"error":["#, "]}"),
        (r#"{"data":["#, "]}"),
        (r#"{"message":{"content":["#, "]}}"),
        (r#"{"candidates":[{"content":{"parts":["#, "]}}]}"),
        (r#"{"choices":[{"finish_reason":"stop","message":{"content":"x"},"logprobs":["#, "]}]}"),
        (r#"{"model":"m","messages":["#, "]}"),
        (r#"{"model":"m","messages":[{"role":"user","content":"x"}],"tools":["#, "]}"),
    ];
    let items =
        ["0", "{}", "[]", "\"\"", "[[],[]]", r#"{"a":0}"#, r#"{"type":"text"}"#, r#"{"message":{},"delta":{}}"#];
    let ((begin, end), item) = (*pick(chance, &lists), *pick(chance, &items));
    let room = (most / (1 + chance.below(4))).saturating_sub(begin.len() + item.len() + end.len());
    let more = format!(",{item}").repeat(room / (item.len() + 1));
    format!("{begin}{item}{more}{end}")
}

/// A regular expression.
pub(super) fn pattern(chance: &mut Chance, depth: usize) -> String {
    let atoms =
        ["a", ".", r"\d", r"\w", r"\s", r"\p{L}", "[ab]", "[^x]", r"\cA", "(?i)k", "^", "$", r"\b", "(?=a)", "é", "\\"];
    if depth == 0 || once_in(chance, 4) {
        return (*pick(chance, &atoms)).to_owned();
    }
    let inner = pattern(chance, depth - 1);
    match chance.below(6) {
        0 => format!("({inner})*"),
        1 => format!("({inner}){{{},{}}}", chance.below(3), 1 + chance.below(1_000)),
        2 => format!("({inner}){{{},}}", chance.below(200)),
        3 => format!("{inner}{}", pattern(chance, depth - 1)),
        4 => format!("({inner}|{})", pattern(chance, depth - 1)),
        _ => inner.repeat(count(chance, 200)),
    }
}

/// A JSON schema of any dialect, with references that lead to the same definitions again and again.
pub(super) fn schema(chance: &mut Chance) -> Json {
    let definitions = count(chance, 300);
    let mut made = Map::new();
    for number in 0..definitions {
        // Usually to the next one: the number of paths to the last one multiplies.
        let next = if once_in(chance, 20) { chance.below(definitions) } else { number + 1 };
        let ways = 1 + chance.below(3);
        let inner: Vec<Json> = (0..ways).map(|_| reference(chance, next, definitions)).collect();
        let mut part = around(chance, inner);
        if once_in(chance, 4) {
            part["$anchor"] = json!(format!("a{number}"));
        }
        if once_in(chance, 8) {
            part["$dynamicAnchor"] = json!("dynamic");
        }
        if once_in(chance, 30) {
            part["$id"] = json!(format!("https://example.com/{number}"));
        }
        made.insert(format!("d{number}"), part);
    }
    let mut root = subschema(chance, 3);
    if !root.is_object() {
        root = json!({});
    }
    if definitions > 0 {
        let draft = chance.below(3) == 0;
        root[if draft { "definitions" } else { "$defs" }] = Json::Object(made);
        root["$ref"] = json!(format!("#/{}/d0", if draft { "definitions" } else { "$defs" }));
    }
    if once_in(chance, 4) {
        root["$recursiveAnchor"] = json!(true);
    }
    if once_in(chance, 3) {
        let drafts = [
            "http://json-schema.org/draft-04/schema#",
            "http://json-schema.org/draft-07/schema#",
            "https://json-schema.org/draft/2019-09/schema",
            "https://json-schema.org/draft/2020-12/schema",
        ];
        root["$schema"] = json!(pick(chance, &drafts));
    }
    root
}

fn reference(chance: &mut Chance, to: usize, definitions: usize) -> Json {
    match chance.below(12) {
        _ if to >= definitions => json!({}),
        0 => json!({"$ref": format!("#a{to}")}),
        1 => json!({"$dynamicRef": "#dynamic"}),
        2 => json!({"$recursiveRef": "#"}),
        3 => json!({"$ref": "#"}),
        4 => json!({"$ref": format!("#/definitions/d{to}")}),
        _ => json!({"$ref": format!("#/$defs/d{to}")}),
    }
}

/// A schema that applies all of `inner`.
fn around(chance: &mut Chance, mut inner: Vec<Json>) -> Json {
    let first = inner[0].clone();
    match chance.below(14) {
        0 => json!({ "allOf": inner }),
        1 => json!({ "anyOf": inner }),
        2 => json!({ "oneOf": inner }),
        3 => json!({ "not": first }),
        4 => json!({"if": first.clone(), "then": inner.pop(), "else": first}),
        5 => json!({"items": first.clone(), "contains": inner.pop(), "unevaluatedItems": first}),
        6 => json!({ "prefixItems": inner }),
        7 => json!({"additionalProperties": first.clone(), "patternProperties": {".": inner.pop()}}),
        8 => json!({"properties": {"a": first.clone(), "b": inner.pop()}, "unevaluatedProperties": first}),
        9 => json!({"propertyNames": first.clone(), "additionalProperties": inner.pop()}),
        10 => json!({"dependentSchemas": {"a": first.clone(), "b": inner.pop()}, "additionalProperties": first}),
        11 => json!({"items": inner}),
        12 => json!({"allOf": [{"items": first.clone()}, {"additionalProperties": inner.pop()}]}),
        _ => first,
    }
}

fn subschema(chance: &mut Chance, depth: usize) -> Json {
    if depth == 0 {
        return match chance.below(8) {
            0 => json!(once_in(chance, 2)),
            1 => json!({"type": "string", "maxLength": 20, "format": "regex"}),
            2 => json!({"pattern": pattern(chance, 3)}),
            3 => json!({"enum": (0..count(chance, 3_000)).collect::<Vec<_>>()}),
            4 => json!({"type": ["integer", "null"], "minimum": 3}),
            5 => json!({"uniqueItems": true, "maxItems": 5}),
            6 => json!({"required": (0..count(chance, 1_000)).map(|at| format!("r{at}")).collect::<Vec<_>>()}),
            _ => json!({"const": value(chance, 50)}),
        };
    }
    let ways = 1 + count(chance, if depth == 3 { 2_500 } else { 4 });
    let each = subschema(chance, depth - 1);
    around(chance, vec![each; ways])
}

/// A value for the paths of generated schemas: lists, and the members `a` and `b`.
pub(super) fn answer(chance: &mut Chance) -> Json {
    match chance.below(3) {
        0 => value(chance, 5_000),
        kind => {
            let depth = chance.below(60);
            let wide = if once_in(chance, 4) { 2 } else { 1 };
            let width = if depth < 8 { 1 + count(chance, 4) } else { wide };
            let levels = if width > 1 { depth.min(8) } else { depth };
            let leaf = value(chance, 10);
            (0..levels).fold(leaf, |inner, _| {
                if kind == 1 {
                    vec![inner; width].into()
                } else {
                    json!({"a": inner.clone(), "b": if width > 1 { inner } else { json!(1) }})
                }
            })
        }
    }
}
