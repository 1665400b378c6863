//! Text as words: where written words begin and end in any script, and one comparison of words for the whole program.
//!
//! Knows no language, no transcript and no prompt. Word boundaries are Unicode's (UAX 29). Scripts without spaces
//! between words get no dictionary: each of their characters, with its marks, is a word of its own. That is enough to
//! divide times, to count and to compare; ICU's dictionaries would cut Japanese and Thai into real words, at the cost
//! of megabytes of data, and no result here would change.

mod compare;
mod cut;

pub use compare::{Quote, Words, fold, prefix_of};
pub use cut::{count, gap, is_unspaced, join, words, written};
