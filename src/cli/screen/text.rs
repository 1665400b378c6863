//! Text for a terminal: without characters that control the terminal, and with no line wider than it. Pure.

pub(crate) use crate::base::time::clock;

/// Makes text from others harmless: characters that a terminal would obey (escape sequences and other control
/// characters) or that would change the reading direction become U+FFFD; line breaks and tabs become spaces.
pub(crate) fn harmless(text: &str) -> String {
    text.chars()
        .map(|character| match character {
            '\n' | '\r' | '\t' => ' ',
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
            character if character.is_control() => '\u{fffd}',
            character => character,
        })
        .collect()
}

/// Splits text into lines of at most `width` characters (at least 8), at white space where possible. At least one line.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(8);
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split_whitespace() {
        let mut rest = word;
        loop {
            let length = rest.chars().count();
            let gap = usize::from(used > 0);
            if used + gap + length <= width {
                push(&mut lines, used > 0, rest);
                used += gap + length;
                break;
            }
            if used > 0 {
                lines.push(String::new());
                used = 0;
                continue;
            }
            // A single word that is wider than the line is cut.
            let cut = rest.char_indices().nth(width).map_or(rest.len(), |(index, _)| index);
            push(&mut lines, false, &rest[..cut]);
            lines.push(String::new());
            rest = &rest[cut..];
        }
    }
    lines
}

fn push(lines: &mut [String], gap: bool, text: &str) {
    if let Some(line) = lines.last_mut() {
        if gap {
            line.push(' ');
        }
        line.push_str(text);
    }
}

/// The end of `text` that fits into `width` characters, with an ellipsis if something was left out.
pub(crate) fn tail(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().skip(length + 1 - width.max(1)).collect();
    format!("…{kept}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::testing::kept;

    #[test]
    fn nothing_reaches_the_terminal_as_a_command() {
        let text = harmless("a\u{1b}[31mb\u{7}\r\nc\u{9b}2J\u{202e}d");
        assert_eq!(text, "a\u{fffd}[31mb\u{fffd}  c\u{fffd}2J\u{fffd}d");
    }

    #[test]
    fn tail_shows_the_end_of_what_is_too_long() {
        assert_eq!(tail("abcdef", 4), "…def");
        assert_eq!(tail("abc", 4), "abc");
    }

    proptest! {
        #![proptest_config(kept())]

        #[test]
        fn wrapped_text_loses_no_word_and_fits(text in "[a-zé ]{0,200}", width in 8usize..40) {
            let lines = wrap(&text, width);
            prop_assert!(lines.iter().all(|line| line.chars().count() <= width));
            let joined: String = lines.concat().split_whitespace().collect();
            prop_assert_eq!(joined, text.split_whitespace().collect::<String>());
        }
    }
}
