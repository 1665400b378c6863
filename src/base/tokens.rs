//! Estimates the number of tokens of a text without a tokenizer, and corrects the estimate for a model.
//!
//! Knows no model: the gateway keeps the [`Ratio`] of each one, which its vendor's own counts correct. The estimate is
//! rather too high: overestimating costs a few turns in the prompt, but underestimating may make the request fail.
//! Compared with `o200k_base` it is 0 to 25 % too high on English speech, more on other scripts.

/// Estimated tokens of `text`.
///
/// A run of letters counts one token per started 7 (most words are one token), a run of digits one per started 3, a
/// space before a word none, every other ASCII character one. Letters of other scripts than Latin count one per 2, or
/// one each if each character is a word or a syllable.
pub fn estimate(text: &str) -> u64 {
    let mut count = Count::default();
    text.chars().for_each(|character| count.take(character));
    count.tokens()
}

/// The end of `text` that has at most `tokens` estimated tokens.
pub fn tail(text: &str, tokens: u64) -> &str {
    // Runs cost the same from either end.
    let mut count = Count::default();
    let over = text.char_indices().rev().find(|(_, character)| {
        count.take(*character);
        count.tokens() > tokens
    });
    over.map_or(text, |(at, character)| &text[at + character.len_utf8()..])
}

/// Characters taken so far.
#[derive(Default)]
struct Count {
    /// Tokens of the completed runs.
    tokens: u64,
    run: Run,
    length: u64,
}

impl Count {
    fn take(&mut self, character: char) {
        let kind = Run::of(character);
        if kind == self.run && kind != Run::Single {
            self.length += 1;
            return;
        }
        self.tokens = self.tokens();
        (self.run, self.length) = (kind, 1);
    }

    fn tokens(&self) -> u64 {
        self.tokens + self.run.cost(self.length)
    }
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Run {
    #[default]
    None,
    Latin,
    Digits,
    Other,
    Single,
    Space,
}

impl Run {
    fn of(character: char) -> Self {
        match character {
            'a'..='z' | 'A'..='Z' | '\'' | '\u{c0}'..='\u{24f}' => Self::Latin,
            '0'..='9' => Self::Digits,
            ' ' => Self::Space,
            '\u{1100}'..='\u{11ff}' | '\u{2e80}'..='\u{d7ff}' | '\u{f900}'..='\u{faff}' => Self::Single,
            _ if character.is_alphabetic() => Self::Other,
            _ => Self::Single,
        }
    }

    fn cost(self, length: u64) -> u64 {
        match self {
            Self::None => 0,
            Self::Latin => length.div_ceil(7),
            Self::Digits => length.div_ceil(3),
            Self::Other => length.div_ceil(2),
            Self::Single => 1,
            Self::Space => length / 4,
        }
    }
}

/// A vendor's count corrects a ratio only for prompts with at least this many estimated tokens: in shorter ones, the
/// tokens that the vendor adds to each prompt would matter too much.
const LEARN_FROM: u64 = 256;
/// Lowest and highest ratio, per mille. A report outside these bounds cannot be a count of the text that was sent.
const BOUNDS: (u32, u32) = (250, 4_000);
/// Each count below the ratio lowers it by one part in this many of the difference.
const FALL: u32 = 16;

/// Tokens that a model counts for each thousand that [`estimate`] returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ratio(u32);

impl Default for Ratio {
    /// The ratio of a model about which nothing is known.
    fn default() -> Self {
        Self(1_000)
    }
}

impl Ratio {
    /// Makes a ratio from a value per mille, limited to the bounds.
    pub fn from_per_mille(per_mille: u32) -> Self {
        Self(per_mille.clamp(BOUNDS.0, BOUNDS.1))
    }

    /// The ratio, per mille.
    pub fn per_mille(self) -> u32 {
        self.0
    }

    /// The ratio after a vendor counted `reported` tokens for a text with `estimated` tokens. It rises at once and
    /// falls slowly: if it is too high, a prompt has a few turns less; if it is too low, the model refuses the request.
    #[must_use]
    pub fn after(self, estimated: u64, reported: u64) -> Self {
        if estimated < LEARN_FROM {
            return self;
        }
        let observed = u32::try_from(scaled(reported, 1_000, estimated, true)).unwrap_or(u32::MAX);
        let observed = observed.clamp(BOUNDS.0, BOUNDS.1);
        Self(if observed >= self.0 { observed } else { self.0 - (self.0 - observed).div_ceil(FALL) })
    }

    /// Converts estimated tokens to tokens as the model counts them, rounded up.
    pub fn apply(self, estimated: u64) -> u64 {
        scaled(estimated, self.0.into(), 1_000, true)
    }

    /// The largest number of estimated tokens that the model counts as at most `tokens`.
    pub fn within(self, tokens: u64) -> u64 {
        scaled(tokens, 1_000, self.0.into(), false)
    }
}

/// `number * times / by`; saturates.
fn scaled(number: u64, times: u64, by: u64, up: bool) -> u64 {
    let (product, by) = (u128::from(number) * u128::from(times), u128::from(by.max(1)));
    u64::try_from(if up { product.div_ceil(by) } else { product / by }).unwrap_or(u64::MAX)
}

/// Converts a limit in a model's own tokens to a limit in estimated tokens, and adds the limit of the model's context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fit {
    ratio: Ratio,
    room: Option<u64>,
}

