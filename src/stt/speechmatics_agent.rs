//! Speechmatics for voice agents: the Agent STT service (`wss://eu.rt.speechmatics.com/v2/agent`) and the messages of the
//! Voice SDK. The discriminator is `message`.
//!
//! Both send final speech as `AddSegment`: the service sends one segment per message (`segment` with `transcript` and
//! `speaker`, docs.speechmatics.com "Agent STT Reference" and package `speechmatics-agent-stt`), the SDK several
//! (`segments` with `text` and `speaker_id`, package `speechmatics-voice`, `README.md` and `_models.py`). A turn is the
//! speech of one speaker until `EndOfTurn`; a segment with `is_eou` is the last one of its turn. The SDK also forwards
//! the words of the real-time API. They are left out, because the segments repeat them.

use serde::Deserialize;

use super::held::{Held, Segment, Session, Timeline};
use super::wire::{self, Flag, Label, Seconds, Text};
use super::{DecodeError, Decoder, Dialect};
use crate::types::{Carry, EndScope, SttEvent, TurnKey};

/// Messages that carry no turn.
const SILENT: [&str; 20] = [
    "AddPartialTranscript",
    "AddTranscript",
    "AudioAdded",
    "ChannelAudioAdded",
    "SpeakerStarted",
    "SpeakerEnded",
    "VadStatus",
    "EndOfTurnPrediction",
    "SmartTurnResult",
    "SpeakersResult",
    "SessionMetrics",
    "SpeakerMetrics",
    "TurnMetrics",
    "TTFBMetrics",
    "Diagnostics",
    "RecognitionConfigSet",
    "AudioEventStarted",
    "AudioEventEnded",
    "Info",
    "Warning",
];

pub(super) struct SpeechmaticsAgent;

impl Dialect for SpeechmaticsAgent {
    fn name(&self) -> &'static str {
        "speechmatics_agent"
    }

    fn example(&self) -> &'static str {
        r#"{"message":"AddSegment","segments":[{"speaker_id":"S1","is_active":true,"language":"en","text":"Hello there.","is_eou":true,"metadata":{"start_time":0.84,"end_time":1.56}}],"metadata":{"start_time":0.84,"end_time":1.56}}"#
    }

    fn expects(&self) -> &'static str {
        "messages whose \"message\" is \"RecognitionStarted\", \"AddSegment\", \"EndOfTurn\", …"
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        Box::new(AgentDecoder::default())
    }

    fn needs(&self) -> &'static [&'static str] {
        &["message", "segments", "segments[]", "segments[].text", "segment", "segment.transcript"]
    }

    fn decoder_from(&self, carry: &Carry) -> Box<dyn Decoder> {
        let last = carry.held.first();
        Box::new(AgentDecoder {
            session: Session(carry.session.clone()),
            timeline: Timeline(carry.ends.clone()),
            changes: 0,
            held: last.map(Held::resume).unwrap_or_default(),
            speaker: last.and_then(|last| last.speaker.clone()),
        })
    }

    fn names_turns(&self) -> bool {
        false
    }
}

/// All speech is on one channel, which has no name.
const CHANNEL: &str = "";

#[derive(Default)]
struct AgentDecoder {
    session: Session,
    /// Used if no message named the session. By speaker label.
    timeline: Timeline,
    /// Counts the changes that [`Held::version`] does not.
    changes: u64,
    held: Held,
    /// The speaker of the held words.
    speaker: Option<String>,
}

#[derive(Deserialize)]
struct Segments<'a> {
    #[serde(borrow, default, deserialize_with = "wire::list")]
    segments: Vec<SegmentField<'a>>,
    #[serde(borrow)]
    segment: Option<ServiceSegment<'a>>,
    metadata: Option<Times>,
}

/// A segment in the SDK's format.
#[derive(Deserialize)]
struct SegmentField<'a> {
    #[serde(borrow)]
    text: Text<'a>,
    #[serde(alias = "speaker")]
    speaker_id: Option<Label>,
    #[serde(borrow)]
    language: Option<Text<'a>>,
    is_eou: Option<Flag>,
    metadata: Option<Times>,
}

/// A segment in the service's format, which names the text `transcript`.
#[derive(Deserialize)]
struct ServiceSegment<'a> {
    #[serde(borrow)]
    transcript: Text<'a>,
    #[serde(alias = "speaker_id")]
    speaker: Option<Label>,
    #[serde(borrow)]
    language: Option<Text<'a>>,
    is_eou: Option<Flag>,
    metadata: Option<Times>,
}

impl<'a> From<ServiceSegment<'a>> for SegmentField<'a> {
    fn from(segment: ServiceSegment<'a>) -> Self {
        let ServiceSegment { transcript: text, speaker: speaker_id, language, is_eou, metadata } = segment;
        Self { text, speaker_id, language, is_eou, metadata }
    }
}

