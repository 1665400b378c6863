//! Makes the request that asks one analysis, or several at once, about a snapshot.
//!
//! Knows no vendor and no call, and does not decide who is asked and when. The schema of several analyses is always the
//! same for the same analyses in the same order, whichever of them are due, because vendors put it before the prompt.

use std::sync::Arc;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::layout::{self, Asks, Question};
use super::prompt::{Prompt, RenderError, Shown};
use super::{Analysis, Facts, Scope, items};
use crate::context::Snapshot;
use crate::llm::{Caching, ChatRequest, Message, ResponseFormat, Role, Text};
use crate::types::{CallId, JsonMap};

/// Hex digits of a request's cache key.
const KEY_DIGITS: usize = 32;
/// Tokens of one member of an answer beside its value: its name, or null.
const MEMBER_TOKENS: u64 = 16;

/// An analysis of a request.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The question.
    pub analysis: &'a Analysis,
    /// The version of the analysis's prompt.
    pub prompt: &'a Prompt,
    /// The current value, for a prompt that has [instructions](Prompt::bundles); other prompts do not show it.
    pub current: Option<&'a Value>,
    /// Set if this is the last run of the call.
    pub last: bool,
    /// Set if the request asks it. Otherwise it is only in the schema, beside others that are asked, and its member of the
    /// answer is null.
    pub due: bool,
}

impl Asked<'_> {
    /// The JSON schema of the answer.
    fn schema(&self) -> &Arc<Value> {
        self.analysis.asked_schema(self.analysis.form(self.prompt, self.last))
    }

    fn settings(&self) -> Shown<'_> {
        let settings = &self.analysis.settings;
        Shown { to: settings.to.as_deref(), questions: &settings.questions }
    }
}

/// The request that asks all of `asked` about a snapshot, whose text it shares.
///
/// The answer to one analysis is its value. The answer to several is an object with one member for each, named by
/// [`members`], which may be null.
///
/// # Errors
/// A template fails with the facts of this call, or a prompt with a layout of its own is asked together with others.
pub fn request(asked: &[Asked<'_>], snapshot: &Snapshot, facts: &Facts) -> Result<ChatRequest, RenderError> {
    let several = asked.len() > 1;
    let names = if several { members(asked.iter().map(|asked| &*asked.analysis.name)) } else { Vec::new() };
    let messages = match asked {
        [one] if !one.prompt.bundles() => one.prompt.messages(snapshot, facts, one.settings())?,
        _ => {
            let questions = asked.iter().enumerate().map(|(position, asked)| {
                let member = names.get(position).map(String::as_str);
                if !asked.due {
                    return Ok(Question { member, asks: None });
                }
                let mut instructions = asked.prompt.instructions(snapshot, facts, asked.settings())?;
                let lists = asked.analysis.list_instructions(asked.analysis.form(asked.prompt, asked.last));
                if !lists.is_empty() {
                    instructions.push('\n');
                    instructions.push_str(lists);
                }
                let current = asked.current.map(items::shown);
                Ok(Question { member, asks: Some(Asks { current, instructions }) })
            });
            let questions = questions.collect::<Result<Vec<_>, RenderError>>()?;
            let user = layout::user(snapshot, facts, &questions);
            vec![
                Message::text(Role::System, Text::from(layout::SYSTEM)),
                Message { role: Role::User, content: user, ..Message::default() },
            ]
        }
    };
    let rolling = asked.iter().any(|asked| asked.analysis.scope != Scope::Turn);
    Ok(ChatRequest {
        messages,
        max_tokens: max_tokens(asked),
        // The same for all that are asked together.
        temperature: asked.first().and_then(|asked| asked.analysis.settings.temperature),
        response_format: response_format(asked, &names),
        caching: rolling.then(|| Caching { key: key(&facts.call_id), last: false }),
        ..ChatRequest::default()
    })
}

/// Limit of the answer: the sum of the limits of all analyses that are due.
fn max_tokens(asked: &[Asked<'_>]) -> Option<u64> {
    let due = asked.iter().filter(|asked| asked.due).map(|asked| asked.analysis.settings.max_output_tokens);
    let values = due.reduce(|sum, limit| Some(sum?.saturating_add(limit?))).flatten();
    let members = if asked.len() > 1 { MEMBER_TOKENS * asked.len() as u64 } else { 0 };
    values.map(|values| values.saturating_add(members))
}

/// Names of the members in the answer to several analyses, in their order: the analyses' names, with only characters
/// that vendors accept.
pub fn members<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut members: Vec<String> = Vec::new();
    for name in names {
        let plain = super::schema::name(name);
        let is_free = |member: &String| !members.contains(member);
        let numbered = (2..).map(|number| format!("{plain}_{number}"));
        let member = std::iter::once(plain.clone()).chain(numbered).find(is_free).unwrap_or_default();
        members.push(member);
    }
    members
}

fn response_format(asked: &[Asked<'_>], members: &[String]) -> Option<ResponseFormat> {
    if let [one] = asked {
        return Some(ResponseFormat::JsonSchema {
            name: super::schema::name(&one.analysis.name),
            schema: Arc::clone(one.schema()),
            strict: one.analysis.strict,
        });
    }
    let mut properties = JsonMap::new();
    for (asked, member) in asked.iter().zip(members) {
        let schema = nested(asked.schema(), &format!("#/properties/{member}/anyOf/0"));
        properties.insert(member.clone(), json!({"anyOf": [schema, {"type": "null"}]}));
    }
    let schema = json!({
        "type": "object", "properties": properties, "required": members, "additionalProperties": false,
    });
    let strict = asked.iter().all(|asked| asked.analysis.strict);
    Some(ResponseFormat::JsonSchema { name: "answers".to_owned(), schema: Arc::new(schema), strict })
}

/// A schema for use at `place` of another one: its references to itself are changed accordingly.
fn nested(schema: &Value, place: &str) -> Value {
    match schema {
        Value::Object(members) => {
            let moved = members.iter().filter(|(key, value)| *key != "$schema" || !value.is_string());
            let moved = moved.map(|(key, value)| match (key.as_str(), value) {
                ("$ref", Value::String(target)) => match target.strip_prefix('#') {
                    Some(rest) => (key.clone(), Value::String(format!("{place}{rest}"))),
                    None => (key.clone(), value.clone()),
                },
                // Names that the analysis chose, not keywords.
                ("properties" | "$defs" | "definitions" | "patternProperties", Value::Object(named)) => {
                    let named = named.iter().map(|(name, schema)| (name.clone(), nested(schema, place)));
                    (key.clone(), Value::Object(named.collect()))
                }
                // These are values, not schemas.
                ("enum" | "const" | "default" | "examples", value) => (key.clone(), value.clone()),
                (_, value) => (key.clone(), nested(value, place)),
            });
            Value::Object(moved.collect())
        }
        Value::Array(items) => items.iter().map(|item| nested(item, place)).collect(),
        other => other.clone(),
    }
}

/// A hash of the call id, the same for all requests about a call. Vendors never get the id.
fn key(call: &CallId) -> Arc<str> {
    let mut key = hex::encode(Sha256::digest(call.as_str().as_bytes()));
    key.truncate(KEY_DIGITS);
    key.into()
}

#[cfg(test)]
mod tests;
