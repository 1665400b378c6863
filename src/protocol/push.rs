//! A frame as it is sent to one reader: with `subscription` and `cursor` after its `type`, and a turn with its `words`.
//!
//! A frame is encoded once, and every reader shares its bytes. It begins with `{"type":"…",`, and an event continues
//! with its stamp (see `event::encode`). So the offsets of both insertions are known, and the frame is never searched.
//! Knows no reader and no position.

use std::fmt::{Display, Write as _};

/// The members that are added after the `type` of every frame to one reader.
#[derive(Debug, Clone, Default)]
pub struct Members {
    /// The members as JSON, each followed by a comma.
    text: String,
}

/// The words to add to the turn in an event.
#[derive(Debug, Clone, Copy)]
pub struct Words<'a> {
    /// Offset of the turn's members in the frame (see `event::turn_members`).
    pub at: usize,
    /// The words as a JSON array.
    pub json: &'a str,
}

impl Members {
    /// Makes `"subscription":"…"`. The name must contain no character that JSON escapes.
    pub fn subscription(subscription: &str) -> Self {
        Self { text: format!("\"subscription\":\"{subscription}\",") }
    }

    /// Writes the frame of the type `kind` for this reader; `None` if nothing is added to it.
    pub fn write(
        &self,
        kind: &str,
        frame: &str,
        cursor: Option<impl Display>,
        words: Option<Words<'_>>,
    ) -> Option<String> {
        if self.text.is_empty() && cursor.is_none() && words.is_none() {
            return None;
        }
        let (start, rest) = frame.split_at_checked(after_type(kind, frame))?;
        let room = self.text.len() + words.map_or(0, |words| words.json.len() + 16) + 48;
        let mut out = String::with_capacity(frame.len() + room);
        out.push_str(start);
        out.push_str(&self.text);
        if let Some(cursor) = cursor {
            // Writing to memory cannot fail.
            let _ = write!(out, "\"cursor\":\"{cursor}\",");
        }
        let words = words.and_then(|words| Some((rest.split_at_checked(words.at.checked_sub(start.len())?)?, words)));
        match words {
            Some(((before, after), words)) => {
                out.push_str(before);
                out.push_str("\"words\":");
                out.push_str(words.json);
                out.push(',');
                out.push_str(after);
            }
            None => out.push_str(rest),
        }
        Some(out)
    }
}

/// Number of bytes of `{"type":"KIND",`. For a frame that does not begin with these, number of bytes of `{`: members
/// may have any order.
fn after_type(kind: &str, frame: &str) -> usize {
    let rest = frame.strip_prefix(r#"{"type":""#).and_then(|rest| rest.strip_prefix(kind)?.strip_prefix("\","));
    rest.map_or(1, |rest| frame.len() - rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Option<&str> = None;

    #[test]
    fn members_come_after_the_type_and_words_into_the_turn() {
        let frame = r#"{"type":"turn.final","call_id":"c","seq":1,"at":"t","turn":{"turn":0,"text":"say \",\"turn\":{ twice"}}"#;
        let words = Words { at: frame.find(r#""turn":0"#).expect("a turn"), json: r#"[{"text":"say"}]"# };
        let members = Members::subscription("sub_1");
        let written = members.write("turn.final", frame, Some("1.ff"), Some(words)).expect("more");
        assert_eq!(
            written,
            r#"{"type":"turn.final","subscription":"sub_1","cursor":"1.ff","call_id":"c","seq":1,"at":"t","turn":{"words":[{"text":"say"}],"turn":0,"text":"say \",\"turn\":{ twice"}}"#
        );
        serde_json::from_str::<serde_json::Value>(&written).expect("valid");
        let written = Members::default().write("turn.final", frame, Some("1.ff"), None).expect("more");
        assert!(written.starts_with(r#"{"type":"turn.final","cursor":"1.ff","call_id":"c","#), "{written}");
    }

    #[test]
    fn frame_to_which_nothing_is_added_is_not_written_again() {
        assert_eq!(Members::default().write("gap", r#"{"type":"gap","seq":1}"#, NOTHING, None), None);
    }

    #[test]
    fn frame_of_another_type_is_still_a_json_object() {
        let members = Members::subscription("s");
        let frame = r#"{"a":"b","type":"x"}"#;
        for kind in ["", "x"] {
            let written = members.write(kind, frame, NOTHING, None).expect("more");
            assert_eq!(written, r#"{"subscription":"s","a":"b","type":"x"}"#);
        }
        assert_eq!(members.write("x", "", NOTHING, None), None);
    }
}
