//! Adds `subscription`, `cursor` and `words` to a frame that is already encoded.
//!
//! Nothing is parsed and nothing else is changed: the new members are inserted after the frame's `type`, which stays
//! the first member, and `words` as the first member of its `turn`.

use super::{Cursor, Frame, Live};
use crate::base::ws::Utf8Bytes;
use crate::types::MAX_FRAME_BYTES;

/// The members at the start of every push to one reader.
#[derive(Debug, Clone, Default)]
pub struct Prefix {
    members: String,
}

impl Prefix {
    /// Puts `"subscription":"…"` in every push. `subscription` must need no escaping.
    pub fn subscription(subscription: &str) -> Self {
        Self { members: format!("\"subscription\":\"{subscription}\",") }
    }

    /// `frame` as it is sent to this reader, with its `words` if they are wanted.
    pub fn event(&self, frame: &Frame, cursor: Option<Cursor>, words: bool) -> Utf8Bytes {
        let words = if words { frame.words() } else { None };
        // A journal of an older version, without limits on words, may hold longer ones.
        let words = words.filter(|words| frame.text().len() + words.len() < MAX_FRAME_BYTES);
        push(frame.text(), &self.members, cursor, words.as_deref())
    }

    /// `live` as it is sent to this reader.
    pub fn live(&self, live: &Live, cursor: Option<Cursor>) -> Utf8Bytes {
        push(&live.text, &self.members, cursor, None)
    }
}

/// Length of `{"type":"…",`, or of `{` if the type is not first.
fn head(text: &str) -> usize {
    const TAG: &str = r#"{"type":""#;
    let tagged = text.strip_prefix(TAG).and_then(|rest| rest.find("\",").map(|end| TAG.len() + end + 2));
    tagged.unwrap_or(1)
}

/// The frame with `members` (each followed by a comma), `cursor` and `words` inserted.
fn push(text: &Utf8Bytes, members: &str, cursor: Option<Cursor>, words: Option<&str>) -> Utf8Bytes {
    const TURN: &str = r#","turn":{"#;
    if members.is_empty() && cursor.is_none() && words.is_none() {
        return text.clone();
    }
    let frame = text.as_str();
    let (start, rest) = frame.split_at(head(frame).min(frame.len()));
    let mut out = String::with_capacity(frame.len() + members.len() + words.map_or(0, |words| words.len() + 16) + 48);
    out.push_str(start);
    out.push_str(members);
    if let Some(cursor) = cursor {
        use std::fmt::Write as _;
        // Writing to memory cannot fail.
        let _ = write!(out, "\"cursor\":\"{cursor}\",");
    }
    // Before a turn event's `turn` there are only ids and a time: the first match is the member itself.
    match words.and_then(|words| rest.find(TURN).map(|at| (words, at + TURN.len()))) {
        Some((words, at)) => {
            out.push_str(&rest[..at]);
            out.push_str("\"words\":");
            out.push_str(words);
            out.push(',');
            out.push_str(&rest[at..]);
        }
        None => out.push_str(rest),
    }
    Utf8Bytes::from(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_come_after_the_type_and_words_into_the_turn() {
        let text = Utf8Bytes::from_static(
            r#"{"type":"turn.final","call_id":"c","seq":1,"at":"t","turn":{"turn":0,"text":"say \",\"turn\":{ twice"}}"#,
        );
        let cursor = Cursor { generation: 1, order: Some(255) };
        let spliced = push(&text, "\"subscription\":\"sub_1\",", Some(cursor), Some(r#"[{"text":"say"}]"#));
        assert_eq!(
            spliced.as_str(),
            r#"{"type":"turn.final","subscription":"sub_1","cursor":"1.ff","call_id":"c","seq":1,"at":"t","turn":{"words":[{"text":"say"}],"turn":0,"text":"say \",\"turn\":{ twice"}}"#
        );
        serde_json::from_str::<serde_json::Value>(&spliced).expect("valid");
    }

    #[test]
    fn nothing_to_join_in_shares_the_bytes() {
        let text = Utf8Bytes::from_static(r#"{"type":"gap"}"#);
        assert_eq!(push(&text, "", None, None).as_ptr(), text.as_ptr());
    }

    #[test]
    fn a_frame_without_a_leading_type_is_still_valid_json() {
        let text = Utf8Bytes::from_static(r#"{"a":"b","type":"x"}"#);
        assert_eq!(push(&text, "\"s\":1,", None, None).as_str(), r#"{"s":1,"a":"b","type":"x"}"#);
    }
}
