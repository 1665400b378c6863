//! Speechmatics real time (`wss://eu.rt.speechmatics.com/v2`). The discriminator is `message`.
//!
//! Finals are segments. A turn ends at `EndOfUtterance`, which the session must request. Each channel has its own
//! turns, labelled by the channel's name, or `NAME:S1` with diarization.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::held::{self, Held, Segment, Session, Timeline};
use super::wire::{self, Label, Said, Says, Score, Seconds, Text};
use super::{DecodeError, Decoder, Dialect};
use crate::types::{Carry, EndScope, SttEvent, TurnKey, Word};

/// Messages that carry no turn.
const SILENT: [&str; 10] = [
    "AudioAdded",
    "ChannelAudioAdded",
    "AddTranslation",
    "AddPartialTranslation",
    "AudioEventStarted",
    "AudioEventEnded",
    "SpeakersResult",
    "RecognitionConfigSet",
    "Info",
    "Warning",
];

pub(super) struct Speechmatics;

impl Dialect for Speechmatics {
    fn name(&self) -> &'static str {
        "speechmatics"
    }

    fn example(&self) -> &'static str {
        r#"{"message":"AddTranscript","format":"2.9","metadata":{"start_time":0.0,"end_time":1.2,"transcript":"Hello. "},"results":[{"type":"word","start_time":0.1,"end_time":0.5,"alternatives":[{"content":"Hello","confidence":0.97,"language":"en","speaker":"S1"}]},{"type":"punctuation","start_time":0.5,"end_time":0.5,"attaches_to":"previous","is_eos":true,"alternatives":[{"content":".","confidence":1.0,"speaker":"S1"}]}]}"#
    }

    fn expects(&self) -> &'static str {
        "messages whose \"message\" is \"RecognitionStarted\", \"AddTranscript\", \"EndOfUtterance\", …"
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        Box::new(SpeechmaticsDecoder::default())
    }

    fn decoder_from(&self, carry: &Carry) -> Box<dyn Decoder> {
        let channels = carry.held.iter().filter_map(|last| {
            let TurnKey::Held(channel) = &last.key else { return None };
            Some((channel.clone(), Held::resume(last)))
        });
        Box::new(SpeechmaticsDecoder {
            session: Session(carry.session.clone()),
            timeline: Timeline(carry.ends.clone()),
            channels: channels.collect(),
            changes: 0,
        })
    }

    fn names_turns(&self) -> bool {
        false
    }

    fn needs(&self) -> &'static [&'static str] {
        &["message", "metadata", "metadata.transcript", "results[].alternatives[].content"]
    }
}

/// The field that names channels.
const CHANNEL: &str = "channel";

#[derive(Default)]
struct SpeechmaticsDecoder {
    session: Session,
    /// Used if no message named the session.
    timeline: Timeline,
    /// By channel name; `""` if there is only one channel.
    channels: BTreeMap<String, Held>,
    /// Counts the changes that [`Held::version`] does not.
    changes: u64,
}

#[derive(Deserialize)]
struct Transcript<'a> {
    #[serde(borrow)]
    metadata: Option<Metadata<'a>>,
    #[serde(borrow, default, deserialize_with = "wire::list")]
    results: Vec<ResultField<'a>>,
    #[serde(borrow)]
    channel: Option<Text<'a>>,
}

impl Says for Transcript<'_> {
    const TEXT: &'static str = "metadata.transcript";
    fn says(&self) -> bool {
        self.metadata.as_ref().is_some_and(|metadata| metadata.transcript.is_some()) || !self.results.is_empty()
    }
}

#[derive(Default, Deserialize)]
struct Metadata<'a> {
    start_time: Option<Seconds>,
    end_time: Option<Seconds>,
    #[serde(borrow)]
    transcript: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct ResultField<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    start_time: Option<Seconds>,
    end_time: Option<Seconds>,
    #[serde(borrow)]
    attaches_to: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "wire::list")]
    alternatives: Vec<Alternative<'a>>,
}

