//! Prompts whose beginning many requests share, and what vendors' prompt caches do with it.
//!
//! Knows no vendor: each vendor's file says which cache a model has and how a prefix is marked. Knows no clock: the
//! caller of [`PromptCache::plan`] says how long ago earlier requests were sent.

use std::fmt;
use std::sync::Arc;

use super::{ChatRequest, Content};

/// Assumed number of prompt bytes per token. It is low, so that a prefix slightly below the minimum is marked too:
/// vendors ignore such a mark, and it costs nothing.
const BYTES_PER_TOKEN: u64 = 3;

/// One of the texts that form a prompt, with nothing between them.
#[derive(Clone, PartialEq)]
pub struct Block {
    pub text: Arc<str>,
    /// Set if a prefix that later requests repeat byte by byte ends here.
    pub ends_prefix: bool,
}

impl Block {
    /// A block that ends no shared prefix.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self { text: text.into(), ends_prefix: false }
    }
}

/// Shows only the length: the content of a prompt must not be logged.
impl fmt::Debug for Block {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Block({} bytes{})", self.text.len(), if self.ends_prefix { ", ends a prefix" } else { "" })
    }
}

/// What is known of the requests that share a prefix with this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caching {
    /// A key that is the same for all requests about one call: vendors route requests with the same key to the same
    /// machine.
    pub key: Arc<str>,
    /// Set if no later request will have this prefix.
    pub last: bool,
}

/// The prompt cache of a model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PromptCache {
    /// The shortest prefix that the cache keeps, in tokens.
    pub floor_tokens: u64,
    /// How long a prefix is kept after its last use, ms.
    pub ttl_ms: u64,
    /// Price of a token that is written to the cache, as a multiple of an ordinary prompt token's.
    pub write: f64,
    /// Price of a token that is read from the cache, as a multiple of an ordinary prompt token's.
    pub read: f64,
    /// Set if the cache keeps and finds only marked prefixes; otherwise the vendor finds the longest prefix by itself.
    pub marked: bool,
}

/// Positions of the marked blocks of a request: at most two, in order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Marks {
    /// The block that ends a prefix which an earlier request wrote to the cache.
    pub read: Option<usize>,
    /// The block that ends the prefix which this request writes to the cache.
    pub write: Option<usize>,
}

impl Marks {
    /// Returns true if the block at `position` is marked.
    pub fn at(&self, position: usize) -> bool {
        self.read == Some(position) || self.write == Some(position)
    }
}

/// Number of bytes of a prompt up to the end of each of its blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    ends: Vec<u64>,
    /// The block at which the shared prefix ends.
    prefix: usize,
}

impl Layout {
    /// The layout of a request; `None` if it shares no prefix with others.
    pub fn of(request: &ChatRequest) -> Option<Self> {
        let mut bytes = 0;
        for message in &request.messages {
            let Content::Blocks(blocks) = &message.content else {
                bytes += message.content.segments().map(|segment| segment.len() as u64).sum::<u64>();
                continue;
            };
            let prefix = blocks.iter().rposition(|block| block.ends_prefix)?;
            let ends = blocks.iter().map(|block| {
                bytes += block.text.len() as u64;
                bytes
            });
            return Some(Self { ends: ends.collect(), prefix });
        }
        None
    }
}

/// The newest earlier request with the same key to the same model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Before {
    /// Bytes of its prefix that the cache keeps.
    pub bytes: u64,
    /// Time since that request, ms.
    pub age_ms: u64,
    /// Time between that request and the one before it, ms.
    pub gap_ms: Option<u64>,
}

/// How a request uses a prompt cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Plan {
    pub marks: Marks,
    /// Set if the cache should have the prefix of the request before.
    pub reads: bool,
    /// Bytes of the prefix that the cache keeps after the request; 0 for none.
    pub keeps: u64,
}

impl PromptCache {
    /// A cache that finds the longest prefix by itself, for a model about which nothing else is known. Vendors say that
    /// it keeps prefixes for "minutes"; five are assumed.
    pub const IMPLICIT: Self = Self { floor_tokens: 1_024, ttl_ms: 5 * 60_000, write: 1.0, read: 0.1, marked: false };

    /// Takes the factors from prices per token. A cache price that equals the ordinary price is ignored, because a
    /// price that is left out has that value too.
    pub fn apply_prices(&mut self, input: i64, cached: i64, cache_write: i64) {
        #[expect(clippy::cast_precision_loss, reason = "a ratio needs no exact values")]
        let factor = |price: i64| price as f64 / input as f64;
        if input > 0 && cached != input {
            self.read = factor(cached);
        }
        if input > 0 && cache_write != input {
            self.write = factor(cache_write);
        }
    }

