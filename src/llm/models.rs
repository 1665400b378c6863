//! Vendors' own lists of models: the available models, their capabilities, prices and retirement.
//!
//! Knows no request. Anything that a list does not state stays unknown: `None` never means "no".

use serde_json::Value;

use super::{StreamError, json, lenient};
use crate::base::time::parse_rfc3339;

/// Known properties of a model. `None` means unknown.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Traits {
    /// The model can call tools.
    pub tools: Option<bool>,
    /// The model supports JSON schemas natively.
    pub json_schema: Option<bool>,
    /// The model accepts images.
    pub vision: Option<bool>,
    /// The model accepts a reasoning effort.
    pub reasoning: Option<bool>,
    /// The model can call several tools at once; `Some(false)` if it never does.
    pub parallel_tools: Option<bool>,
    /// The model can stream its answer.
    pub stream: Option<bool>,
    /// Maximum tokens of prompt and answer together.
    pub context_length: Option<u64>,
    /// Maximum tokens of an answer.
    pub max_output_tokens: Option<u64>,
    /// The shortest prefix that its prompt cache keeps, in tokens.
    pub cache_floor_tokens: Option<u64>,
    /// How long its prompt cache keeps a prefix after the last use, ms; 0 if it has no such cache.
    pub cache_ttl_ms: Option<u64>,
    /// When the model will be retired, Unix ms.
    pub retires_ms: Option<i64>,
    /// Names of all request fields that it accepts.
    pub parameters: Option<Vec<String>>,
}

/// A warning about a model's retirement begins this long before it, ms.
const NOTICE_MS: i64 = 30 * 24 * 60 * 60 * 1000;

/// Returns true if at `now_ms` there must be a warning about a model that retires at `retires_ms`.
pub fn retires_soon(retires_ms: i64, now_ms: i64) -> bool {
    retires_ms - now_ms < NOTICE_MS
}

impl Traits {
    /// These properties, with those of `other` for the unknown ones.
    pub fn or(&self, other: &Self) -> Self {
        Self {
            tools: self.tools.or(other.tools),
            json_schema: self.json_schema.or(other.json_schema),
            vision: self.vision.or(other.vision),
            reasoning: self.reasoning.or(other.reasoning),
            parallel_tools: self.parallel_tools.or(other.parallel_tools),
            stream: self.stream.or(other.stream),
            context_length: self.context_length.or(other.context_length),
            max_output_tokens: self.max_output_tokens.or(other.max_output_tokens),
            cache_floor_tokens: self.cache_floor_tokens.or(other.cache_floor_tokens),
            cache_ttl_ms: self.cache_ttl_ms.or(other.cache_ttl_ms),
            retires_ms: self.retires_ms.or(other.retires_ms),
            parameters: self.parameters.clone().or_else(|| other.parameters.clone()),
        }
    }
}

/// Prices in US dollars per million tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ListPrice {
    /// Prompt tokens.
    pub input: f64,
    /// Completion tokens.
    pub output: f64,
    /// Prompt tokens read from the cache.
    pub cached: Option<f64>,
    /// Prompt tokens written to the cache.
    pub cache_write: Option<f64>,
}

/// One model of a list.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Listed {
    /// The vendor's id.
    pub id: String,
    /// The model's properties.
    pub traits: Traits,
    /// The model's price, if listed.
    pub price: Option<ListPrice>,
    /// Set if the model is listed, but no longer answers.
    pub retired: bool,
}

/// A page of a list.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Page {
    pub models: Vec<Listed>,
    /// The position from which to request the next page; `None` on the last one.
    pub next: Option<String>,
}

fn parse(body: &[u8], list: &str) -> Result<(Value, Vec<Value>), StreamError> {
    let malformed = || StreamError::Malformed("no list of models".to_owned());
    let mut whole: Value = json::read(body).map_err(|_| malformed())?;
    let items = match &mut whole {
        Value::Array(items) => std::mem::take(items),
        whole => match whole.get_mut(list).map(Value::take) {
            Some(Value::Array(items)) => items,
            _ => return Err(malformed()),
        },
    };
    Ok((whole, items))
}

