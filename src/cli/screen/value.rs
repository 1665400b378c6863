//! An insight's value as lines for people: any JSON, because users define their own schemas. Pure, and without colour.

use serde_json::{Map, Value};

use super::text::harmless;

/// Texts longer than this get lines of their own.
const SHORT_CHARS: usize = 48;
/// Lists longer than this get lines of their own.
const SHORT_LIST_CHARS: usize = 72;
/// Fields whose values need no label.
const PLAIN: [&str; 5] = ["speaker", "name", "label", "score", "value"];

/// One line, and its indentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// Steps of indentation.
    pub(crate) depth: usize,
    /// The text, made harmless, not wrapped yet.
    pub(crate) text: String,
}

/// An insight's `value` as lines. Short fields of an object share a line. Empty values are left out, and so is a list
/// `evidence` of plain quotes, which an insight also has beside its value.
pub(crate) fn lines(value: &Value) -> Vec<Line> {
    let mut lines = Vec::new();
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(name, value)| *name != "evidence" || !is_plain_evidence(value));
            object(&fields.map(|(name, value)| (name.clone(), value.clone())).collect(), 0, &mut lines);
        }
        other => write(other, 0, &mut lines),
    }
    if lines.is_empty() {
        lines.push(Line { depth: 0, text: "(nothing)".to_owned() });
    }
    lines
}

/// The quotes in an insight's `evidence` whose words are not in the transcript, one line each; the others are not
/// shown.
pub(crate) fn unverified(evidence: &Value) -> Vec<Line> {
    let quotes = evidence.as_array().into_iter().flatten().filter(|item| item["unverified"] == true);
    quotes.filter_map(|item| Some(Line { depth: 0, text: quote(item.as_object()?)? })).collect()
}

/// Returns true for a quote that is in the transcript, and for a list of nothing else.
fn is_plain_evidence(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().all(|item| item.is_object() && is_plain_evidence(item)),
        Value::Object(fields) => quote(fields).is_some() && fields.len() == 2,
        _ => false,
    }
}

/// A quote with its turn, and a note if its words are not in the transcript.
fn quote(fields: &Map<String, Value>) -> Option<String> {
    let words = harmless(fields.get("quote")?.as_str()?);
    let place = match fields.get("turn")? {
        Value::Null => "no turn".to_owned(),
        turn => format!("turn {}", turn.as_i64()?),
    };
    let mark = if fields.get("unverified") == Some(&Value::Bool(true)) { ", not in the transcript" } else { "" };
    Some(format!("“{words}” ({place}{mark})"))
}

fn write(value: &Value, depth: usize, lines: &mut Vec<Line>) {
    match value {
        Value::Object(fields) => object(fields, depth, lines),
        Value::Array(items) => {
            for item in items {
                let mut inner = Vec::new();
                write(item, depth, &mut inner);
                if let Some(first) = inner.first_mut() {
                    first.text.insert_str(0, "- ");
                }
                for line in inner.iter_mut().skip(1) {
                    line.depth += 1;
                }
                lines.append(&mut inner);
            }
        }
        other => {
            if let Some(text) = scalar(other) {
                lines.push(Line { depth, text });
            }
        }
    }
}

fn object(fields: &Map<String, Value>, depth: usize, lines: &mut Vec<Line>) {
    if let Some(quote) = quote(fields) {
        let others = fields.iter().filter(|(name, _)| !["turn", "quote", "unverified"].contains(&name.as_str()));
        let others: Map<String, Value> = others.map(|(name, value)| (name.clone(), value.clone())).collect();
        if !others.is_empty() {
            object(&others, depth, lines);
        }
        return lines.push(Line { depth, text: quote });
    }
    if let Some(text) = sentence(fields) {
        return lines.push(Line { depth, text });
    }
    let mut long = Vec::new();
    let mut short = Vec::new();
    for (name, value) in fields {
        match inline(value) {
            Some(text) if text.is_empty() => {}
            // The names of figures are what somebody wrote, such as speakers' labels.
            Some(text) if value.is_number() && fields.values().all(|value| value.is_number() || value.is_null()) => {
                short.push(format!("{} {text}", harmless(name)));
            }
            Some(text) => short.push(format!("{} {text}", label(name))),
            None => long.push((name, value)),
        }
    }
    // A single text needs no label: the analysis's name is in the line above.
    let alone = fields.len() == 1;
    for (name, value) in &long {
        match value {
            Value::String(text) if alone => lines.push(Line { depth, text: harmless(text) }),
            Value::String(text) => lines.push(Line { depth, text: format!("{}: {}", label(name), harmless(text)) }),
            _ => {}
        }
    }
    if !short.is_empty() {
        lines.push(Line { depth, text: short.join(" · ") });
    }
    for (name, value) in long {
        if !value.is_string() {
            lines.push(Line { depth, text: format!("{}:", label(name)) });
            write(value, depth + 1, lines);
        }
    }
}