impl Fit {
    /// For a model with this ratio, whose context has room for `room` of its own tokens; `None` if that is not known.
    pub fn new(ratio: Ratio, room: Option<u64>) -> Self {
        // A model that counted fewer tokens than estimated so far may count more in the next text.
        Self { ratio: ratio.max(Ratio::default()), room }
    }

    /// The limit in estimated tokens for a text of at most `tokens` of the model's own tokens, which also fits the
    /// model's context.
    pub fn within(self, tokens: u64) -> u64 {
        self.ratio.within(tokens.min(self.room.unwrap_or(u64::MAX)))
    }

    /// The limit in estimated tokens for a text that may fill the model's context; `None` if its size is not known.
    pub fn room(self) -> Option<u64> {
        self.room.map(|room| self.ratio.within(room))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::testing::kept;

    #[test]
    fn estimates_are_near_and_never_zero_for_words() {
        assert_eq!(estimate(""), 0);
        assert_eq!(estimate("Thanks for calling."), 4);
        assert_eq!(estimate("你好"), 2);
        assert!(estimate("Internationalisation") >= 3);
    }

    #[test]
    fn tail_is_as_long_as_its_tokens_allow() {
        assert_eq!(tail("one two three", 2), " two three");
        assert_eq!(tail("one two three", 0), "");
        assert_eq!(tail("one two three", 3), "one two three");
        assert_eq!(tail("\u{4f60}\u{597d}\u{5417}", 2), "\u{597d}\u{5417}");
    }

    #[test]
    fn ratio_rises_at_once_and_falls_slowly() {
        let mut ratio = Ratio::default().after(1_000, 1_700);
        assert_eq!(ratio, Ratio(1_700));
        ratio = ratio.after(1_000, 900);
        assert_eq!(ratio, Ratio(1_650));
        for _ in 0..200 {
            ratio = ratio.after(1_000, 900);
        }
        assert_eq!(ratio, Ratio(900), "it comes all the way down");
        assert_eq!(ratio.after(LEARN_FROM - 1, 100_000), ratio, "a short prompt says nothing");
        assert_eq!(ratio.after(LEARN_FROM, u64::MAX), Ratio(BOUNDS.1));
    }

    #[test]
    fn fit_is_the_smaller_of_budget_and_context_length() {
        assert_eq!((Fit::default().within(u64::MAX), Fit::default().room()), (u64::MAX, None));
        assert_eq!(Fit::new(Ratio(2_000), None).within(16_000), 8_000);
        assert_eq!(Fit::new(Ratio(500), Some(4_000)).within(16_000), 4_000, "never more than estimated");
        assert_eq!(Fit::new(Ratio(2_000), Some(4_000)).room(), Some(2_000));
    }

    proptest! {
        #![proptest_config(kept())]

        #[test]
        fn estimate_is_the_same_from_either_end_and_tail_is_the_longest_that_fits(text in "[a-z 0-9é你.\\n]{0,60}", tokens in 0_u64..30) {
            prop_assert_eq!(estimate(&text), estimate(&text.chars().rev().collect::<String>()));
            let tail = tail(&text, tokens);
            prop_assert!(text.ends_with(tail) && estimate(tail) <= tokens);
            if let Some(before) = text[..text.len() - tail.len()].chars().next_back() {
                let longer = format!("{before}{tail}");
                prop_assert!(estimate(&longer) > tokens);
            }
        }

        /// If a model never counts more tokens for an estimate than it has reported once, it is never sent more than
        /// its context can hold.
        #[test]
        fn text_that_fits_never_exceeds_the_limit(
            reports in prop::collection::vec((LEARN_FROM..1_000_000, 1_u64..4_000_000), 0..20),
            budget in any::<u64>(), room in prop::option::of(0_u64..10_000_000), text in 0_u64..10_000_000,
        ) {
            let mut ratio = Ratio::default();
            for (estimated, reported) in reports {
                ratio = ratio.after(estimated, reported);
                prop_assert!((BOUNDS.0..=BOUNDS.1).contains(&ratio.per_mille()));
                let worst = scaled(reported, 1_000, estimated, true).clamp(BOUNDS.0.into(), BOUNDS.1.into());
                prop_assert!(u64::from(ratio.per_mille()) >= worst, "below what was reported just now");
            }
            prop_assert!(ratio.apply(ratio.within(budget)) <= budget);
            let fit = Fit::new(ratio, room);
            // A text within the estimated limit is, as the model counts, within both limits.
            let held = text.min(fit.within(budget));
            prop_assert!(ratio.apply(held) <= budget);
            prop_assert!(room.is_none_or(|room| ratio.apply(held) <= room));
            prop_assert_eq!(fit.room(), room.map(|room| fit.within(room)));
        }
    }
}