/// Reads a list in OpenAI's format, including the additions of OpenRouter, AssemblyAI, Azure, Groq, Mistral, Together
/// and vLLM. `assemblyai`: `supported_parameters` lists streaming too, and schemas as `response_format`.
pub(super) fn openai(body: &[u8], assemblyai: bool) -> Result<Page, StreamError> {
    let (_, items) = parse(body, "data")?;
    Ok(Page { models: items.iter().filter_map(|item| openai_model(item, assemblyai)).collect(), next: None })
}

fn openai_model(item: &Value, assemblyai: bool) -> Option<Listed> {
    let capability = |name: &str| item.pointer(&format!("/capabilities/{name}")).and_then(Value::as_bool);
    if capability("completion_chat").or(capability("chat_completion")) == Some(false) {
        return None;
    }
    let first = |paths: &[&str]| {
        paths.iter().find_map(|path| lenient::count_of(item.pointer(path)?)).filter(|count| *count > 0)
    };
    let parameters = strings(item.get("supported_parameters"));
    let takes = |name: &str| parameters.as_ref().map(|names| names.iter().any(|known| known == name));
    let inputs = strings(item.pointer("/architecture/input_modalities"));
    let traits = Traits {
        tools: capability("function_calling").or_else(|| takes("tools")),
        json_schema: takes(if assemblyai { "response_format" } else { "structured_outputs" }),
        vision: capability("vision").or_else(|| inputs.map(|kinds| kinds.iter().any(|kind| kind == "image"))),
        reasoning: takes("reasoning").map(|yes| yes || takes("reasoning_effort") == Some(true)),
        parallel_tools: None,
        stream: takes("stream").filter(|_| assemblyai),
        context_length: first(&[
            "/context_length",
            "/max_context_length",
            "/context_window",
            "/max_model_len",
            "/top_provider/context_length",
        ]),
        max_output_tokens: first(&["/top_provider/max_completion_tokens", "/max_completion_tokens"]),
        cache_floor_tokens: None,
        cache_ttl_ms: None,
        retires_ms: ["/retirement_date", "/expiration_date", "/deprecation/inference", "/deprecation"]
            .iter()
            .find_map(|path| time(item.pointer(path)?)),
        parameters,
    };
    let id = id(item, "id")?;
    let retired = item.get("active").and_then(Value::as_bool) == Some(false);
    Some(Listed { id, traits, price: item.get("pricing").and_then(price), retired })
}

/// Reads Anthropic's list.
pub(super) fn anthropic(body: &[u8]) -> Result<Page, StreamError> {
    let (whole, items) = parse(body, "data")?;
    let models = items.iter().filter_map(|item| {
        let supports = |name: &str| item.pointer(&format!("/capabilities/{name}/supported")).and_then(Value::as_bool);
        let traits = Traits {
            json_schema: supports("structured_outputs"),
            vision: supports("image_input"),
            reasoning: supports("effort"),
            context_length: item.get("max_input_tokens").and_then(lenient::count_of),
            max_output_tokens: item.get("max_tokens").and_then(lenient::count_of),
            retires_ms: item.get("retires_at").and_then(time),
            ..Traits::default()
        };
        let retired = item.get("lifecycle").and_then(Value::as_str) == Some("retired");
        Some(Listed { id: id(item, "id")?, traits, price: None, retired })
    });
    let more = whole.get("has_more").and_then(Value::as_bool) == Some(true);
    let next = whole.get("last_id").and_then(lenient::text_of).filter(|_| more);
    Ok(Page { models: models.collect(), next })
}

/// Reads Google's list: only the models that generate content.
pub(super) fn google(body: &[u8]) -> Result<Page, StreamError> {
    let (whole, items) = parse(body, "models")?;
    let models = items.iter().filter_map(|item| {
        let methods = strings(item.get("supportedGenerationMethods"));
        if methods.as_ref().is_some_and(|methods| !methods.iter().any(|method| method == "generateContent")) {
            return None;
        }
        let name = id(item, "name")?;
        let traits = Traits {
            reasoning: item.get("thinking").and_then(Value::as_bool),
            context_length: item.get("inputTokenLimit").and_then(lenient::count_of),
            max_output_tokens: item.get("outputTokenLimit").and_then(lenient::count_of),
            ..Traits::default()
        };
        let id = name.strip_prefix("models/").map(str::to_owned).unwrap_or(name);
        Some(Listed { id, traits, ..Listed::default() })
    });
    let next = whole.get("nextPageToken").and_then(Value::as_str).filter(|token| !token.is_empty());
    Ok(Page { models: models.collect(), next: next.map(str::to_owned) })
}