#[derive(Deserialize)]
struct Alternative<'a> {
    #[serde(borrow)]
    content: Text<'a>,
    confidence: Option<Score>,
    #[serde(borrow)]
    language: Option<Text<'a>>,
    speaker: Option<Label>,
}

#[derive(Deserialize)]
struct Utterance<'a> {
    #[serde(borrow)]
    channel: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Started<'a> {
    #[serde(borrow)]
    id: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct ErrorFrame<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    reason: Option<Text<'a>>,
}

impl Decoder for SpeechmaticsDecoder {
    fn read(&mut self, frame: &str, out: &mut Vec<SttEvent>) -> Result<(), DecodeError> {
        let Some(kind) = wire::kind("message", frame)? else {
            if let Some(event) = wire::own(frame)? {
                self.own(event, out);
                return Ok(());
            }
            return Err(wire::bad_field("message", "a message type such as \"AddTranscript\"", None));
        };
        match kind.as_str() {
            "AddTranscript" => {
                let (channel, mark, segment) = segment(wire::parse::<Said<Transcript<'_>>>("AddTranscript", frame)?.0);
                held::channel(&mut self.channels, channel.clone(), CHANNEL)?;
                self.look_for_restart(&channel, &segment, out);
                if self.session.0.is_none() {
                    self.timeline.note(&channel, wire::span(&segment.words).1.or(segment.end_ms));
                }
                let held = held::channel(&mut self.channels, channel.clone(), CHANNEL)?;
                if let Some(word) = held.last_word() {
                    word.text.push_str(&mark);
                }
                // Segments include their own spaces.
                held.push(segment, "");
                if held.is_full() {
                    out.extend(held.take(&channel, label(&channel)));
                }
            }
            "AddPartialTranscript" => {
                let (channel, _, segment) =
                    segment(wire::parse::<Said<Transcript<'_>>>("AddPartialTranscript", frame)?.0);
                held::channel(&mut self.channels, channel.clone(), CHANNEL)?;
                self.look_for_restart(&channel, &segment, out);
                let held = held::channel(&mut self.channels, channel.clone(), CHANNEL)?;
                let text = held.with(&segment.text, "");
                let speaker = wire::common_speaker(&segment.words).or_else(|| label(&channel).map(str::to_owned));
                out.push(SttEvent::Partial { key: TurnKey::Held(channel), speaker, text });
            }
            "EndOfUtterance" => {
                let end: Utterance<'_> = wire::parse("EndOfUtterance", frame)?;
                let channel = end.channel.as_ref().map_or("", Text::as_str);
                if let Some(held) = self.channels.get_mut(channel) {
                    out.extend(held.take(channel, label(channel)));
                }
                // While one channel of several is silent, others may speak.
                if end.channel.is_none() {
                    out.push(SttEvent::Silence { span: None });
                }
            }
            "EndOfTranscript" => {
                self.finish(out);
                out.push(SttEvent::End { reason: Some("EndOfTranscript".to_owned()), scope: EndScope::Stream });
            }
            "RecognitionStarted" => {
                let started: Started<'_> = wire::parse("RecognitionStarted", frame)?;
                if self.session.begins(started.id.as_ref().map(Text::as_str)) {
                    self.finish(out);
                }
                out.push(SttEvent::Begin { vendor_session: started.id.map(Text::into_string) });
            }
            "Error" => {
                let error: ErrorFrame<'_> = wire::parse("Error", frame)?;
                out.push(SttEvent::VendorError {
                    code: error.kind.map_or_else(|| "error".to_owned(), Text::into_string),
                    message: error.reason.map(Text::into_string).unwrap_or_default(),
                });
            }
            silent if SILENT.contains(&silent) => {}
            other => out.push(SttEvent::Unknown { kind: other.to_owned() }),
        }
        Ok(())
    }

    fn holding(&self) -> bool {
        self.channels.values().any(|held| !held.is_empty())
    }

    fn carry(&self) -> Carry {
        let mut channels: Vec<_> = self.channels.iter().collect();
        channels.sort_by_key(|(_, held)| held.start_ms());
        let held: Vec<_> =
            channels.into_iter().filter_map(|(channel, held)| held.peek(channel, label(channel))).collect();
        let session = self.session.0.clone().filter(|_| !held.is_empty());
        Carry { held, ends: self.timeline.0.clone(), session, closed: false }
    }

    fn carry_version(&self) -> u64 {
        self.changes + self.channels.values().map(Held::version).sum::<u64>()
    }

    fn finish(&mut self, out: &mut Vec<SttEvent>) {
        let mut channels: Vec<_> = self.channels.iter_mut().collect();
        channels.sort_by_key(|(_, held)| held.start_ms());
        for (channel, held) in channels {
            out.extend(held.take(channel, label(channel)));
        }
    }
}

impl SpeechmaticsDecoder {
    fn look_for_restart(&mut self, channel: &str, segment: &Segment, out: &mut Vec<SttEvent>) {
        let start_ms = wire::span(&segment.words).0.or(segment.start_ms);
        if self.session.0.is_none() && self.timeline.restarts(channel, start_ms) {
            self.changes += 1;
            self.finish(out);
            out.push(SttEvent::Restarted);
        }
    }
}

fn label(channel: &str) -> Option<&str> {
    Some(channel).filter(|channel| !channel.is_empty())
}

/// Returns the channel, punctuation that belongs to the word before the segment, and the segment.
fn segment(transcript: Transcript<'_>) -> (String, String, Segment) {
    let channel = transcript.channel.map(Text::into_string).unwrap_or_default();
    let mut words: Vec<Word> = Vec::with_capacity(transcript.results.len());
    let mut language = None;
    let (mut before, mut prefix) = (String::new(), String::new());
    let metadata = transcript.metadata.unwrap_or_default();
    // Text of the results, used if the segment has no text.
    let mut said = String::new();
    let mut kept = true;
    for result in transcript.results {
        let Some(best) = result.alternatives.into_iter().next() else { continue };
        if result.kind.as_ref().is_some_and(|kind| kind.as_str() == "punctuation") {
            match (result.attaches_to.as_ref().map(Text::as_str), words.last_mut()) {
                // Punctuation that belongs to the next word, such as an opening quotation mark.
                (Some("next"), _) => prefix.push_str(best.content.as_str()),
                (_, Some(word)) if kept => word.text.push_str(best.content.as_str()),
                (_, Some(_)) => {}
                (_, None) => before.push_str(best.content.as_str()),
            }
            said.push_str(best.content.as_str());
            continue;
        }
        if !said.is_empty() && prefix.is_empty() {
            said.push(' ');
        }
        said.push_str(best.content.as_str());
        let times = wire::word_times(result.start_time, result.end_time);
        kept = times.is_some();
        let Some((start_ms, end_ms)) = times else { continue };
        if language.is_none() {
            language = best.language.map(Text::into_string);
        }
        words.push(Word {
            text: std::mem::take(&mut prefix) + best.content.as_str(),
            start_ms,
            end_ms,
            speaker: best.speaker.map(|Label(speaker)| match label(&channel) {
                Some(channel) => format!("{channel}:{speaker}"),
                None => speaker,
            }),
            confidence: best.confidence.map(|score| score.0),
        });
    }
    let segment = Segment {
        // Segments include their own spaces.
        text: metadata.transcript.map_or_else(|| said + " ", Text::into_string),
        words,
        start_ms: metadata.start_time.map(Seconds::ms),
        end_ms: metadata.end_time.map(Seconds::ms),
        language,
        confidence: None,
    };
    (channel, before, segment)
}
