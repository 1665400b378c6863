//! Reads a client's frames. A frame is checked in full before anything is done: one invalid field refuses the whole
//! frame.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::Deps;
use crate::base::names;
use crate::base::surrogates;
use crate::hub::{Filter, Include};
use crate::protocol::ErrorCode;
use crate::types::{CallId, JsonMap, Seq};

/// Longest `id` that is echoed, characters.
const MAX_ID: usize = 256;
/// Longest part of an invalid value that an error message shows, characters.
const MAX_SHOWN: usize = 60;

/// Why a frame was refused.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Refusal {
    /// The client's `id`, if it could be read.
    pub id: Option<Value>,
    pub code: ErrorCode,
    /// Says what was wrong, where, and what is allowed.
    pub message: String,
}

/// The calls of a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Calls {
    /// `"*"`
    All,
    /// The listed calls, without repetition.
    These(Vec<CallId>),
}

/// Where the subscription continues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Resume {
    /// Nowhere: it begins with new events.
    No,
    /// In these calls, after the event (epoch, seq).
    Positions(HashMap<CallId, (String, Seq)>),
    /// In the stream of all calls; only with [`Calls::All`].
    Cursor(String),
}

/// A valid `subscribe`.
#[derive(Debug)]
pub(super) struct Subscribe {
    pub id: Option<Value>,
    pub calls: Calls,
    /// `match`: calls whose metadata lacks one of these members are left out.
    pub wanted: JsonMap,
    pub wait: bool,
    pub filter: Filter,
    pub resume: Resume,
}

/// A valid frame of a client.
#[derive(Debug)]
pub(super) enum Request {
    Subscribe(Box<Subscribe>),
    Unsubscribe { id: Option<Value>, subscription: String },
    Ping { id: Option<Value> },
    Unknown { id: Option<Value>, kind: String },
}

/// Parses a text frame. Does not look up whether calls exist.
pub(super) fn parse(text: &str, deps: &Deps) -> Result<Request, Refusal> {
    let refuse = |code, message: String| Refusal { id: None, code, message };
    let mut object = match surrogates::from_str(text) {
        Ok(Value::Object(object)) => object,
        Ok(other) => return Err(refuse(ErrorCode::BadJson, format!("expected a JSON object, found {}", show(&other)))),
        Err(error) => {
            // Line, column and category of the error; the text itself is not repeated.
            let place = format!("line {}, column {}", error.line(), error.column());
            return Err(refuse(ErrorCode::BadJson, format!("expected a JSON object; the text is not JSON at {place}")));
        }
    };
    let id = match object.remove("id") {
        None | Some(Value::Null) => None,
        Some(id @ Value::Number(_)) => Some(id),
        Some(Value::String(text)) if text.chars().count() <= MAX_ID => Some(Value::String(text)),
        Some(other) => {
            let found = show(&other);
            let message = format!("id: expected a string of at most {MAX_ID} characters, or a number, found {found}");
            return Err(refuse(ErrorCode::BadField, message));
        }
    };
    let mut fields = Fields { object, id };
    let kind = match fields.object.get("type").and_then(Value::as_str) {
        Some(kind) => kind.to_owned(),
        None => {
            let found = fields.object.get("type").map_or_else(|| "none".to_owned(), show);
            return Err(fields.bad("type", "one of subscribe, unsubscribe, ping", &found));
        }
    };
    match kind.as_str() {
        "subscribe" => subscribe(fields, deps).map(|subscribe| Request::Subscribe(Box::new(subscribe))),
        "unsubscribe" => match fields.object.remove("subscription") {
            Some(Value::String(subscription)) => Ok(Request::Unsubscribe { id: fields.id, subscription }),
            other => {
                let found = other.as_ref().map_or_else(|| "none".to_owned(), show);
                Err(fields.bad("subscription", "the name that `subscribed` gave, a string", &found))
            }
        },
        "ping" => Ok(Request::Ping { id: fields.id }),
        _ => Ok(Request::Unknown { id: fields.id, kind }),
    }
}

