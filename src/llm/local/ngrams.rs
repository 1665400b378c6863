//! Estimates the sentiment of a text by a linear model over hashed n-grams: the log odds that people who said this were
//! glad rather than sorry.
//!
//! Knows no lexicon. The weights are trained by `scripts/train-local`, on GoEmotions (Demszky et al., 2020: comments
//! rated by people, CC BY 4.0) and on sentences of service calls written for this purpose. A weight is one signed byte;
//! each n-gram is hashed to one weight.

use super::words;

/// The scale and the bias as `f32`, little-endian, then the weights, one `i8` each.
static MODEL: &[u8] = include_bytes!("ngrams.bin");
/// Bytes before the weights.
const HEAD: usize = 8;
/// Number of hash buckets, as a power of two.
const BITS: u32 = 17;
/// Longest n-gram, in tokens.
const LONGEST: usize = 3;

/// The log odds of a text, about -10 to 10; 0 for a text without words.
pub(super) fn leaning(text: &str) -> f64 {
    let tokens = tokens(text);
    if tokens.is_empty() {
        return 0.0;
    }
    let (head, weights) = MODEL.split_at(HEAD);
    let number = |at: usize| f64::from(f32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]));
    let buckets = buckets(&tokens);
    let sum: i32 = buckets.iter().map(|bucket| i32::from(i8::from_le_bytes([weights[*bucket]]))).sum();
    #[expect(clippy::cast_precision_loss, reason = "a turn has few n-grams")]
    let length = (buckets.len().max(1) as f64).sqrt();
    number(0) * f64::from(sum) / length + number(4)
}

/// The hash buckets of all n-grams of a text, each once. The start and the end of the text count as tokens, but not as
/// n-grams by themselves.
fn buckets(tokens: &[String]) -> Vec<usize> {
    let bounded: Vec<&str> =
        std::iter::once("<").chain(tokens.iter().map(String::as_str)).chain(std::iter::once(">")).collect();
    let mut found = Vec::with_capacity(bounded.len() * LONGEST);
    for start in 0..bounded.len() {
        let mut hash = 0x811C_9DC5;
        for (length, token) in bounded[start..].iter().take(LONGEST).enumerate() {
            if length > 0 {
                hash = hashed(hash, " ");
            }
            hash = hashed(hash, token);
            if length > 0 || !matches!(*token, "<" | ">") {
                found.push(((hash ^ (hash >> BITS)) & ((1 << BITS) - 1)) as usize);
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// Continues an FNV-1a hash with the bytes of `text`.
fn hashed(hash: u32, text: &str) -> u32 {
    text.bytes().fold(hash, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// The tokens of a text: normalised words, and the punctuation that expresses feeling: `!`, `?`, `?!` and `..`.
fn tokens(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let token = if first.is_alphanumeric() {
            let token = &rest[..word_end(rest)];
            found.push(words::fold(token));
            token
        } else if matches!(first, '!' | '?') {
            let token = &rest[..run_end(rest, |mark| matches!(mark, '!' | '?'))];
            let both = token.contains('!') && token.contains('?');
            found.push(if both { "?!".to_owned() } else { first.to_string() });
            token
        } else if first == '.' {
            let token = &rest[..run_end(rest, |mark| mark == '.')];
            if token.len() > 1 {
                found.push("..".to_owned());
            }
            token
        } else {
            &rest[..first.len_utf8()]
        };
        rest = &rest[token.len()..];
    }
    found
}

/// Offset of the end of the first word. An apostrophe between letters belongs to the word.
fn word_end(text: &str) -> usize {
    let mut characters = text.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        let inner =
            matches!(character, '\'' | '’') && characters.peek().is_some_and(|(_, next)| next.is_alphanumeric());
        if !character.is_alphanumeric() && !inner {
            return at;
        }
    }
    text.len()
}

fn run_end(text: &str, is: impl Fn(char) -> bool) -> usize {
    text.find(|character| !is(character)).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn model_has_a_weight_for_each_bucket() {
        assert_eq!(MODEL.len(), HEAD + (1 << BITS));
    }

    #[test]
    fn scores_are_those_of_the_training_script() {
        for (text, expected) in [
            ("I love it!", 7.4712),
            ("This is terrible, nobody helps me.", -3.5392),
            ("The card ends in 4417.", -0.3923),
        ] {
            let leaning = leaning(text);
            assert!((leaning - expected).abs() < 0.001, "{text} {leaning}");
        }
        assert_eq!(leaning("…"), 0.0);
    }

    #[test]
    fn marks_and_words_are_tokens() {
        assert_eq!(tokens("Noooo... DON’T?! It's 5.5!"), ["noo", "..", "don't", "?!", "it's", "5", "5", "!"]);
        assert_eq!(tokens("' - ."), [""; 0]);
    }
}
