//! Measures how similar two items are by the words of their texts, in any script.

use crate::base::text::Words;

/// From this value on, two texts say the same in nearly the same words.
pub(super) const SAME: f64 = 0.85;
/// From this value on, two texts are probably about the same.
pub(super) const ALIKE: f64 = 0.6;

/// The words of a text, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Bag(Vec<String>);

impl Bag {
    pub(super) fn of(text: &str) -> Self {
        let mut words: Vec<String> = Words::of(text).iter().map(str::to_owned).collect();
        words.sort_unstable();
        Self(words)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Share of their words that both have, from 0 to 1 (Dice). It is 0 for texts with different numbers, and for texts
    /// without words.
    pub(super) fn likeness(&self, other: &Self) -> f64 {
        let numbers =
            |bag: &'_ Self| bag.0.iter().filter(|word| word.chars().any(char::is_numeric)).cloned().collect::<Vec<_>>();
        if self.is_empty() || other.is_empty() || numbers(self) != numbers(other) {
            return 0.0;
        }
        let (mut one, mut two, mut shared) = (self.0.iter().peekable(), other.0.iter().peekable(), 0_usize);
        while let (Some(left), Some(right)) = (one.peek(), two.peek()) {
            match left.cmp(right) {
                std::cmp::Ordering::Less => drop(one.next()),
                std::cmp::Ordering::Greater => drop(two.next()),
                std::cmp::Ordering::Equal => {
                    shared += 1;
                    one.next();
                    two.next();
                }
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "the number of words in a text is small")]
        let likeness = 2.0 * shared as f64 / (self.0.len() + other.0.len()) as f64;
        likeness
    }
}
