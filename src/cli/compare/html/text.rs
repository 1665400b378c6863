//! Values of insights as HTML, with the words that differ from another value marked.
//!
//! Knows no page. Text of models and speakers is escaped, so that none of it is markup.

use serde_json::Value;
use similar::{Algorithm, DiffOp, capture_diff_slices};

use crate::cli::screen::value_lines;

/// Maximum number of words of a value that are shown and compared: the time of a comparison grows with the square of
/// this number.
const MAX_WORDS: usize = 3_000;

/// A part of a value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Token {
    /// The beginning of a line, with its depth of indentation.
    Line(usize),
    Word(String),
}

/// Which lines of a value are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Show {
    All,
    /// Lines that differ.
    Changes,
}

/// Text as HTML.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

/// A value as HTML, with `<ins>` and `<del>` around the differences from `before`.
pub(super) fn value(before: Option<&Value>, after: &Value, show: Show) -> String {
    let new = tokens(after);
    let old = before.map_or_else(|| new.clone(), tokens);
    let mut lines = Lines::default();
    for op in capture_diff_slices(Algorithm::Myers, &old, &new) {
        match op {
            DiffOp::Equal { new_index, len, .. } => lines.add(&new[new_index..new_index + len], ""),
            DiffOp::Delete { old_index, old_len, .. } => lines.add(&old[old_index..old_index + old_len], "del"),
            DiffOp::Insert { new_index, new_len, .. } => lines.add(&new[new_index..new_index + new_len], "ins"),
            DiffOp::Replace { old_index, old_len, new_index, new_len } => {
                lines.add(&old[old_index..old_index + old_len], "del");
                lines.add(&new[new_index..new_index + new_len], "ins");
            }
        }
    }
    lines.html(show)
}

fn tokens(value: &Value) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut words = 0;
    for line in value_lines(value) {
        tokens.push(Token::Line(line.depth));
        for word in line.text.split_whitespace() {
            if words == MAX_WORDS {
                tokens.push(Token::Word("…".to_owned()));
                return tokens;
            }
            words += 1;
            tokens.push(Token::Word(word.to_owned()));
        }
    }
    tokens
}

/// Lines as they are made.
#[derive(Default)]
struct Lines {
    done: Vec<Line>,
}

#[derive(Default)]
struct Line {
    depth: usize,
    html: String,
    /// The name of the element that is open at the line's end; empty if none is.
    open: &'static str,
    differs: bool,
}

impl Lines {
    fn add(&mut self, tokens: &[Token], element: &'static str) {
        for token in tokens {
            match token {
                Token::Line(depth) => {
                    let differs = !element.is_empty();
                    self.done.push(Line { depth: *depth, differs, ..Line::default() });
                }
                Token::Word(word) => {
                    if self.done.is_empty() {
                        self.done.push(Line::default());
                    }
                    if let Some(line) = self.done.last_mut() {
                        line.word(word, element);
                    }
                }
            }
        }
    }

    fn html(self, show: Show) -> String {
        let lines = self.done.into_iter().filter(|line| show == Show::All || line.differs);
        let lines: Vec<String> = lines.map(Line::html).collect();
        if lines.is_empty() { "<p class=\"same\">no change</p>".to_owned() } else { lines.concat() }
    }
}

impl Line {
    fn word(&mut self, word: &str, element: &'static str) {
        let gap = if self.html.is_empty() { "" } else { " " };
        if element != self.open {
            self.close();
            self.html.push_str(gap);
            if !element.is_empty() {
                self.html.push_str(&format!("<{element}>"));
            }
            self.open = element;
        } else {
            self.html.push_str(gap);
        }
        self.differs |= !element.is_empty();
        self.html.push_str(&escaped(word));
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            self.html.push_str(&format!("</{}>", self.open));
        }
        self.open = "";
    }

    fn html(mut self) -> String {
        self.close();
        format!("<p class=\"d{}\">{}</p>", self.depth.min(4), self.html)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn words_that_differ_are_marked() {
        let (old, new) = (json!({"summary": "The car is late."}), json!({"summary": "The red car is here."}));
        assert_eq!(
            value(Some(&old), &new, Show::All),
            "<p class=\"d0\">summary The <ins>red</ins> car is <del>late.</del> <ins>here.</ins></p>"
        );
        assert_eq!(value(None, &old, Show::All), "<p class=\"d0\">summary The car is late.</p>");
        assert_eq!(value(Some(&old), &old, Show::Changes), "<p class=\"same\">no change</p>");
    }

    #[test]
    fn only_lines_that_differ_are_shown_as_changes() {
        let item = |text: &str| json!({"text": text});
        let old = json!({"items": [item("Call back today."), item("Send the form.")]});
        let new = json!({"items": [item("Call back today."), item("Send the form."), item("Refund <b>it</b>.")]});
        let shown = value(Some(&old), &new, Show::Changes);
        assert_eq!(shown, "<p class=\"d1\"><ins>- Refund &lt;b&gt;it&lt;/b&gt;.</ins></p>");
        let gone = value(Some(&new), &old, Show::Changes);
        assert_eq!(gone, "<p class=\"d1\"><del>- Refund &lt;b&gt;it&lt;/b&gt;.</del></p>");
    }

    #[test]
    fn long_values_are_cut() {
        let long = json!({"text": "word ".repeat(MAX_WORDS + 10)});
        assert!(value(None, &long, Show::All).ends_with("word …</p>"));
    }
}