    /// Decides which blocks are marked. The cache is asked for a prefix if the request before wrote one that has not
    /// expired. A prefix is written only if it is long enough to be kept and will probably be read: the next request is
    /// expected after the shorter of the last two intervals. The last request of a call writes nothing.
    pub fn plan(&self, layout: &Layout, before: Option<Before>, last: bool) -> Plan {
        let is_kept = |position: &usize| {
            layout.ends.get(*position).is_some_and(|bytes| bytes / BYTES_PER_TOKEN >= self.floor_tokens)
        };
        let alive = before.filter(|before| before.age_ms <= self.ttl_ms);
        let read = alive.and_then(|before| layout.ends.iter().position(|end| *end == before.bytes)).filter(is_kept);
        let gap_ms = before.map(|before| before.gap_ms.map_or(before.age_ms, |gap| gap.min(before.age_ms)));
        let is_read_again = !last && gap_ms.is_none_or(|gap| gap <= self.ttl_ms);
        let pays = self.write - 1.0 < 1.0 - self.read;
        let write = Some(layout.prefix).filter(is_kept).filter(|_| !self.marked || is_read_again && pays);
        let marks = Marks { read, write: write.filter(|write| read != Some(*write)) };
        let keeps = write.or(read).and_then(|position| layout.ends.get(position)).copied().unwrap_or(0);
        Plan { marks: if self.marked { marks } else { Marks::default() }, reads: read.is_some(), keeps }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CACHE: PromptCache =
        PromptCache { floor_tokens: 1_000, ttl_ms: 300_000, write: 1.25, read: 0.1, marked: true };

    fn layout(ends: &[u64], prefix: usize) -> Layout {
        Layout { ends: ends.to_vec(), prefix }
    }

    fn before(bytes: u64, age_ms: u64, gap_ms: Option<u64>) -> Option<Before> {
        Some(Before { bytes, age_ms, gap_ms })
    }

    #[test]
    fn prefix_above_the_minimum_is_written_and_then_read() {
        let marks = |layout: &Layout, before| CACHE.plan(layout, before, false).marks;
        assert_eq!(marks(&layout(&[100, 2_900, 3_500], 1), None), Marks::default(), "below the floor");
        let first = CACHE.plan(&layout(&[100, 3_000, 3_500], 1), None, false);
        assert_eq!(first, Plan { marks: Marks { read: None, write: Some(1) }, reads: false, keeps: 3_000 });
        let next = layout(&[100, 3_000, 3_600, 4_000], 2);
        assert_eq!(marks(&next, before(3_000, 9_000, None)), Marks { read: Some(1), write: Some(2) });
        let same = layout(&[100, 3_000, 3_500], 1);
        assert_eq!(marks(&same, before(3_000, 9_000, None)), Marks { read: Some(1), write: None }, "nothing is new");
    }

    #[test]
    fn expired_or_different_prefix_is_not_expected() {
        let next = layout(&[100, 3_000, 3_600, 4_000], 2);
        let old = CACHE.plan(&next, before(3_000, 300_001, Some(9_000)), false);
        assert_eq!((old.marks, old.reads), (Marks { read: None, write: Some(2) }, false), "a pause costs one rewrite");
        let compacted = layout(&[100, 3_050, 3_500], 1);
        assert_eq!(
            CACHE.plan(&compacted, before(6_000, 9_000, None), false).marks,
            Marks { read: None, write: Some(1) }
        );
    }

    #[test]
    fn prefix_without_a_later_reader_is_not_written() {
        let next = layout(&[100, 3_000, 3_600, 4_000], 2);
        let last = CACHE.plan(&next, before(3_000, 9_000, None), true);
        assert_eq!(last, Plan { marks: Marks { read: Some(1), write: None }, reads: true, keeps: 3_000 });
        let slow = CACHE.plan(&next, before(3_000, 400_000, Some(400_000)), false);
        assert_eq!((slow.marks, slow.keeps), (Marks::default(), 0), "requests are too far apart");
        let dear = PromptCache { write: 2.0, ..CACHE };
        assert_eq!(dear.plan(&next, None, false).marks, Marks::default(), "one read does not pay for the write");
    }

    #[test]
    fn configured_prices_replace_the_default_factors() {
        let mut cache = CACHE;
        cache.apply_prices(100, 100, 100);
        assert_eq!(cache, CACHE);
        cache.apply_prices(100, 50, 200);
        assert_eq!(cache, PromptCache { read: 0.5, write: 2.0, ..CACHE });
        cache.apply_prices(0, 1, 1);
        assert_eq!(cache, PromptCache { read: 0.5, write: 2.0, ..CACHE });
    }

    #[test]
    fn vendors_that_find_prefixes_by_themselves_get_no_marks() {
        let implicit = PromptCache { marked: false, write: 1.0, ..CACHE };
        let next = layout(&[100, 3_000, 3_600, 4_000], 2);
        let plan = implicit.plan(&next, before(3_000, 9_000, None), false);
        assert_eq!(plan, Plan { marks: Marks::default(), reads: true, keeps: 3_600 });
    }
}
