//! The variables of a prompt's template: for each scope, filled from a snapshot, or made up for a trial.
//!
//! Knows no template. Everything that others wrote is inserted escaped.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use minijinja::value::{Enumerator, Object, Value};

use super::super::{Facts, ListedQuestion, Scope};
use super::{MARK, Shown};
use crate::context::{Snapshot, escape};
use crate::types::{JsonMap, Turn};

/// The only variable that has members.
pub(super) const WITH_MEMBERS: &str = "meta";

/// The variables that can differ between two prompts of a call.
pub(super) const VOLATILE: [&str; 3] = ["meta", "transcript", "turns"];

/// Names of the variables of this scope.
pub(super) fn names(scope: Scope) -> &'static [&'static str] {
    match scope {
        Scope::Rolling | Scope::End => &["call_id", "meta", "questions", "to", "transcript", "turns"],
        Scope::Turn => {
            &["before", "call_id", "language", "meta", "questions", "speaker", "text", "to", "transcript", "turn"]
        }
    }
}

/// The variables of one job.
pub(super) fn of(snapshot: &Snapshot, facts: &Facts, settings: Shown<'_>) -> Value {
    let mut variables: BTreeMap<&str, Value> = BTreeMap::new();
    variables.insert("to", Value::from(settings.to.unwrap_or_default()));
    variables.insert("questions", questions(settings.questions));
    variables.insert("transcript", Value::from(MARK));
    variables.insert("call_id", Value::from(facts.call_id.as_str()));
    variables.insert("meta", Value::from_object(Data(serde_json::Value::Object(facts.meta.clone()))));
    match facts.turn.and_then(|turn| snapshot.turn(turn)) {
        Some(turn) => {
            turn_variables(&mut variables, turn);
            variables.insert("before", Value::from(snapshot.before()));
        }
        None => {
            variables.insert("turns", Value::from(snapshot.len()));
        }
    }
    Value::from_pairs(variables)
}

/// The configured questions as a prompt lists them, each on one line.
fn questions(questions: &[ListedQuestion]) -> Value {
    let question = |question: &ListedQuestion| {
        let text = escape::text(question.text.trim()).into_owned();
        Value::from_pairs([("id", Value::from(question.id.as_str())), ("text", Value::from(text))])
    };
    questions.iter().map(question).collect()
}

fn turn_variables(variables: &mut BTreeMap<&str, Value>, turn: &Turn) {
    let label = turn.speaker.as_deref().filter(|label| !label.is_empty()).unwrap_or("unknown");
    variables.insert("turn", Value::from(turn.turn));
    variables.insert("speaker", Value::from(escape::label(label).into_owned()));
    variables.insert("text", Value::from(escape::text(turn.text.trim()).into_owned()));
    variables.insert("language", Value::from(escape::label(turn.language.as_deref().unwrap_or_default()).into_owned()));
}

/// Made-up facts, to try a template with.
pub(super) fn sample(scope: Scope, meta: &JsonMap) -> Value {
    let mut variables: BTreeMap<&str, Value> = BTreeMap::new();
    variables.insert("transcript", Value::from(MARK));
    variables.insert("call_id", Value::from("c_1"));
    variables.insert("meta", Value::from_object(Data(serde_json::Value::Object(meta.clone()))));
    let question = ListedQuestion { id: "greeting".to_owned(), text: "Was there a greeting?".to_owned() };
    variables.insert("questions", questions(&[question]));
    variables.insert("to", Value::from("es"));
    match scope {
        Scope::Rolling | Scope::End => {
            variables.insert("turns", Value::from(2));
        }
        Scope::Turn => {
            let texts = [("speaker", "A"), ("text", "Hello."), ("language", "en"), ("before", "[0] B (0:00): Hi.\n")];
            for (name, value) in texts {
                variables.insert(name, Value::from(value));
            }
            variables.insert("turn", Value::from(1));
        }
    }
    Value::from_pairs(variables)
}

/// The sample variables, with a `meta` that has every possible member.
pub(super) fn sample_with_any_meta(scope: Scope) -> Value {
    let known = sample(scope, &JsonMap::new());
    let pair = |name: &&'static str| {
        let value = if *name == WITH_MEMBERS { Some(Value::from_object(Anything)) } else { known.get_attr(name).ok() };
        Some((*name, value?))
    };
    Value::from_pairs(names(scope).iter().filter_map(pair))
}

/// A value that has every possible member, each of which has every possible member too.
#[derive(Debug)]
struct Anything;

impl Object for Anything {
    fn get_value(self: &Arc<Self>, _: &Value) -> Option<Value> {
        Some(Value::from_object(Self))
    }

    fn render(self: &Arc<Self>, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("x")
    }
}

/// JSON that others wrote, as a template sees it: as a whole it is shown as one line of escaped JSON; its texts are
/// shown escaped.
#[derive(Debug)]
struct Data(serde_json::Value);

impl Data {
    fn value(value: &serde_json::Value) -> Value {
        match value {
            serde_json::Value::Null => Value::from(()),
            serde_json::Value::Bool(flag) => Value::from(*flag),
            serde_json::Value::String(text) => Value::from(escape::text(text).into_owned()),
            serde_json::Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(integer), _) => Value::from(integer),
                (None, Some(float)) => Value::from(float),
                (None, None) => Value::from(number.to_string()),
            },
            serde_json::Value::Array(items) => items.iter().map(Self::value).collect(),
            serde_json::Value::Object(_) => Value::from_object(Self(value.clone())),
        }
    }
}

impl Object for Data {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        Some(Self::value(self.0.get(key.as_str()?)?))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let keys = self.0.as_object().into_iter().flat_map(|map| map.keys());
        Enumerator::Values(keys.map(|key| Value::from(escape::text(key).into_owned())).collect())
    }

    fn render(self: &Arc<Self>, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&escape::json(&self.0))
    }
}
