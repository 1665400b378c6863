//! Vendors that fail at random, for load: a share of their answers, chosen by a seed, is refused, cut, missing or
//! nonsense.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::llm::minimal;
use super::vendor::{Asked, Dialect, Step, Tokens, Vendor, chunk, end, reply, stream_head};
use super::{Chance, Json};

/// Starts a vendor of which `percent` of the answers fail.
pub async fn start(dialect: Dialect, percent: usize, seed: u64) -> Vendor {
    let chance = Arc::new(Mutex::new(Chance(seed)));
    Vendor::start(dialect, move |asked| {
        let (fails, kind) = {
            let mut chance = chance.lock().expect("lock");
            (chance.below(100) < percent, chance.below(20))
        };
        if fails { fault(dialect, asked, kind) } else { good(dialect, asked) }
    })
    .await
}

/// An answer that is valid under the schema, if there is one.
pub fn good(dialect: Dialect, asked: &Asked) -> Vec<Step> {
    let text = dialect
        .schema(&asked.body)
        .map(|schema| whole(&schema))
        .map_or_else(|| "A scripted answer.".to_owned(), |schema| minimal(&schema, &schema).to_string());
    let middle = text.char_indices().nth(text.chars().count() / 2).map_or(0, |(at, _)| at);
    dialect.answer(asked, &[&text[..middle], &text[middle..]], Tokens::of(asked))
}

/// Vendors accept only part of a schema; the answer is validated against the whole schema.
fn whole(wire: &Json) -> Json {
    const ALL: [&str; 3] = [
        include_str!("../../src/analysis/summary/schema.json"),
        include_str!("../../src/analysis/sentiment/schema.json"),
        include_str!("../../src/analysis/sentiment_turn/schema.json"),
    ];
    let names = |schema: &Json| -> BTreeSet<String> {
        schema["properties"].as_object().map(|fields| fields.keys().cloned().collect()).unwrap_or_default()
    };
    let all = ALL.iter().map(|text| serde_json::from_str::<Json>(text).expect("a schema"));
    all.into_iter().find(|schema| names(schema) == names(wire)).unwrap_or_else(|| wire.clone())
}

fn fault(dialect: Dialect, asked: &Asked, kind: usize) -> Vec<Step> {
    let tokens = Tokens::of(asked);
    let status = |status: u16, headers: &str| reply(status, headers, &dialect.error(status, "api_error", "scripted"));
    let start = || {
        let mut steps = vec![stream_head()];
        steps.extend(dialect.preamble(tokens).map(chunk));
        steps
    };
    match kind {
        0..4 => status(500, ""),
        4..7 => status(503, ""),
        7..9 => status(529, ""),
        9..12 => status(429, "retry-after-ms: 60\r\n"),
        12..14 => vec![Step::Reset],
        14 => vec![Step::Close],
        15 => vec![Step::Hang],
        16 => [start(), vec![Step::Wait(Duration::from_millis(20)), Step::Close]].concat(),
        17 => [start(), vec![chunk(dialect.text("so", tokens)), Step::Close]].concat(),
        18 => [start(), vec![chunk(dialect.error_event()), end()]].concat(),
        _ => reply(200, "", "<html>scripted</html>"),
    }
}
