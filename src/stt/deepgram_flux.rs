//! Deepgram Flux (`wss://api.deepgram.com/v2/listen`).
//!
//! Only `EndOfTurn` is final: after an `EagerEndOfTurn` the turn may continue.

use serde::Deserialize;

use super::held::{Session, Unnamed};
use super::wire::{self, Label, Said, Says, Score, Seconds, Text};
use super::{DecodeError, Decoder, Dialect};
use crate::types::{Final, SttEvent, TurnKey, Word};

pub(super) struct DeepgramFlux;

impl Dialect for DeepgramFlux {
    fn name(&self) -> &'static str {
        "deepgram_flux"
    }

    fn example(&self) -> &'static str {
        r#"{"type":"TurnInfo","request_id":"r-1","sequence_id":12,"event":"EndOfTurn","turn_index":0,"audio_window_start":0.0,"audio_window_end":2.64,"transcript":"Hello there.","words":[{"word":"Hello","confidence":0.98,"start":0.4,"end":0.8},{"word":"there.","confidence":0.98,"start":0.9,"end":1.3}],"end_of_turn_confidence":0.83,"trigger":"model"}"#
    }

    fn expects(&self) -> &'static str {
        "messages whose \"type\" is \"Connected\", \"TurnInfo\", …"
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        Box::new(FluxDecoder::default())
    }

    fn names_turns(&self) -> bool {
        true
    }

    fn needs(&self) -> &'static [&'static str] {
        &["type", "event", "transcript", "words[].word"]
    }
}

#[derive(Default)]
struct FluxDecoder {
    session: Session,
    /// Used if messages name no session.
    finals: Unnamed,
}

#[derive(Deserialize)]
struct TurnInfo<'a> {
    #[serde(borrow)]
    request_id: Option<Text<'a>>,
    #[serde(borrow)]
    event: Text<'a>,
    turn_index: Option<Label>,
    #[serde(default)]
    audio_window_start: Option<Seconds>,
    #[serde(default)]
    audio_window_end: Option<Seconds>,
    #[serde(borrow)]
    transcript: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "wire::list")]
    words: Vec<WordField<'a>>,
    #[serde(borrow, default, deserialize_with = "wire::list")]
    languages: Vec<Text<'a>>,
}

impl Says for TurnInfo<'_> {
    const TEXT: &'static str = "transcript";
    fn says(&self) -> bool {
        self.transcript.is_some() || !self.words.is_empty()
    }
}

#[derive(Deserialize)]
struct WordField<'a> {
    #[serde(borrow)]
    word: Text<'a>,
    confidence: Option<Score>,
    start: Option<Seconds>,
    end: Option<Seconds>,
}

#[derive(Deserialize)]
struct Connected<'a> {
    #[serde(borrow)]
    request_id: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct ErrorFrame<'a> {
    #[serde(borrow)]
    code: Option<Text<'a>>,
    #[serde(borrow)]
    description: Option<Text<'a>>,
}

impl Decoder for FluxDecoder {
    fn read(&mut self, frame: &str, out: &mut Vec<SttEvent>) -> Result<(), DecodeError> {
        let Some(kind) = wire::kind("type", frame)? else {
            return Err(wire::bad_field("type", "a message type such as \"TurnInfo\"", None));
        };
        match kind.as_str() {
            "TurnInfo" => {
                let Said(mut info) = wire::parse::<Said<TurnInfo<'_>>>("TurnInfo", frame)?;
                // Each session numbers its turns from 0.
                if let Some(id) = info.request_id.take()
                    && self.session.begins(Some(id.as_str()))
                {
                    out.push(SttEvent::Begin { vendor_session: Some(id.into_string()) });
                }
                if info.event.as_str() == "StartOfTurn" {
                    out.push(SttEvent::SpeechStarted);
                }
                if let Some(event) = turn(info) {
                    self.finals.add(event, self.session.0.is_some(), out);
                }
            }
            "Connected" => {
                let connected: Connected<'_> = wire::parse("Connected", frame)?;
                self.session.begins(connected.request_id.as_ref().map(Text::as_str));
                self.finals.clear();
                out.push(SttEvent::Begin { vendor_session: connected.request_id.map(Text::into_string) });
            }
            "Error" => {
                let error: ErrorFrame<'_> = wire::parse("Error", frame)?;
                out.push(SttEvent::VendorError {
                    code: error.code.map_or_else(|| "error".to_owned(), Text::into_string),
                    message: error.description.map(Text::into_string).unwrap_or_default(),
                });
            }
            "Warning" | "ConfigureSuccess" | "ConfigureFailure" => {}
            other => out.push(wire::other(other, frame)?),
        }
        Ok(())
    }
}

fn turn(turn: TurnInfo<'_>) -> Option<SttEvent> {
    let key = turn.turn_index.map_or(TurnKey::Next, |Label(index)| TurnKey::Vendor(index));
    let text = wire::text_or_words(turn.transcript, turn.words.iter().map(|word| word.word.as_str()));
    match turn.event.as_str() {
        "EndOfTurn" => {}
        "Update" | "StartOfTurn" | "EagerEndOfTurn" | "TurnResumed" => {
            return Some(SttEvent::Partial { key, speaker: None, text });
        }
        other => return Some(SttEvent::Unknown { kind: format!("TurnInfo.{other}") }),
    }
    // A session may lack word times. Words without times are dropped, because nothing can use them.
    let words: Vec<Word> = turn
        .words
        .into_iter()
        .filter_map(|word| {
            let (start_ms, end_ms) = wire::word_times(word.start, word.end)?;
            Some(Word {
                text: word.word.into_string(),
                start_ms,
                end_ms,
                speaker: None,
                confidence: word.confidence.map(|score| score.0),
            })
        })
        .collect();
    let (first, last) = wire::span(&words);
    Some(SttEvent::Final(Box::new(Final {
        key,
        formatted: true,
        text,
        speaker: None,
        words,
        start_ms: first.or(turn.audio_window_start.map(Seconds::ms)),
        end_ms: last.or(turn.audio_window_end.map(Seconds::ms)),
        language: turn.languages.into_iter().next().map(Text::into_string),
        confidence: None,
    })))
}
