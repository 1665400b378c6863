//! Gladia v2 live (the WebSocket that `POST https://api.gladia.io/v2/live` names).
//!
//! Each utterance is a turn. The label is the number of the diarized speaker; on channels above 0 it is `ch1` or
//! `ch1:0`.

use serde::Deserialize;

use super::held::{Session, Unnamed};
use super::wire::{self, Flag, Label, Natural, Reported, Said, Says, Score, Seconds, Text};
use super::{DecodeError, Decoder, Dialect};
use crate::types::{EndScope, Final, SttEvent, TurnKey, Word};

/// Messages that carry no turn: lifecycle messages, add-ons and results after the recording.
const SILENT: [&str; 11] = [
    "start_recording",
    "end_recording",
    "translation",
    "named_entity_recognition",
    "sentiment_analysis",
    "post_transcript",
    "post_final_transcript",
    "post_summarization",
    "post_chapterization",
    "chapterization",
    "messages_to_llm",
];

pub(super) struct Gladia;

impl Dialect for Gladia {
    fn name(&self) -> &'static str {
        "gladia"
    }

    fn example(&self) -> &'static str {
        r#"{"session_id":"4a39145c","created_at":"2026-09-01T12:00:00.123Z","type":"transcript","data":{"id":"00-00000011","is_final":true,"utterance":{"start":1.2,"end":2.4,"confidence":0.93,"channel":0,"speaker":1,"words":[{"word":"Hello","start":1.2,"end":1.5,"confidence":0.95},{"word":" there.","start":1.6,"end":2.4,"confidence":0.95}],"text":"Hello there.","language":"en"}}}"#
    }

    fn expects(&self) -> &'static str {
        "messages whose \"type\" is \"start_session\", \"transcript\", …"
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        Box::new(GladiaDecoder::default())
    }

    fn names_turns(&self) -> bool {
        true
    }

    fn needs(&self) -> &'static [&'static str] {
        &["type", "data", "data.is_final", "data.utterance", "data.utterance.text", "data.utterance.words[].word"]
    }
}

#[derive(Default)]
struct GladiaDecoder {
    session: Session,
    /// Used if messages name no session.
    finals: Unnamed,
    /// Channels on which somebody speaks, as bits; those above 63 are not among them.
    speaking: u64,
}

#[derive(Deserialize)]
struct Transcript<'a> {
    #[serde(borrow)]
    session_id: Option<Text<'a>>,
    #[serde(borrow)]
    data: Data<'a>,
}

#[derive(Deserialize)]
struct Data<'a> {
    id: Option<Label>,
    is_final: Option<Flag>,
    #[serde(borrow)]
    utterance: Said<Utterance<'a>>,
}

#[derive(Deserialize)]
struct Utterance<'a> {
    #[serde(borrow)]
    text: Option<Text<'a>>,
    start: Option<Seconds>,
    end: Option<Seconds>,
    confidence: Option<Score>,
    channel: Option<Natural>,
    speaker: Option<Label>,
    #[serde(borrow)]
    language: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "wire::list")]
    words: Vec<WordField<'a>>,
}

impl Says for Utterance<'_> {
    const TEXT: &'static str = "text";
    fn says(&self) -> bool {
        self.text.is_some() || !self.words.is_empty()
    }
}

#[derive(Deserialize)]
struct WordField<'a> {
    #[serde(borrow)]
    word: Text<'a>,
    start: Option<Seconds>,
    end: Option<Seconds>,
    confidence: Option<Score>,
}

#[derive(Deserialize)]
struct Started<'a> {
    #[serde(borrow)]
    session_id: Option<Text<'a>>,
}

/// `speech_start`, `speech_end`.
#[derive(Deserialize)]
struct Detected {
    data: Option<DetectedOn>,
}

#[derive(Deserialize)]
struct DetectedOn {
    channel: Option<Natural>,
}

