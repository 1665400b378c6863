//! Envelopes: wrappers that SDKs, webhooks and message brokers put around a vendor's frame.
//!
//! If a dialect does not know a frame, the frame's members, JSON in its strings, and its lists are searched for a frame
//! that the dialect knows. So `{"TranscriptEvent":{…}}`, `{"type":"message","data":"{…}"}` and `{"payload":{…}}` decode
//! like their contents. If a vendor's SDK renames members (`is_partial` for `IsPartial`), the vendor's own spelling is
//! tried too. Knows no vendor.
//!
//! A frame that the dialect knows as it is is not searched, so a frame that contains a copy of another one is decoded
//! once. An error found in an envelope is not an error of the stream: add-ons report their errors this way.

use std::collections::VecDeque;

use serde_json::Value;

use super::fit::Fit;
use super::{DecodeError, Decoder, Dialect};
use crate::base::surrogates;
use crate::types::{Carry, JsonMap, SttEvent};

/// Maximum nesting depth of envelopes.
const MAX_DEPTH: usize = 4;
/// Maximum number of parts of one frame that are tried. A frame with more parts is not an envelope.
const MAX_PARTS: usize = 32;

/// A vendor's spelling of member names, if its SDKs use another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    /// Such as `IsPartial`.
    Pascal,
    /// Such as `isFinal`.
    Camel,
}

/// A decoder that also reads frames inside envelopes.
pub(super) struct Opened {
    bare: Box<dyn Decoder>,
    spelling: Option<Spelling>,
}

impl Opened {
    /// Wraps `bare`. `spelling` is the vendor's own, if its SDKs use another one.
    pub(super) fn new(bare: Box<dyn Decoder>, spelling: Option<Spelling>) -> Self {
        Self { bare, spelling }
    }

    /// Decodes the contents of `frame`. Returns false if they contain no known frame.
    fn contents(&mut self, frame: &str, out: &mut Said) -> bool {
        let text = body(frame);
        let Ok(root) = serde_json::from_str::<Value>(text) else { return false };
        let inside = text.len() < frame.trim_start().len();
        self.search(&root, inside, 0, out)
    }

    /// Decodes the outermost known frame in `root`, or all known frames of a list. Returns false if there is none.
    /// Unless it is `inside` an envelope, `root` itself is tried only in the vendor's spelling, because it was decoded
    /// as it is before.
    fn search(&mut self, root: &Value, inside: bool, depth: usize, out: &mut Said) -> bool {
        let texts = texts(root);
        // JSON in strings comes last: the frame around it may have more content.
        let mut texts = texts.iter().map(|text| (text, depth + 1));
        let mut parts = VecDeque::from([(root, depth)]);
        for _ in 0..MAX_PARTS {
            let Some((part, depth)) = parts.pop_front().or_else(|| texts.next()) else { return false };
            match part {
                Value::Object(object) => {
                    let bare = !inside && std::ptr::eq(part, root);
                    if (!bare && self.part(part, out)) || self.respelt(part, out) {
                        return true;
                    }
                    if depth < MAX_DEPTH {
                        let nested = object.values().filter(|value| value.is_object() || is_only(object, value));
                        parts.extend(nested.map(|value| (value, depth + 1)));
                    }
                }
                Value::Array(frames) if depth < MAX_DEPTH => {
                    let mut known = false;
                    for frame in frames.iter().filter(|frame| frame.is_object()) {
                        known |= self.search(frame, true, depth + 1, out);
                    }
                    if known {
                        return true;
                    }
                }
                _ => {}
            }
        }
        false
    }

    /// Decodes `part` if it is a known frame. Returns false if it is not.
    fn part(&mut self, part: &Value, out: &mut Said) -> bool {
        // Sidetone's own frames are never inside envelopes: a vendor's member may have such a type and mean something
        // else.
        if part.get("type").and_then(Value::as_str).is_some_and(|kind| matches!(kind, "end" | "meta")) {
            return false;
        }
        let mut events = Vec::new();
        let result = self.bare.decode(&part.to_string(), &mut events);
        // Unlike in [`Fit`], the end of a session counts as known here, because it is the vendor's.
        let end = result.is_ok() && matches!(events.as_slice(), [.., SttEvent::End { .. }]);
        let known = end || Fit::of(&result, &events, self.bare.holding()).is_known();
        if known {
            out.events.append(&mut events);
            out.lost.extend(result.into_iter().flatten());
        }
        known
    }

