//! AWS Transcribe streaming: the JSON payloads of its `TranscriptEvent`s and exceptions, which the client has taken out
//! of their binary envelope; or the events as the SDKs give them, with the event's name around the payload.
//!
//! Each result is a turn. The speaker label is the speaker's number, with the channel's name in front on channels other
//! than the first (`ch_1:0`). Without diarization it is the channel's name (`ch_0`, `ch_1`).

use serde::Deserialize;

use super::held::Timeline;
use super::wire::{self, Flag, Label, Said, Says, Score, Seconds, Text};
use super::{DecodeError, Decoder, Dialect, Spelling};
use crate::types::{Final, JsonMap, SttEvent, TurnKey, Word};

pub(super) struct Aws;

impl Dialect for Aws {
    fn name(&self) -> &'static str {
        "aws"
    }

    fn example(&self) -> &'static str {
        r#"{"Transcript":{"Results":[{"ResultId":"r-1","StartTime":0.2,"EndTime":1.1,"IsPartial":false,"ChannelId":"ch_0","LanguageCode":"en-US","Alternatives":[{"Transcript":"Hello.","Items":[{"StartTime":0.2,"EndTime":0.6,"Type":"pronunciation","Content":"Hello","Confidence":0.99,"Speaker":"0"},{"StartTime":0.6,"EndTime":0.6,"Type":"punctuation","Content":"."}]}]}]}}"#
    }

    fn expects(&self) -> &'static str {
        "transcript events: messages with \"Transcript\", or \"TranscriptEvent\" around it"
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        Box::new(AwsDecoder::default())
    }

    fn names_turns(&self) -> bool {
        true
    }

    fn needs(&self) -> &'static [&'static str] {
        &[
            "Transcript",
            "Transcript.Results",
            "Transcript.Results[]",
            "Transcript.Results[].Alternatives",
            "Transcript.Results[].Alternatives[]",
            "Transcript.Results[].Alternatives[].Transcript",
            "Transcript.Results[].IsPartial",
        ]
    }

    /// The Python SDK writes `is_partial`, others `isPartial`.
    fn spelling(&self) -> Option<Spelling> {
        Some(Spelling::Pascal)
    }
}

/// Number of result ids that are remembered, to recognise repeated results.
const MAX_RESULTS: usize = 64;

#[derive(Default)]
struct AwsDecoder {
    timeline: Timeline,
    /// Ids of the newest results, newest last.
    results: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Event<'a> {
    #[serde(borrow)]
    transcript: Option<Transcript<'a>>,
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Transcript<'a> {
    #[serde(borrow, default, deserialize_with = "wire::list")]
    results: Vec<ResultField<'a>>,
    /// Only segments of Contact Lens have this field.
    content: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ResultField<'a> {
    result_id: Option<Label>,
    start_time: Option<Seconds>,
    end_time: Option<Seconds>,
    is_partial: Option<Flag>,
    #[serde(borrow)]
    channel_id: Option<Text<'a>>,
    #[serde(borrow)]
    language_code: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "wire::list")]
    alternatives: Vec<Said<Alternative<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Alternative<'a> {
    #[serde(borrow)]
    transcript: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "wire::list")]
    items: Vec<Item<'a>>,
}

impl Says for Alternative<'_> {
    const TEXT: &'static str = "Transcript";
    fn says(&self) -> bool {
        self.transcript.is_some() || self.items.iter().any(|item| item.content.is_some())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item<'a> {
    start_time: Option<Seconds>,
    end_time: Option<Seconds>,
    #[serde(borrow, rename = "Type")]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    content: Option<Text<'a>>,
    confidence: Option<Score>,
    speaker: Option<Label>,
}

impl Decoder for AwsDecoder {
    fn read(&mut self, frame: &str, out: &mut Vec<SttEvent>) -> Result<(), DecodeError> {
        let event: Event<'_> = wire::parse("event", frame)?;
        if let Some(transcript) = event.transcript.filter(|transcript| transcript.content.is_none()) {
            for result in transcript.results {
                self.look_for_restart(&result, out);
                out.push(turn(result));
            }
        } else if let Some(kind) = event.kind {
            out.push(wire::other(kind.as_str(), frame)?);
        } else {
            out.push(exception(frame).unwrap_or_else(|| SttEvent::Unknown { kind: "untyped".to_owned() }));
        }
        Ok(())
    }
}

