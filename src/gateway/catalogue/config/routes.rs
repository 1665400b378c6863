//! `[routes.NAME]`: names with weighted variants.

use std::collections::HashSet;

use toml::Value;

use super::models::{ModelConfig, read_candidate};
use super::values::name_is_valid;
use crate::base::names;
use crate::base::settings::{Section, found};
use crate::llm;
use crate::types::JsonMap;
use crate::types::provider::{LOCAL, is_local};

#[derive(Debug, Clone, PartialEq)]
pub struct RouteConfig {
    pub name: String,
    /// At least one, if the configuration is valid.
    pub variants: Vec<VariantConfig>,
}

/// A variant of a route.
#[derive(Debug, Clone, PartialEq)]
pub struct VariantConfig {
    /// Unique in the route.
    pub name: String,
    /// A logical model, or `endpoint/vendor-model`.
    pub model: String,
    /// Share of the requests, relative to the other variants; 0 = never chosen.
    pub weight: f64,
    /// Version of the prompt.
    pub prompt: Option<String>,
    /// Parameters that override the request's.
    pub params: JsonMap,
}

impl VariantConfig {
    /// The variant as JSON, with the keys of the configuration.
    pub(in crate::gateway) fn to_json(&self) -> serde_json::Value {
        let Self { name, model, weight, prompt, params } = self;
        serde_json::json!({"name": name, "model": model, "weight": weight, "prompt": prompt, "params": params})
    }
}

/// Reads a route. `models` are the configured models, `endpoints` all names of endpoints in the file.
pub(in crate::gateway) fn read_route(
    root: &mut Section<'_>,
    name: &str,
    value: Value,
    models: &[ModelConfig],
    endpoints: &[String],
) -> RouteConfig {
    let mut section = Section::new(format!("routes.{name}"), Some(value), root.problems());
    if !name_is_valid(name) {
        section.problem("", "expected a name of A-Z a-z 0-9 _ . ~ : -");
    }
    let tables = section.tables("variants");
    if tables.as_ref().is_none_or(Vec::is_empty) {
        section.problem("variants", "expected a list with at least one {name, model, weight, prompt, params}");
    }
    let mut variants = Vec::new();
    let mut seen = HashSet::new();
    for (path, table) in tables.unwrap_or_default() {
        let mut variant = Section::new(path, Some(table), section.problems());
        let name = variant.string("name").unwrap_or_else(|| "default".to_owned());
        if !seen.insert(name.clone()) {
            variant.problem("name", format!("{name:?} is used twice"));
        }
        let model = match variant.string("model") {
            Some(model) => {
                if model.contains('/') {
                    if let Err(message) = read_candidate(&model, endpoints) {
                        variant.problem("model", message);
                    }
                } else if !is_local(&model) && !models.iter().any(|known| known.name == model) {
                    let mut known: Vec<&str> = models.iter().map(|known| known.name.as_str()).collect();
                    known.push(LOCAL);
                    let message = format!(
                        "no model {model:?}; there are: {}, and any \"endpoint/vendor-model\"{}",
                        names::list(&known),
                        names::hint(&model, &known)
                    );
                    variant.problem("model", message);
                }
                model
            }
            None => {
                if !variant.has("model") {
                    variant.problem("model", "missing; expected a model's name or \"endpoint/vendor-model\"");
                }
                String::new()
            }
        };
        let weight = variant.number("weight", 0.0..=1e6).unwrap_or(1.0);
        let prompt = variant.string("prompt");
        let params = read_params(&mut variant);
        variant.finish();
        variants.push(VariantConfig { name, model, weight, prompt, params });
    }
    if !variants.is_empty() && variants.iter().all(|variant| variant.weight <= 0.0) {
        section.problem("variants", "expected at least one variant with a weight above 0");
    }
    section.finish();
    RouteConfig { name: name.to_owned(), variants }
}

/// Finds errors that every request would run into, so that they are reported once, when the file is read.
fn check_params(params: &JsonMap) -> Result<(), String> {
    let message = llm::Message::text(llm::Role::User, "x");
    let mut request = llm::ChatRequest { messages: vec![message], ..llm::ChatRequest::default() };
    request.apply_params(params).map_err(|error| error.message)?;
    if let Some(llm::ResponseFormat::JsonSchema { schema, .. }) = &request.response_format {
        llm::schema::Validator::compile(schema).map_err(|error| format!("response_format: {error}"))?;
    }
    // The tool that `tool_choice` names may be one of the caller's.
    if request.tools.is_empty() {
        request.tool_choice = None;
    }
    request.check().map_err(|error| error.message)
}

fn read_params(variant: &mut Section<'_>) -> JsonMap {
    let Some(value) = variant.take("params") else { return JsonMap::new() };
    match serde_json::to_value(&value) {
        Ok(serde_json::Value::Object(params)) => {
            if let Err(error) = check_params(&params) {
                variant.problem("params", error);
            }
            params
        }
        _ => {
            variant.problem("params", format!("expected a table of request parameters, found {}", found(&value)));
            JsonMap::new()
        }
    }
}
