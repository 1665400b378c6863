//! Inputs of the gateway: vendors' answers, streams and errors, and clients' requests.

use std::path::Path;
use std::sync::OnceLock;

use sidetone::base::tokens::{Fit, Ratio};
use sidetone::gateway::transcript::{self, Conversation, Spec};
use sidetone::llm::{ChatRequest, ChatResponse, PROVIDERS, sse};

use super::Case;
use super::generate::{self, count, once_in, pick, spoil};
use super::meter::Spent;
use super::subjects::turns;
use crate::support::{Chance, Json, json};

/// Maximum size of the body of an answer and of a request, and of an error.
const MAX_BODY_BYTES: usize = 16 << 20;
const MAX_ERROR_BYTES: usize = 64 << 10;
/// Whole answers, streams and errors of every vendor, from the golden tests.
pub(super) fn corpus() -> &'static [(usize, String, Vec<u8>)] {
    static CORPUS: OnceLock<Vec<(usize, String, Vec<u8>)>> = OnceLock::new();
    CORPUS.get_or_init(|| {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/llm");
        let mut corpus = Vec::new();
        for (at, provider) in PROVIDERS.iter().enumerate() {
            let Ok(files) = std::fs::read_dir(golden.join(provider.name())) else { continue };
            for file in files.flatten() {
                let name = file.file_name().to_string_lossy().into_owned();
                if [".answer.json", ".error.json", ".stream.txt"].iter().any(|end| name.ends_with(end)) {
                    corpus.push((at, name, std::fs::read(file.path()).expect("a golden file")));
                }
            }
        }
        corpus.sort();
        assert!(corpus.len() > 20, "the golden files moved");
        corpus
    })
}

fn spoiled(chance: &mut Chance, text: &[u8]) -> Vec<u8> {
    match serde_json::from_slice::<Json>(text) {
        Ok(mut value) => {
            for _ in 0..1 + chance.below(3) {
                spoil(chance, &mut value);
            }
            value.to_string().into_bytes()
        }
        Err(_) => text.to_vec(),
    }
}

pub(super) fn answer(chance: &mut Chance) -> Case {
    let (provider, name, body) = pick(chance, corpus());
    let provider = PROVIDERS[*provider];
    if !name.ends_with(".stream.txt") {
        let mut body = spoiled(chance, body);
        // The gateway reads no more of a body than this.
        body.truncate(MAX_BODY_BYTES);
        return Box::new(move || {
            let _ = provider.answer(&body);
            let _ = provider.error(429, &http::HeaderMap::new(), &body[..body.len().min(MAX_ERROR_BYTES)]);
            let _ = provider.read_list(&body);
            Spent::default()
        });
    }
    let mut stream = Vec::new();
    for line in body.split_inclusive(|byte| *byte == b'\n') {
        let times = if once_in(chance, 10) { count(chance, 500) } else { 1 };
        for _ in 0..times {
            match line.strip_prefix(b"data: ") {
                Some(data) if once_in(chance, 8) => {
                    stream.extend_from_slice(b"data: ");
                    stream.extend_from_slice(&spoiled(chance, data.trim_ascii_end()));
                    stream.extend_from_slice(b"\n");
                }
                _ => stream.extend_from_slice(line),
            }
        }
    }
    Box::new(move || {
        let mut decoder = provider.stream();
        let mut parser = sse::Parser::default();
        let (mut pieces, mut whole) = (Vec::new(), ChatResponse::default());
        for bytes in stream.chunks(16 * 1024) {
            if parser.push(bytes).is_err() {
                break;
            }
            while let Some(event) = parser.next() {
                let _ = decoder.decode(event, &mut pieces);
            }
            pieces.drain(..).for_each(|piece| whole.absorb(&piece));
        }
        Spent::default()
    })
}

/// Documents of many small values: as an answer, as a list of models, and as a request.
pub(super) fn dense(chance: &mut Chance) -> Case {
    let provider = *pick(chance, PROVIDERS);
    let body = generate::dense(chance, MAX_BODY_BYTES).into_bytes();
    Box::new(move || {
        let _ = provider.answer(&body);
        let _ = provider.read_list(&body);
        let _ = ChatRequest::from_json(&body);
        Spent::default()
    })
}

pub(super) fn request(chance: &mut Chance) -> Case {
    let mut body = json!({
        "model": "m", "messages": [{"role": "user", "content": "{{ transcript }}"},
            {"role": "assistant", "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "x"}],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}},
        "transcript": {"turns": [{"speaker": "a", "text": "x", "start_ms": 1, "end_ms": 2}], "window": {"tokens": 5}},
    });
    for _ in 0..1 + chance.below(3) {
        spoil(chance, &mut body);
    }
    let (room, said) = (chance.below(10_000) as u64, turns(chance, 2_000));
    Box::new(move || {
        let spec = body.get("transcript").cloned().and_then(|spec| Spec::read(spec).ok());
        let Ok((mut request, _)) = ChatRequest::from_json(body.to_string().as_bytes()) else { return Spent::default() };
        if let Some(spec) = spec {
            let conversation = Conversation { spec, turns: said };
            let (_, written) = conversation.render(Fit::new(Ratio::default(), Some(room)));
            transcript::insert(&mut request, &written);
        }
        if request.check().is_ok() {
            for provider in PROVIDERS {
                let call = sidetone::llm::Call {
                    model: "m",
                    stream: false,
                    schema_mode: provider.schema_modes()[0],
                    api_version: None,
                    marks: sidetone::llm::Marks::default(),
                };
                let _ = provider.encode(&request, &call);
            }
        }
        Spent::default()
    })
}
