//! AWS Transcribe streaming: the JSON payloads of its `TranscriptEvent`s (and of its exceptions), unwrapped from their
//! binary envelope by whoever holds the session.
//!
//! A result is a turn. Labels are the speaker's number; without diarization, or on a channel other than the first, the
//! channel's name: `ch_0`, `ch_1`, `ch_1:0`.

use serde::Deserialize;

use super::wire::{self, Label, Score, Seconds, Text};
use super::{DecodeError, Decoder, Dialect};
use crate::types::{Final, SttEvent, TurnKey, Word};

/// The dialect.
pub(super) struct Aws;

impl Dialect for Aws {
    fn name(&self) -> &'static str {
        "aws"
    }

    fn example(&self) -> &'static str {
        r#"{"Transcript":{"Results":[{"ResultId":"r-1","StartTime":0.2,"EndTime":1.1,"IsPartial":false,"ChannelId":"ch_0","LanguageCode":"en-US","Alternatives":[{"Transcript":"Hello.","Items":[{"StartTime":0.2,"EndTime":0.6,"Type":"pronunciation","Content":"Hello","Confidence":0.99,"Speaker":"0"},{"StartTime":0.6,"EndTime":0.6,"Type":"punctuation","Content":"."}]}]}]}}"#
    }

    fn open(&self) -> Box<dyn Decoder> {
        Box::new(AwsDecoder)
    }

    fn names_turns(&self) -> bool {
        true
    }
}

struct AwsDecoder;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Event<'a> {
    #[serde(borrow)]
    transcript: Option<Transcript<'a>>,
    #[serde(borrow, alias = "message")]
    message: Option<Text<'a>>,
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Transcript<'a> {
    #[serde(borrow, default)]
    results: Option<Vec<ResultField<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ResultField<'a> {
    #[serde(borrow)]
    result_id: Text<'a>,
    start_time: Option<Seconds>,
    end_time: Option<Seconds>,
    #[serde(default)]
    is_partial: bool,
    #[serde(borrow)]
    channel_id: Option<Text<'a>>,
    #[serde(borrow)]
    language_code: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "wire::list")]
    alternatives: Vec<Alternative<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Alternative<'a> {
    #[serde(borrow)]
    transcript: Option<Text<'a>>,
    #[serde(borrow, default)]
    items: Option<Vec<Item<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item<'a> {
    start_time: Option<Seconds>,
    end_time: Option<Seconds>,
    #[serde(borrow, rename = "Type")]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    content: Text<'a>,
    confidence: Option<Score>,
    speaker: Option<Label>,
}

impl Decoder for AwsDecoder {
    fn read(&mut self, frame: &str, out: &mut Vec<SttEvent>) -> Result<(), DecodeError> {
        let event: Event<'_> = wire::parse("event", frame)?;
        if let Some(transcript) = event.transcript {
            out.extend(transcript.results.unwrap_or_default().into_iter().map(turn));
        } else if let Some(kind) = event.kind {
            out.push(wire::other(kind.as_str(), frame)?);
        } else if let Some(message) = event.message {
            // The exception's name is in a header of the envelope, which is gone.
            out.push(SttEvent::VendorError { code: "exception".to_owned(), message: message.into_string() });
        } else {
            out.push(SttEvent::Unknown { kind: "untyped".to_owned() });
        }
        Ok(())
    }
}

fn turn(result: ResultField<'_>) -> SttEvent {
    let key = TurnKey::Vendor(result.result_id.into_string());
    let channel = result.channel_id.map(Text::into_string);
    let best = result.alternatives.into_iter().next();
    let (text, items) = best.map_or_else(Default::default, |best| {
        (best.transcript.map(Text::into_string).unwrap_or_default(), best.items.unwrap_or_default())
    });
    let other_channel = channel.as_deref().filter(|channel| *channel != "ch_0");
    let mut words: Vec<Word> = Vec::with_capacity(items.len());
    for item in items {
        if item.kind.as_ref().is_some_and(|kind| kind.as_str() == "punctuation") {
            if let Some(word) = words.last_mut() {
                word.text.push_str(item.content.as_str());
            }
            continue;
        }
        let Some(start) = item.start_time else { continue };
        words.push(Word {
            text: item.content.into_string(),
            start_ms: start.ms(),
            end_ms: item.end_time.map_or(start, |end| end.max(start)).ms(),
            speaker: item.speaker.map(|Label(speaker)| match other_channel {
                Some(channel) => format!("{channel}:{speaker}"),
                None => speaker,
            }),
            confidence: item.confidence.map(|score| score.0),
        });
    }
    let speaker = wire::common_speaker(&words)
        .or_else(|| if words.iter().any(|word| word.speaker.is_some()) { None } else { channel });
    if result.is_partial {
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
