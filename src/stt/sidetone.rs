//! Sidetone's own ingest frames: `turn`, `partial`, `revise`, `meta`, `end`.
//!
//! Strict, unlike the vendors' dialects: the authors of these frames can read the errors.

use serde::Deserialize;

use super::wire;
use super::wire::strict::{Natural, Share, Text, parse};
use super::{DecodeError, Decoder, Dialect};
use crate::protocol::ErrorCode;
use crate::types::{Final, Revision, SttEvent, TurnKey, Word};

pub(super) struct Sidetone;

impl Dialect for Sidetone {
    fn name(&self) -> &'static str {
        "sidetone"
    }

    fn example(&self) -> &'static str {
        r#"{"type":"turn","turn_order":12,"speaker":"agent","text":"Thanks for calling.","start_ms":120,"end_ms":1890}"#
    }

    fn expects(&self) -> &'static str {
        "frames whose \"type\" is \"turn\", \"partial\", \"revise\", \"meta\" or \"end\""
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        Box::new(SidetoneDecoder)
    }

    /// These frames are written for Sidetone, so they have no envelope.
    fn open(&self) -> Box<dyn Decoder> {
        self.decoder()
    }

    fn is_own(&self) -> bool {
        true
    }

    fn names_turns(&self) -> bool {
        true
    }

    fn needs(&self) -> &'static [&'static str] {
        &["type", "turn_order", "text"]
    }

    fn splits(&self) -> bool {
        false
    }
}

struct SidetoneDecoder;

#[derive(Deserialize)]
struct TurnFrame<'a> {
    turn_order: Natural,
    #[serde(borrow)]
    text: Text<'a>,
    #[serde(borrow)]
    speaker: Option<Text<'a>>,
    start_ms: Option<Natural>,
    end_ms: Option<Natural>,
    #[serde(borrow)]
    language: Option<Text<'a>>,
    confidence: Option<Share>,
    #[serde(borrow)]
    words: Option<Vec<WordField<'a>>>,
}

#[derive(Deserialize)]
struct WordField<'a> {
    #[serde(borrow)]
    text: Text<'a>,
    start_ms: Natural,
    end_ms: Natural,
    #[serde(borrow)]
    speaker: Option<Text<'a>>,
    confidence: Option<Share>,
}

#[derive(Deserialize)]
struct PartialFrame<'a> {
    turn_order: Natural,
    #[serde(borrow)]
    text: Text<'a>,
    #[serde(borrow)]
    speaker: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct ReviseFrame<'a> {
    turn_order: Natural,
    #[serde(borrow)]
    text: Option<Text<'a>>,
    #[serde(borrow)]
    speaker: Option<Text<'a>>,
    #[serde(borrow)]
    words: Option<Vec<WordField<'a>>>,
}

impl Decoder for SidetoneDecoder {
    fn read(&mut self, frame: &str, out: &mut Vec<SttEvent>) -> Result<(), DecodeError> {
        let Some(kind) = wire::kind("type", frame)? else {
            return Err(wire::bad_field("type", "one of turn, partial, revise, meta, end", None));
        };
        out.push(match kind.as_str() {
            "turn" => turn(parse("turn", frame)?)?,
            "partial" => {
                let partial: PartialFrame<'_> = parse("partial", frame)?;
                SttEvent::Partial {
                    key: TurnKey::Order(partial.turn_order.0),
                    speaker: partial.speaker.map(Text::into_string),
                    text: partial.text.into_string(),
                }
            }
            "revise" => revise(parse("revise", frame)?)?,
            other => wire::other(other, frame)?,
        });
        Ok(())
    }
}

fn turn(frame: TurnFrame<'_>) -> Result<SttEvent, DecodeError> {
    let words = words("turn", frame.words)?;
    if let (Some(start), Some(end)) = (frame.start_ms, frame.end_ms) {
        check_times("turn", start, end)?;
    }
    Ok(SttEvent::Final(Box::new(Final {
        key: TurnKey::Order(frame.turn_order.0),
        formatted: true,
        text: frame.text.into_string(),
        speaker: frame.speaker.map(Text::into_string),
        words,
        start_ms: frame.start_ms.map(|start| start.0),
        end_ms: frame.end_ms.map(|end| end.0),
        language: frame.language.map(Text::into_string),
        confidence: frame.confidence.map(|confidence| confidence.0),
    })))
}

fn revise(frame: ReviseFrame<'_>) -> Result<SttEvent, DecodeError> {
    let words = words("revise", frame.words)?;
    if frame.text.is_none() && frame.speaker.is_none() && words.is_empty() {
        let message = "revise: expected at least one of speaker, text, words; found none".to_owned();
        return Err(DecodeError::new(ErrorCode::BadField, message));
    }
    Ok(SttEvent::Revise(Box::new(Revision {
        key: TurnKey::Order(frame.turn_order.0),
        speaker: frame.speaker.map(Text::into_string),
        text: frame.text.map(Text::into_string),
        words,
    })))
}

fn words(what: &str, words: Option<Vec<WordField<'_>>>) -> Result<Vec<Word>, DecodeError> {
    let words = words.unwrap_or_default();
    words
        .into_iter()
        .enumerate()
        .map(|(index, word)| {
            if word.end_ms < word.start_ms {
                check_times(&format!("{what}.words[{index}]"), word.start_ms, word.end_ms)?;
            }
            Ok(Word {
                text: word.text.into_string(),
                start_ms: word.start_ms.0,
                end_ms: word.end_ms.0,
                speaker: word.speaker.map(Text::into_string),
                confidence: word.confidence.map(|confidence| confidence.0),
            })
        })
        .collect()
}