/// A short form of an invalid value, for an error message.
fn show(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() > MAX_SHOWN {
        format!("{}…", text.chars().take(MAX_SHOWN).collect::<String>())
    } else {
        text
    }
}

struct Fields {
    object: Map<String, Value>,
    id: Option<Value>,
}

impl Fields {
    fn refusal(&self, code: ErrorCode, message: String) -> Refusal {
        Refusal { id: self.id.clone(), code, message }
    }

    fn bad(&self, path: &str, expected: &str, found: &str) -> Refusal {
        self.refusal(ErrorCode::BadField, format!("{path}: expected {expected}, found {found}"))
    }

    /// Removes a member; `null` counts as absent.
    fn take(&mut self, key: &str) -> Option<Value> {
        self.object.remove(key).filter(|value| !value.is_null())
    }

    fn call(&self, path: &str, value: &Value) -> Result<CallId, Refusal> {
        let Some(text) = value.as_str() else { return Err(self.bad(path, "a call id", &show(value))) };
        CallId::parse(text).map_err(|error| self.refusal(ErrorCode::BadField, format!("{path}: {error}")))
    }
}

fn subscribe(mut fields: Fields, deps: &Deps) -> Result<Subscribe, Refusal> {
    let calls = calls(&mut fields, deps)?;
    let wanted = match fields.take("match") {
        None => JsonMap::new(),
        Some(Value::Object(wanted)) => wanted,
        Some(other) => return Err(fields.bad("match", "an object of meta members", &show(&other))),
    };
    let wait = match fields.take("wait") {
        None => false,
        Some(Value::Bool(wait)) => wait,
        Some(other) => return Err(fields.bad("wait", "true or false", &show(&other))),
    };
    let analyses = match fields.take("analyses") {
        None => None,
        Some(Value::Array(items)) => Some(analyses(&fields, &items, deps)?),
        Some(other) => return Err(fields.bad("analyses", "a list of analyses", &show(&other))),
    };
    let alerts = match fields.take("alerts") {
        None => true,
        Some(Value::Bool(alerts)) => alerts,
        Some(other) => return Err(fields.bad("alerts", "true or false", &show(&other))),
    };
    let include = include(&mut fields)?;
    let latest = delivery(&mut fields, deps)?;
    let resume = resume(&mut fields, &calls, deps)?;
    let filter = Filter { analyses, no_alerts: !alerts, include, latest };
    Ok(Subscribe { id: fields.id, calls, wanted, wait, filter, resume })
}

fn calls(fields: &mut Fields, deps: &Deps) -> Result<Calls, Refusal> {
    const EXPECTED: &str = "\"*\" or a list of call ids";
    match fields.take("calls") {
        Some(Value::String(text)) if text == "*" => Ok(Calls::All),
        Some(Value::Array(items)) if !items.is_empty() => {
            let limit = deps.calls_per_subscription;
            if items.len() > limit {
                let message = format!("calls: {} of them; limits.calls_per_subscription is {limit}", items.len());
                return Err(fields.refusal(ErrorCode::TooManyCalls, message));
            }
            let mut calls = Vec::with_capacity(items.len());
            let mut known = std::collections::HashSet::new();
            for (index, item) in items.iter().enumerate() {
                let call = fields.call(&format!("calls[{index}]"), item)?;
                if known.insert(call.clone()) {
                    calls.push(call);
                }
            }
            Ok(Calls::These(calls))
        }
        other => {
            let found = other.as_ref().map_or_else(|| "none".to_owned(), show);
            Err(fields.bad("calls", EXPECTED, &found))
        }
    }
}

fn known_analysis(fields: &Fields, path: &str, name: &str, deps: &Deps) -> Result<(), Refusal> {
    if deps.analyses.iter().any(|known| known == name) {
        return Ok(());
    }
    let shown: String = name.chars().take(MAX_SHOWN).collect();
    let message = format!(
        "{path}: no analysis '{shown}'; there are: {}{}",
        deps.analyses.join(", "),
        names::hint(name, &deps.analyses)
    );
    Err(fields.refusal(ErrorCode::UnknownAnalysis, message))
}

