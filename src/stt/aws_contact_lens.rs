//! Amazon's call analytics: the real-time segments of Connect Contact Lens, and the events of Transcribe Call
//! Analytics.
//!
//! Contact Lens: events of its Kinesis stream, with `EventType` and `Segments`, or the segments as
//! `ListRealtimeContactAnalysisSegments` returns them (Amazon Connect administrator guide "Data model for
//! conversational analytics segment streams", and API reference `RealtimeContactAnalysisSegment`). A `Transcript` is a
//! final turn; an `Utterance` is a partial of the turn that its `TranscriptId` names. Times are in ms.
//!
//! Call Analytics: `UtteranceEvent` and `CategoryEvent` of `CallAnalyticsTranscriptResultStream` (Amazon Transcribe API
//! reference), also in ms. Speaker labels are roles, such as `AGENT` and `CUSTOMER`.

use serde::Deserialize;

use super::held::{Session, Unnamed};
use super::wire::{self, Flag, Label, Natural, Score, Text};
use super::{DecodeError, Decoder, Dialect, Spelling, aws};
use crate::types::{EndScope, Final, SttEvent, TurnKey, Word};

pub(super) struct AwsContactLens;

impl Dialect for AwsContactLens {
    fn name(&self) -> &'static str {
        "aws_contact_lens"
    }

    fn example(&self) -> &'static str {
        r#"{"Version":"1.0.0","Channel":"VOICE","ContactId":"c-1","LanguageCode":"en-US","EventType":"SEGMENTS","Segments":[{"Transcript":{"Id":"t-1","ParticipantId":"p-1","ParticipantRole":"CUSTOMER","Content":"Hello there.","BeginOffsetMillis":160,"EndOffsetMillis":1300,"Sentiment":"NEUTRAL"}}]}"#
    }

    fn expects(&self) -> &'static str {
        "messages with \"Segments\" (Contact Lens), \"UtteranceEvent\" or \"CategoryEvent\" (Call Analytics)"
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        Box::new(ContactLensDecoder::default())
    }

    fn needs(&self) -> &'static [&'static str] {
        &[
            "Segments",
            "Segments[]",
            "Segments[].Transcript",
            "Segments[].Transcript.Id",
            "Segments[].Transcript.Content",
            "UtteranceEvent",
            "UtteranceEvent.UtteranceId",
            "UtteranceEvent.IsPartial",
            "UtteranceEvent.Transcript",
            "UtteranceId",
            "IsPartial",
            "Transcript",
        ]
    }

    fn names_turns(&self) -> bool {
        true
    }

    fn spelling(&self) -> Option<Spelling> {
        Some(Spelling::Pascal)
    }
}

#[derive(Default)]
struct ContactLensDecoder {
    /// The contact, if messages name it.
    session: Session,
    /// Used if they do not.
    finals: Unnamed,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Event<'a> {
    #[serde(borrow)]
    event_type: Option<Text<'a>>,
    #[serde(borrow)]
    contact_id: Option<Text<'a>>,
    #[serde(borrow)]
    language_code: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "wire::optional_list")]
    segments: Option<Vec<SegmentField<'a>>>,
    #[serde(borrow)]
    utterance_event: Option<UtteranceEvent<'a>>,
    category_event: Option<serde::de::IgnoredAny>,
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
}

/// At most one of these is present. Segments of other kinds (categories, issues, summaries) carry no turn.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SegmentField<'a> {
    #[serde(borrow)]
    transcript: Option<Transcript<'a>>,
    #[serde(borrow)]
    utterance: Option<Utterance<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Transcript<'a> {
    id: Label,
    #[serde(borrow)]
    content: Text<'a>,
    #[serde(borrow)]
    participant_role: Option<Text<'a>>,
    #[serde(borrow)]
    participant_id: Option<Text<'a>>,
    begin_offset_millis: Option<Natural>,
    end_offset_millis: Option<Natural>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Utterance<'a> {
    id: Option<Label>,
    transcript_id: Option<Label>,
    #[serde(borrow)]
    partial_content: Option<Text<'a>>,
    #[serde(borrow)]
    participant_role: Option<Text<'a>>,
    #[serde(borrow)]
    participant_id: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct UtteranceEvent<'a> {
    utterance_id: Label,
    is_partial: Option<Flag>,
    #[serde(borrow)]
    participant_role: Option<Text<'a>>,
    begin_offset_millis: Option<Natural>,
    end_offset_millis: Option<Natural>,
    #[serde(borrow)]
    transcript: Option<Text<'a>>,
    #[serde(borrow)]
    language_code: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "wire::list")]
    items: Vec<Item<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item<'a> {
    begin_offset_millis: Option<Natural>,
    end_offset_millis: Option<Natural>,
    #[serde(borrow, rename = "Type")]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    content: Option<Text<'a>>,
    confidence: Option<Score>,
}

/// Fields that identify a payload without the event's name around it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Bare {
    utterance_id: Option<serde::de::IgnoredAny>,
    is_partial: Option<serde::de::IgnoredAny>,
    matched_categories: Option<serde::de::IgnoredAny>,
    transcript: Option<serde::de::IgnoredAny>,
    utterance: Option<serde::de::IgnoredAny>,
    categories: Option<serde::de::IgnoredAny>,
    post_contact_summary: Option<serde::de::IgnoredAny>,
}

