//! Tests every provider with its fixtures in `tests/golden/llm/PROVIDER/`; a new folder is found automatically.
//!
//! `*.request.json` is `{"call":{…},"request":{…}}`, compared with the request as sent to the vendor; `*.answer.json`
//! is a vendor's answer, compared with the decoded one; `*.stream.txt` is a vendor's stream, compared with its pieces,
//! which are the same however the stream is split; `*.error.json` is a refusal; `*.layout.json` is a model with the
//! marked blocks of a fixed prompt, compared with the body as sent.

use std::fs;
use std::path::{Path, PathBuf};

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::{Value, json};

use super::*;

pub(in crate::llm) mod formats;
mod frames;
mod identity;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/llm")
}

/// Calls `check` with each fixture whose name has that ending: its provider, its name and its text.
fn fixtures(ending: &str, check: impl Fn(&'static dyn Provider, &str, &str) -> String) {
    let mut found = 0;
    let mut folders: Vec<_> =
        fs::read_dir(folder()).expect("fixtures").map(|entry| entry.expect("entry").path()).collect();
    folders.sort();
    for folder in folders {
        let name = folder.file_name().and_then(|name| name.to_str()).expect("name").to_owned();
        let provider = provider(&name).unwrap_or_else(|| panic!("no provider {name}"));
        let mut files: Vec<_> =
            fs::read_dir(&folder).expect("folder").map(|entry| entry.expect("entry").path()).collect();
        files.sort();
        for file in files {
            let full = file.file_name().and_then(|name| name.to_str()).expect("name").to_owned();
            let Some(case) = full.strip_suffix(ending) else { continue };
            let text = fs::read_to_string(&file).expect("fixture");
            let shown = without_fresh_ids(&check(provider, case, &text));
            let mut settings = insta::Settings::clone_current();
            settings.set_snapshot_path(&folder);
            settings.set_prepend_module_to_snapshot(false);
            settings.set_omit_expression(true);
            let kind = ending.trim_start_matches('.').split('.').next().unwrap_or("x");
            settings.bind(|| insta::assert_snapshot!(format!("{case}.{kind}"), shown));
            found += 1;
        }
    }
    assert!(found > 0, "no fixture {ending}");
}

/// Masks the ids that Sidetone generates, which differ each time: `call_` and 20 random letters and digits.
fn without_fresh_ids(shown: &str) -> String {
    let mut parts = shown.split("\"call_");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let fresh = part.split(['"', '~']).next();
        let fresh = fresh.filter(|id| id.len() == 20 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        out.push_str("\"call_");
        out.push_str(fresh.map_or("", |_| "FRESH"));
        out.push_str(&part[fresh.map_or(0, str::len)..]);
    }
    out
}

#[derive(Deserialize)]
struct RequestCase {
    #[serde(default)]
    call: CallCase,
    request: Value,
}

#[derive(Deserialize, Default)]
struct CallCase {
    model: Option<String>,
    #[serde(default)]
    stream: bool,
    schema_mode: Option<String>,
    api_version: Option<String>,
}

#[test]
fn requests() {
    fixtures(".request.json", |provider, _, text| {
        let case: RequestCase = serde_json::from_str(text).expect("case");
        let (request, model) = ChatRequest::from_json(case.request.to_string().as_bytes()).expect("request");
        let model = case.call.model.or(model).unwrap_or_else(|| "m".to_owned());
        let schema_mode = match case.call.schema_mode.as_deref() {
            None => provider.schema_modes()[0],
            Some("json_object") => SchemaMode::JsonObject,
            Some("prompt") => SchemaMode::Prompt,
            Some(_) => SchemaMode::JsonSchema,
        };
        let call = Call {
            model: &model,
            stream: case.call.stream,
            schema_mode,
            api_version: case.call.api_version.as_deref(),
            marks: Marks::default(),
        };
        let wire = match provider.encode(&request, &call) {
            Ok(wire) => wire,
            Err(error) => return format!("refused: {error}"),
        };
        let body: Value = serde_json::from_slice(&wire.body).expect("a JSON body");
        // Other schemes than a key are shown by name: their headers depend on the time.
        let (key, signed) = match provider.auth() {
            AuthScheme::Key(key) => (key.with("KEY"), None),
            scheme => (None, Some(format!("signed: {scheme:?}"))),
        };
        let sent = wire.headers.iter().cloned().chain(key);
        let headers = sent.map(|(name, value)| format!("{name}: {}", value.to_str().expect("text")));
        let headers: Vec<String> = headers.chain(signed).collect();
        format!("POST {}\n{}\n\n{}", wire.path, headers.join("\n"), pretty(&body))
    });
}

#[derive(Deserialize)]
struct LayoutCase {
    model: String,
    read: Option<usize>,
    write: Option<usize>,
}

/// A prompt of the daemon: each vendor has its own format for marks on blocks, or none; the text is the same for all.
#[test]
fn prompts_in_blocks() {
    let block = |text: &str| Block::new(text);
    let blocks =
        vec![block("<transcript>\n"), block("[0] A: Hi.\n"), block("[1] B: \"Yes\".\n"), block(" "), block("Sum up.")];
    let message = Message { role: Role::User, content: Content::Blocks(blocks), ..Message::default() };
    let request = ChatRequest {
        messages: vec![Message::text(Role::System, "Rules."), message],
        caching: Some(Caching { key: "k".into(), last: false }),
        ..ChatRequest::default()
    };
    fixtures(".layout.json", |provider, _, text| {
        let case: LayoutCase = serde_json::from_str(text).expect("case");
        let call = Call {
            model: &case.model,
            stream: true,
            schema_mode: provider.schema_modes()[0],
            api_version: None,
            marks: Marks { read: case.read, write: case.write },
        };
        let wire = provider.encode(&request, &call).expect("encodes");
        pretty(&serde_json::from_slice(&wire.body).expect("a JSON body"))
    });
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).expect("JSON")
}