    /// Like `part`, with member names in the vendor's spelling. Returns false if that changes no name.
    fn respelt(&mut self, part: &Value, out: &mut Said) -> bool {
        let Some(spelling) = self.spelling else { return false };
        let respelt = respell(part, spelling);
        respelt != *part && self.part(&respelt, out)
    }
}

/// Events of the frames in an envelope.
#[derive(Default)]
struct Said {
    events: Vec<SttEvent>,
    /// Errors of the parts that could not be read.
    lost: Vec<DecodeError>,
}

impl Decoder for Opened {
    fn decode(&mut self, frame: &str, out: &mut Vec<SttEvent>) -> Result<Vec<DecodeError>, DecodeError> {
        let before = out.len();
        let result = self.bare.decode(frame, out);
        if Fit::of(&result, &out[before..], self.bare.holding()) != Fit::Unknown {
            return result;
        }
        let mut said = Said::default();
        if self.contents(&surrogates::repaired(frame), &mut said) {
            out.truncate(before);
            out.append(&mut said.events);
            return Ok(said.lost);
        }
        result
    }

    fn read(&mut self, frame: &str, out: &mut Vec<SttEvent>) -> Result<(), DecodeError> {
        self.decode(frame, out).map(drop)
    }

    fn holding(&self) -> bool {
        self.bare.holding()
    }

    fn carry(&self) -> Carry {
        self.bare.carry()
    }

    fn carry_version(&self) -> u64 {
        self.bare.carry_version()
    }

    fn own(&mut self, event: SttEvent, out: &mut Vec<SttEvent>) {
        self.bare.own(event, out);
    }

    fn finish(&mut self, out: &mut Vec<SttEvent>) {
        self.bare.finish(out);
    }

    fn picked(&self) -> Option<&'static dyn Dialect> {
        self.bare.picked()
    }
}

/// The JSON of a frame without the text around it: message headers, the fields of a server-sent event, or the number
/// before a message of Socket.IO.
fn body(frame: &str) -> &str {
    let json = |text: &&str| text.starts_with(['{', '[']);
    let frame = frame.trim_start();
    let after_headers = || {
        let (_, body) = frame.split_once("\r\n\r\n").or_else(|| frame.split_once("\n\n"))?;
        Some(body.trim_start()).filter(json)
    };
    let of_event = || frame.lines().find_map(|line| Some(line.strip_prefix("data:")?.trim_start()).filter(json));
    let after_number = || Some(frame.trim_start_matches(|first: char| first.is_ascii_digit())).filter(json);
    Some(frame).filter(json).or_else(after_headers).or_else(of_event).or_else(after_number).unwrap_or(frame)
}

/// Returns true for an array that is the only member of its object. Beside other members, an array is a vendor's list
/// and not searched.
fn is_only(object: &JsonMap, value: &Value) -> bool {
    value.is_array() && object.len() == 1
}

/// JSON objects and arrays that are given as text in `value` or its members, down to the depth that is searched.
fn texts(value: &Value) -> Vec<Value> {
    let mut found = Vec::new();
    let mut left = VecDeque::from([(value.clone(), 0)]);
    while let Some((value, depth)) = left.pop_front() {
        if depth > MAX_DEPTH || found.len() == MAX_PARTS {
            break;
        }
        match value {
            Value::Object(object) => left.extend(object.into_iter().map(|(_, value)| (value, depth + 1))),
            Value::String(text) if text.trim_start().starts_with(['{', '[']) => {
                if let Ok(inner @ (Value::Object(_) | Value::Array(_))) =
                    serde_json::from_str::<Value>(&surrogates::repaired(&text))
                {
                    left.push_back((inner.clone(), depth + 1));
                    found.push(inner);
                }
            }
            _ => {}
        }
    }
    found
}

/// `value` with all member names in the vendor's spelling.
fn respell(value: &Value, spelling: Spelling) -> Value {
    match value {
        Value::Object(object) => Value::Object(
            object.iter().map(|(name, value)| (member(name, spelling), respell(value, spelling))).collect(),
        ),
        Value::Array(items) => Value::Array(items.iter().map(|item| respell(item, spelling)).collect()),
        other => other.clone(),
    }
}

fn member(name: &str, spelling: Spelling) -> String {
    let mut spelt = String::with_capacity(name.len());
    let mut upper = spelling == Spelling::Pascal;
    for letter in name.chars() {
        if letter == '_' && !spelt.is_empty() {
            upper = true;
        } else if upper {
            spelt.extend(letter.to_uppercase());
            upper = false;
        } else {
            spelt.push(letter);
        }
    }
    spelt
}
