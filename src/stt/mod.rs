//! STT dialects: the wire formats of speech-to-text vendors, sans-IO. Text frames in, [`SttEvent`]s out.
//!
//! A decoder knows no socket, no clock, no call and no turn number: it names turns by the vendor's own ids
//! ([`crate::types::TurnKey`]), and whoever owns the call numbers, cuts and deduplicates them.

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
use crate::types::{Carry, SttEvent};

/// Every dialect, in the order in which they are listed. To add one: a file, a line here, and a folder of fixtures in
/// `tests/golden/stt`.
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

/// The dialect of that name.
pub fn dialect(name: &str) -> Option<&'static dyn Dialect> {
    DIALECTS.iter().copied().find(|dialect| dialect.name() == name)
}

/// The dialect of a connection that asks for `asked` and feeds a stream that began as the dialect `began`: where `auto`
/// picked one for the stream, a later connection has the same.
pub fn resumed(asked: &'static dyn Dialect, began: Option<&str>) -> &'static dyn Dialect {
    began.filter(|_| asked.picks()).and_then(dialect).unwrap_or(asked)
}

/// The wire format of one STT vendor.
pub trait Dialect: Send + Sync {
    /// The name in `dialect=` and in `stream.started`.
    fn name(&self) -> &'static str;
    /// A vendor's frame that carries a final turn, for `GET /v1/dialects` and the docs.
    fn example(&self) -> &'static str;
    /// What its frames are, for the error that none was understood: `messages whose "type" is …`.
    fn expects(&self) -> &'static str;
    /// A decoder of the vendor's own frames, bare as they leave the vendor.
    fn decoder(&self) -> Box<dyn Decoder>;
    /// The same, going on where one of an earlier connection of the stream was.
    fn decoder_from(&self, carry: &Carry) -> Box<dyn Decoder> {
        let _ = carry;
        self.decoder()
    }
    /// How the vendor spells member names, where its SDKs give them in another spelling.
    fn spelling(&self) -> Option<Spelling> {
        None
    }
    /// A decoder that knows of no earlier connection, and also reads frames in the envelopes of SDKs.
    fn open(&self) -> Box<dyn Decoder> {
        Box::new(envelope::Opened::new(self.decoder(), self.spelling()))
    }
    /// The same, going on where one of an earlier connection of the stream was.
    fn resume(&self, carry: &Carry) -> Box<dyn Decoder> {
        Box::new(envelope::Opened::new(self.decoder_from(carry), self.spelling()))
    }
    /// Whether it is no wire format of its own, but picks one by a stream's first frames.
    fn picks(&self) -> bool {
        false
    }
    /// Whether finals name their turn. Where they do not, a producer that reconnects resends by frame count.
    fn names_turns(&self) -> bool;
    /// Whether a final that mixes speakers is cut. Only the `sidetone` dialect says no: its producer numbers turns.
    fn splits(&self) -> bool {
        true
    }
    /// Fields without which a frame, or the element of a list that holds them, says nothing that can be used, and fields
    /// that say what the rest means; a list's elements are `[]`. All else may be missing or null, which is no error, or
    /// something that cannot be read, which costs that field alone.
    fn needs(&self) -> &'static [&'static str] {
        &[]
    }
}

/// Decodes the frames of one connection, in order.
pub trait Decoder: Send {
    /// Appends what `frame` says, zero or more events. A lone surrogate escape in it counts as U+FFFD. Where a part of a
    /// vendor's frame cannot be read, the rest counts; gives what was left out, one error each.
    ///
    /// A frame that says only [`SttEvent::Unknown`] leaves the decoder as it was.
    ///
    /// # Errors
    /// The frame is unusable; `out` is unchanged, and so is the decoder.
    fn decode(&mut self, frame: &str, out: &mut Vec<SttEvent>) -> Result<Vec<DecodeError>, DecodeError> {
        let frame = surrogates::repaired(frame);
        match self.read(&frame, out) {
            Ok(()) => Ok(Vec::new()),
            Err(error) => wire::salvage(&frame, error, |frame| self.read(frame, out)),
        }
    }

    /// As [`Decoder::decode`], which is what callers use, for a frame without lone surrogate escapes, and all or nothing.
    ///
    /// # Errors
    /// As [`Decoder::decode`].
    fn read(&mut self, frame: &str, out: &mut Vec<SttEvent>) -> Result<(), DecodeError>;

    /// Whether speech that the vendor called final lives in this decoder alone, waiting for its turn's end.
    fn holding(&self) -> bool {
        !self.carry().held.is_empty()
    }

    /// What a later decoder must know to go on from here. A turn in it keeps its key until a final with that key, or
    /// with [`crate::types::TurnKey::Ended`] of its channel, comes out.
    fn carry(&self) -> Carry {
        Carry::default()
    }

    /// A number that is another one whenever [`Decoder::carry`] is.
    fn carry_version(&self) -> u64 {
        0
    }

    /// Appends what a frame of ours says (`end`, `meta`); before an end, what is held.
    fn own(&mut self, event: SttEvent, out: &mut Vec<SttEvent>) {
        if matches!(event, SttEvent::End { .. }) {
            self.finish(out);
        }
        out.push(event);
    }

    /// The stream is over: what is held becomes final turns.
    fn finish(&mut self, out: &mut Vec<SttEvent>) {
        let _ = out;
    }

    /// The dialect that was picked by the frames so far, where the decoder picks one.
    fn picked(&self) -> Option<&'static dyn Dialect> {
        None
    }
}

/// Why a frame was not understood. The message says what, where and what is allowed, and holds no transcript text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DecodeError {
    /// `bad_json` or `bad_field`.
    pub code: &'static str,
    /// For people.
    pub message: String,
    /// The part that is wrong, where the rest of the frame may be read without it.
    fault: Option<Box<wire::Fault>>,
}

impl DecodeError {
    fn new(code: &'static str, message: String) -> Self {
        Self { code, message, fault: None }
    }

    fn at(self, fault: wire::Fault) -> Self {
        Self { fault: Some(Box::new(fault)), ..self }
    }
}
