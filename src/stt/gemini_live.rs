//! Gemini Live: the server's messages of a bidirectional session (`BidiGenerateContent`), with transcriptions of both
//! sides.
//!
//! `serverContent.inputTranscription` is the user's speech, `outputTranscription` the model's. Each message carries the
//! next piece of text, including its spaces (Gemini API reference "Live API", `LiveServerContent` and `Transcription`
//! of the SDKs). `interimInputTranscription` is the user's text so far; the next one replaces it. There are no times
//! and no ids. The user's turn ends at `finished`, or when the model begins to answer; the model's turn ends at
//! `finished`, `turnComplete` or `interrupted`. If the model's speech is not transcribed, its written text is its turn;
//! thoughts are left out. Labels are `user` and `assistant`.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::held::{Held, Segment, Session};
use super::wire::{self, Flag, Label, Text};
use super::{DecodeError, Decoder, Dialect, Spelling};
use crate::types::{Carry, Final, SttEvent, TurnKey};

const USER: &str = "user";
const ASSISTANT: &str = "assistant";
/// Channel of the model's written text.
const WRITTEN: &str = "written";

pub(super) struct GeminiLive;

impl Dialect for GeminiLive {
    fn name(&self) -> &'static str {
        "gemini_live"
    }

    fn example(&self) -> &'static str {
        r#"{"serverContent":{"inputTranscription":{"text":"Where is my order?","finished":true}}}"#
    }

    fn expects(&self) -> &'static str {
        "messages with \"setupComplete\" or \"serverContent\""
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        Box::new(GeminiDecoder::default())
    }

    fn needs(&self) -> &'static [&'static str] {
        &[
            "serverContent",
            "serverContent.inputTranscription",
            "serverContent.interimInputTranscription",
            "serverContent.turnComplete",
            "serverContent.interrupted",
            "serverContent.generationComplete",
            "serverContent.groundingMetadata",
            "serverContent.inputTranscription.text",
            "serverContent.outputTranscription",
            "serverContent.outputTranscription.text",
            "serverContent.modelTurn",
            "serverContent.modelTurn.parts",
            "serverContent.modelTurn.parts[]",
            "serverContent.modelTurn.parts[].text",
            "serverContent.modelTurn.parts[].thought",
        ]
    }

    fn decoder_from(&self, carry: &Carry) -> Box<dyn Decoder> {
        let held = |channel: &str| {
            let of = |last: &&Final| last.key == TurnKey::Held(channel.to_owned());
            carry.held.iter().find(of).map(Held::resume).unwrap_or_default()
        };
        let session = Session(carry.session.clone());
        Box::new(GeminiDecoder { session, user: held(USER), assistant: held(ASSISTANT), written: held(WRITTEN) })
    }

    fn names_turns(&self) -> bool {
        false
    }

    /// The Python SDK writes `server_content`.
    fn spelling(&self) -> Option<Spelling> {
        Some(Spelling::Camel)
    }
}

#[derive(Default)]
struct GeminiDecoder {
    session: Session,
    user: Held,
    assistant: Held,
    /// The model's written text, used if its speech is not transcribed.
    written: Held,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message<'a> {
    #[serde(borrow)]
    setup_complete: Option<SetupComplete<'a>>,
    #[serde(borrow)]
    server_content: Option<Content<'a>>,
    #[serde(borrow)]
    error: Option<Status<'a>>,
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    tool_call: Option<IgnoredAny>,
    tool_call_cancellation: Option<IgnoredAny>,
    go_away: Option<IgnoredAny>,
    session_resumption_update: Option<IgnoredAny>,
    usage_metadata: Option<IgnoredAny>,
    voice_activity: Option<IgnoredAny>,
    voice_activity_detection_signal: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SetupComplete<'a> {
    #[serde(borrow)]
    session_id: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Content<'a> {
    #[serde(borrow)]
    input_transcription: Option<Transcription<'a>>,
    #[serde(borrow)]
    interim_input_transcription: Option<Transcription<'a>>,
    #[serde(borrow)]
    output_transcription: Option<Transcription<'a>>,
    #[serde(borrow)]
    model_turn: Option<ModelTurn<'a>>,
    turn_complete: Option<Flag>,
    interrupted: Option<Flag>,
    generation_complete: Option<IgnoredAny>,
    grounding_metadata: Option<IgnoredAny>,
    url_context_metadata: Option<IgnoredAny>,
    waiting_for_input: Option<IgnoredAny>,
    turn_complete_reason: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Transcription<'a> {
    #[serde(borrow)]
    text: Option<Text<'a>>,
    finished: Option<Flag>,
    #[serde(borrow)]
    language_code: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct ModelTurn<'a> {
    #[serde(borrow, default, deserialize_with = "wire::list")]
    parts: Vec<Part<'a>>,
}

#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow)]
    text: Option<Text<'a>>,
    thought: Option<Flag>,
}

#[derive(Deserialize)]
struct Status<'a> {
    code: Option<Label>,
    #[serde(borrow)]
    message: Option<Text<'a>>,
}

impl Decoder for GeminiDecoder {
    fn read(&mut self, frame: &str, out: &mut Vec<SttEvent>) -> Result<(), DecodeError> {
        let message: Message<'_> = wire::parse("message", frame)?;
        if let Some(setup) = message.setup_complete {
            if self.session.begins(setup.session_id.as_ref().map(Text::as_str)) {
                self.finish(out);
            }
            out.push(SttEvent::Begin { vendor_session: setup.session_id.map(Text::into_string) });
        } else if let Some(content) = message.server_content {
            content.check()?;
            self.content(content, out);
        } else if let Some(error) = message.error {
            out.push(SttEvent::VendorError {
                code: error.code.map_or_else(|| "error".to_owned(), |Label(code)| code),
                message: error.message.map(Text::into_string).unwrap_or_default(),
            });
        } else if let Some(kind) = message.kind {
            self.own(wire::other(kind.as_str(), frame)?, out);
        } else {
            let others = [
                message.tool_call,
                message.tool_call_cancellation,
                message.go_away,
                message.session_resumption_update,
                message.usage_metadata,
                message.voice_activity,
                message.voice_activity_detection_signal,
            ];
            if others.iter().all(Option::is_none) {
                out.push(SttEvent::Unknown { kind: "untyped".to_owned() });
            }
        }
        Ok(())
    }

