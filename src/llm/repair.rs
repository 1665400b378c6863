//! Reads JSON from the output of models that were asked for JSON, and repairs code fences, surrounding prose, raw line
//! breaks in strings, trailing commas, comments, single quotes, Python's constants and missing closing brackets.
//!
//! Does not know the schema. Text that cannot be read without guessing its content is refused.

use serde_json::{Map, Number, Value};

use super::thinking;
use crate::base::budget::{Bound, Budget, Exceeded, Limits};

/// Deepest nesting that is read.
const MAX_DEPTH: usize = 64;

/// Maximum work on one text: the bytes read, as a multiple of its length. Prose may be full of brackets that begin no
/// value.
const MAX_WORK: usize = 16;

/// Limits of repairing one text.
pub const REPAIRING: Limits = Limits {
    steps: Bound::new("repair_steps", 20_000_000),
    bytes: Bound::new("repair_memory_bytes", 256 * 1024 * 1024),
    time: Bound::new("repair_ms", 10_000),
};

/// Characters read in one step.
const CHARACTERS_A_STEP: usize = 8;

/// Estimated steps of [`parse`]. Text full of brackets that open nothing takes up to [`MAX_WORK`] times as many.
pub fn work(text: &str) -> u64 {
    text.len() as u64 / 4
}

/// Reads `text` as JSON, repairing it if that needs no guess. Thinking before it is left out. Of several values, the
/// last object is returned, because models write drafts before they answer.
///
/// The second value is true if the text was JSON already (apart from white space around it).
///
/// # Errors
/// The budget is used up.
pub fn parse(text: &str, budget: &mut Budget) -> Result<Option<(Value, bool)>, Exceeded> {
    parse_as(text, budget, |_, _| Ok(true))
}

/// Like [`parse`], but of several values the last one that is `valid` is returned, if there is one.
///
/// # Errors
/// The budget is used up, by reading or by `valid`.
pub fn parse_as(
    text: &str,
    budget: &mut Budget,
    valid: impl FnMut(&Value, &mut Budget) -> Result<bool, Exceeded>,
) -> Result<Option<(Value, bool)>, Exceeded> {
    let trimmed = text.trim();
    budget.spend(work(trimmed))?;
    if let Ok(value) = serde_json::from_str(trimmed) {
        return Ok(Some((value, true)));
    }
    Ok(repair(&thinking::without(trimmed), budget, valid)?.map(|value| (value, false)))
}

