//! Checks if frames belong to a dialect, which dialect they look like, and what to tell a producer whose frames do not
//! fit.
//!
//! Knows no vendor, no clock and no connection. No message repeats text of a call: only a frame's type or the names of
//! its members are shown.

use serde_json::Value;

use super::{DIALECTS, DecodeError, Dialect};
use crate::base::surrogates;
use crate::types::{JsonMap, SttEvent};

/// Members that hold a message's type at various vendors. `message` is left out: elsewhere it holds text.
pub(super) const DISCRIMINATORS: [&str; 7] =
    ["type", "message_type", "msg_type", "event", "EventType", "event_type", "TranscriptionEvent"];
/// Longest type or member name that is shown, in characters.
const MAX_SHOWN_CHARS: usize = 64;
/// Maximum number of member names shown for a message without a type.
const MAX_SHOWN_MEMBERS: usize = 6;
/// Maximum number of different message types in one error message.
const MAX_SHOWN_TYPES: usize = 3;

/// How well one frame fits a dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fit {
    /// The dialect does not know the frame, or cannot read it.
    Unknown,
    /// No evidence either way: `meta`, the end of a stream, or an error that the vendor reports.
    #[default]
    Neutral,
    /// The dialect knows the frame, but it carries no turn. Vendors share the names of such messages.
    Control,
    /// The dialect knows the frame: it carries speech or begins a session.
    Known,
}

impl Fit {
    /// The fit of a frame, from its decoding `result`, its `events`, and whether the decoder is `holding` speech
    /// afterwards.
    pub fn of<T>(result: &Result<T, DecodeError>, events: &[SttEvent], holding: bool) -> Self {
        let neutral =
            |event: &SttEvent| matches!(event, SttEvent::Meta(_) | SttEvent::End { .. } | SttEvent::VendorError { .. });
        if result.is_err() || events.iter().any(|event| matches!(event, SttEvent::Unknown { .. })) {
            Self::Unknown
        } else if events.iter().all(is_voice) {
            if holding { Self::Known } else { Self::Control }
        } else if events.iter().all(neutral) {
            Self::Neutral
        } else {
            Self::Known
        }
    }

    /// Returns true if the dialect knows the frame.
    pub fn is_known(self) -> bool {
        matches!(self, Self::Control | Self::Known)
    }
}

/// How well a dialect fits several frames: how many it knows, and how many of these carry speech. Greater is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Score {
    pub(super) known: u32,
    pub(super) speech: u32,
}

impl Score {
    /// Counts a frame that was decoded to `events`.
    pub(super) fn count(&mut self, fit: Fit, events: &[SttEvent], holding: bool) {
        if fit.is_known() {
            self.known += 1;
            self.speech += u32::from(holding || events.iter().any(is_speech));
        }
    }
}

/// Returns true for text of a turn, final or not, and for corrections of turns.
fn is_speech(event: &SttEvent) -> bool {
    match event {
        SttEvent::Final(turn) => !turn.text.is_empty(),
        SttEvent::Partial { text, .. } => !text.is_empty(),
        SttEvent::Revise(_) | SttEvent::MergeSpeakers { .. } => true,
        _ => false,
    }
}

/// Returns true for events of the voice detection, which carry no words.
fn is_voice(event: &SttEvent) -> bool {
    matches!(event, SttEvent::SpeechStarted | SttEvent::Silence { .. })
}

/// The dialect that fits `frames` best, if it fits better than `asked`; on a tie, the first in [`DIALECTS`]. `None` if
/// there is none.
pub fn likelier(asked: &dyn Dialect, frames: &[&str]) -> Option<&'static dyn Dialect> {
    let others = DIALECTS.iter().copied().filter(|other| !other.picks() && other.name() != asked.name());
    let scored = others.map(|other| (score(other, frames), other));
    let best = scored.reduce(|best, next| if next.0 > best.0 { next } else { best })?;
    let floor = if asked.picks() { Score::default() } else { score(asked, frames) };
    (best.0 > floor).then_some(best.1)
}

fn score(dialect: &dyn Dialect, frames: &[&str]) -> Score {
    let (mut decoder, mut score) = (dialect.open(), Score::default());
    for frame in frames {
        let mut events = Vec::new();
        let result = decoder.decode(frame, &mut events);
        let holding = decoder.holding();
        score.count(Fit::of(&result, &events, holding), &events, holding);
    }
    score
}