#[test]
fn answers() {
    fixtures(".answer.json", |provider, _, text| match provider.answer(text.as_bytes()) {
        Ok(answer) => format!("{answer:#?}"),
        Err(error) => format!("{error:#?}"),
    });
}

/// The pieces of a stream that is fed in parts of `size` bytes.
fn pieces(provider: &dyn Provider, text: &str, size: usize) -> String {
    let mut parser = sse::Parser::default();
    let mut decoder = provider.stream();
    let mut out = Vec::new();
    let mut lines = Vec::new();
    let mut answer = ChatResponse::default();
    let mut take = |event: sse::Event<'_>| {
        if let Err(error) = decoder.decode(event, &mut out) {
            lines.push(format!("{error:?}"));
        }
        for piece in out.drain(..) {
            answer.absorb(&piece);
            lines.push(format!("{piece:?}"));
        }
    };
    for part in text.as_bytes().chunks(size) {
        parser.push(part).expect("short");
        while let Some(event) = parser.next() {
            take(event);
        }
    }
    if let Some(event) = parser.finish() {
        take(event);
    }
    lines.push(format!("{answer:#?}"));
    lines.join("\n")
}

#[test]
fn streams() {
    fixtures(".stream.txt", |provider, case, text| {
        let whole = pieces(provider, text, usize::MAX);
        for size in [1, 7] {
            let cut = pieces(provider, text, size);
            assert_eq!(without_fresh_ids(&cut), without_fresh_ids(&whole), "{case} in parts of {size}");
        }
        whole
    });
}

#[derive(Deserialize)]
struct ErrorCase {
    status: u16,
    #[serde(default)]
    headers: std::collections::BTreeMap<String, String>,
    body: Value,
}

#[test]
fn errors() {
    fixtures(".error.json", |provider, _, text| {
        let cases: Vec<ErrorCase> = serde_json::from_str(text).expect("cases");
        let shown: Vec<String> = cases
            .into_iter()
            .map(|case| {
                let headers: HeaderMap = case
                    .headers
                    .iter()
                    .map(|(name, value)| {
                        let name: HeaderName = name.parse().expect("name");
                        (name, HeaderValue::from_str(value).expect("value"))
                    })
                    .collect();
                let body = match &case.body {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                let error = provider.error(case.status, &headers, body.as_bytes());
                format!(
                    "{} {:?} code {:?} retry {} after {:?}: {}",
                    error.status, error.class, error.code, error.retry, error.retry_after, error.message
                )
            })
            .collect();
        shown.join("\n")
    });
}

#[test]
fn no_request_shows_its_key() {
    let key = "sk-oai/7h+Jk=LpQw-ErTyUiOpAs";
    for provider in PROVIDERS {
        let AuthScheme::Key(header) = provider.auth() else { continue };
        let (name, value) = header.with(key).expect("a header");
        assert!(value.to_str().is_ok_and(|value| value.ends_with(key)), "{} sends no key", provider.name());
        let shown = format!("{name:?} {value:?}");
        assert!(!crate::base::secret::repeats(&shown, key), "{}: {shown}", provider.name());
    }
}

#[test]
fn names_are_unique() {
    let mut names: Vec<&str> = PROVIDERS.iter().map(|provider| provider.name()).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
    // Every provider encodes a plain request, even if it does not support anything else.
    let request = ChatRequest { messages: vec![Message::text(Role::User, "x")], ..ChatRequest::default() };
    for provider in PROVIDERS {
        let call = Call {
            model: "m",
            stream: true,
            schema_mode: SchemaMode::Prompt,
            api_version: None,
            marks: Marks::default(),
        };
        let wire = provider.encode(&request, &call).unwrap_or_else(|error| panic!("{}: {error}", provider.name()));
        assert!(serde_json::from_slice::<Value>(&wire.body).is_ok_and(|body| body != json!({})), "{}", provider.name());
    }
}
