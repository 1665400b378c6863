//! Every vendor of the table, alone and with others; and no output contains a key.

use std::collections::HashMap;
use std::path::Path;

use super::*;
use crate::config::Config;
use crate::llm;

const KEY: &str = "sk-test/3k+Qw=ErTy-UiOpAsDf";

fn with(variables: &[(&str, &str)]) -> Discovery {
    and_ollama(variables, &Probe::Absent)
}

fn and_ollama(variables: &[(&str, &str)], ollama: &Probe) -> Discovery {
    let variables: HashMap<&str, &str> = variables.iter().copied().collect();
    discover(&|name| variables.get(name).map(|value| (*value).to_owned()), ollama)
}

/// Parses the text. The keys that it names exist wherever the tests run.
fn parses(text: &str) -> Config {
    let mut text = text.to_owned();
    for vendor in VENDORS {
        for key in vendor.keys {
            text = text.replace(&format!("\"env:{key}\""), "\"env:PATH\"");
        }
    }
    Config::parse(&text, Path::new(".")).unwrap_or_else(|problems| panic!("{problems:?}\n{text}"))
}

#[test]
fn nothing_set_gives_nothing() {
    assert_eq!(with(&[]), Discovery::default());
    assert_eq!(with(&[("OPENAI_API_KEY", " \n"), ("OPENAI_BASE_URL", "http://x/v1")]), Discovery::default());
}

#[test]
fn each_key_of_each_vendor_gives_a_configuration_that_asks_it() {
    for vendor in VENDORS {
        assert!(llm::provider(vendor.name).is_some(), "{}", vendor.name);
        for key in vendor.keys {
            let found = with(&[(key, KEY)]).found;
            assert_eq!(found.len(), 1, "{key}");
            assert_eq!((found[0].name, found[0].key), (vendor.name, Some(*key)));
            let config = parses(&configuration(&found));
            assert_eq!(config.warnings(), Vec::<String>::new(), "{key}");
            assert_eq!(config.gateway.endpoints[0].base_url, llm::provider(vendor.name).unwrap().base_url().unwrap());
            assert_eq!(config.gateway.endpoints[0].prices.len(), 1, "{key}");
            assert_eq!(config.gateway.models[0].candidates.len(), 2, "{key}");
        }
    }
}

#[test]
fn base_url_variables_move_the_endpoint_as_the_vendors_sdk_would() {
    for (key, variable, value, expected) in [
        ("OPENAI_API_KEY", "OPENAI_BASE_URL", "http://127.0.0.1:9/v1/", "http://127.0.0.1:9/v1"),
        ("OPENAI_API_KEY", "OPENAI_API_BASE", "http://127.0.0.1:9/v1", "http://127.0.0.1:9/v1"),
        ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "http://127.0.0.1:9", "http://127.0.0.1:9"),
        ("GEMINI_API_KEY", "GOOGLE_GEMINI_BASE_URL", "https://proxy.example", "https://proxy.example"),
        ("GROQ_API_KEY", "GROQ_BASE_URL", "http://127.0.0.1:9", "http://127.0.0.1:9/openai/v1"),
        ("GROQ_API_KEY", "GROQ_BASE_URL", "http://127.0.0.1:9/openai/v1", "http://127.0.0.1:9/openai/v1"),
        ("CO_API_KEY", "CO_API_URL", "https://cohere.example", "https://cohere.example"),
        ("TOGETHER_API_KEY", "TOGETHER_BASE_URL", "http://127.0.0.1:9/v1", "http://127.0.0.1:9/v1"),
    ] {
        let found = with(&[(key, KEY), (variable, value)]).found;
        assert_eq!(found[0].base_url.as_deref(), Some(expected), "{variable}={value}");
        assert_eq!(found[0].redirected_by, Some(variable));
        assert_eq!(parses(&configuration(&found)).gateway.endpoints[0].base_url, expected);
    }
}

#[test]
fn unusable_base_url_is_named_without_its_secrets() {
    for value in ["ftp://h/v1", "nonsense", "http://me:s3cret@h/v1", "http://h/v1?key=s3cret"] {
        let discovery = with(&[("OPENAI_API_KEY", KEY), ("OPENAI_BASE_URL", value)]);
        assert_eq!(discovery.found, Vec::new(), "{value}");
        let note = discovery.notes.concat();
        assert!(note.contains("OPENAI_BASE_URL: expected an http or https URL") && !note.contains("s3cret"), "{note}");
    }
}

#[test]
fn ollama_comes_after_the_keys_and_its_model_is_the_first_that_chats() {
    let running = |url: &str, models: &[&str]| Probe::Running {
        url: url.to_owned(),
        models: models.iter().map(|model| (*model).to_owned()).collect(),
    };
    let usual = running("http://127.0.0.1:11434", &["qwen3:4b", "llama3.2:3b"]);
    let found = and_ollama(&[("GROQ_API_KEY", KEY)], &usual).found;
    assert_eq!(found.iter().map(Found::candidate).collect::<Vec<_>>(), ["groq/openai/gpt-oss-20b", "ollama/qwen3:4b"]);
    let config = parses(&configuration(&found));
    assert_eq!(config.gateway.models[0].candidates.len(), 3);
    assert_eq!(config.gateway.models[0].timeouts.total, std::time::Duration::from_secs(60));
    let moved = and_ollama(&[], &running("http://127.0.0.1:5", &["m"])).found;
    assert_eq!(parses(&configuration(&moved)).gateway.endpoints[0].base_url, "http://127.0.0.1:5/v1");
    let empty = and_ollama(&[], &running("http://127.0.0.1:11434", &[]));
    assert!(empty.found.is_empty() && empty.notes[0].contains("ollama pull llama3.2"), "{empty:?}");
}

#[test]
fn template_is_valid_with_any_number_of_vendors_and_names_each() {
    let all: Vec<(&str, &str)> = VENDORS.iter().map(|vendor| (vendor.keys[0], KEY)).collect();
    for count in [0, 1, all.len()] {
        let found = with(&all[..count]).found;
        let text = template(&found);
        let config = parses(&text);
        assert_eq!(config.gateway.endpoints.len(), count);
        assert_eq!(config.gateway.default_route.is_some(), count > 0);
        for name in VENDORS.iter().map(|vendor| vendor.name).chain(["ollama"]) {
            assert!(text.contains(&format!("[endpoints.{name}]")), "{name}");
        }
    }
}

#[test]
fn commented_out_sections_are_valid() {
    let text: String = template(&[])
        .lines()
        .map(|line| {
            line.strip_prefix("# ").filter(|rest| rest.starts_with('[') || rest.contains(" = ")).unwrap_or(line)
        })
        .filter(|line| !line.starts_with("key = "))
        .map(|line| format!("{line}\n"))
        .collect();
    let config = parses(&text);
    assert_eq!(config.gateway.endpoints.len(), VENDORS.len() + 1);
}

#[test]
fn no_key_is_in_anything_that_is_shown() {
    let all: Vec<(&str, &str)> = VENDORS.iter().flat_map(|vendor| vendor.keys).map(|key| (*key, KEY)).collect();
    let discovery = with(&all);
    let reasons: String = discovery.found.iter().map(Found::reason).collect();
    for text in [configuration(&discovery.found), template(&discovery.found), reasons, format!("{discovery:?}")] {
        assert!(!secret::repeats(&text, KEY), "{text}");
    }
}
