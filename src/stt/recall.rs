//! Recall.ai real-time endpoints: `transcript.data` and `transcript.partial_data` events. The discriminator is `event`.
//!
//! The speaker label is the participant's name, or the participant's number if there is no name.

use serde::Deserialize;

use super::held::{Session, Unnamed};
use super::wire::{self, Label, Seconds, Text};
use super::{DecodeError, Decoder, Dialect};
use crate::base::text;
use crate::types::{Carry, Final, SttEvent, TurnKey, Word};

pub(super) struct Recall;

impl Dialect for Recall {
    fn name(&self) -> &'static str {
        "recall"
    }

    fn example(&self) -> &'static str {
        r#"{"event":"transcript.data","data":{"data":{"words":[{"text":"Hello","start_timestamp":{"relative":1.2},"end_timestamp":{"relative":1.5}},{"text":"there.","start_timestamp":{"relative":1.6},"end_timestamp":{"relative":2.1}}],"language_code":"en","participant":{"id":100,"name":"Ana Ruiz","is_host":true,"platform":"desktop","extra_data":{},"email":null}},"realtime_endpoint":{"id":"e-1","metadata":{}},"transcript":{"id":"t-1","metadata":{}},"recording":{"id":"r-1","metadata":{}},"bot":{"id":"b-1","metadata":{}}}}"#
    }

    fn expects(&self) -> &'static str {
        "messages whose \"event\" is \"transcript.data\", \"transcript.partial_data\", …"
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        Box::new(RecallDecoder::default())
    }

    fn decoder_from(&self, carry: &Carry) -> Box<dyn Decoder> {
        Box::new(RecallDecoder { finals: Unnamed::resume(&carry.ends), ..RecallDecoder::default() })
    }

    fn names_turns(&self) -> bool {
        false
    }

    fn needs(&self) -> &'static [&'static str] {
        &["event", "data", "data.data", "data.data.words", "data.data.words[]", "data.data.words[].text"]
    }
}

#[derive(Default)]
struct RecallDecoder {
    /// The recording, to whose start the times are relative.
    session: Session,
    /// Used if messages name no recording.
    finals: Unnamed,
}

/// Prefixes of events that are not about the transcript.
const OTHER_EVENTS: [&str; 9] = [
    "participant_events.",
    "bot.",
    "recording.",
    "realtime_endpoint.",
    "video_",
    "audio_",
    "meeting_metadata.",
    "sdk_upload.",
    "calendar.",
];

#[derive(Deserialize)]
struct Status<'a> {
    #[serde(borrow)]
    data: Option<OuterStatus<'a>>,
}

#[derive(Deserialize)]
struct OuterStatus<'a> {
    #[serde(borrow)]
    data: Option<InnerStatus<'a>>,
}

#[derive(Deserialize)]
struct InnerStatus<'a> {
    #[serde(borrow)]
    code: Option<Text<'a>>,
    #[serde(borrow)]
    sub_code: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    data: Outer<'a>,
}

#[derive(Deserialize)]
struct Outer<'a> {
    #[serde(borrow)]
    data: Inner<'a>,
    recording: Option<Recording>,
}

#[derive(Deserialize)]
struct Recording {
    id: Option<Label>,
}

#[derive(Deserialize)]
struct Inner<'a> {
    #[serde(borrow, deserialize_with = "wire::list")]
    words: Vec<WordField<'a>>,
    #[serde(borrow)]
    language_code: Option<Text<'a>>,
    #[serde(borrow)]
    participant: Option<Participant<'a>>,
}

#[derive(Deserialize)]
struct Participant<'a> {
    id: Option<Label>,
    #[serde(borrow)]
    name: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct WordField<'a> {
    #[serde(borrow)]
    text: Text<'a>,
    start_timestamp: Option<Timestamp>,
    end_timestamp: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Timestamp {
    relative: Option<Seconds>,
}

impl Decoder for RecallDecoder {
    fn read(&mut self, frame: &str, out: &mut Vec<SttEvent>) -> Result<(), DecodeError> {
        let Some(kind) = wire::kind("event", frame)? else {
            if let Some(event) = wire::own(frame)? {
                out.push(event);
                return Ok(());
            }
            return Err(wire::bad_field("event", "an event such as \"transcript.data\"", None));
        };
        match kind.as_str() {
            what @ ("transcript.data" | "transcript.partial_data") => {
                let Outer { data, recording } = wire::parse::<Event<'_>>(what, frame)?.data;
                if let Some(Label(id)) = recording.and_then(|recording| recording.id)
                    && self.session.begins(Some(&id))
                {
                    self.finals.clear();
                    out.push(SttEvent::Begin { vendor_session: Some(id) });
                }
                self.finals.add(turn(data, what == "transcript.data"), self.session.0.is_some(), out);
            }
            "transcript.failed" => {
                let status = wire::parse::<Status<'_>>("transcript.failed", frame)?.data.and_then(|outer| outer.data);
                let code = status.and_then(|status| status.sub_code.or(status.code));
                let code = code.map_or_else(|| "transcript.failed".to_owned(), Text::into_string);
                out.push(SttEvent::VendorError { code, message: String::new() });
            }
            "transcript.provider_data" | "transcript.done" | "transcript.processing" | "transcript.deleted" => {}
            // What happens to the bot or to a recording is not an error of this stream, even if it is a failure.
            other if OTHER_EVENTS.iter().any(|prefix| other.starts_with(prefix)) => {}
            other => out.push(SttEvent::Unknown { kind: other.to_owned() }),
        }
        Ok(())
    }

    fn carry(&self) -> Carry {
        Carry { ends: self.finals.ends(), ..Carry::default() }
    }

    fn carry_version(&self) -> u64 {
        self.finals.version()
    }
}

fn turn(data: Inner<'_>, is_final: bool) -> SttEvent {
    let text = text::join(data.words.iter().map(|word| word.text.as_str().trim()));
    let speaker = data.participant.and_then(|participant| {
        let name = participant.name.map(Text::into_string).filter(|name| !name.is_empty());
        name.or(participant.id.map(|Label(id)| id))
    });
    if !is_final {
        return SttEvent::Partial { key: TurnKey::Next, speaker, text };
    }
    let words: Vec<Word> = data
        .words
        .into_iter()
        .filter_map(|word| {
            let relative = |timestamp: Option<Timestamp>| timestamp.and_then(|timestamp| timestamp.relative);
            let (start_ms, end_ms) = wire::word_times(relative(word.start_timestamp), relative(word.end_timestamp))?;
            Some(Word { text: word.text.as_str().trim().to_owned(), start_ms, end_ms, speaker: None, confidence: None })
        })
        .collect();
    let (start_ms, end_ms) = wire::span(&words);
    SttEvent::Final(Box::new(Final {
        key: TurnKey::Next,
        formatted: true,
        text,
        speaker,
        words,
        start_ms,
        end_ms,
        language: data.language_code.map(Text::into_string),
        confidence: None,
    }))
}