/// The error text for a stream whose first `frames` were not understood in `dialect`: what was found, what is expected,
/// and which dialect understands it. `bound` is the limit that was reached, such as `"5 frames"`.
pub fn not_understood(dialect: &dyn Dialect, bound: &str, frames: &[&str]) -> String {
    let name = dialect.name();
    let mut kinds: Vec<String> = Vec::new();
    for kind in frames.iter().map(|frame| describe(frame)) {
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    let more = if kinds.len() > MAX_SHOWN_TYPES { ", …" } else { "" };
    kinds.truncate(MAX_SHOWN_TYPES);
    let advice = match likelier(dialect, frames).map(Dialect::name) {
        Some(likelier) => format!("dialect {likelier} understands them: connect with dialect={likelier}"),
        None => format!("no dialect understands them; there are: {}", names()),
    };
    format!(
        "nothing of the first {bound} was understood in dialect {name}: found {}{more}; expected {}; {advice}",
        kinds.join(", "),
        dialect.expects(),
    )
}

/// The names of all dialects, separated by commas, for messages.
pub fn names() -> String {
    let names: Vec<&str> = DIALECTS.iter().map(|dialect| dialect.name()).collect();
    names.join(", ")
}

/// A frame's type, or the names of its members. Never contains text of the call.
fn describe(frame: &str) -> String {
    match serde_json::from_str::<Value>(&surrogates::repaired(frame)) {
        Ok(Value::Object(object)) => described(&object),
        Ok(Value::Array(_)) => "an array".to_owned(),
        Ok(_) => "a JSON value that is not an object".to_owned(),
        Err(_) => "text that is not JSON".to_owned(),
    }
}

fn described(object: &JsonMap) -> String {
    for name in DISCRIMINATORS {
        match object.get(name) {
            Some(Value::String(kind)) if is_name(kind) => return format!("{name} {kind:?}"),
            Some(Value::Number(kind)) => return format!("{name} {kind}"),
            _ => {}
        }
    }
    // The discriminator of Speechmatics. Only a camel-case name of at least two words is certainly not speech.
    if let Some(Value::String(kind)) = object.get("message")
        && is_name(kind)
        && kind.starts_with(|first: char| first.is_ascii_uppercase())
        && kind.as_bytes().windows(2).any(|pair| pair[0].is_ascii_lowercase() && pair[1].is_ascii_uppercase())
    {
        return format!("message {kind:?}");
    }
    let members: Vec<&str> =
        object.keys().map(String::as_str).filter(|name| is_name(name)).take(MAX_SHOWN_MEMBERS).collect();
    if members.is_empty() { "an empty object".to_owned() } else { format!("a message with {}", members.join(", ")) }
}

/// Returns true if the text looks like an identifier.
fn is_name(text: &str) -> bool {
    let part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b':' | b'-');
    !text.is_empty() && text.len() <= MAX_SHOWN_CHARS && text.bytes().all(part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stt::dialect;

    #[test]
    fn describe_any_frame_names_its_type_or_members_and_no_text() {
        for (frame, expected) in [
            (r#"{"type":"Results","x":1}"#, r#"type "Results""#),
            (r#"{"msg_type":17}"#, "msg_type 17"),
            (r#"{"message":"AddTranscript","format":"2.9"}"#, r#"message "AddTranscript""#),
            (r#"{"message":"Goodbye","user":"x"}"#, "a message with message, user"),
            (r#"{"type":"I want my money back"}"#, "a message with type"),
            (r#"{"TranscriptEvent":{}}"#, "a message with TranscriptEvent"),
            (r#"{"I said no":1}"#, "an empty object"),
            ("[]", "an array"),
            ("5", "a JSON value that is not an object"),
            ("hello there", "text that is not JSON"),
        ] {
            assert_eq!(describe(frame), expected, "{frame}");
        }
    }

    #[test]
    fn not_understood_names_what_came_what_is_expected_and_the_likelier_dialect() {
        let said = not_understood(
            dialect("deepgram").expect("dialect"),
            "5 frames",
            &[r#"{"type":"Begin","id":"b"}"#, r#"{"type":"Begin","id":"c"}"#],
        );
        assert_eq!(
            said,
            "nothing of the first 5 frames was understood in dialect deepgram: found type \"Begin\"; expected messages \
             whose \"type\" is \"Results\", \"UtteranceEnd\", \"Metadata\", …; dialect assemblyai understands them: \
             connect with dialect=assemblyai"
        );
        let said = not_understood(dialect("deepgram").expect("dialect"), "5 s", &["{"]);
        assert!(said.contains("text that is not JSON") && said.contains("there are: sidetone, "), "{said}");
    }
}
