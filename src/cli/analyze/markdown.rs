//! A report in Markdown: title, facts, and a section for each analysis. Values have any form, because users define
//! their own schemas. Text of models and speakers is escaped, so that none of it is markup, except in a field
//! `markdown`.
//!
//! Pure.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::report::Report;
use crate::cli::screen::harmless;

/// A text with at least this many characters gets a paragraph of its own.
const LONG_CHARS: usize = 60;
/// Names of fields whose text represents the whole object.
const HEADS: [&str; 7] = ["text", "headline", "title", "label", "name", "speaker", "question"];
/// A list or an object nested deeper than this is shown as JSON.
const MAX_DEPTH: usize = 6;

/// The page of one file.
pub(super) fn page(report: &Report) -> String {
    let title = report.title.as_deref().unwrap_or(&report.name);
    let mut out = format!("# {}\n\n", escaped(title));
    let mut facts = report.facts();
    if report.title.is_some() {
        facts.insert(0, report.name.clone());
    }
    let facts: Vec<String> = facts.iter().map(|fact| escaped(fact)).collect();
    let _ = writeln!(out, "{}", facts.join(" · "));
    for (analysis, insights) in report.insights() {
        heading(&capital(analysis), &mut out);
        for insight in insights {
            section(report, insight, &mut out);
        }
    }
    let missing: Vec<String> =
        report.missing().map(|(name, why)| format!("- {}: {}\n", escaped(name), escaped(why))).collect();
    if !missing.is_empty() {
        heading("Missing", &mut out);
        out.push_str(&missing.concat());
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

fn heading(text: &str, out: &mut String) {
    out.truncate(out.trim_end_matches('\n').len());
    let _ = write!(out, "\n\n## {}\n\n", escaped(text));
}

/// One insight: its value, its evidence, and the model that made it.
fn section(report: &Report, insight: &Value, out: &mut String) {
    let per_turn = insight["turn"].as_u64();
    if let Some(turn) = per_turn {
        let said = report.turn(turn).map_or(String::new(), |turn| format!(" {}", escaped(&turn.text)));
        let _ = write!(out, "**{}**{said}\n\n", escaped(&report.place(turn)));
    }
    let mut body = Body { report, out: &mut *out };
    match &insight["value"] {
        value if is_empty(value) => body.paragraph("(nothing)"),
        Value::Object(fields) => {
            // Plain quotes are listed beside the value, with marks.
            let fields = fields.iter().filter(|(name, _)| *name != "evidence");
            body.object(&fields.map(|(name, value)| (name.as_str(), value)).collect::<Vec<_>>(), 0);
        }
        other => body.value(other, 0),
    }
    body.end_block();
    let quotes = insight["evidence"].as_array().into_iter().flatten().filter_map(Value::as_object);
    let quotes: Vec<String> = quotes.filter_map(|item| quote(report, item)).collect();
    if !quotes.is_empty() {
        let _ = write!(out, "{}\n\n", quotes.iter().map(|quote| format!("> {quote}  ")).collect::<Vec<_>>().join("\n"));
    }
    let endpoint = insight["provenance"]["endpoint"].as_str().unwrap_or_default();
    if per_turn.is_none() && !endpoint.is_empty() {
        let model = insight["provenance"]["model"].as_str().filter(|model| *model != endpoint).unwrap_or_default();
        let degraded = if insight["degraded"] == true { ", degraded" } else { "" };
        let _ = writeln!(out, "*by {}{degraded}*", escaped(format!("{endpoint} {model}").trim()));
    }
}

/// `“words” (0:42, Ann)`; a quote whose words are not in the transcript is marked.
fn quote(report: &Report, item: &Map<String, Value>) -> Option<String> {
    let words = escaped(item.get("quote")?.as_str()?);
    let place = match item.get("turn")? {
        Value::Null => "no turn".to_owned(),
        turn => report.place(turn.as_u64()?),
    };
    let mark = if item.get("unverified") == Some(&Value::Bool(true)) { ", **not in the transcript**" } else { "" };
    Some(format!("“{words}” ({}{mark})", escaped(&place)))
}

struct Body<'a> {
    report: &'a Report,
    out: &'a mut String,
}

impl Body<'_> {
    /// An object's fields. At the top level, texts are paragraphs, and lists have bold labels; deeper, each field is a
    /// bullet.
    fn object(&mut self, fields: &[(&str, &Value)], depth: usize) {
        let alone = fields.len() == 1;
        for (name, value) in fields {
            if is_empty(value) || *name == "id" {
                continue;
            }
            match value {
                Value::String(text) if depth == 0 && *name == "markdown" => self.paragraph(&text.replace('<', "&lt;")),
                Value::String(text) if depth == 0 && (alone || HEADS.contains(name)) => self.paragraph(&escaped(text)),
                Value::String(text) if depth == 0 && text.chars().count() > LONG_CHARS => {
                    self.paragraph(&format!("**{}:** {}", label(name), escaped(text)));
                }
                value => match inline(value) {
                    Some(text) => self.bullet(depth, &format!("**{}:** {text}", label(name))),
                    None if depth == 0 => {
                        self.paragraph(&format!("**{}**", label(name)));
                        self.value(value, depth);
                        self.end_block();
                    }
                    None => {
                        self.bullet(depth, &format!("**{}**", label(name)));
                        self.value(value, depth + 1);
                    }
                },
            }
        }
    }

    fn value(&mut self, value: &Value, depth: usize) {
        match value {
            _ if depth > MAX_DEPTH => self.bullet(depth, &format!("`{}`", value.to_string().replace('`', "'"))),
            Value::Array(items) => items.iter().for_each(|item| self.item(item, depth)),
            Value::Object(fields) => {
                let fields: Vec<(&str, &Value)> = fields.iter().map(|(name, value)| (name.as_str(), value)).collect();
                self.object(&fields, depth.max(1));
            }
            other => self.bullet(depth, &inline(other).unwrap_or_default()),
        }
    }

    /// An element of a list as one bullet: its text, and its short fields in brackets.
    fn item(&mut self, item: &Value, depth: usize) {
        let Some(fields) = item.as_object() else { return self.value(item, depth) };
        if let Some(quote) = quote(self.report, fields) {
            let others: Vec<String> = fields
                .iter()
                .filter(|(name, _)| !["turn", "quote", "unverified", "id"].contains(&name.as_str()))
                .filter_map(|(_, value)| inline(value).filter(|text| !text.is_empty()))
                .collect();
            return self.bullet(depth, [others.join(", "), quote].join(" ").trim());
        }
        let head =
            HEADS.iter().find_map(|name| Some((*name, fields.get(*name)?.as_str().filter(|text| !text.is_empty())?)));
        let (mut about, mut long) = (Vec::new(), Vec::new());
        for (name, value) in fields {
            if is_empty(value) || name == "id" || head.is_some_and(|(head, _)| head == name) {
                continue;
            }
            match inline(value) {
                Some(text) if name == "speaker" => about.insert(0, text),
                Some(text) => about.push(format!("{}: {text}", label(name).to_lowercase())),
                None => long.push((name.as_str(), value)),
            }
        }
        let about = about.join(", ");
        let line = match head {
            Some((_, text)) if about.is_empty() => escaped(text),
            Some((_, text)) => format!("{} ({about})", escaped(text)),
            None => about,
        };
        if line.is_empty() {
            return self.object(&long, depth.max(1));
        }
        self.bullet(depth, &line);
        self.object(&long, depth + 1);
    }

    fn bullet(&mut self, depth: usize, text: &str) {
        let _ = writeln!(self.out, "{:indent$}- {text}", "", indent = depth * 2);
    }

    fn paragraph(&mut self, text: &str) {
        self.end_block();
        let _ = write!(self.out, "{text}\n\n");
    }

    /// Adds a blank line after a list.
    fn end_block(&mut self) {
        if !self.out.ends_with("\n\n") {
            self.out.push('\n');
        }
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.trim().is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// A value on one line: scalars, short lists of them, and objects of two or three such as `{"label","score"}`.
fn inline(value: &Value) -> Option<String> {
    let join = |values: Vec<String>, between: &str| {
        let text = values.join(between);
        (text.chars().count() <= LONG_CHARS).then_some(text)
    };
    match value {
        Value::Null => Some(String::new()),
        Value::Bool(yes) => Some(if *yes { "yes" } else { "no" }.to_owned()),
        Value::Number(number) if number.is_f64() => Some(format!("{:.2}", number.as_f64().unwrap_or_default())),
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => Some(escaped(text)),
        Value::Array(items) if items.iter().all(|item| !item.is_object() && !item.is_array()) => {
            join(items.iter().filter_map(inline).collect(), ", ")
        }
        Value::Object(fields) if fields.values().all(|value| !value.is_object() && !value.is_array()) => {
            let named = ["label", "score", "value", "name"];
            let parts = fields.iter().map(|(name, value)| match inline(value)? {
                text if named.contains(&name.as_str()) => Some(text),
                text => Some(format!("{} {text}", label(name).to_lowercase())),
            });
            join(parts.collect::<Option<_>>()?, " ")
        }
        Value::Array(_) | Value::Object(_) => None,
    }
}

/// `action_items` as `Action items`.
fn capital(name: &str) -> String {
    let name = name.replace('_', " ");
    let mut characters = name.chars();
    characters.next().map_or(String::new(), |first| first.to_uppercase().chain(characters).collect())
}

fn label(name: &str) -> String {
    escaped(&capital(name))
}

/// A text on one line, in which no character is markup.
fn escaped(text: &str) -> String {
    let text = harmless(text.trim());
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let mut out = String::with_capacity(text.len());
    for (at, character) in text.char_indices() {
        let ends_word = || text.get(at + 1..).is_none_or(|rest| rest.is_empty() || rest.starts_with(' '));
        let is_markup = match character {
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '|' | '~' => true,
            // These would begin a list, a heading or a quote.
            '-' | '+' | '=' | '#' | '>' => at == 0,
            '.' | ')' => digits > 0 && at == digits && ends_word(),
            '&' => text.contains(';'),
            _ => false,
        };
        if is_markup {
            out.push('\\');
        }
        out.push(character);
    }
    out
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::super::ask::Answer;
    use super::*;
    use crate::cli::input::Input;
    use crate::transcript;

    fn report(insights: &Value) -> Report {
        let text = "Ann: Please send the offer by Friday.\nBob: I will send it.\n";
        let (format, transcript) = transcript::read(text.as_bytes(), None).expect("a transcript");
        let turns = transcript.turns.iter().zip(0..).map(|(turn, number)| {
            let shown = json!({"turn": number, "stream_id": "s", "turn_order": number, "rev": 0, "speaker": turn.speaker,
                "text": turn.text, "start_ms": turn.start_ms + 61_000, "end_ms": turn.end_ms + 61_000});
            serde_json::from_value(shown).expect("a turn")
        });
        let turns = turns.collect();
        let body = json!({"call_id": "c", "turns": 2, "insights": insights, "missing": {"topics": "timeout"}, "cost_usd": 0.0123});
        let input = Input::Transcript(format.name(), transcript);
        Report::new(Path::new("/x/a_b.txt"), &input, Answer { body, turns }, Vec::new())
    }

    #[test]
    fn report_page_has_every_part() {
        let insights = json!({
            "summary": {"analysis": "summary", "degraded": true, "provenance": {"endpoint": "local", "model": "local"},
                "value": {"headline": "An offer is *due*.", "points": [
                    {"id": "p1", "text": "Ann wants an offer.", "speaker": "Ann"}, {"text": "1. first", "speaker": null}],
                    "outcome": null, "evidence": [{"turn": 0, "quote": "send the offer"}]},
                "evidence": [{"turn": 0, "quote": "send the offer"}, {"turn": 9, "quote": "<b>", "unverified": true}]},
            "sentiment": {"value": {"overall": {"label": "neutral", "score": 0.0}, "trend": "stable",
                "speakers": [{"speaker": "Ann", "label": "neutral", "score": -0.25}]}, "evidence": []},
            "action_items": {"value": {"items": [{"id": "a", "text": "Send the offer", "owner": "Bob", "due": "Friday", "state": "open",
                "evidence": [{"turn": 1, "quote": "I will"}]}]}, "evidence": []},
            "sentiment_turn": {"turns": {
                "1": {"turn": 1, "value": {"label": "positive"}}, "0": {"turn": 0, "value": {"label": "neutral"}}}},
        });
        let expected = "\
# a\\_b.txt

2 turns · about 1:05 · Ann, Bob · text · 0.0123 USD

## Summary

An offer is \\*due\\*.

**Points**

- Ann wants an offer. (Ann)
- 1\\. first

> “send the offer” (1:01, Ann)  
> “\\<b>” (turn 9, **not in the transcript**)  

*by local, degraded*

## Action items

**Items**

- Send the offer (owner: Bob, due: Friday, state: open)
  - **Evidence**
    - “I will” (1:03, Bob)

## Sentiment

- **Overall:** neutral 0.00
- **Trend:** stable

**Speakers**

- neutral (Ann, score: -0.25)

## Sentiment turn

**1:01, Ann** Please send the offer by Friday.

neutral

**1:03, Bob** I will send it.

positive

## Missing

- topics: timeout
";
        assert_eq!(page(&report(&insights)), expected);
    }

    #[test]
    fn report_shows_any_value_and_escapes_text() {
        let deep = (0..20).fold(json!("x"), |inner, _| json!({"more": [inner]}));
        for value in [
            json!(null),
            json!("# no"),
            json!([1, [2], {"a": 1.5}]),
            json!(true),
            deep,
            json!({"markdown": "# Yes\n<script>"}),
        ] {
            let page = page(&report(&json!({"own": {"value": value, "evidence": null}})));
            assert!(page.starts_with("# a") && page.contains("## Own") && !page.contains('<'), "{page}");
        }
        assert_eq!(escaped("- [a](b) `c` & 1. x\n# y"), "\\- \\[a\\](b) \\`c\\` & 1. x # y");
        assert_eq!(escaped("12) x &amp; <b>"), "12\\) x \\&amp; \\<b>");
        assert_eq!(escaped("1.5 and C#"), "1.5 and C#");
    }
}