/// An object with a `text` and a few short fields about it, as one line. Its id is for programs, and quotes that are in the
/// transcript are left out.
fn sentence(fields: &Map<String, Value>) -> Option<String> {
    let text = harmless(fields.get("text")?.as_str()?);
    let mut about = Vec::new();
    let is_shown = |name: &str, value: &Value| !matches!(name, "text" | "id") && !is_plain_evidence(value);
    for (name, value) in fields.iter().filter(|(name, value)| is_shown(name, value)) {
        match inline(value)? {
            short if short.is_empty() => {}
            short if PLAIN.contains(&name.as_str()) => about.push(short),
            short => about.push(format!("{} {short}", label(name))),
        }
    }
    Some(if about.is_empty() { text } else { format!("{text} ({})", about.join(", ")) })
}

/// A value that fits on the line of others; `Some("")` for an empty one, `None` if it needs lines of its own.
fn inline(value: &Value) -> Option<String> {
    match value {
        Value::Array(items) if items.is_empty() => Some(String::new()),
        Value::Array(items) => {
            let texts: Vec<String> =
                items.iter().map(|item| scalar(item).or_else(|| plain(item))).collect::<Option<_>>()?;
            let text = texts.join(", ");
            (text.chars().count() <= SHORT_LIST_CHARS).then_some(text)
        }
        Value::Object(fields) if fields.is_empty() => Some(String::new()),
        Value::Object(fields) => plain(value).or_else(|| figures(fields)),
        other => {
            let text = scalar(other).unwrap_or_default();
            (text.chars().count() <= SHORT_CHARS).then_some(text)
        }
    }
}

/// An object whose values need no labels: `{"label": "negative", "score": -0.4}` is `negative -0.40`.
fn plain(value: &Value) -> Option<String> {
    let fields = value.as_object()?;
    let texts: Vec<String> = fields
        .iter()
        .map(|(name, value)| PLAIN.contains(&name.as_str()).then(|| scalar(value)).flatten())
        .collect::<Option<_>>()?;
    let text = texts.join(" ");
    (text.chars().count() <= SHORT_CHARS).then_some(text)
}

/// An object of numbers alone, such as one figure for each speaker: `{"A": 1200, "B": 900}` is `A 1200, B 900`. Nulls are
/// left out.
fn figures(fields: &Map<String, Value>) -> Option<String> {
    let mut texts = Vec::new();
    for (name, value) in fields {
        match value {
            Value::Null => {}
            Value::Number(_) => texts.push(format!("{} {}", harmless(name), scalar(value)?)),
            _ => return None,
        }
    }
    let text = texts.join(", ");
    (text.chars().count() <= SHORT_LIST_CHARS).then_some(text)
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some(String::new()),
        Value::Bool(true) => Some("yes".to_owned()),
        Value::Bool(false) => Some("no".to_owned()),
        Value::Number(number) => Some(match number.as_f64() {
            Some(float) if !number.is_i64() && !number.is_u64() => {
                let text = format!("{float:+.2}");
                if text == "-0.00" { "+0.00".to_owned() } else { text }
            }
            _ => number.to_string(),
        }),
        Value::String(text) => Some(harmless(text)),
        Value::Array(_) | Value::Object(_) => None,
    }
}

