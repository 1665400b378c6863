//! Deepgram v1 (`wss://api.deepgram.com/v1/listen`).
//!
//! Finals are segments. A turn lasts from one end marker to the next: `speech_final`, `UtteranceEnd`, or the response
//! to a client's `Finalize`. Each channel has its own turns. If there are several channels, labels are `ch0`, or
//! `ch0:1` with diarization.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::held::{self, Held, Segment, Session, Timeline};
use super::wire::{self, Flag, Label, Natural, Said, Says, Score, Seconds, Text};
use super::{DecodeError, Decoder, Dialect};
use crate::types::{Carry, EndScope, SttEvent, TurnKey, Word};

pub(super) struct Deepgram;

impl Dialect for Deepgram {
    fn name(&self) -> &'static str {
        "deepgram"
    }

    fn example(&self) -> &'static str {
        r#"{"type":"Results","channel_index":[0,1],"duration":1.98,"start":5.99,"is_final":true,"speech_final":true,"channel":{"alternatives":[{"transcript":"Tell me more.","confidence":0.99,"words":[{"word":"tell","start":6.07,"end":6.31,"confidence":0.99,"punctuated_word":"Tell","speaker":0},{"word":"me","start":6.31,"end":6.45,"confidence":0.99,"punctuated_word":"me","speaker":0},{"word":"more","start":6.45,"end":6.9,"confidence":0.99,"punctuated_word":"more.","speaker":0}]}]}}"#
    }

    fn expects(&self) -> &'static str {
        "messages whose \"type\" is \"Results\", \"UtteranceEnd\", \"Metadata\", …"
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        Box::new(DeepgramDecoder::default())
    }

    fn decoder_from(&self, carry: &Carry) -> Box<dyn Decoder> {
        Box::new(DeepgramDecoder::resume(carry))
    }

    fn names_turns(&self) -> bool {
        false
    }

    fn needs(&self) -> &'static [&'static str] {
        &[
            "type",
            "is_final",
            "channel",
            "channel.alternatives",
            "channel.alternatives[]",
            "channel.alternatives[].transcript",
        ]
    }
}

/// The field that numbers channels.
const CHANNEL: &str = "channel_index";

#[derive(Default)]
struct DeepgramDecoder {
    session: Session,
    /// Used if messages name no session.
    timeline: Timeline,
    channels: BTreeMap<u64, Channel>,
    /// Counts the changes that [`Held::version`] does not.
    changes: u64,
}

#[derive(Default)]
struct Channel {
    held: Held,
    label: Option<String>,
}

#[derive(Deserialize)]
struct Results<'a> {
    #[serde(default, deserialize_with = "wire::list")]
    channel_index: Vec<Natural>,
    duration: Option<Seconds>,
    start: Option<Seconds>,
    is_final: Option<Flag>,
    speech_final: Option<Flag>,
    from_finalize: Option<Flag>,
    #[serde(borrow)]
    channel: ChannelField<'a>,
    #[serde(borrow)]
    metadata: Option<Metadata<'a>>,
}

#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(borrow)]
    request_id: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct ChannelField<'a> {
    #[serde(borrow, deserialize_with = "wire::list")]
    alternatives: Vec<Said<Alternative<'a>>>,
}

#[derive(Deserialize)]
struct Alternative<'a> {
    #[serde(borrow)]
    transcript: Option<Text<'a>>,
    confidence: Option<Score>,
    #[serde(borrow, default, deserialize_with = "wire::list")]
    languages: Vec<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "wire::list")]
    words: Vec<WordField<'a>>,
}

impl Says for Alternative<'_> {
    const TEXT: &'static str = "transcript";
    fn says(&self) -> bool {
        self.transcript.is_some() || !self.words.is_empty()
    }
}

#[derive(Deserialize)]
struct WordField<'a> {
    #[serde(borrow)]
    word: Option<Text<'a>>,
    #[serde(borrow)]
    punctuated_word: Option<Text<'a>>,
    start: Option<Seconds>,
    end: Option<Seconds>,
    confidence: Option<Score>,
    speaker: Option<Label>,
    #[serde(borrow)]
    language: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct UtteranceEnd {
    #[serde(default, deserialize_with = "wire::list")]
    channel: Vec<Natural>,
}

#[derive(Deserialize)]
struct ErrorFrame<'a> {
    #[serde(borrow)]
    code: Option<Text<'a>>,
    #[serde(borrow)]
    variant: Option<Text<'a>>,
    #[serde(borrow)]
    description: Option<Text<'a>>,
    #[serde(borrow)]
    message: Option<Text<'a>>,
}

impl Decoder for DeepgramDecoder {
    fn read(&mut self, frame: &str, out: &mut Vec<SttEvent>) -> Result<(), DecodeError> {
        let Some(kind) = wire::kind("type", frame)? else {
            return Err(wire::bad_field("type", "a message type such as \"Results\"", None));
        };
        match kind.as_str() {
            "Results" => self.results(wire::parse("Results", frame)?, out)?,
            "UtteranceEnd" => {
                let end: UtteranceEnd = wire::parse("UtteranceEnd", frame)?;
                let index = end.channel.first().map_or(0, |index| index.0);
                if let Some(channel) = self.channels.get_mut(&index) {
                    out.extend(channel.held.take(&index.to_string(), channel.label.as_deref()));
                }
                // While one channel of several is silent, others may speak.
                if end.channel.get(1).is_none_or(|count| count.0 <= 1) {
                    out.push(SttEvent::Silence { span: None });
                }
            }
            "SpeechStarted" => out.push(SttEvent::SpeechStarted),
            "Metadata" => {
                self.finish(out);
                out.push(SttEvent::End { reason: Some("Metadata".to_owned()), scope: EndScope::Stream });
            }
            "Error" => {
                let error: ErrorFrame<'_> = wire::parse("Error", frame)?;
                let text = |text: Option<Text<'_>>| text.map(Text::into_string);
                out.push(SttEvent::VendorError {
                    code: text(error.code).or(text(error.variant)).unwrap_or_else(|| "error".to_owned()),
                    message: text(error.description).or(text(error.message)).unwrap_or_default(),
                });
            }
            "Finalized" | "ConfigureSuccess" | "ConfigureFailure" | "Warning" => {}
            other => self.own(wire::other(other, frame)?, out),
        }
        Ok(())
    }

