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
/// Names of fields whose value needs no name beside it.
const PLAIN: [&str; 4] = ["label", "score", "value", "name"];
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
            Value::Object(fields) if is_figures(fields) => {
                for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
                    self.bullet(depth, &format!("{}: {}", escaped(name), inline(value).unwrap_or_default()));
                }
            }
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
        Value::Object(fields) if is_figures(fields) => {
            let figures = fields.iter().filter(|(_, value)| !value.is_null());
            join(
                figures
                    .map(|(name, value)| Some(format!("{} {}", escaped(name), inline(value)?)))
                    .collect::<Option<_>>()?,
                ", ",
            )
        }
        Value::Object(fields) if fields.values().all(|value| !value.is_object() && !value.is_array()) => {
            let parts = fields.iter().map(|(name, value)| match inline(value)? {
                text if PLAIN.contains(&name.as_str()) => Some(text),
                text => Some(format!("{} {text}", label(name).to_lowercase())),
            });
            join(parts.collect::<Option<_>>()?, " ")
        }
        Value::Array(_) | Value::Object(_) => None,
    }
}

/// Returns true for an object of numbers alone, such as one figure for each speaker: its names are what somebody wrote.
fn is_figures(fields: &Map<String, Value>) -> bool {
    fields.iter().all(|(name, value)| (value.is_number() || value.is_null()) && !PLAIN.contains(&name.as_str()))
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
mod tests;
