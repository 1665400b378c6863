//! Prompts of the daemon's own that grow, at a vendor that keeps marked prefixes.

use serde_json::{Value, json};

use super::fake::{Fake, Reply, reply};
use super::*;
use crate::llm::{Block, Caching, Content};

/// An answer of Anthropic's: this many tokens of its prompt were read from the cache, and this many were written to it.
fn answer(cached: u64, written: u64) -> Reply {
    let usage = json!({"input_tokens":10,"cache_read_input_tokens":cached,"cache_creation_input_tokens":written,"output_tokens":1});
    let content = json!([{"type":"text","text":"ok"}]);
    let body = json!({"id":"x","type":"message","role":"assistant","model":"m","content":content,"stop_reason":"end_turn","usage":usage});
    reply(200, "", &body.to_string())
}

/// A request whose prompt has parts of these sizes, bytes.
fn asked(gateway: &Gateway, parts: &[usize], last: bool) -> Request {
    let mut request = request(gateway);
    let mut blocks: Vec<Block> = parts.iter().map(|bytes| Block::new("x".repeat(*bytes))).collect();
    blocks.last_mut().expect("a part").ends_prefix = true;
    blocks.push(Block::new("What of it?"));
    request.chat.messages = vec![Message { role: Role::User, content: Content::Blocks(blocks), ..Message::default() }];
    request.chat.caching = Some(Caching { key: "k".into(), last });
    request.origin.analysis = Some("summary".into());
    request
}

/// Positions of the marked blocks.
fn marks(body: &Value) -> Vec<usize> {
    let blocks = body["messages"][0]["content"].as_array().expect("blocks");
    (0..blocks.len()).filter(|at| blocks[*at].get("cache_control").is_some()).collect()
}

fn at_anthropic(fake: &Fake, more: &str) -> Gateway {
    let text = format!(
        "[endpoints.e0]\nprovider = \"anthropic\"\nbase_url = \"{}\"\n{more}\n[models.m]\n\
         candidates = [\"e0/claude-sonnet-5\"]\nheader_timeout_ms = 60000\ntotal_timeout_ms = 60000",
        fake.url
    );
    gateway(&text).0
}

#[tokio::test]
async fn growing_prompt_is_marked_where_it_was_written_and_a_miss_is_counted() {
    let fake = Fake::start(vec![answer(0, 4_000), answer(4_000, 100), answer(0, 4_200), answer(4_200, 0)]).await;
    let gateway = at_anthropic(&fake, "");
    let endpoint = metrics::EndpointLabels { endpoint: "e0".into() };
    let misses = || gateway.inner.shared.metrics.cache_missed.get_or_create(&endpoint).get();
    gateway.complete(asked(&gateway, &[12_000], false)).await.expect("answer");
    let second = gateway.complete(asked(&gateway, &[12_000, 300], false)).await.expect("answer");
    assert_eq!((second.usage.input, second.usage.cached), (Some(4_110), Some(4_000)));
    assert_eq!(misses(), 0);
    gateway.complete(asked(&gateway, &[12_000, 300, 300], false)).await.expect("answer");
    assert_eq!(misses(), 1, "the prompt began as the one before");
    gateway.complete(asked(&gateway, &[12_000, 300, 300, 300], true)).await.expect("answer");
    let sent: Vec<Vec<usize>> = (0..4).map(|at| marks(&fake.body(at))).collect();
    assert_eq!(sent, [vec![0], vec![0, 1], vec![1, 2], vec![2]], "the last request of a call writes nothing");
}

#[tokio::test]
async fn minimum_length_and_lifetime_of_a_prompt_cache_can_be_configured() {
    let fake = Fake::start(vec![answer(0, 0)]).await;
    for (more, expected) in [
        ("capabilities = [{ model = \"*\", cache_floor_tokens = 5000 }]", vec![]),
        ("capabilities = [{ model = \"*\", cache_ttl_ms = 0 }]", vec![]),
        ("prices = [{ model = \"*\", input = 1, cached = 1, cache_write = 2, output = 1 }]", vec![]),
        ("prices = [{ model = \"*\", input = 1, cached = 0.1, cache_write = 1.25, output = 1 }]", vec![0]),
    ] {
        let before = fake.requests();
        let gateway = at_anthropic(&fake, more);
        gateway.complete(asked(&gateway, &[12_000], false)).await.expect("answer");
        assert_eq!(marks(&fake.body(before)), expected, "{more}");
    }
}