impl Detected {
    /// The channel, as a bit.
    fn channel(self) -> u64 {
        let channel = self.data.and_then(|data| data.channel).map_or(0, |channel| channel.0);
        u32::try_from(channel).ok().and_then(|channel| 1_u64.checked_shl(channel)).unwrap_or(0)
    }
}

/// The acknowledgement of a client's message.
#[derive(Deserialize)]
struct Ack {
    error: Option<Reported>,
}

impl Decoder for GladiaDecoder {
    fn read(&mut self, frame: &str, out: &mut Vec<SttEvent>) -> Result<(), DecodeError> {
        let Some(kind) = wire::kind("type", frame)? else {
            return Err(wire::bad_field("type", "a message type such as \"transcript\"", None));
        };
        match kind.as_str() {
            "transcript" => {
                let transcript: Transcript<'_> = wire::parse("transcript", frame)?;
                // Ids of utterances are unique only within their session.
                if let Some(id) = transcript.session_id
                    && self.session.begins(Some(id.as_str()))
                {
                    out.push(SttEvent::Begin { vendor_session: Some(id.into_string()) });
                }
                self.finals.add(event(transcript.data), self.session.0.is_some(), out);
            }
            "start_session" => {
                let session: Started<'_> = wire::parse("start_session", frame)?;
                self.finals.clear();
                self.session.begins(session.session_id.as_ref().map(Text::as_str));
                out.push(SttEvent::Begin { vendor_session: session.session_id.map(Text::into_string) });
            }
            "end_session" => {
                out.push(SttEvent::End { reason: Some("end_session".to_owned()), scope: EndScope::Stream });
            }
            what @ ("audio_chunk" | "stop_recording" | "error") => {
                let ack: Ack = wire::parse(what, frame)?;
                out.extend(ack.error.and_then(|error| error.0).map(|failure| failure.event(what)));
            }
            "speech_start" => {
                self.speaking |= wire::parse::<Detected>("speech_start", frame)?.channel();
                out.push(SttEvent::SpeechStarted);
            }
            "speech_end" => {
                self.speaking &= !wire::parse::<Detected>("speech_end", frame)?.channel();
                if self.speaking == 0 {
                    out.push(SttEvent::Silence { span: None });
                }
            }
            silent if SILENT.contains(&silent) => {}
            other => out.push(wire::other(other, frame)?),
        }
        Ok(())
    }
}

fn event(data: Data<'_>) -> SttEvent {
    let key = data.id.map_or(TurnKey::Next, |Label(id)| TurnKey::Vendor(id));
    let Said(utterance) = data.utterance;
    let said = utterance.words.iter().map(|word| word.word.as_str());
    let text = wire::text_or_words(utterance.text, said).trim().to_owned();
    let speaker = match (utterance.channel.map_or(0, |channel| channel.0), utterance.speaker) {
        (0, speaker) => speaker.map(|Label(speaker)| speaker),
        (channel, None) => Some(format!("ch{channel}")),
        (channel, Some(Label(speaker))) => Some(format!("ch{channel}:{speaker}")),
    };
    if !data.is_final.is_some_and(|is_final| is_final.0) {
        return SttEvent::Partial { key, speaker, text };
    }
    let words: Vec<Word> = utterance
        .words
        .into_iter()
        .filter_map(|word| {
            let (start_ms, end_ms) = wire::word_times(word.start, word.end)?;
            let (text, confidence) = (word.word.as_str().trim().to_owned(), word.confidence.map(|score| score.0));
            Some(Word { text, start_ms, end_ms, speaker: None, confidence })
        })
        .collect();
    let (first, last) = wire::span(&words);
    let start_ms = utterance.start.map(Seconds::ms).or(first);
    SttEvent::Final(Box::new(Final {
        key,
        formatted: true,
        text,
        speaker,
        words,
        start_ms,
        end_ms: utterance.end.map(Seconds::ms).or(last).map(|end| end.max(start_ms.unwrap_or(0))),
        language: utterance.language.map(Text::into_string),
        confidence: utterance.confidence.map(|score| score.0),
    }))
}
