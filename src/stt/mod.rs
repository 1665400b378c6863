//! STT dialects: the wire formats of speech-to-text vendors, sans-IO. Text frames in, [`SttEvent`]s out.
//!
//! A decoder knows no socket, no clock, no call and no turn number: it identifies turns by the vendor's own ids
//! ([`crate::types::TurnKey`]). The owner of the call numbers, cuts and deduplicates them.

mod assemblyai;
mod auto;
mod aws;
mod aws_contact_lens;
mod azure;
mod deepgram;
mod deepgram_flux;
mod elevenlabs;
mod envelope;
mod fit;
mod gemini_live;
mod gladia;
mod google;
mod held;
mod openai_realtime;
mod recall;
mod sidetone;
mod soniox;
mod speechmatics;
mod speechmatics_agent;
#[cfg(test)]
mod tests;
mod twilio;
mod wire;
mod zoom;

pub use self::envelope::Spelling;
pub use self::fit::{Fit, likelier, names, not_understood};
use crate::base::surrogates;
use crate::protocol::ErrorCode;
use crate::types::{Carry, SttEvent};

/// All dialects, in the order in which they are listed. To add one, add a file, a line here, and a folder of fixtures
/// in `tests/golden/stt`.
pub static DIALECTS: &[&dyn Dialect] = &[
    &sidetone::Sidetone,
    &assemblyai::AssemblyAi,
    &deepgram::Deepgram,
    &deepgram_flux::DeepgramFlux,
    &openai_realtime::OpenAiRealtime,
    &speechmatics::Speechmatics,
    &speechmatics_agent::SpeechmaticsAgent,
    &gladia::Gladia,
    &soniox::Soniox,
    &elevenlabs::ElevenLabs,
    &google::Google,
    &aws::Aws,
    &aws_contact_lens::AwsContactLens,
    &azure::Azure,
    &gemini_live::GeminiLive,
    &twilio::Twilio,
    &recall::Recall,
    &zoom::Zoom,
    &auto::Auto,
];

pub fn dialect(name: &str) -> Option<&'static dyn Dialect> {
    DIALECTS.iter().copied().find(|dialect| dialect.name() == name)
}

/// The dialect for a connection that requests `asked` and continues a stream that began with the dialect `began`. If
/// `asked` picks a dialect, as `auto` does, the connection keeps the one that was picked for the stream.
pub fn resumed(asked: &'static dyn Dialect, began: Option<&str>) -> &'static dyn Dialect {
    began.filter(|_| asked.picks()).and_then(dialect).unwrap_or(asked)
}

/// The wire format of one STT vendor.
pub trait Dialect: Send + Sync {
    /// The name in `dialect=` and in `stream.started`.
    fn name(&self) -> &'static str;
    /// A vendor's frame with a final turn, for `GET /v1/dialects` and the docs.
    fn example(&self) -> &'static str;
    /// A description of the dialect's frames, for the error that none was understood: `messages whose "type" is …`.
    fn expects(&self) -> &'static str;
    /// A decoder for the vendor's frames as the vendor sends them, without envelopes.
    fn decoder(&self) -> Box<dyn Decoder>;
    /// Like [`Dialect::decoder`], but continues from the `carry` of an earlier connection of the stream.
    fn decoder_from(&self, carry: &Carry) -> Box<dyn Decoder> {
        let _ = carry;
        self.decoder()
    }
    /// The vendor's spelling of member names, if its SDKs use another one.
    fn spelling(&self) -> Option<Spelling> {
        None
    }
    /// A decoder that starts without earlier state and also reads frames in the envelopes of SDKs.
    fn open(&self) -> Box<dyn Decoder> {
        Box::new(envelope::Opened::new(self.decoder(), self.spelling()))
    }
    /// Like [`Dialect::open`], but continues from the `carry` of an earlier connection of the stream.
    fn resume(&self, carry: &Carry) -> Box<dyn Decoder> {
        Box::new(envelope::Opened::new(self.decoder_from(carry), self.spelling()))
    }
    /// Returns true if this dialect is not a wire format itself, but picks one by a stream's first frames.
    fn picks(&self) -> bool {
        false
    }
    /// Returns true for frames that are written for Sidetone: the authors of such producers read its errors.
    fn is_own(&self) -> bool {
        false
    }
    /// Returns true if finals identify their turn. If not, a producer that reconnects resends by frame count.
    fn names_turns(&self) -> bool;
    /// Returns true if a final with several speakers is cut. False only for `sidetone`, whose producer numbers the
    /// turns.
    fn splits(&self) -> bool {
        true
    }
    /// Paths of the fields without which a frame, or the list element that holds them, is useless, and of the fields
    /// that determine the meaning of others. `[]` stands for the elements of a list. Any other field may be missing or
    /// null, which is not an error, or unreadable, which costs only that field.
    fn needs(&self) -> &'static [&'static str] {
        &[]
    }
}

