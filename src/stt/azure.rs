//! Azure Speech: the service's messages `speech.hypothesis` and `speech.phrase`, and the results of the Speech SDKs.
//!
//! In the service's JSON, final results have `RecognitionStatus` and interim ones have `Text`. With detailed output,
//! `NBest` holds the words (`SimpleSpeechPhrase.d.ts`, `DetailedSpeechPhrase.d.ts` and `SpeechHypothesis.d.ts` of
//! package `microsoft-cognitiveservices-speech-sdk` 1.47). An SDK's result has `text`, `reason` and often the service's
//! JSON as text in `json`; members that the JavaScript SDK serialises begin with `priv`. `reason` is a name or its
//! number in `ResultReason`. Offsets and durations are ticks of 100 ns. Results have no id that identifies a turn:
//! several phrases share one `ResultId`. Speaker labels are those of conversation transcription, such as `Guest-1`.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use super::held::Unnamed;
use super::wire::{self, Label, Score, Text};
use super::{DecodeError, Decoder, Dialect};
use crate::base::surrogates;
use crate::types::{Carry, EndScope, Final, SttEvent, TurnKey, Word};

pub(super) struct Azure;

impl Dialect for Azure {
    fn name(&self) -> &'static str {
        "azure"
    }

    fn example(&self) -> &'static str {
        r#"{"Id":"p-1","RecognitionStatus":"Success","DisplayText":"Hello there.","Offset":1600000,"Duration":11000000,"SpeakerId":"Guest-1","NBest":[{"Confidence":0.95,"Lexical":"hello there","ITN":"hello there","MaskedITN":"hello there","Display":"Hello there.","Words":[{"Word":"hello","Offset":1600000,"Duration":4000000},{"Word":"there","Offset":5700000,"Duration":7000000}]}]}"#
    }

    fn expects(&self) -> &'static str {
        "phrases with \"RecognitionStatus\", hypotheses with \"Text\", or results of the Speech SDK with \"text\" and \
         \"reason\""
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        Box::new(AzureDecoder::default())
    }

    fn decoder_from(&self, carry: &Carry) -> Box<dyn Decoder> {
        Box::new(AzureDecoder { finals: Unnamed::resume(&carry.ends), named: false })
    }

    fn needs(&self) -> &'static [&'static str] {
        &["RecognitionStatus", "DisplayText", "NBest", "NBest[]", "NBest[].Display"]
    }

    fn names_turns(&self) -> bool {
        false
    }
}

#[derive(Default)]
struct AzureDecoder {
    /// Used if no message named the session.
    finals: Unnamed,
    named: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Message<'a> {
    recognition_status: Option<Label>,
    #[serde(borrow)]
    display_text: Option<Text<'a>>,
    #[serde(borrow, alias = "text", alias = "privText")]
    text: Option<Text<'a>>,
    #[serde(alias = "reason", alias = "privReason")]
    reason: Option<Label>,
    #[serde(borrow, alias = "json", alias = "privJson")]
    json: Option<Text<'a>>,
    #[serde(alias = "offset", alias = "privOffset", alias = "OffsetInTicks")]
    offset: Option<Ticks>,
    #[serde(alias = "duration", alias = "privDuration", alias = "DurationInTicks")]
    duration: Option<Ticks>,
    #[serde(borrow, alias = "speakerId", alias = "speaker_id", alias = "privSpeakerId")]
    speaker_id: Option<Text<'a>>,
    channel: Option<Label>,
    #[serde(borrow, alias = "language", alias = "privLanguage")]
    language: Option<Text<'a>>,
    #[serde(borrow)]
    primary_language: Option<PrimaryLanguage<'a>>,
    #[serde(borrow, rename = "NBest", default, deserialize_with = "wire::list")]
    best: Vec<Phrase<'a>>,
    #[serde(borrow, alias = "errorDetails", alias = "privErrorDetails")]
    error_details: Option<Text<'a>>,
    #[serde(borrow, alias = "sessionId", alias = "privSessionId")]
    session_id: Option<Text<'a>>,
    #[serde(borrow, rename = "context")]
    context: Option<Context<'a>>,
    /// Names of the SDK's events (`recognizing`, `recognized`, …), in the messages of applications that forward them.
    #[serde(borrow, alias = "event", alias = "type")]
    event: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PrimaryLanguage<'a> {
    #[serde(borrow)]
    language: Option<Text<'a>>,
}

/// Part of `turn.start`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Context<'a> {
    #[serde(borrow)]
    service_tag: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Phrase<'a> {
    confidence: Option<Score>,
    #[serde(borrow)]
    display: Option<Text<'a>>,
    #[serde(borrow)]
    lexical: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "wire::list")]
    words: Vec<WordField<'a>>,
    #[serde(borrow, default, deserialize_with = "wire::list")]
    display_words: Vec<WordField<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WordField<'a> {
    #[serde(borrow, alias = "DisplayText")]
    word: Option<Text<'a>>,
    offset: Option<Ticks>,
    duration: Option<Ticks>,
    confidence: Option<Score>,
}