    fn holding(&self) -> bool {
        ![&self.user, &self.assistant, &self.written].iter().all(|held| held.is_empty())
    }

    fn carry(&self) -> Carry {
        let user = self.user.peek(USER, Some(USER));
        // The written text is not a turn if the model's speech is transcribed.
        let written = || self.written.peek(WRITTEN, Some(ASSISTANT));
        let assistant = self.assistant.peek(ASSISTANT, Some(ASSISTANT)).or_else(written);
        let held: Vec<_> = user.into_iter().chain(assistant).collect();
        let session = self.session.0.clone().filter(|_| !held.is_empty());
        Carry { held, session, ..Carry::default() }
    }

    fn carry_version(&self) -> u64 {
        self.user.version() + self.assistant.version() + self.written.version()
    }

    fn finish(&mut self, out: &mut Vec<SttEvent>) {
        out.extend(self.user.take(USER, Some(USER)));
        self.answered(out);
    }
}

impl Content<'_> {
    /// Fails if the message has no known member, or an empty transcription or model turn: its content was lost.
    fn check(&self) -> Result<(), DecodeError> {
        let said = |name: &str, said: &Option<Transcription<'_>>| match said {
            Some(said) if said.text.is_none() && said.finished.is_none() => {
                Err(wire::bad_field(&format!("serverContent.{name}.text"), "a string", None))
            }
            _ => Ok(()),
        };
        said("inputTranscription", &self.input_transcription)?;
        said("outputTranscription", &self.output_transcription)?;
        if self.model_turn.as_ref().is_some_and(|turn| turn.parts.is_empty()) {
            return Err(wire::bad_field("serverContent.modelTurn.parts", "an array that is not empty", None));
        }
        let speech = [&self.input_transcription, &self.interim_input_transcription, &self.output_transcription];
        let flags = [&self.turn_complete, &self.interrupted];
        let others = [
            &self.generation_complete,
            &self.grounding_metadata,
            &self.url_context_metadata,
            &self.waiting_for_input,
            &self.turn_complete_reason,
        ];
        let any = speech.iter().any(|said| said.is_some())
            || self.model_turn.is_some()
            || flags.iter().any(|flag| flag.is_some())
            || others.iter().any(|other| other.is_some());
        if any {
            return Ok(());
        }
        let expected = "an object with inputTranscription, outputTranscription, modelTurn, turnComplete or interrupted";
        Err(wire::bad_field("serverContent", expected, Some(&serde_json::json!({}))))
    }
}

impl GeminiDecoder {
    fn content(&mut self, content: Content<'_>, out: &mut Vec<SttEvent>) {
        if let Some(interim) = content.interim_input_transcription.and_then(|interim| interim.text) {
            let (speaker, text) = (Some(USER.to_owned()), self.user.with(interim.as_str(), ""));
            out.push(SttEvent::Partial { key: TurnKey::Held(USER.to_owned()), speaker, text });
        }
        if let Some(said) = content.input_transcription {
            hear(&mut self.user, USER, said, out);
        }
        let spoken = content.output_transcription.as_ref().and_then(|said| said.text.as_ref());
        let parts = content.model_turn.map(|turn| turn.parts).unwrap_or_default();
        if !parts.is_empty() || spoken.is_some_and(|text| !text.as_str().is_empty()) {
            // The model answers, so the user's turn is complete.
            out.extend(self.user.take(USER, Some(USER)));
        }
        if let Some(said) = content.output_transcription {
            hear(&mut self.assistant, ASSISTANT, said, out);
        }
        for part in parts.into_iter().filter(|part| !part.thought.as_ref().is_some_and(|yes| yes.0)) {
            if let Some(text) = part.text {
                self.written.push(Segment { text: text.into_string(), ..Segment::default() }, "");
            }
        }
        if content.interrupted.is_some_and(|yes| yes.0) || content.turn_complete.is_some_and(|yes| yes.0) {
            self.answered(out);
        }
        if content.turn_complete.is_some_and(|yes| yes.0) && !content.interrupted.is_some_and(|yes| yes.0) {
            out.extend(self.user.take(USER, Some(USER)));
        }
    }

    /// Ends the model's turn.
    fn answered(&mut self, out: &mut Vec<SttEvent>) {
        let written = self.written.take(WRITTEN, Some(ASSISTANT));
        out.extend(self.assistant.take(ASSISTANT, Some(ASSISTANT)).or(written));
    }
}

/// Adds a piece of `speaker`'s speech and appends the turn, as a partial or as a final.
fn hear(held: &mut Held, speaker: &str, said: Transcription<'_>, out: &mut Vec<SttEvent>) {
    if let Some(text) = said.text {
        let language = said.language_code.map(Text::into_string);
        held.push(Segment { text: text.into_string(), language, ..Segment::default() }, "");
    }
    if said.finished.is_some_and(|yes| yes.0) || held.is_full() {
        out.extend(held.take(speaker, Some(speaker)));
    } else if !held.is_empty() {
        let key = TurnKey::Held(speaker.to_owned());
        let (speaker, text) = (Some(speaker.to_owned()), held.with("", ""));
        out.push(SttEvent::Partial { key, speaker, text });
    }
}