/// The id of a model. A model without one cannot be requested.
fn id(item: &Value, field: &str) -> Option<String> {
    lenient::text_of(item.get(field)?).filter(|id| !id.is_empty())
}

fn strings(value: Option<&Value>) -> Option<Vec<String>> {
    let items = value?.as_array().filter(|items| !items.is_empty())?;
    let names: Vec<String> = items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect();
    Some(names).filter(|names| !names.is_empty())
}

/// Converts Unix seconds (0 means none), a date or an RFC 3339 time to Unix ms.
fn time(value: &Value) -> Option<i64> {
    match value {
        Value::String(text) if text.parse::<f64>().is_err() => {
            parse_rfc3339(text).or_else(|| parse_rfc3339(&format!("{text}T00:00:00Z")))
        }
        seconds => i64::try_from(lenient::count_of(seconds).filter(|seconds| *seconds > 0)?).ok()?.checked_mul(1000),
    }
}

/// The price of a model in the lists of OpenRouter, AssemblyAI (worldwide) and Together.
///
/// Some lists give prices per token, some per million tokens, and not all say which. No model has ever cost 1000
/// dollars per million tokens, nor less than a tenth of a cent, so prices below 0.001 are dollars per token.
fn price(pricing: &Value) -> Option<ListPrice> {
    let pricing = pricing.get("global").filter(|global| global.is_object()).unwrap_or(pricing);
    let number = |names: &[&str]| {
        let value = names.iter().find_map(|name| pricing.get(name))?;
        let number = value.as_f64().or_else(|| value.as_str()?.parse().ok())?;
        (number.is_finite() && number >= 0.0).then_some(number)
    };
    let input = number(&["prompt", "input"])?;
    let output = number(&["completion", "completions", "output"])?;
    let factor = if input.max(output) < 0.001 { 1e6 } else { 1.0 };
    Some(ListPrice {
        input: input * factor,
        output: output * factor,
        cached: number(&["input_cache_read", "cached_input"]).map(|price| price * factor),
        cache_write: number(&["input_cache_write"]).map(|price| price * factor),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn one(item: Value, assemblyai: bool) -> Listed {
        let page = openai(json!({"data": [item]}).to_string().as_bytes(), assemblyai).expect("list");
        page.models.into_iter().next().expect("a model")
    }

    #[test]
    fn a_plain_list_says_nothing_but_names() {
        let listed = one(json!({"id":"gpt-5","object":"model","created":1,"owned_by":"openai"}), false);
        assert_eq!(listed, Listed { id: "gpt-5".into(), ..Listed::default() });
    }

    #[test]
    fn openrouter_tells_prices_by_the_token() {
        let listed = one(
            json!({"id":"a/b","context_length":200_000,"architecture":{"input_modalities":["text","image"]},
                "pricing":{"prompt":"0.000003","completion":"0.000015","input_cache_read":"0.0000003","image":"0"},
                "top_provider":{"context_length":200_000,"max_completion_tokens":64_000},
                "supported_parameters":["tools","max_tokens","reasoning"],"expiration_date":"2027-01-31"}),
            false,
        );
        let price = listed.price.expect("price");
        assert!((price.input - 3.0).abs() < 1e-9 && (price.output - 15.0).abs() < 1e-9, "{price:?}");
        assert!(price.cached.is_some_and(|cached| (cached - 0.3).abs() < 1e-9) && price.cache_write.is_none());
        let traits = listed.traits;
        assert_eq!((traits.tools, traits.json_schema, traits.vision), (Some(true), Some(false), Some(true)));
        assert_eq!((traits.reasoning, traits.stream), (Some(true), None));
        assert_eq!((traits.context_length, traits.max_output_tokens), (Some(200_000), Some(64_000)));
        assert_eq!(traits.retires_ms, Some(1_801_353_600_000));
    }

    #[test]
    fn assemblyai_tells_prices_by_the_million_and_what_is_not_taken() {
        let item = |parameters: Value| {
            json!({"id":"gpt-oss-20b","name":"x","supported_parameters":parameters,"context_length":131_000,
                "top_provider":{"is_moderated":false,"context_length":131_000,"max_completion_tokens":0},
                "pricing":{"us":null,"global":{"prompt":0.07,"completions":0.3},"regional_increase_percent":10},
                "retirement_date":0,"providers":null})
        };
        let listed = one(item(json!(["max_tokens", "temperature", "tools"])), true);
        assert_eq!(listed.price, Some(ListPrice { input: 0.07, output: 0.3, cached: None, cache_write: None }));
        assert_eq!(
            (listed.traits.tools, listed.traits.json_schema, listed.traits.stream),
            (Some(true), Some(false), Some(false))
        );
        assert_eq!((listed.traits.retires_ms, listed.traits.max_output_tokens), (None, None));
        let unknown = one(item(Value::Null), true);
        assert_eq!((unknown.traits.tools, unknown.traits.stream), (None, None));
    }

    #[test]
    fn others_have_their_own_words() {
        let mistral = one(
            json!({"id":"m","capabilities":{"completion_chat":true,"function_calling":false,"vision":true},
                "max_context_length":32_768,"deprecation":"2026-12-01T12:00:00Z"}),
            false,
        );
        assert_eq!((mistral.traits.tools, mistral.traits.vision), (Some(false), Some(true)));
        assert_eq!((mistral.traits.context_length, mistral.traits.retires_ms), (Some(32_768), Some(1_796_126_400_000)));
        let page = openai(br#"{"data":[{"id":"embed","capabilities":{"completion_chat":false}}]}"#, false);
        assert_eq!(page, Ok(Page::default()));
        let groq = one(json!({"id":"g","active":false,"context_window":8192}), false);
        assert!(groq.retired && groq.traits.context_length == Some(8192));
        let together = openai(br#"[{"id":"t","pricing":{"input":0.9,"output":0.9,"hourly":0}}]"#, false).expect("list");
        assert_eq!(together.models[0].price.map(|price| price.input), Some(0.9));
        assert!(openai(b"<html>", false).is_err() && openai(b"{\"error\":1}", false).is_err());
    }

    #[test]
    fn counts_names_and_times_in_other_spellings_are_read() {
        let listed = one(
            json!({"id":7,"context_length":"131072","max_completion_tokens":4096.0,"retirement_date":"1796083200",
                "supported_parameters":["tools",null],"pricing":null,"capabilities":null,"architecture":[]}),
            false,
        );
        assert_eq!((listed.id.as_str(), listed.traits.context_length), ("7", Some(131_072)));
        assert_eq!((listed.traits.max_output_tokens, listed.traits.tools), (Some(4096), Some(true)));
        assert_eq!(listed.traits.retires_ms, Some(1_796_083_200_000));
        let page = openai(br#"{"data":[null,{"id":null},"x",{"id":"m","context_length":-1}]}"#, false).expect("list");
        let names: Vec<&str> = page.models.iter().map(|model| model.id.as_str()).collect();
        assert_eq!((names, page.models[0].traits.context_length), (vec!["m"], None), "what has no name is left out");
    }

    #[test]
    fn anthropic_and_google_have_their_own_lists() {
        let body = json!({"data":[{"type":"model","id":"claude-x","max_input_tokens":200_000,"max_tokens":64_000,
            "capabilities":{"structured_outputs":{"supported":false},"image_input":{"supported":true},"effort":{"supported":true}},
            "lifecycle":"deprecated","retires_at":"2026-12-01T00:00:00Z"}],"has_more":true,"last_id":"claude-x"});
        let page = anthropic(body.to_string().as_bytes()).expect("list");
        assert_eq!(page.next.as_deref(), Some("claude-x"));
        let traits = &page.models[0].traits;
        assert_eq!((traits.json_schema, traits.vision, traits.tools), (Some(false), Some(true), None));
        assert_eq!(traits.retires_ms, Some(1_796_083_200_000));
        let body = json!({"models":[
            {"name":"models/gemini-x","inputTokenLimit":1_048_576,"outputTokenLimit":65_536,"thinking":true,
             "supportedGenerationMethods":["generateContent","countTokens"]},
            {"name":"models/embed","supportedGenerationMethods":["embedContent"]}],"nextPageToken":"t"});
        let page = google(body.to_string().as_bytes()).expect("list");
        assert_eq!((page.models.len(), page.models[0].id.as_str(), page.next.as_deref()), (1, "gemini-x", Some("t")));
        assert_eq!(page.models[0].traits.max_output_tokens, Some(65_536));
    }
}