fn analyses(fields: &Fields, items: &[Value], deps: &Deps) -> Result<Vec<String>, Refusal> {
    let mut names = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let path = format!("analyses[{index}]");
        let Some(name) = item.as_str() else {
            return Err(fields.bad(&path, "the name of an analysis", &show(item)));
        };
        known_analysis(fields, &path, name, deps)?;
        names.push(name.to_owned());
    }
    Ok(names)
}

fn include(fields: &mut Fields) -> Result<Include, Refusal> {
    let expected = format!("a list of any of {}", Include::NAMES.join(", "));
    match fields.take("include") {
        None => Ok(Include::default()),
        Some(Value::Array(items)) => {
            let mut names = Vec::new();
            for (index, item) in items.iter().enumerate() {
                let Some(name) = item.as_str().filter(|name| Include::NAMES.contains(name)) else {
                    let expected = format!("one of {}", Include::NAMES.join(", "));
                    return Err(fields.bad(&format!("include[{index}]"), &expected, &show(item)));
                };
                names.push(name);
            }
            Include::from_names(names).map_err(|name| fields.bad("include", &expected, name))
        }
        Some(other) => Err(fields.bad("include", &expected, &show(&other))),
    }
}

fn delivery(fields: &mut Fields, deps: &Deps) -> Result<Vec<String>, Refusal> {
    let object = match fields.take("delivery") {
        None => return Ok(Vec::new()),
        Some(Value::Object(object)) => object,
        Some(other) => {
            return Err(fields.bad("delivery", "an object of analysis: \"latest\" or \"all\"", &show(&other)));
        }
    };
    let mut latest = Vec::new();
    for (name, value) in object {
        known_analysis(fields, "delivery", &name, deps)?;
        match value.as_str() {
            Some("latest") => latest.push(name),
            Some("all") => {}
            _ => return Err(fields.bad(&format!("delivery.{name}"), "\"latest\" or \"all\"", &show(&value))),
        }
    }
    Ok(latest)
}

fn resume(fields: &mut Fields, calls: &Calls, deps: &Deps) -> Result<Resume, Refusal> {
    let object = match fields.take("resume") {
        None => return Ok(Resume::No),
        Some(Value::Object(object)) if object.is_empty() => return Ok(Resume::No),
        Some(Value::Object(object)) => object,
        Some(other) => return Err(fields.bad("resume", "an object", &show(&other))),
    };
    if let (Calls::All, Some(Value::String(cursor))) = (calls, object.get("cursor")) {
        if object.len() > 1 {
            let expected = "either the newest \"cursor\", or positions by call";
            return Err(fields.bad("resume", expected, "both"));
        }
        return Ok(Resume::Cursor(cursor.clone()));
    }
    let limit = deps.calls_per_subscription;
    if object.len() > limit {
        let message = format!("resume: {} calls; limits.calls_per_subscription is {limit}", object.len());
        return Err(fields.refusal(ErrorCode::TooManyCalls, message));
    }
    let mut positions = HashMap::new();
    for (name, value) in object {
        let path = format!("resume.{}", name.chars().take(MAX_SHOWN).collect::<String>());
        let call = fields.call(&path, &Value::String(name))?;
        if let Calls::These(these) = calls
            && !these.contains(&call)
        {
            return Err(fields.refusal(ErrorCode::BadField, format!("{path}: expected only calls that `calls` names")));
        }
        let epoch = value.get("epoch").and_then(Value::as_str);
        let seq = value.get("seq").and_then(Value::as_u64);
        let (Some(epoch), Some(seq)) = (epoch, seq) else {
            let expected = match calls {
                Calls::All if path == "resume.cursor" => "the newest cursor, a string",
                _ => "{\"epoch\": a string, \"seq\": an integer >= 0}",
            };
            return Err(fields.bad(&path, expected, &show(&value)));
        };
        positions.insert(call, (epoch.to_owned(), seq));
    }
    Ok(Resume::Positions(positions))
}