fn label(name: &str) -> String {
    harmless(&name.replace('_', " "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(value: &Value) -> Vec<String> {
        lines(value).into_iter().map(|line| format!("{}{}", "  ".repeat(line.depth), line.text)).collect()
    }

    #[test]
    fn quotes_say_where_they_are_from_and_whether_they_are_there() {
        assert_eq!(
            shown(&json!({"items": [
                {"id": "a", "evidence": [{"turn": 1, "quote": "I said so"}, {"turn": 2, "quote": "no", "unverified": true}]},
                {"claim": "short", "turn": 3, "quote": "yes\u{1b}"}]})),
            [
                "items:",
                "  - id a",
                "    evidence:",
                "      - “I said so” (turn 1)",
                "      - “no” (turn 2, not in the transcript)",
                "  - claim short",
                "    “yes\u{fffd}” (turn 3)",
            ]
        );
        assert_eq!(
            shown(&json!({"level": "calm", "evidence": [{"turn": 1, "quote": "x", "unverified": true}]})),
            ["level calm", "evidence:", "  - “x” (turn 1, not in the transcript)"]
        );
        let evidence = json!([{"turn": 1, "quote": "there"}, {"turn": 2, "quote": "made up", "unverified": true}]);
        let texts: Vec<String> = unverified(&evidence).into_iter().map(|line| line.text).collect();
        assert_eq!(texts, ["“made up” (turn 2, not in the transcript)"]);
        assert_eq!(unverified(&Value::Null), []);
    }

    #[test]
    fn items_are_one_line_without_their_ids() {
        let item = |evidence: Value| json!({"id": "i1_1", "text": "Send the form.", "owner": "A", "due": "by Friday", "evidence": evidence});
        let value = json!({"items": [item(json!({"turn": 1, "quote": "the form"})), item(json!([]))]});
        let line = "  - Send the form. (owner A, due by Friday)";
        assert_eq!(shown(&value), ["items:", line, line]);
        let value = json!({"items": [item(json!({"turn": 1, "quote": "no", "unverified": true}))]});
        assert!(shown(&value).concat().contains("not in the transcript"), "{:?}", shown(&value));
    }

    #[test]
    fn any_value_becomes_lines() {
        let long = "The customer cannot reach the internet since this morning and wants it back.";
        assert_eq!(shown(&json!({ "summary": long })), [long]);
        assert_eq!(
            shown(&json!({"overall": "negative", "score": -0.4211, "trend": null, "done": false, "tags": ["a", "b"]})),
            ["overall negative · score -0.42 · done no · tags a, b"]
        );
        assert_eq!(
            shown(&json!({"summary": long, "speakers": {"A": {"label": "neutral", "score": 0.0}}, "items": [
                {"who": "B", "what": "calls back"}, {"who": "A", "what": long}]})),
            [
                format!("summary: {long}"),
                "speakers:".into(),
                "  A neutral +0.00".into(),
                "items:".into(),
                "  - who B · what calls back".into(),
                format!("  - what: {long}"),
                "    who A".into(),
            ]
        );
        assert_eq!(
            shown(&json!({"overall": {"label": "negative", "score": -0.4}, "speakers": [
                {"speaker": "A", "label": "neutral", "score": 0.0}, {"speaker": "B", "label": "negative", "score": -0.8}],
                "trend": "stable", "evidence": [{"turn": 1, "quote": "x"}]})),
            ["overall negative -0.40 · speakers A neutral +0.00, B negative -0.80 · trend stable"]
        );
        assert_eq!(
            shown(
                &json!({"headline": long, "points": [{"text": "It is down.", "speaker": "B"}, {"text": "So.", "speaker": null}]})
            ),
            [format!("headline: {long}"), "points:".into(), "  - It is down. (B)".into(), "  - So.".into()]
        );
        assert_eq!(
            shown(&json!({"talk_ms": {"A": 1200, "B": 900}, "silence_ms": 40, "response_ms_p50": {"A": null}})),
            ["talk ms A 1200, B 900 · silence ms 40"]
        );
        assert_eq!(shown(&json!([])), ["(nothing)"]);
        assert_eq!(shown(&json!("\u{1b}[2J")), ["\u{fffd}[2J"]);
    }
}