    fn holding(&self) -> bool {
        self.channels.values().any(|channel| !channel.held.is_empty())
    }

    fn carry(&self) -> Carry {
        let mut channels: Vec<_> = self.channels.iter().collect();
        channels.sort_by_key(|(_, channel)| channel.held.start_ms());
        let peek = |(index, channel): (&u64, &Channel)| channel.held.peek(&index.to_string(), channel.label.as_deref());
        let held: Vec<_> = channels.into_iter().filter_map(peek).collect();
        let session = self.session.0.clone().filter(|_| !held.is_empty());
        Carry { held, ends: self.timeline.0.clone(), session, closed: false }
    }

    fn carry_version(&self) -> u64 {
        self.changes + self.channels.values().map(|channel| channel.held.version()).sum::<u64>()
    }

    fn finish(&mut self, out: &mut Vec<SttEvent>) {
        let mut channels: Vec<_> = self.channels.iter_mut().collect();
        channels.sort_by_key(|(_, channel)| channel.held.start_ms());
        for (index, channel) in channels {
            out.extend(channel.held.take(&index.to_string(), channel.label.as_deref()));
        }
    }
}

impl DeepgramDecoder {
    fn resume(carry: &Carry) -> Self {
        let channels = carry.held.iter().filter_map(|last| {
            let TurnKey::Held(channel) = &last.key else { return None };
            let unlabelled = last.words.iter().all(|word| word.speaker.is_none());
            let label = last.speaker.clone().filter(|_| unlabelled);
            Some((channel.parse().ok()?, Channel { held: Held::resume(last), label }))
        });
        Self {
            session: Session(carry.session.clone()),
            timeline: Timeline(carry.ends.clone()),
            channels: channels.collect(),
            changes: 0,
        }
    }

    fn results(&mut self, results: Results<'_>, out: &mut Vec<SttEvent>) -> Result<(), DecodeError> {
        let index = results.channel_index.first().map_or(0, |index| index.0);
        held::channel(&mut self.channels, index, CHANNEL)?;
        if let Some(id) = results.metadata.and_then(|metadata| metadata.request_id) {
            let known = self.session.0.is_some();
            if self.session.begins(Some(id.as_str())) {
                if known {
                    self.finish(out);
                }
                out.push(SttEvent::Begin { vendor_session: Some(id.into_string()) });
            }
        } else if self.timeline.restarts(&index.to_string(), results.start.map(Seconds::ms)) {
            self.changes += 1;
            self.finish(out);
            out.push(SttEvent::Restarted);
        }
        let several = results.channel_index.get(1).is_some_and(|count| count.0 > 1);
        let prefix = several.then(|| format!("ch{index}"));
        let segment = results.channel.alternatives.into_iter().next().map(|Said(alternative)| {
            let (start_ms, length_ms) = (results.start.map(Seconds::ms), results.duration.map(Seconds::ms));
            let end_ms = start_ms.zip(length_ms).map(|(start, length)| start.saturating_add(length));
            segment(alternative, prefix.as_deref(), start_ms, end_ms)
        });
        let channel = held::channel(&mut self.channels, index, CHANNEL)?;
        channel.label = prefix;
        let label = channel.label.as_deref();
        let set = |flag: Option<Flag>| flag.is_some_and(|flag| flag.0);
        if set(results.is_final) {
            if let Some(segment) = segment.filter(|segment| !segment.text.trim().is_empty()) {
                if self.session.0.is_none() {
                    self.timeline.note(&index.to_string(), segment.end_ms);
                }
                channel.held.push(segment, " ");
            }
            let over = set(results.speech_final) || set(results.from_finalize);
            if over || channel.held.is_full() {
                out.extend(channel.held.take(&index.to_string(), label));
            }
        } else if let Some(segment) = segment {
            let speaker = wire::common_speaker(&segment.words).or_else(|| label.map(str::to_owned));
            let text = channel.held.with(&segment.text, " ");
            out.push(SttEvent::Partial { key: TurnKey::Held(index.to_string()), speaker, text });
        }
        Ok(())
    }
}

fn segment(alternative: Alternative<'_>, prefix: Option<&str>, start_ms: Option<u64>, end_ms: Option<u64>) -> Segment {
    let mut language = alternative.languages.into_iter().next().map(Text::into_string);
    let said = alternative.words.iter().filter_map(|word| word.punctuated_word.as_ref().or(word.word.as_ref()));
    let text = wire::text_or_words(alternative.transcript, said.map(Text::as_str));
    let words = alternative
        .words
        .into_iter()
        .filter_map(|word| {
            if language.is_none() {
                language = word.language.map(Text::into_string);
            }
            let (start_ms, end_ms) = wire::word_times(word.start, word.end)?;
            Some(Word {
                text: word.punctuated_word.or(word.word)?.into_string(),
                start_ms,
                end_ms,
                speaker: word.speaker.map(|Label(speaker)| match prefix {
                    Some(prefix) => format!("{prefix}:{speaker}"),
                    None => speaker,
                }),
                confidence: word.confidence.map(|score| score.0),
            })
        })
        .collect();
    Segment { text, words, start_ms, end_ms, language, confidence: alternative.confidence.map(|score| score.0) }
}
