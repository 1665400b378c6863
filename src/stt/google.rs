//! Google Cloud Speech `StreamingRecognize` responses as JSON (proto3 mapping; v2, and the names of v1 for the same
//! fields).
//!
//! Each final result is a turn. With diarization a result repeats all words since the audio began; only those after the
//! previous turn belong to the turn. Channel labels are `ch1`, or `ch1:2` with diarization.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::held::{self, Timeline};
use super::wire::{self, Flag, Label, Natural, Offset, Reported, Score, Text};
use super::{DecodeError, Decoder, Dialect, Spelling};
use crate::types::{Carry, Final, SttEvent, TurnKey, Word};

pub(super) struct Google;

impl Dialect for Google {
    fn name(&self) -> &'static str {
        "google"
    }

    fn example(&self) -> &'static str {
        r#"{"results":[{"alternatives":[{"transcript":" that is it","confidence":0.98,"words":[{"startOffset":"1.200s","endOffset":"1.500s","word":"that","speakerLabel":"1"},{"startOffset":"1.500s","endOffset":"1.700s","word":"is","speakerLabel":"1"},{"startOffset":"1.700s","endOffset":"2s","word":"it","speakerLabel":"1"}]}],"isFinal":true,"resultEndOffset":"2.640s","languageCode":"en-US"}]}"#
    }

    fn expects(&self) -> &'static str {
        "StreamingRecognize responses: messages with \"results\""
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        Box::new(GoogleDecoder::default())
    }

    fn decoder_from(&self, carry: &Carry) -> Box<dyn Decoder> {
        Box::new(GoogleDecoder { timeline: Timeline(carry.ends.clone()), ..GoogleDecoder::default() })
    }

    fn names_turns(&self) -> bool {
        false
    }

    fn needs(&self) -> &'static [&'static str] {
        &[
            "results",
            "results[]",
            "results[].isFinal",
            "results[].alternatives",
            "results[].alternatives[]",
            "results[].alternatives[].transcript",
            "results[].alternatives[].words[].word",
        ]
    }

    /// Other spellings than camel case are converted; most snake_case names of gRPC also have an alias here.
    fn spelling(&self) -> Option<Spelling> {
        Some(Spelling::Camel)
    }
}

#[derive(Default)]
struct GoogleDecoder {
    /// End of the last final's words, by channel, in ms.
    ends: BTreeMap<u64, u64>,
    /// End of the final results, by channel.
    timeline: Timeline,
    /// Number of changes of `timeline`.
    changes: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    #[serde(borrow, default, deserialize_with = "wire::optional_list")]
    results: Option<Vec<ResultField<'a>>>,
    error: Option<Reported>,
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    #[serde(alias = "speech_event_type")]
    speech_event_type: Option<Label>,
    metadata: Option<IgnoredAny>,
    #[serde(alias = "total_billed_time")]
    total_billed_time: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResultField<'a> {
    #[serde(borrow, default, deserialize_with = "wire::list")]
    alternatives: Vec<Alternative<'a>>,
    #[serde(alias = "is_final")]
    is_final: Option<Flag>,
    #[serde(alias = "result_end_offset")]
    result_end_offset: Option<Offset>,
    /// v1's name of this field; a client may send both.
    #[serde(alias = "result_end_time")]
    result_end_time: Option<Offset>,
    /// Present only in Amazon's results, never in Google's.
    #[serde(alias = "is_partial")]
    is_partial: Option<serde::de::IgnoredAny>,
    #[serde(alias = "channel_tag")]
    channel_tag: Option<Natural>,
    #[serde(borrow, alias = "language_code")]
    language_code: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Alternative<'a> {
    #[serde(borrow)]
    transcript: Option<Text<'a>>,
    confidence: Option<Score>,
    #[serde(borrow, default, deserialize_with = "wire::list")]
    words: Vec<WordField<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WordField<'a> {
    #[serde(borrow)]
    word: Text<'a>,
    #[serde(alias = "start_offset")]
    start_offset: Option<Offset>,
    #[serde(alias = "start_time")]
    start_time: Option<Offset>,
    #[serde(alias = "end_offset")]
    end_offset: Option<Offset>,
    #[serde(alias = "end_time")]
    end_time: Option<Offset>,
    confidence: Option<Score>,
    #[serde(alias = "speaker_label")]
    speaker_label: Option<Label>,
    #[serde(alias = "speaker_tag")]
    speaker_tag: Option<Label>,
}

impl WordField<'_> {
    /// The speaker label. A tag of 0 means that the speaker was not determined.
    fn speaker(&mut self) -> Option<String> {
        let label = self.speaker_label.take().filter(|Label(label)| !label.is_empty());
        label.or(self.speaker_tag.take().filter(|Label(tag)| !matches!(tag.as_str(), "" | "0"))).map(|Label(text)| text)
    }
}

impl Alternative<'_> {
    fn text(&self) -> String {
        wire::text_or_words(self.transcript.clone(), self.words.iter().map(|word| word.word.as_str()))
    }
}

