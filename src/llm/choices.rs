//! How many answers to one request a vendor may send.
//!
//! Knows no wire format. Each decoder reports the number of every choice that it reads.

use super::StreamError;

/// Maximum number of choices of one answer. OpenAI allows `n` up to 128. What is kept for each is searched for every
/// piece, so without a limit the time to read an answer grows with the square of its size.
const MAX_CHOICES: usize = 128;

/// The numbers of the choices that an answer has so far.
#[derive(Debug, Default)]
pub(super) struct Choices(Vec<u32>);

impl Choices {
    /// Records a choice.
    ///
    /// # Errors
    ///
    /// `Malformed` for a new one beyond [`MAX_CHOICES`].
    pub(super) fn see(&mut self, choice: u32) -> Result<(), StreamError> {
        if self.0.contains(&choice) {
            return Ok(());
        }
        if self.0.len() >= MAX_CHOICES {
            return Err(StreamError::Malformed(format!(
                "the answer has more than {MAX_CHOICES} choices (answer_choices)"
            )));
        }
        self.0.push(choice);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use crate::llm::{StreamError, provider, sse};

    /// Makes the choice with a number.
    type Frame = fn(u32) -> String;

    #[test]
    fn answer_with_too_many_choices_is_malformed() {
        let cases: [(&str, Frame, &str); 2] = [
            (
                "openai_compatible",
                |index| {
                    format!(
                        r#"{{"index":{index},"message":{{"content":"a"}},"delta":{{"content":"a"}},"finish_reason":"stop"}}"#
                    )
                },
                "choices",
            ),
            (
                "google",
                |index| format!(r#"{{"index":{index},"content":{{"parts":[{{"text":"a"}}]}},"finishReason":"STOP"}}"#),
                "candidates",
            ),
        ];
        for (name, choice, list) in cases {
            let vendor = provider(name).expect("a provider");
            let body = |count: u32| {
                let mut body = format!(r#"{{"{list}":["#);
                for index in 0..count {
                    let _ = write!(body, "{}{}", if index > 0 { "," } else { "" }, choice(index * 7));
                }
                body + "]}"
            };
            let whole = vendor.answer(body(128).as_bytes()).expect("128 choices");
            assert_eq!(whole.choices.len(), 128, "{name}");
            let refused = vendor.answer(body(129).as_bytes()).expect_err("129 choices");
            assert!(matches!(&refused, StreamError::Malformed(why) if why.contains("128")), "{name}: {refused}");
            // A stream that adds a choice with each chunk.
            let mut decoder = vendor.stream();
            let refused = (0..1000).find_map(|index| {
                let chunk = format!(r#"{{"{list}":[{}]}}"#, choice(index));
                decoder.decode(sse::Event { name: "", data: chunk.as_bytes() }, &mut Vec::new()).err().map(|_| index)
            });
            assert_eq!(refused, Some(128), "{name}");
        }
    }
}
