//! Remembers which prefixes of the daemon's own prompts are in a model's prompt cache, and whether the cache was hit.
//! Knows no vendor's format of a mark, and of a prompt only the length of its prefix.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use crate::base::sync::lock;
use crate::base::time::millis;
use crate::llm::{Before, ChatRequest, Layout, Marks, Plan, PromptCache};

/// Maximum number of prefixes that are remembered for a model: one for each call and question. Other prompts are sent
/// as if they were the first.
const MAX_PREFIXES: usize = 4096;
/// A prefix that was not sent for this long is forgotten; no vendor keeps one longer.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);
/// A smaller difference does not count as a miss, because vendors count in steps and lose a few tokens.
const MIN_MISS_TOKENS: u64 = 1_000;
/// A difference below one part in this many of the prompt does not count as a miss.
const MIN_MISS_SHARE: u64 = 20;
/// Misses of a model are logged at most once in this interval.
const LOGGED_EVERY: Duration = Duration::from_secs(60);

/// The prefixes that a model was sent.
#[derive(Debug, Default)]
pub(in crate::gateway) struct Prefixes(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    sent: HashMap<Arc<str>, Sent>,
    logged: Option<Instant>,
    /// Number of misses that were not logged.
    unlogged: u64,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    at: Instant,
    /// Time between this request and the one before it.
    gap: Option<Duration>,
    /// Bytes of the prefix that the cache has.
    bytes: u64,
    /// Tokens of the prefix that the cache has, if the vendor reports them.
    tokens: Option<u64>,
}

/// How an attempt uses the prompt cache.
#[derive(Debug)]
pub(in crate::gateway) struct Planned {
    prompt: Arc<str>,
    plan: Plan,
    at: Instant,
    gap: Option<Duration>,
    /// Number of tokens that the cache should have.
    expected: Option<u64>,
}

impl Planned {
    pub(in crate::gateway) fn marks(&self) -> Marks {
        self.plan.marks
    }
}

/// The cache had less of a prompt than before, although the prompt begins in the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) struct Miss {
    pub(in crate::gateway) expected: u64,
    pub(in crate::gateway) cached: u64,
    /// Set if the miss is to be logged: the number of misses since the last log line.
    pub(in crate::gateway) unlogged: Option<u64>,
}

impl Prefixes {
    /// Plans a request of the daemon itself; `None` for all others. `question` distinguishes the prompts about one
    /// call.
    pub(in crate::gateway) fn plan(
        &self,
        cache: &PromptCache,
        request: &ChatRequest,
        question: &str,
        now: Instant,
    ) -> Option<Planned> {
        let caching = request.caching.as_ref()?;
        let layout = Layout::of(request)?;
        let prompt: Arc<str> = format!("{}/{question}", caching.key).into();
        let known = lock(&self.0).sent.get(&prompt).copied();
        let before =
            known.map(|sent| Before { bytes: sent.bytes, age_ms: millis(now - sent.at), gap_ms: sent.gap.map(millis) });
        let plan = cache.plan(&layout, before, caching.last);
        let expected = known.and_then(|sent| sent.tokens).filter(|_| plan.reads);
        Some(Planned { prompt, plan, at: now, gap: known.map(|sent| now - sent.at), expected })
    }

