//! Soniox (`wss://stt-rt.soniox.com/transcribe-websocket`). Messages have no type.
//!
//! Tokens are pieces of words that include their spaces; each final token is sent once. A turn ends at the token
//! `<end>` (endpoint detection) or `<fin>` (the client's `finalize`). Tokens of a translation are left out.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::held::{Held, Segment, Timeline};
use super::wire::{self, Flag, Label, Natural, Score, Text};
use super::{DecodeError, Decoder, Dialect};
use crate::types::{Carry, EndScope, SttEvent, TurnKey, Word};

pub(super) struct Soniox;

impl Dialect for Soniox {
    fn name(&self) -> &'static str {
        "soniox"
    }

    fn example(&self) -> &'static str {
        r#"{"tokens":[{"text":"Hi","start_ms":600,"end_ms":760,"confidence":0.97,"is_final":true,"speaker":"1","language":"en"},{"text":" there.","start_ms":760,"end_ms":1100,"confidence":0.95,"is_final":true,"speaker":"1","language":"en"},{"text":"<end>","is_final":true}],"final_audio_proc_ms":1100,"total_audio_proc_ms":1400}"#
    }

    fn expects(&self) -> &'static str {
        "messages with \"tokens\""
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        Box::new(SonioxDecoder::default())
    }

    fn decoder_from(&self, carry: &Carry) -> Box<dyn Decoder> {
        Box::new(SonioxDecoder {
            held: carry.held.first().map(Held::resume).unwrap_or_default(),
            timeline: Timeline(carry.ends.clone()),
            changes: 0,
        })
    }

    fn names_turns(&self) -> bool {
        false
    }

    fn needs(&self) -> &'static [&'static str] {
        &["tokens", "tokens[]", "tokens[].text", "tokens[].is_final", "tokens[].translation_status"]
    }
}

/// All speech is on one channel, which has no name.
const CHANNEL: &str = "";

#[derive(Default)]
struct SonioxDecoder {
    held: Held,
    timeline: Timeline,
    /// Counts the changes that [`Held::version`] does not.
    changes: u64,
}

#[derive(Deserialize)]
struct Response<'a> {
    #[serde(borrow, default, deserialize_with = "wire::optional_list")]
    tokens: Option<Vec<Token<'a>>>,
    finished: Option<Flag>,
    error_code: Option<Label>,
    #[serde(borrow)]
    error_message: Option<Text<'a>>,
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    final_audio_proc_ms: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Token<'a> {
    #[serde(borrow)]
    text: Text<'a>,
    start_ms: Option<Natural>,
    end_ms: Option<Natural>,
    confidence: Option<Score>,
    is_final: Option<Flag>,
    speaker: Option<Label>,
    #[serde(borrow)]
    language: Option<Text<'a>>,
    #[serde(borrow)]
    translation_status: Option<Text<'a>>,
}

impl Token<'_> {
    fn is_final(&self) -> bool {
        self.is_final.is_some_and(|is_final| is_final.0)
    }
}

impl Decoder for SonioxDecoder {
    fn read(&mut self, frame: &str, out: &mut Vec<SttEvent>) -> Result<(), DecodeError> {
        let response: Response<'_> = wire::parse("response", frame)?;
        if let Some(kind) = &response.kind {
            self.own(wire::other(kind.as_str(), frame)?, out);
            return Ok(());
        }
        let error = response.error_code.filter(|Label(code)| !matches!(code.as_str(), "" | "0" | "false"));
        let error = error.map(|Label(code)| SttEvent::VendorError {
            code,
            message: response.error_message.map(Text::into_string).unwrap_or_default(),
        });
        if let (Some(error), None, None) = (&error, &response.tokens, &response.finished) {
            out.push(error.clone());
            return Ok(());
        }
        if response.tokens.is_none() && response.finished.is_none() && response.final_audio_proc_ms.is_none() {
            out.push(SttEvent::Unknown { kind: "untyped".to_owned() });
            return Ok(());
        }
        self.tokens(response.tokens.unwrap_or_default(), out);
        out.extend(error);
        if response.finished.is_some_and(|finished| finished.0) {
            self.finish(out);
            out.push(SttEvent::End { reason: Some("finished".to_owned()), scope: EndScope::Stream });
        }
        Ok(())
    }

    fn holding(&self) -> bool {
        !self.held.is_empty()
    }

    fn carry(&self) -> Carry {
        let held = self.held.peek(CHANNEL, None).into_iter().collect();
        Carry { held, ends: self.timeline.0.clone(), ..Carry::default() }
    }

    fn carry_version(&self) -> u64 {
        self.changes + self.held.version()
    }

    fn finish(&mut self, out: &mut Vec<SttEvent>) {
        out.extend(self.held.take(CHANNEL, None));
    }
}

impl SonioxDecoder {
    fn tokens(&mut self, tokens: Vec<Token<'_>>, out: &mut Vec<SttEvent>) {
        let mut more = String::new();
        let mut speaker = None;
        let mut spoken = false;
        for token in tokens {
            let text = token.text.as_str();
            if token.translation_status.as_ref().is_some_and(|status| status.as_str() == "translation") {
                continue;
            }
            if matches!(text, "<end>" | "<fin>") {
                if token.is_final() {
                    out.extend(self.held.take(CHANNEL, None));
                }
                continue;
            }
            spoken = true;
            if self.timeline.restarts(CHANNEL, token.start_ms.map(|Natural(start)| start)) {
                self.changes += 1;
                self.finish(out);
                out.push(SttEvent::Restarted);
            }
            if token.is_final() {
                self.timeline.note(CHANNEL, token.end_ms.map(|Natural(end)| end));
                self.hold(token);
                if self.held.is_full() {
                    out.extend(self.held.take(CHANNEL, None));
                }
            } else {
                more.push_str(text);
                speaker = token.speaker.map(|Label(speaker)| speaker).or(speaker);
            }
        }
        let text = self.held.with(&more, "");
        if spoken && !text.is_empty() {
            let speaker = speaker.or_else(|| self.held.speaker());
            out.push(SttEvent::Partial { key: TurnKey::Held(CHANNEL.to_owned()), speaker, text });
        }
    }

    fn hold(&mut self, token: Token<'_>) {
        let speaker = token.speaker.map(|Label(speaker)| speaker);
        let mut text = token.text.into_string();
        let mut words = Vec::new();
        if self.held.last_word().is_some_and(|word| word.speaker != speaker) && !text.starts_with(char::is_whitespace) {
            text.insert(0, ' ');
        }
        match self.held.last_word() {
            // A piece without a leading space continues the word, unless another speaker says it.
            Some(word) if !text.starts_with(char::is_whitespace) && word.speaker == speaker => {
                word.text.push_str(text.trim());
                if let Some(Natural(end)) = token.end_ms {
                    word.end_ms = word.end_ms.max(end);
                }
            }
            _ => {
                if let (Some(Natural(start_ms)), false) = (token.start_ms, text.trim().is_empty()) {
                    words.push(Word {
                        text: text.trim().to_owned(),
                        start_ms,
                        end_ms: token.end_ms.map_or(start_ms, |Natural(end)| end.max(start_ms)),
                        speaker,
                        confidence: token.confidence.map(|score| score.0),
                    });
                }
            }
        }
        let segment = Segment {
            text,
            words,
            start_ms: token.start_ms.map(|start| start.0),
            end_ms: token.end_ms.map(|end| end.0),
            language: token.language.map(Text::into_string),
            confidence: None,
        };
        self.held.push(segment, "");
    }
}
