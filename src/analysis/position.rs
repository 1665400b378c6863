//! Finds line and column in a file: of a byte, of a variable in a template, of a place in JSON.
//!
//! Knows no analysis.

/// Line and column, from 1, of the byte `offset`; columns count characters.
pub(super) fn line_column(source: &str, offset: usize) -> (usize, usize) {
    let end = (0..=offset.min(source.len())).rev().find(|end| source.is_char_boundary(*end)).unwrap_or(0);
    let before = &source[..end];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// Offset at which a template uses the variable `name`: a whole word between braces that is not an attribute.
pub(super) fn variable(source: &str, name: &str) -> Option<usize> {
    let is_word = |character: char| character.is_alphanumeric() || character == '_';
    source.match_indices(name).map(|(at, _)| at).find(|at| {
        let before = &source[..*at];
        let after = &source[at + name.len()..];
        let opened = before.rfind("{{").max(before.rfind("{%"));
        let closed = before.rfind("}}").max(before.rfind("%}"));
        opened > closed
            && !before.ends_with(|character| is_word(character) || character == '.')
            && !after.starts_with(is_word)
    })
}

/// Offset at which the value at `pointer` (RFC 6901) begins in valid JSON; if it does not exist, that of its nearest
/// existing parent.
pub(super) fn json(source: &str, pointer: &str) -> usize {
    let path: Vec<String> = pointer.split('/').skip(1).map(|part| part.replace("~1", "/").replace("~0", "~")).collect();
    let mut scanner = Scanner { source: source.as_bytes(), at: 0 };
    scanner.spaces();
    let mut found = scanner.at;
    for part in &path {
        if !scanner.enter(part) {
            break;
        }
        found = scanner.at;
    }
    found
}

/// Moves through valid JSON without parsing it into values.
struct Scanner<'a> {
    source: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.source.get(self.at).copied()
    }

    fn spaces(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    /// Moves from a value to its member `part`. Returns false if there is none.
    fn enter(&mut self, part: &str) -> bool {
        let is_object = match self.peek() {
            Some(b'{') => true,
            Some(b'[') => false,
            _ => return false,
        };
        let mut index = 0_usize;
        loop {
            // Skips the opening bracket, or the comma.
            self.at += 1;
            self.spaces();
            if matches!(self.peek(), None | Some(b'}' | b']')) {
                return false;
            }
            let matches = if is_object {
                let from = self.at;
                self.value();
                let key = std::str::from_utf8(&self.source[from..self.at]).unwrap_or_default();
                self.spaces();
                self.at += 1;
                self.spaces();
                serde_json::from_str::<String>(key).is_ok_and(|key| key == part)
            } else {
                index.to_string() == part
            };
            if matches {
                return true;
            }
            index += 1;
            self.value();
            self.spaces();
            if self.peek() != Some(b',') {
                return false;
            }
        }
    }

    /// Skips a value.
    fn value(&mut self) {
        let mut depth = 0_usize;
        let mut in_string = false;
        while let Some(byte) = self.peek() {
            match byte {
                b'\\' if in_string => self.at += 1,
                b'"' => in_string = !in_string,
                _ if in_string => {}
                b'{' | b'[' => depth += 1,
                b'}' | b']' if depth == 0 => return,
                b'}' | b']' => depth -= 1,
                b',' | b':' if depth == 0 => return,
                _ if depth == 0 && byte.is_ascii_whitespace() => return,
                _ => {}
            }
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_characters_from_one() {
        assert_eq!(line_column("ab\ncé d", 0), (1, 1));
        assert_eq!(line_column("ab\ncé d", 7), (2, 4));
        assert_eq!(line_column("ab", 99), (1, 3));
    }

    #[test]
    fn variables_are_found_where_they_are_used() {
        let source = "mood {{ call.mood }} {{ moody }} {% if mood %}";
        assert_eq!(variable(source, "mood"), source.rfind("mood"));
        assert_eq!(variable("mood", "mood"), None);
    }

    #[test]
    fn places_in_json_are_found() {
        let source = r#"{ "a": [1, {"b\"/~": "x,]", "c": {"type": 5}}] , "d": null}"#;
        let at = |pointer: &str| &source[json(source, pointer)..];
        assert!(at("/a/1/c/type").starts_with("5}"));
        assert!(at("/a/1/b\"~1~0").starts_with("\"x,]"));
        assert!(at("/d").starts_with("null"));
        assert!(at("/a/7/x").starts_with("[1"), "the nearest parent");
        assert!(at("").starts_with("{ \"a\""));
    }
}