/// Decodes the frames of one connection, in order.
pub trait Decoder: Send {
    /// Appends the events of `frame`, zero or more. A lone surrogate escape is read as U+FFFD. If a part of a vendor's
    /// frame cannot be read, the rest is still decoded; returns one error for each part that was left out.
    ///
    /// A frame that yields only [`SttEvent::Unknown`] leaves the decoder unchanged.
    ///
    /// # Errors
    /// The frame is unusable; `out` and the decoder are unchanged.
    fn decode(&mut self, frame: &str, out: &mut Vec<SttEvent>) -> Result<Vec<DecodeError>, DecodeError> {
        let frame = surrogates::repaired(frame);
        match self.read(&frame, out) {
            Ok(()) => Ok(Vec::new()),
            Err(error) => wire::salvage(&frame, error, |frame| self.read(frame, out)),
        }
    }

    /// Decodes a frame without lone surrogate escapes, all or nothing. Callers use [`Decoder::decode`] instead.
    ///
    /// # Errors
    /// As [`Decoder::decode`].
    fn read(&mut self, frame: &str, out: &mut Vec<SttEvent>) -> Result<(), DecodeError>;

    /// Returns true if only this decoder has some speech that the vendor called final, because its turn has not ended.
    fn holding(&self) -> bool {
        !self.carry().held.is_empty()
    }

    /// The state that a later decoder needs to continue from here. A turn in it keeps its key until a final with that
    /// key, or with [`crate::types::TurnKey::Ended`] of its channel, is appended.
    fn carry(&self) -> Carry {
        Carry::default()
    }

    /// A number that changes whenever [`Decoder::carry`] changes.
    fn carry_version(&self) -> u64 {
        0
    }

    /// Appends the event of one of the daemon's own frames (`end`, `meta`). Before an `end`, appends the held turns.
    fn own(&mut self, event: SttEvent, out: &mut Vec<SttEvent>) {
        if matches!(event, SttEvent::End { .. }) {
            self.finish(out);
        }
        out.push(event);
    }

    /// Ends the stream: appends the held speech as final turns.
    fn finish(&mut self, out: &mut Vec<SttEvent>) {
        let _ = out;
    }

    /// The dialect picked so far, if the decoder picks one.
    fn picked(&self) -> Option<&'static dyn Dialect> {
        None
    }
}

/// Why a frame was not understood. The message says what is wrong, where, and what is allowed. It contains no
/// transcript text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DecodeError {
    /// [`ErrorCode::BadJson`] or [`ErrorCode::BadField`].
    pub code: ErrorCode,
    /// Explanation, for people.
    pub message: String,
    /// The part that is wrong, if the rest of the frame may be read without it.
    fault: Option<Box<wire::Fault>>,
}

impl DecodeError {
    fn new(code: ErrorCode, message: String) -> Self {
        Self { code, message, fault: None }
    }

    fn at(self, fault: wire::Fault) -> Self {
        Self { fault: Some(Box::new(fault)), ..self }
    }
}