    /// Records what the vendor's response to a request says about the prompt cache.
    pub(in crate::gateway) fn learn(
        &self,
        planned: Planned,
        cached: Option<u64>,
        written: Option<u64>,
    ) -> Option<Miss> {
        let Planned { prompt, plan, at, gap, expected } = planned;
        let mut known = lock(&self.0);
        let tokens = cached.map(|cached| cached.saturating_add(written.unwrap_or(0)));
        if known.sent.len() >= MAX_PREFIXES && !known.sent.contains_key(&prompt) {
            known.sent.retain(|_, sent| at.saturating_duration_since(sent.at) < FORGOTTEN_AFTER);
        }
        if known.sent.len() < MAX_PREFIXES || known.sent.contains_key(&prompt) {
            known.sent.insert(prompt, Sent { at, gap, bytes: plan.keeps, tokens });
        }
        let (expected, cached) = (expected?, cached?);
        let missing = expected.saturating_sub(cached);
        if missing < MIN_MISS_TOKENS || missing < expected / MIN_MISS_SHARE {
            return None;
        }
        let log = known.logged.is_none_or(|logged| at.saturating_duration_since(logged) >= LOGGED_EVERY);
        let unlogged = if log {
            known.logged = Some(at);
            Some(std::mem::take(&mut known.unlogged))
        } else {
            known.unlogged += 1;
            None
        };
        Some(Miss { expected, cached, unlogged })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::{Block, Caching, Content, Message, Role};

    const CACHE: PromptCache =
        PromptCache { floor_tokens: 1_000, ttl_ms: 300_000, write: 1.25, read: 0.1, marked: true };

    /// A prompt whose parts have these sizes, bytes.
    fn request(parts: &[usize]) -> ChatRequest {
        let mut blocks: Vec<Block> = parts.iter().map(|bytes| Block::new("x".repeat(*bytes))).collect();
        if let Some(last) = blocks.last_mut() {
            last.ends_prefix = true;
        }
        blocks.push(Block::new("tail"));
        let message = Message { role: Role::User, content: Content::Blocks(blocks), ..Message::default() };
        let caching = Some(Caching { key: "k".into(), last: false });
        ChatRequest { messages: vec![message], caching, ..ChatRequest::default() }
    }

    #[test]
    fn request_that_finds_less_than_the_one_before_wrote_is_a_miss() {
        let prefixes = Prefixes::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let ask = |parts: &[usize], seconds, cached: u64, written: u64| {
            let planned = prefixes.plan(&CACHE, &request(parts), "summary", at(seconds)).expect("planned");
            let marks = planned.marks();
            (marks, prefixes.learn(planned, Some(cached), Some(written)))
        };
        assert_eq!(ask(&[9_000], 0, 0, 3_000), (Marks { read: None, write: Some(0) }, None));
        assert_eq!(ask(&[9_000, 300], 9, 2_990, 110), (Marks { read: Some(0), write: Some(1) }, None));
        let missed = ask(&[9_000, 300, 300], 18, 0, 3_200);
        assert_eq!(missed.1, Some(Miss { expected: 3_100, cached: 0, unlogged: Some(0) }));
        let again = ask(&[9_000, 300, 300, 300], 27, 0, 3_300);
        assert_eq!(again.1, Some(Miss { expected: 3_200, cached: 0, unlogged: None }), "once a minute");
        let compacted = ask(&[4_000], 36, 0, 1_300);
        assert_eq!(compacted, (Marks { read: None, write: Some(0) }, None), "a compaction is no miss");
        let later = ask(&[4_000, 300], 400, 0, 1_400);
        assert_eq!(later, (Marks { read: None, write: Some(1) }, None), "nor is a pause");
        let other = prefixes.plan(&CACHE, &request(&[4_000, 300, 300]), "sentiment", at(401)).expect("planned");
        assert_eq!(other.marks().read, None, "another question has prompts of its own");
        let missed = ask(&[4_000, 300, 300], 410, 0, 0);
        assert_eq!(missed.1, Some(Miss { expected: 1_400, cached: 0, unlogged: Some(1) }));
    }

    #[test]
    fn requests_of_clients_are_not_planned() {
        let mut plain = request(&[9_000]);
        plain.caching = None;
        assert!(Prefixes::default().plan(&CACHE, &plain, "", Instant::now()).is_none());
    }

    #[test]
    fn prefixes_are_bounded() {
        let prefixes = Prefixes::default();
        let (request, start) = (request(&[9_000]), Instant::now());
        for number in 0..=MAX_PREFIXES {
            let planned = prefixes.plan(&CACHE, &request, &number.to_string(), start).expect("planned");
            prefixes.learn(planned, None, None);
        }
        let count = || prefixes.0.lock().expect("locked").sent.len();
        assert_eq!(count(), MAX_PREFIXES);
        let planned = prefixes.plan(&CACHE, &request, "late", start + FORGOTTEN_AFTER).expect("planned");
        prefixes.learn(planned, None, None);
        assert_eq!(count(), 1, "what is too old makes room");
    }
}
