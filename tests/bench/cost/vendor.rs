//! A stand-in for a vendor: its prompt cache, and its bill.

use sidetone::context::tokens::estimate;
use sidetone::llm::{Before, Block, ChatRequest, Content, Layout, PromptCache, ResponseFormat};

pub const OUTPUT: f64 = 5.0;
const CACHE: PromptCache = PromptCache { floor_tokens: 0, ttl_ms: 300_000, write: 1.25, read: 0.1, marked: true };

/// The texts of a prompt in order: the schema, which vendors put first, the messages' texts, and the blocks.
pub fn texts(request: &ChatRequest) -> (String, Vec<&Block>) {
    let Some(ResponseFormat::JsonSchema { schema, .. }) = &request.response_format else { panic!("a schema") };
    let mut before = schema.to_string();
    for message in &request.messages {
        match &message.content {
            Content::Blocks(blocks) => return (before, blocks.iter().collect()),
            content => before.push_str(&content.plain()),
        }
    }
    panic!("a prompt in blocks")
}

/// A vendor's cache for one call: the prefixes that were marked, and when each was last used.
pub struct Vendor {
    rules: Option<PromptCache>,
    kept: Vec<(String, u64)>,
    before: Option<Before>,
    asked_ms: Option<u64>,
    pub cost: f64,
    pub requests: u64,
    pub read: u64,
    pub input: u64,
}

impl Vendor {
    pub fn new(floor_tokens: Option<u64>) -> Self {
        let rules = floor_tokens.map(|floor_tokens| PromptCache { floor_tokens, ..CACHE });
        Self { rules, kept: Vec::new(), before: None, asked_ms: None, cost: 0.0, requests: 0, read: 0, input: 0 }
    }

    pub fn ask(&mut self, request: &ChatRequest, now_ms: u64, output: u64) {
        let (before, blocks) = texts(request);
        let mut ends = Vec::new();
        let mut prompt = before;
        for block in blocks {
            prompt.push_str(&block.text);
            ends.push(prompt.len());
        }
        let tokens = |bytes: usize| estimate(&prompt[..bytes]);
        let input = tokens(prompt.len());
        let (mut read, mut written) = (0, 0);
        if let Some(rules) = &self.rules {
            let age_ms = self.asked_ms.map(|asked| now_ms - asked);
            let known = self.before.zip(age_ms).map(|(before, age_ms)| Before { age_ms, ..before });
            let layout = Layout::of(request).expect("a shared prefix");
            let plan = rules.plan(&layout, known, request.caching.as_ref().is_some_and(|caching| caching.last));
            self.kept.retain(|(_, used)| now_ms - used <= rules.ttl_ms);
            for mark in [plan.marks.read, plan.marks.write].into_iter().flatten() {
                let prefix = &prompt[..ends[mark]];
                if let Some((_, used)) = self.kept.iter_mut().find(|(kept, _)| kept == prefix) {
                    *used = now_ms;
                    read = read.max(tokens(ends[mark]));
                } else if tokens(ends[mark]) >= rules.floor_tokens {
                    self.kept.push((prefix.to_owned(), now_ms));
                    written = tokens(ends[mark]);
                }
            }
            self.before = Some(Before { bytes: plan.keeps, age_ms: 0, gap_ms: age_ms });
            self.asked_ms = Some(now_ms);
        }
        self.bill(input, (read, written.saturating_sub(read)), output);
    }

    /// A request for a digest: nothing of it is cached.
    pub fn ask_once(&mut self, (request, output): &(ChatRequest, u64)) {
        let (before, blocks) = texts(request);
        let input = blocks.iter().map(|block| estimate(&block.text)).sum::<u64>() + estimate(&before);
        self.bill(input, (0, 0), *output);
    }

    fn bill(&mut self, input: u64, (read, written): (u64, u64), output: u64) {
        let fresh = input - read - written;
        self.cost += fresh as f64 + read as f64 * CACHE.read + written as f64 * CACHE.write + output as f64 * OUTPUT;
        self.requests += 1;
        self.read += read;
        self.input += input;
    }
}