fn check_times(path: &str, start: Natural, end: Natural) -> Result<(), DecodeError> {
    if start <= end {
        return Ok(());
    }
    let message = format!("{path}.end_ms: expected an integer >= start_ms ({}), found {}", start.0, end.0);
    Err(DecodeError::new(ErrorCode::BadField, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::EndScope;

    fn decode(frame: &str) -> Result<SttEvent, String> {
        let mut out = Vec::new();
        let result = Sidetone.open().decode(frame, &mut out);
        match result {
            Ok(_) => Ok(out.pop().expect("one event")),
            Err(error) => {
                assert!(out.is_empty());
                Err(format!("{}: {}", error.code, error.message))
            }
        }
    }

    #[test]
    fn errors_say_what_where_and_what_is_allowed() {
        for (frame, message) in [
            ("nonsense", "bad_json: frame: expected a JSON object, but expected ident at line 1 column 2"),
            (
                r#"{"type":"turn""#,
                "bad_json: frame: expected a JSON object, but EOF while parsing an object at line 1 column 14",
            ),
            ("[1]", "bad_field: frame: expected an object, found an array"),
            ("{}", "bad_field: type: required, but missing; expected one of turn, partial, revise, meta, end"),
            (r#"{"type":7}"#, "bad_field: type: expected a string, found 7"),
            (
                r#"{"type":"turn","turn_order":1,"text":"x","start_ms":"soon"}"#,
                "bad_field: turn.start_ms: expected an integer >= 0, found \"soon\"",
            ),
            (
                r#"{"type":"turn","turn_order":1,"text":"x","start_ms":"a whole sentence"}"#,
                "bad_field: turn.start_ms: expected an integer >= 0, found a string of 16 characters",
            ),
            (
                r#"{"type":"turn","turn_order":-1,"text":"x"}"#,
                "bad_field: turn.turn_order: expected an integer >= 0, found -1",
            ),
            (
                r#"{"type":"turn","turn_order":1.5,"text":"x"}"#,
                "bad_field: turn.turn_order: expected an integer >= 0, found 1.5",
            ),
            (r#"{"type":"turn","text":"x"}"#, "bad_field: turn.turn_order: required, but missing"),
            (
                r#"{"type":"turn","turn_order":null,"text":"x"}"#,
                "bad_field: turn.turn_order: expected an integer >= 0, found null",
            ),
            (r#"{"type":"turn","turn_order":1}"#, "bad_field: turn.text: required, but missing"),
            (r#"{"type":"turn","turn_order":1,"text":5}"#, "bad_field: turn.text: expected a string, found 5"),
            (r#"{"type":"turn","turn_order":1,"text":"x","text":"y"}"#, "bad_field: turn.text: given more than once"),
            (
                r#"{"type":"turn","turn_order":1,"text":"x","start_ms":9,"end_ms":8}"#,
                "bad_field: turn.end_ms: expected an integer >= start_ms (9), found 8",
            ),
            (
                r#"{"type":"turn","turn_order":1,"text":"x","confidence":1.5}"#,
                "bad_field: turn.confidence: expected a number from 0 to 1, found 1.5",
            ),
            (
                r#"{"type":"turn","turn_order":1,"text":"x","words":[{"text":"x","start_ms":1,"end_ms":2},{"text":"x","start_ms":4,"end_ms":"z"}]}"#,
                "bad_field: turn.words[1].end_ms: expected an integer >= 0, found \"z\"",
            ),
            (
                r#"{"type":"turn","turn_order":1,"text":"x","words":[{"text":"x","start_ms":3,"end_ms":2}]}"#,
                "bad_field: turn.words[0].end_ms: expected an integer >= start_ms (3), found 2",
            ),
            (
                r#"{"type":"turn","turn_order":1,"text":"x","words":[{"start_ms":3,"end_ms":2}]}"#,
                "bad_field: turn.words[0].text: required, but missing",
            ),
            (
                r#"{"type":"revise","turn_order":1}"#,
                "bad_field: revise: expected at least one of speaker, text, words; found none",
            ),
            (r#"{"type":"meta"}"#, "bad_field: meta.meta: required, but missing"),
            (r#"{"type":"meta","meta":[]}"#, "bad_field: meta.meta: expected an object, found an array"),
            (r#"{"type":"end","scope":"all"}"#, "bad_field: end.scope: expected \"stream\" or \"call\", found \"all\""),
        ] {
            assert_eq!(decode(frame), Err(message.to_owned()), "{frame}");
        }
    }

    #[test]
    fn optional_fields_may_be_null_and_unknown_ones_anything() {
        let event = decode(
            r#"{"text":"a\nb","turn_order":3.0,"speaker":null,"start_ms":null,"words":null,"confidence":null,"x":{"y":[1]},"type":"turn"}"#,
        );
        let Ok(SttEvent::Final(turn)) = event else { panic!("{event:?}") };
        assert_eq!((turn.key, turn.text.as_str(), turn.start_ms), (TurnKey::Order(3), "a\nb", None));
        assert!(turn.formatted && turn.speaker.is_none() && turn.words.is_empty());
    }

    #[test]
    fn ends_default_to_the_stream() {
        assert_eq!(decode(r#"{"type":"end"}"#), Ok(SttEvent::End { reason: None, scope: EndScope::Stream }));
        assert_eq!(
            decode(r#"{"type":"end","reason":"hangup","scope":"call"}"#),
            Ok(SttEvent::End { reason: Some("hangup".to_owned()), scope: EndScope::Call })
        );
    }

    #[test]
    fn an_unknown_type_is_counted() {
        assert_eq!(decode(r#"{"type":"wave"}"#), Ok(SttEvent::Unknown { kind: "wave".to_owned() }));
    }
}