/// How final the text of a message is.
enum Stage {
    Partial,
    Final,
    /// Nobody spoke.
    Silence,
    /// Noise, or the end of the recognition.
    Nothing,
    Failed(String),
}

impl Decoder for AzureDecoder {
    fn read(&mut self, frame: &str, out: &mut Vec<SttEvent>) -> Result<(), DecodeError> {
        let message: Message<'_> = wire::parse("result", frame)?;
        let event = message.event.as_ref().map_or("", Text::as_str).to_owned();
        if matches!(event.as_str(), "end" | "meta") {
            out.push(wire::other(&event, frame)?);
            return Ok(());
        }
        match stage(&message, &event) {
            Some(Stage::Failed(code)) => {
                let message = message.error_details.map(Text::into_string).unwrap_or_default();
                out.push(SttEvent::VendorError { code, message });
            }
            Some(Stage::Silence) => {
                let span = message.offset.zip(message.duration);
                let span = span.map(|(offset, duration)| (offset.ms(), offset.ms().saturating_add(duration.ms())));
                out.push(SttEvent::Silence { span });
            }
            Some(Stage::Nothing) => {}
            Some(Stage::Final) => self.finals.add(SttEvent::Final(Box::new(detailed(message))), self.named, out),
            Some(Stage::Partial) => out.push(partial(message)),
            None => {
                let event = lifecycle(message, &event);
                if let SttEvent::Begin { vendor_session } = &event {
                    self.named = vendor_session.is_some();
                    self.finals.clear();
                }
                out.push(event);
            }
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

/// `None` if the message is not a result.
fn stage(message: &Message<'_>, event: &str) -> Option<Stage> {
    if let Some(Label(status)) = &message.recognition_status {
        return Some(match status.as_str() {
            // The numbers are those of `RecognitionStatus` in the SDKs.
            "Success" | "0" => Stage::Final,
            "InitialSilenceTimeout" | "2" => Stage::Silence,
            "NoMatch" | "BabbleTimeout" | "EndOfDictation" | "1" | "3" | "5" => Stage::Nothing,
            other => Stage::Failed(other.to_owned()),
        });
    }
    let spoken = message.text.is_some() || message.display_text.is_some();
    // Other vendors' messages have a `reason` too.
    let result = spoken || message.offset.is_some() || message.error_details.is_some();
    if let (Some(Label(reason)), true) = (&message.reason, result) {
        let reason = reason.rsplit('.').next().unwrap_or_default();
        return match reason {
            "RecognizedSpeech" | "RecognizedIntent" | "TranslatedSpeech" | "3" | "5" | "7" => Some(Stage::Final),
            "RecognizingSpeech" | "RecognizingIntent" | "TranslatingSpeech" | "2" | "4" | "6" => Some(Stage::Partial),
            "NoMatch" | "0" => Some(Stage::Nothing),
            "Canceled" | "1" => Some(if message.error_details.as_ref().is_some_and(|text| !text.as_str().is_empty()) {
                Stage::Failed("Canceled".to_owned())
            } else {
                Stage::Nothing
            }),
            _ => None,
        };
    }
    match event {
        "recognized" | "transcribed" | "speech.phrase" if spoken => Some(Stage::Final),
        "recognizing" | "transcribing" | "speech.hypothesis" | "speech.fragment" if spoken => Some(Stage::Partial),
        // A hypothesis of the service has an offset and a duration in ticks; other vendors' messages with a text do
        // not.
        "" if message.text.is_some() && message.offset.is_some() && message.duration.is_some() => Some(Stage::Partial),
        _ => None,
    }
}

/// The event for the begin or end of a session, or for an unknown message.
fn lifecycle(message: Message<'_>, event: &str) -> SttEvent {
    let session = message.session_id.map(Text::into_string);
    let tag = message.context.and_then(|context| context.service_tag).map(Text::into_string);
    match event {
        "sessionStopped" | "session_stopped" => {
            SttEvent::End { reason: Some("sessionStopped".to_owned()), scope: EndScope::Stream }
        }
        "sessionStarted" | "session_started" => SttEvent::Begin { vendor_session: session },
        "speechStartDetected" | "speech_start_detected" => SttEvent::SpeechStarted,
        "speechEndDetected" | "speech_end_detected" => SttEvent::Silence { span: None },
        _ if tag.is_some() => SttEvent::Begin { vendor_session: tag },
        _ => SttEvent::Unknown { kind: if event.is_empty() { "untyped".to_owned() } else { event.to_owned() } },
    }
}

/// The turn of a result. Fields that the result lacks are taken from the service's own JSON.
fn detailed(mut message: Message<'_>) -> Final {
    let json = message.json.take();
    let mut turn = turn(message);
    let json = json.as_ref().map(|json| surrogates::repaired(json.as_str()));
    let service = json.as_ref().and_then(|json| serde_json::from_str::<Message<'_>>(json).ok());
    if let Some(service) = service.map(self::turn) {
        if turn.text.is_empty() {
            turn.text = service.text;
        }
        if turn.words.is_empty() {
            turn.words = service.words;
        }
        turn.speaker = turn.speaker.or(service.speaker);
        turn.start_ms = turn.start_ms.or(service.start_ms);
        turn.end_ms = turn.end_ms.or(service.end_ms);
        turn.language = turn.language.or(service.language);
        turn.confidence = turn.confidence.or(service.confidence);
    }
    turn
}

fn speaker(message: &mut Message<'_>) -> Option<String> {
    let channel = message.channel.take().map(|Label(channel)| channel).filter(|channel| channel != "0");
    let speaker = message.speaker_id.take().map(Text::into_string).filter(|label| !label.is_empty());
    match (channel, speaker) {
        (None, speaker) => speaker,
        (Some(channel), None) => Some(format!("ch{channel}")),
        (Some(channel), Some(speaker)) => Some(format!("ch{channel}:{speaker}")),
    }
}

fn partial(mut message: Message<'_>) -> SttEvent {
    let speaker = speaker(&mut message);
    let text = message.display_text.or(message.text).map(Text::into_string).unwrap_or_default();
    SttEvent::Partial { key: TurnKey::Next, speaker, text }
}

fn turn(mut message: Message<'_>) -> Final {
    let speaker = speaker(&mut message);
    let best = message.best.into_iter().next();
    let said = message.display_text.or(message.text).map(Text::into_string).filter(|text| !text.is_empty());
    let (mut confidence, mut words, mut text) = (None, Vec::new(), said);
    if let Some(best) = best {
        confidence = best.confidence.map(|score| score.0);
        text = text.or(best.display.or(best.lexical).map(Text::into_string));
        words = self::words(if best.display_words.is_empty() { best.words } else { best.display_words });
    }
    let (first, last) = wire::span(&words);
    let offset_ms = message.offset.map(Ticks::ms);
    let start_ms = first.or(offset_ms);
    let end_ms = offset_ms.zip(message.duration).map(|(offset, duration)| offset + duration.ms());
    let language = message.primary_language.and_then(|primary| primary.language).or(message.language);
    Final {
        key: TurnKey::Next,
        formatted: true,
        text: text.unwrap_or_default().trim().to_owned(),
        speaker,
        words,
        start_ms,
        end_ms: last.or(end_ms).map(|end| end.max(start_ms.unwrap_or(0))),
        language: language.map(Text::into_string).filter(|language| !language.is_empty()),
        confidence,
    }
}

fn words(fields: Vec<WordField<'_>>) -> Vec<Word> {
    let word = |word: WordField<'_>| {
        let start_ms = word.offset?.ms();
        Some(Word {
            text: word.word?.into_string(),
            start_ms,
            end_ms: start_ms + word.duration.map_or(0, Ticks::ms),
            speaker: None,
            confidence: word.confidence.map(|score| score.0),
        })
    };
    fields.into_iter().filter_map(word).collect()
}

/// A time given in ticks of 100 ns, stored in ms. Also read from text: a number of ticks, a .NET `TimeSpan`
/// (`"00:00:01.5900000"`) or ISO 8601 (`"PT1.59S"`).
#[derive(Debug, Clone, Copy)]
struct Ticks(u64);

impl Ticks {
    fn ms(self) -> u64 {
        self.0
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates and is bounded")]
    fn of_ms(ms: f64) -> Self {
        Self(ms.round().clamp(0.0, 9.0e15) as u64)
    }
}

impl<'de> Deserialize<'de> for Ticks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = Ticks;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a number of ticks of 100 ns")
            }
            #[expect(clippy::cast_precision_loss, reason = "times are far below 2^53")]
            fn visit_u64<E: Error>(self, ticks: u64) -> Result<Ticks, E> {
                self.visit_f64(ticks as f64)
            }
            #[expect(clippy::cast_precision_loss, reason = "times are far below 2^53")]
            fn visit_i64<E: Error>(self, ticks: i64) -> Result<Ticks, E> {
                self.visit_f64(ticks as f64)
            }
            fn visit_f64<E: Error>(self, ticks: f64) -> Result<Ticks, E> {
                Ok(Ticks::of_ms(ticks / 10_000.0))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Ticks, E> {
                if let Ok(ticks) = text.trim().parse::<f64>() {
                    return self.visit_f64(ticks);
                }
                let text: Cow<'_, str> = match text.strip_prefix("PT") {
                    Some(iso) => iso.replace(['H', 'M'], ":").trim_end_matches('S').to_owned().into(),
                    None => text.into(),
                };
                let seconds = text.split(':').try_fold(0.0, |sum, part| Some(sum * 60.0 + part.parse::<f64>().ok()?));
                let seconds = seconds.filter(|seconds: &f64| seconds.is_finite());
                seconds
                    .map(|seconds| Ticks::of_ms(seconds * 1000.0))
                    .ok_or_else(|| E::invalid_value(Unexpected::Str(&text), &self))
            }
        }
        deserializer.deserialize_any(Read)
    }
}