impl AwsDecoder {
    /// These messages do not name their session. A new session shows only in the times of its results.
    fn look_for_restart(&mut self, result: &ResultField<'_>, out: &mut Vec<SttEvent>) {
        let channel = result.channel_id.as_ref().map_or("", Text::as_str);
        let again = result.result_id.as_ref().is_some_and(|Label(id)| self.results.contains(id));
        if !again {
            if self.results.len() == MAX_RESULTS {
                self.results.remove(0);
            }
            self.results.extend(result.result_id.iter().map(|Label(id)| id.clone()));
            // The times of words are more exact than those of their result.
            let items = result.alternatives.first().map(|Said(best)| best.items.as_slice());
            let first = items.unwrap_or_default().iter().find_map(|item| item.start_time);
            if self.timeline.restarts(channel, first.or(result.start_time).map(Seconds::ms)) {
                out.push(SttEvent::Restarted);
            }
        }
        if !result.is_partial.is_some_and(|partial| partial.0) {
            self.timeline.note(channel, result.end_time.map(Seconds::ms));
        }
    }
}

/// An exception of the service. As a bare payload it is `{"Message":…}` and nothing else, because its name was in a
/// header of the binary envelope. SDKs give it below its name: `{"BadRequestException":{"Message":…}}`.
pub(super) fn exception(frame: &str) -> Option<SttEvent> {
    let object: JsonMap = serde_json::from_str(frame).ok()?;
    let message = |object: &JsonMap| {
        let text = object.get("Message").or_else(|| object.get("message"))?.as_str()?;
        // JSON inside the message means that the envelope is another service's.
        (!text.trim_start().starts_with(['{', '['])).then(|| text.to_owned())
    };
    let named = object.iter().find(|(name, _)| name.ends_with("Exception"));
    let (code, message) = match named {
        Some((name, inner)) => (name.as_str(), inner.as_object().and_then(message).unwrap_or_default()),
        None if object.len() == 1 => ("exception", message(&object)?),
        None => return None,
    };
    Some(SttEvent::VendorError { code: code.to_owned(), message })
}

fn turn(result: ResultField<'_>) -> SttEvent {
    let key = result.result_id.map_or(TurnKey::Next, |Label(id)| TurnKey::Vendor(id));
    let channel = result.channel_id.map(Text::into_string);
    let best = result.alternatives.into_iter().next();
    let (text, items) = best.map_or_else(Default::default, |Said(best)| {
        let text = best.transcript.map_or_else(|| said(&best.items), Text::into_string);
        (text, best.items)
    });
    let other_channel = channel.as_deref().filter(|channel| *channel != "ch_0");
    let mut words: Vec<Word> = Vec::with_capacity(items.len());
    let mut kept = true;
    for item in items {
        let Some(content) = item.content else { continue };
        if item.kind.as_ref().is_some_and(|kind| kind.as_str() == "punctuation") {
            if let Some(word) = words.last_mut().filter(|_| kept) {
                word.text.push_str(content.as_str());
            }
            continue;
        }
        let times = wire::word_times(item.start_time, item.end_time);
        kept = times.is_some();
        let Some((start_ms, end_ms)) = times else { continue };
        words.push(Word {
            text: content.into_string(),
            start_ms,
            end_ms,
            speaker: item.speaker.map(|Label(speaker)| match other_channel {
                Some(channel) => format!("{channel}:{speaker}"),
                None => speaker,
            }),
            confidence: item.confidence.map(|score| score.0),
        });
    }
    let speaker = wire::common_speaker(&words)
        .or_else(|| if words.iter().any(|word| word.speaker.is_some()) { None } else { channel });
    if result.is_partial.is_some_and(|partial| partial.0) {
        return SttEvent::Partial { key, speaker, text };
    }
    let (first, last) = wire::span(&words);
    let start_ms = first.or(result.start_time.map(Seconds::ms));
    SttEvent::Final(Box::new(Final {
        key,
        formatted: true,
        text,
        speaker,
        words,
        start_ms,
        end_ms: last.or(result.end_time.map(Seconds::ms)).map(|end| end.max(start_ms.unwrap_or(0))),
        language: result.language_code.map(Text::into_string),
        confidence: None,
    }))
}

/// Text of the items. Punctuation attaches to the word before it.
fn said(items: &[Item<'_>]) -> String {
    let mut text = String::new();
    for item in items {
        let Some(content) = &item.content else { continue };
        if !text.is_empty() && item.kind.as_ref().is_none_or(|kind| kind.as_str() != "punctuation") {
            text.push(' ');
        }
        text.push_str(content.as_str());
    }
    text
}