/// The intended value among all that can be read one after the other: a valid one rather than others, then a complete
/// one rather than a cut one, one in a code fence rather than in prose, an object rather than a list, and the last of
/// those.
fn repair(
    text: &str,
    budget: &mut Budget,
    mut valid: impl FnMut(&Value, &mut Budget) -> Result<bool, Exceeded>,
) -> Result<Option<Value>, Exceeded> {
    let mut best: Option<((bool, bool, bool, bool), Value)> = None;
    let (mut from, mut work) = (0, text.len().saturating_mul(MAX_WORK));
    let (mut counted, mut fences) = (0, 0);
    // If a bracket begins no value, the next one may: prose contains brackets too.
    while let Some(at) = text[from..].find(['{', '[']).map(|found| from + found) {
        let mut reader = Reader { text: &text[at..], at: 0, depth: 0, cut: false };
        let read = reader.value();
        budget.spend(1 + (reader.at / CHARACTERS_A_STEP) as u64)?;
        fences += text[counted..at].matches("```").count();
        counted = at;
        // Each item of a list may be the intended value.
        from = at + if read.as_ref().is_some_and(Value::is_object) { reader.at } else { 1 };
        if let Some(value) = read {
            let rank = (valid(&value, budget)?, !reader.cut, fences % 2 == 1, value.is_object());
            if best.as_ref().is_none_or(|(known, _)| rank >= *known) {
                best = Some((rank, value));
            }
        }
        work = work.saturating_sub(reader.at.max(1));
        if work == 0 {
            break;
        }
    }
    Ok(best.map(|(_, value)| value))
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    /// Set if closing brackets are missing.
    cut: bool,
}

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn skip(&mut self) {
        loop {
            let rest = &self.text[self.at..];
            let trimmed = rest.trim_start();
            self.at += rest.len() - trimmed.len();
            if trimmed.starts_with("//") {
                self.at += trimmed.find('\n').unwrap_or(trimmed.len());
            } else if trimmed.starts_with("/*") {
                self.at += trimmed.find("*/").map_or(trimmed.len(), |end| end + 2);
            } else {
                return;
            }
        }
    }

    fn value(&mut self) -> Option<Value> {
        self.skip();
        match self.peek()? {
            '{' => self.nested(Self::object),
            '[' => self.nested(Self::array),
            '"' | '\'' | '\u{201c}' => self.string().map(Value::String),
            _ => self.scalar(),
        }
    }

    fn nested(&mut self, read: fn(&mut Self) -> Option<Value>) -> Option<Value> {
        self.depth += 1;
        let value = if self.depth > MAX_DEPTH { None } else { read(self) };
        self.depth -= 1;
        value
    }

    fn object(&mut self) -> Option<Value> {
        self.bump();
        let mut map = Map::new();
        loop {
            self.skip();
            match self.peek() {
                // Cut off between two fields: the fields so far are complete.
                None => {
                    self.cut = true;
                    return Some(Value::Object(map));
                }
                Some('}') => {
                    self.bump();
                    return Some(Value::Object(map));
                }
                Some(',') => {
                    self.bump();
                }
                Some(_) => {
                    let key = self.key()?;
                    self.skip();
                    if self.bump()? != ':' {
                        return None;
                    }
                    let value = self.value()?;
                    map.insert(key, value);
                }
            }
        }
    }

    fn array(&mut self) -> Option<Value> {
        self.bump();
        let mut items = Vec::new();
        loop {
            self.skip();
            match self.peek() {
                None => {
                    self.cut = true;
                    return Some(Value::Array(items));
                }
                Some(']') => {
                    self.bump();
                    return Some(Value::Array(items));
                }
                Some(',') => {
                    self.bump();
                }
                Some(_) => items.push(self.value()?),
            }
        }
    }

    fn key(&mut self) -> Option<String> {
        if matches!(self.peek()?, '"' | '\'' | '\u{201c}') {
            return self.string();
        }
        let rest = &self.text[self.at..];
        let end =
            rest.find(|character: char| !(character.is_alphanumeric() || matches!(character, '_' | '-' | '$')))?;
        (end > 0).then(|| {
            self.at += end;
            rest[..end].to_owned()
        })
    }

    fn string(&mut self) -> Option<String> {
        let close = match self.bump()? {
            '\u{201c}' => '\u{201d}',
            quote => quote,
        };
        let mut out = String::new();
        loop {
            // A string without an end is refused, because its rest is unknown.
            match self.bump()? {
                '\\' => self.escaped(&mut out)?,
                character if character == close && self.closes(close) => return Some(out),
                // Raw line breaks and tabs are kept as they are.
                character => out.push(character),
            }
        }
    }

    /// Returns true if the quote just read ends the string: inside a string, an unescaped quote is followed by more
    /// words.
    fn closes(&self, quote: char) -> bool {
        let rest = &self.text[self.at..];
        let next = rest.trim_start();
        let gap = &rest[..rest.len() - next.len()];
        match next.chars().next() {
            None | Some(',' | '}' | ']' | ':' | '/') => true,
            // The next field or item on a line of its own, whose comma is missing.
            Some('"') if gap.contains('\n') => true,
            Some(next) => quote != '"' && next != quote && !next.is_alphanumeric(),
        }
    }

    fn escaped(&mut self, out: &mut String) -> Option<()> {
        match self.bump()? {
            'n' => out.push('\n'),
            't' => out.push('\t'),
            'r' => out.push('\r'),
            'b' => out.push('\u{8}'),
            'f' => out.push('\u{c}'),
            'u' => {
                let unit = self.hex4()?;
                out.push(self.character(unit));
            }
            // `\'` and similar escapes stand for the character itself; so do `\"`, `\\` and `\/`.
            other => out.push(other),
        }
        Some(())
    }

    /// The character of a UTF-16 code unit, with the other half of a pair if that follows. A lone half becomes U+FFFD.
    fn character(&mut self, unit: u32) -> char {
        let mut code = unit;
        if (0xd800..0xdc00).contains(&unit) && self.text[self.at..].starts_with("\\u") {
            let before = self.at;
            self.at += 2;
            match self.hex4() {
                Some(low @ 0xdc00..0xe000) => code = 0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00),
                _ => self.at = before,
            }
        }
        char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
    }

    fn hex4(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + 4)?;
        // `from_str_radix` would also take a sign.
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        self.at += 4;
        u32::from_str_radix(digits, 16).ok()
    }

    fn scalar(&mut self) -> Option<Value> {
        let rest = &self.text[self.at..];
        let end = rest
            .find(|character: char| character.is_whitespace() || matches!(character, ',' | '}' | ']' | ':' | '/'))
            .unwrap_or(rest.len());
        let word = &rest[..end];
        self.at += end;
        Some(match word {
            "true" | "True" | "TRUE" => Value::Bool(true),
            "false" | "False" | "FALSE" => Value::Bool(false),
            "null" | "None" | "undefined" | "NULL" => Value::Null,
            number => {
                let number = number.strip_prefix('+').unwrap_or(number);
                Value::Number(serde_json::from_str::<Number>(number).ok()?)
            }
        })
    }
}

#[cfg(test)]
mod tests;