impl Decoder for GoogleDecoder {
    fn read(&mut self, frame: &str, out: &mut Vec<SttEvent>) -> Result<(), DecodeError> {
        let response: Response<'_> = wire::parse("response", frame)?;
        let error = response.error.and_then(|error| error.0).map(|failure| failure.event("error"));
        if let (Some(error), true) = (&error, response.results.as_ref().is_none_or(Vec::is_empty)) {
            out.push(error.clone());
            return Ok(());
        }
        let detected = response.speech_event_type.as_ref().and_then(voice);
        let Some(results) = response.results.filter(|results| results.is_empty() || results.iter().any(is_result))
        else {
            let known = response.metadata.is_some()
                || response.total_billed_time.is_some()
                || response.speech_event_type.is_some();
            if let Some(kind) = response.kind {
                out.push(wire::other(kind.as_str(), frame)?);
            } else if !known {
                out.push(SttEvent::Unknown { kind: "untyped".to_owned() });
            } else {
                out.extend(detected);
            }
            return Ok(());
        };
        for result in &results {
            held::channel(&mut self.ends, result.channel_tag.map_or(0, |tag| tag.0), "results.channelTag")?;
        }
        out.extend(detected);
        let mut partial: Option<(String, Option<String>)> = None;
        for result in results {
            let end_ms = result.end_ms();
            let channel = result.channel_tag.map_or(0, |tag| tag.0).to_string();
            if self.timeline.restarts(&channel, end_ms) {
                self.changes += 1;
                self.ends.clear();
                out.push(SttEvent::Restarted);
            }
            if result.is_final.is_some_and(|is_final| is_final.0) {
                self.changes += 1;
                self.timeline.note(&channel, end_ms);
                out.extend(self.turn(result));
                continue;
            }
            // The interim results after the first one continue its text.
            let channel = result.channel_tag.map_or(0, |tag| tag.0);
            if let Some(best) = result.alternatives.into_iter().next() {
                let (text, _) = partial.get_or_insert_with(|| (String::new(), channel_label(channel)));
                text.push_str(&best.text());
            }
        }
        if let Some((text, speaker)) = partial {
            out.push(SttEvent::Partial { key: TurnKey::Next, speaker, text: text.trim().to_owned() });
        }
        out.extend(error);
        Ok(())
    }

    fn carry(&self) -> Carry {
        Carry { ends: self.timeline.0.clone(), ..Carry::default() }
    }

    fn carry_version(&self) -> u64 {
        self.changes
    }
}

/// What the voice detection says. The numbers are those of the enumeration.
fn voice(kind: &Label) -> Option<SttEvent> {
    match kind.0.as_str() {
        "SPEECH_ACTIVITY_BEGIN" | "2" => Some(SttEvent::SpeechStarted),
        "SPEECH_ACTIVITY_END" | "SPEECH_ACTIVITY_TIMEOUT" | "3" => Some(SttEvent::Silence { span: None }),
        _ => None,
    }
}

impl ResultField<'_> {
    fn end_ms(&self) -> Option<u64> {
        let word = || self.alternatives.first()?.words.last().and_then(|word| word.end_offset.or(word.end_time));
        self.result_end_offset.or(self.result_end_time).or_else(word).map(Offset::ms)
    }
}

/// Returns true for a result of Google: it is final, or has a transcript, words or an end time. Other vendors' messages
/// have `results` too.
fn is_result(result: &ResultField<'_>) -> bool {
    let spoken = |best: &Alternative<'_>| best.transcript.is_some() || !best.words.is_empty();
    let other = result.is_partial.is_some();
    !other
        && (result.is_final.is_some_and(|last| last.0)
            || result.result_end_time.is_some()
            || result.result_end_offset.is_some()
            || result.alternatives.iter().any(spoken))
}

impl GoogleDecoder {
    fn turn(&mut self, result: ResultField<'_>) -> Option<SttEvent> {
        let channel = result.channel_tag.map_or(0, |tag| tag.0);
        let best = result.alternatives.into_iter().next()?;
        let text = best.text().trim().to_owned();
        let end = self.ends.entry(channel).or_default();
        let mut words: Vec<Word> = best
            .words
            .into_iter()
            .filter_map(|mut word| {
                let start = word.start_offset.or(word.start_time);
                let end_ms = word.end_offset.or(word.end_time).or(start)?.ms();
                // The proto3 JSON mapping leaves out offsets of zero.
                let start_ms = start.map_or(0, Offset::ms).min(end_ms);
                let speaker = word.speaker();
                Some(Word {
                    text: word.word.into_string(),
                    start_ms,
                    end_ms,
                    speaker: match (channel, speaker) {
                        (0, speaker) => speaker,
                        (_, None) => None,
                        (_, Some(speaker)) => Some(format!("ch{channel}:{speaker}")),
                    },
                    confidence: word.confidence.map(|score| score.0).filter(|score| *score > 0.0),
                })
            })
            .filter(|word| word.middle_ms() >= *end)
            .collect();
        // After a reconnect the previous turn is unknown: the turn's words are the last ones, as many as its text has.
        let spoken = text.split_whitespace().count();
        if spoken > 1 && words.len() > spoken {
            words.drain(..words.len() - spoken);
        }
        let (first, last) = wire::span(&words);
        let end_ms = last.or(result.result_end_offset.or(result.result_end_time).map(Offset::ms));
        *end = (*end).max(last.unwrap_or(0));
        Some(SttEvent::Final(Box::new(Final {
            key: TurnKey::Next,
            formatted: true,
            text,
            speaker: wire::common_speaker(&words).or_else(|| {
                if words.iter().any(|word| word.speaker.is_some()) { None } else { channel_label(channel) }
            }),
            words,
            start_ms: first,
            end_ms,
            language: result.language_code.map(Text::into_string),
            // Zero means unset.
            confidence: best.confidence.map(|score| score.0).filter(|score| *score > 0.0),
        })))
    }
}

fn channel_label(channel: u64) -> Option<String> {
    (channel > 0).then(|| format!("ch{channel}"))
}