#[derive(Deserialize, Clone, Copy)]
struct Times {
    start_time: Option<Seconds>,
    end_time: Option<Seconds>,
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

impl Decoder for AgentDecoder {
    fn read(&mut self, frame: &str, out: &mut Vec<SttEvent>) -> Result<(), DecodeError> {
        let Some(kind) = wire::kind("message", frame)? else {
            if let Some(event) = wire::own(frame)? {
                self.own(event, out);
                return Ok(());
            }
            return Err(wire::bad_field("message", "a message type such as \"AddSegment\"", None));
        };
        match kind.as_str() {
            "AddSegment" => return self.segments(wire::parse("AddSegment", frame)?, out),
            "AddPartialSegment" => self.partial(wire::parse("AddPartialSegment", frame)?, out),
            "StartOfTurn" | "EndOfTurn" => self.finish(out),
            "SpeechStarted" => out.push(SttEvent::SpeechStarted),
            "SpeechEnded" | "EndOfUtterance" => out.push(SttEvent::Silence { span: None }),
            "EndOfTranscript" => {
                self.finish(out);
                out.push(SttEvent::End { reason: Some("EndOfTranscript".to_owned()), scope: EndScope::Stream });
            }
            "RecognitionStarted" => {
                let started: Started<'_> = wire::parse("RecognitionStarted", frame)?;
                if self.session.begins(started.id.as_ref().map(Text::as_str)) {
                    self.finish(out);
                }
                self.changes += 1;
                self.timeline.0.clear();
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
        !self.held.is_empty()
    }

    fn carry(&self) -> Carry {
        let held: Vec<_> = self.held.peek(CHANNEL, self.speaker.as_deref()).into_iter().collect();
        let session = self.session.0.clone().filter(|_| !held.is_empty());
        Carry { held, ends: self.timeline.0.clone(), session, closed: false }
    }

    fn carry_version(&self) -> u64 {
        self.changes + self.held.version()
    }

    fn finish(&mut self, out: &mut Vec<SttEvent>) {
        out.extend(self.held.take(CHANNEL, self.speaker.as_deref()));
    }
}

impl AgentDecoder {
    fn segments(&mut self, message: Segments<'_>, out: &mut Vec<SttEvent>) -> Result<(), DecodeError> {
        if message.segments.is_empty() && message.segment.is_none() {
            let expected = "at least one segment with a `text`, or `segment` with a `transcript`";
            return Err(wire::bad_field("AddSegment.segments", expected, None));
        }
        // The times of a message are those of its segment if there is only one.
        let times = message.metadata.filter(|_| message.segments.len() < 2);
        for segment in message.segments.into_iter().chain(message.segment.map(SegmentField::from)) {
            let speaker = segment.speaker_id.map(|Label(speaker)| speaker);
            let times = segment.metadata.or(times);
            if self.session.0.is_none() {
                self.look_for_restart(speaker.as_deref().unwrap_or_default(), times, out);
            }
            if speaker != self.speaker {
                self.finish(out);
                self.speaker = speaker;
            }
            let held = Segment {
                text: segment.text.as_str().trim().to_owned(),
                words: Vec::new(),
                start_ms: times.and_then(|times| times.start_time).map(Seconds::ms),
                end_ms: times.and_then(|times| times.end_time).map(Seconds::ms),
                language: segment.language.map(Text::into_string),
                confidence: None,
            };
            self.held.push(held, " ");
            if segment.is_eou.is_some_and(|yes| yes.0) || self.held.is_full() {
                self.finish(out);
            }
        }
        Ok(())
    }

    fn look_for_restart(&mut self, speaker: &str, times: Option<Times>, out: &mut Vec<SttEvent>) {
        let ms = |time: Option<Seconds>| time.map(Seconds::ms);
        if self.timeline.restarts(speaker, times.and_then(|times| ms(times.start_time))) {
            self.finish(out);
            out.push(SttEvent::Restarted);
        }
        self.changes += 1;
        self.timeline.note(speaker, times.and_then(|times| ms(times.end_time.or(times.start_time))));
    }

    /// Appends the newest segment that is not final as a partial, after the held text if the speaker is the same.
    fn partial(&self, message: Segments<'_>, out: &mut Vec<SttEvent>) {
        let segments = message.segments.into_iter().chain(message.segment.map(SegmentField::from));
        if let Some(newest) = segments.last() {
            let speaker = newest.speaker_id.map(|Label(speaker)| speaker);
            let text = newest.text.as_str().trim();
            let text = if speaker == self.speaker { self.held.with(text, " ") } else { text.to_owned() };
            out.push(SttEvent::Partial { key: TurnKey::Held(CHANNEL.to_owned()), speaker, text });
        }
    }
}
