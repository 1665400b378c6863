//! Checks the references between `[rules.*]` and `[analyses.*]`.

use serde_json::Value;

use crate::analysis::{Analysis, Registry as Analyses, Scope};
use crate::base::names;
use crate::base::settings::Problems;
use crate::rules::{Condition, Reading, Rules};

/// Reports references from rules to analyses, and from analyses to rules, that are wrong.
pub(super) fn check(rules: &Rules, analyses: &Analyses, problems: &mut Problems) {
    for (_, rule) in rules.iter() {
        for (index, name) in rule.runs.iter().enumerate() {
            let path = format!("rules.{}.runs[{index}]", rule.name);
            if !analyses.names().contains(name) {
                problems.push(path, names::unknown("analysis", name, analyses.names()));
            } else if analyses.get(name).is_some_and(|analysis| analysis.scope == Scope::Turn) {
                problems.push(path, format!("{name} is a per-turn analysis, which already runs for each turn"));
            }
        }
        if let Condition::Insight(reading) = &rule.condition {
            let path = |key: &str| format!("rules.{}.{key}", rule.name);
            match analyses.get(&reading.analysis) {
                Some(analysis) => {
                    if let Some(message) = leads_nowhere(analysis, reading) {
                        problems.push(path("at"), message);
                    }
                }
                None if analyses.names().contains(&reading.analysis) => {}
                None => {
                    problems.push(path("analysis"), names::unknown("analysis", &reading.analysis, analyses.names()))
                }
            }
        }
    }
    for analysis in analyses.names().iter().filter_map(|name| analyses.get(name)) {
        let (on, path) = (&analysis.settings.on, format!("analyses.{}.on", analysis.name));
        if on.is_empty() {
            continue;
        }
        for rule in on.alerts.iter().filter(|rule| !rules.names().contains(rule)) {
            problems.push(path.clone(), names::unknown("rule", rule, rules.names()));
        }
    }
}

/// Why a pointer leads to nothing in any answer of an analysis, if its schema shows that.
fn leads_nowhere(analysis: &Analysis, reading: &Reading) -> Option<String> {
    let mut schema: &Value = &analysis.schema;
    for part in reading.at.split('/').skip(1) {
        let part = part.replace("~1", "/").replace("~0", "~");
        let closed = schema.get("additionalProperties") == Some(&Value::Bool(false));
        let properties = schema.get("properties").and_then(Value::as_object).filter(|_| closed)?;
        match properties.get(&part) {
            Some(inner) => schema = inner,
            None => {
                let known: Vec<&String> = properties.keys().collect();
                return Some(format!("{} has {}", analysis.name, names::unknown("member", &part, &known)));
            }
        }
    }
    None
}