impl Decoder for ContactLensDecoder {
    fn read(&mut self, frame: &str, out: &mut Vec<SttEvent>) -> Result<(), DecodeError> {
        let event: Event<'_> = wire::parse("event", frame)?;
        if let Some(utterance) = event.utterance_event {
            self.say(utterance.event(), out);
            return Ok(());
        }
        if event.category_event.is_some() {
            return Ok(());
        }
        if let Some(segments) = event.segments {
            let language = event.language_code.map(Text::into_string);
            if let Some(id) = event.contact_id
                && self.session.begins(Some(id.as_str()))
            {
                out.push(SttEvent::Begin { vendor_session: Some(id.into_string()) });
            }
            for event in segments.into_iter().filter_map(|segment| segment.event(language.as_deref())) {
                self.say(event, out);
            }
            return Ok(());
        }
        match event.event_type.as_ref().map(Text::as_str) {
            Some("STARTED") => {
                self.finals.clear();
                self.session.begins(event.contact_id.as_ref().map(Text::as_str));
                out.push(SttEvent::Begin { vendor_session: event.contact_id.map(Text::into_string) });
                return Ok(());
            }
            Some("COMPLETED") => {
                out.push(SttEvent::End { reason: Some("COMPLETED".to_owned()), scope: EndScope::Stream });
                return Ok(());
            }
            Some("FAILED") => {
                out.push(SttEvent::VendorError { code: "FAILED".to_owned(), message: String::new() });
                out.push(SttEvent::End { reason: Some("FAILED".to_owned()), scope: EndScope::Stream });
                return Ok(());
            }
            Some("SEGMENTS") => return Ok(()),
            _ => {}
        }
        if let Some(kind) = event.kind {
            out.push(wire::other(kind.as_str(), frame)?);
            return Ok(());
        }
        let bare: Bare = wire::parse("event", frame)?;
        if bare.utterance_id.is_some() && bare.is_partial.is_some() {
            self.say(wire::parse::<UtteranceEvent<'_>>("UtteranceEvent", frame)?.event(), out);
        } else if bare.transcript.is_some() || bare.utterance.is_some() {
            let segment: SegmentField<'_> = wire::parse("segment", frame)?;
            let unknown = || SttEvent::Unknown { kind: "untyped".to_owned() };
            self.say(segment.event(None).unwrap_or_else(unknown), out);
        } else if bare.matched_categories.is_none() && bare.categories.is_none() && bare.post_contact_summary.is_none()
        {
            out.push(aws::exception(frame).unwrap_or_else(|| SttEvent::Unknown { kind: "untyped".to_owned() }));
        }
        Ok(())
    }
}

impl ContactLensDecoder {
    fn say(&mut self, event: SttEvent, out: &mut Vec<SttEvent>) {
        self.finals.add(event, self.session.0.is_some(), out);
    }
}

impl SegmentField<'_> {
    fn event(self, language: Option<&str>) -> Option<SttEvent> {
        if let Some(turn) = self.transcript {
            let start_ms = turn.begin_offset_millis.map(|begin| begin.0);
            return Some(SttEvent::Final(Box::new(Final {
                key: TurnKey::Vendor(turn.id.0),
                formatted: true,
                text: turn.content.as_str().trim().to_owned(),
                speaker: turn.participant_role.or(turn.participant_id).map(Text::into_string),
                words: Vec::new(),
                start_ms,
                end_ms: turn.end_offset_millis.map(|end| end.0.max(start_ms.unwrap_or(0))),
                language: language.map(str::to_owned),
                confidence: None,
            })));
        }
        let utterance = self.utterance?;
        Some(SttEvent::Partial {
            key: TurnKey::Vendor(utterance.transcript_id.or(utterance.id)?.0),
            speaker: utterance.participant_role.or(utterance.participant_id).map(Text::into_string),
            text: utterance.partial_content?.into_string(),
        })
    }
}

impl UtteranceEvent<'_> {
    fn event(self) -> SttEvent {
        let key = TurnKey::Vendor(self.utterance_id.0);
        let speaker = self.participant_role.map(Text::into_string);
        let text = self.transcript.map(Text::into_string).unwrap_or_default();
        if self.is_partial.is_some_and(|yes| yes.0) {
            return SttEvent::Partial { key, speaker, text };
        }
        let words = words(self.items);
        let (first, last) = wire::span(&words);
        let start_ms = first.or(self.begin_offset_millis.map(|begin| begin.0));
        SttEvent::Final(Box::new(Final {
            key,
            formatted: true,
            text,
            speaker,
            words,
            start_ms,
            end_ms: last.or(self.end_offset_millis.map(|end| end.0)).map(|end| end.max(start_ms.unwrap_or(0))),
            language: self.language_code.map(Text::into_string),
            confidence: None,
        }))
    }
}

fn words(items: Vec<Item<'_>>) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::with_capacity(items.len());
    for item in items {
        let Some(content) = item.content else { continue };
        if item.kind.as_ref().is_some_and(|kind| kind.as_str() == "punctuation") {
            if let Some(word) = words.last_mut() {
                word.text.push_str(content.as_str());
            }
            continue;
        }
        let Some(Natural(start_ms)) = item.begin_offset_millis else { continue };
        words.push(Word {
            text: content.into_string(),
            start_ms,
            end_ms: item.end_offset_millis.map_or(start_ms, |Natural(end)| end.max(start_ms)),
            speaker: None,
            confidence: item.confidence.map(|score| score.0),
        });
    }
    words
}
