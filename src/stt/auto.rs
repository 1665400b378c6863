//! `auto`: picks one of the other dialects by the first frames of a stream.
//!
//! All dialects decode the frames until one leads: it knows more of the frames than any other (on a tie, more of them
//! as speech), and the frames contain the begin of a session or speech. Its events for all frames so far are then sent
//! at once, so that nothing is lost. If none leads after [`MAX_UNDECIDED`] frames, or when the stream ends, the best
//! one that is listed first in [`DIALECTS`] is picked. Frames that no dialect knows do not count.
//!
//! Until the pick, the frames count as held: they are not acknowledged, so a producer that reconnects sends them again
//! and gets the same pick.

use super::fit::{Fit, Score};
use super::{DIALECTS, DecodeError, Decoder, Dialect, wire};
use crate::base::surrogates;
use crate::protocol::ErrorCode;
use crate::types::{Carry, SttEvent};

/// Number of known frames after which the first of the best candidates is picked, even if none leads.
const MAX_UNDECIDED: u32 = 64;

pub(super) struct Auto;

impl Dialect for Auto {
    fn name(&self) -> &'static str {
        "auto"
    }

    fn example(&self) -> &'static str {
        r#"{"type":"TurnInfo","event":"EndOfTurn","turn_index":0,"transcript":"Picked by its first frames."}"#
    }

    fn expects(&self) -> &'static str {
        "frames of any other dialect"
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        let others = DIALECTS.iter().filter(|dialect| !dialect.picks());
        let candidates = others.map(|dialect| Candidate {
            dialect: *dialect,
            decoder: dialect.open(),
            score: Score::default(),
            begun: false,
            said: Vec::new(),
        });
        Box::new(AutoDecoder::Undecided { candidates: candidates.collect(), known: 0 })
    }

    /// The candidates look into envelopes themselves.
    fn open(&self) -> Box<dyn Decoder> {
        self.decoder()
    }

    /// Before the pick no frame is acknowledged, so there is nothing to carry over.
    fn resume(&self, _: &Carry) -> Box<dyn Decoder> {
        self.decoder()
    }

    fn names_turns(&self) -> bool {
        false
    }

    fn picks(&self) -> bool {
        true
    }
}

enum AutoDecoder {
    Undecided {
        /// In the order of [`DIALECTS`].
        candidates: Vec<Candidate>,
        /// Number of frames that at least one candidate knows.
        known: u32,
    },
    Picked(&'static dyn Dialect, Box<dyn Decoder>),
}

struct Candidate {
    dialect: &'static dyn Dialect,
    decoder: Box<dyn Decoder>,
    score: Score,
    /// Set once the candidate has decoded the begin of a vendor's session.
    begun: bool,
    /// Events of all frames so far.
    said: Vec<SttEvent>,
}

impl Decoder for AutoDecoder {
    fn decode(&mut self, frame: &str, out: &mut Vec<SttEvent>) -> Result<Vec<DecodeError>, DecodeError> {
        match self {
            Self::Picked(_, decoder) => decoder.decode(frame, out),
            Self::Undecided { .. } => self.read(&surrogates::repaired(frame), out).map(|()| Vec::new()),
        }
    }

    fn read(&mut self, frame: &str, out: &mut Vec<SttEvent>) -> Result<(), DecodeError> {
        let (candidates, known) = match self {
            Self::Picked(_, decoder) => return decoder.read(frame, out),
            Self::Undecided { candidates, known } => (candidates, known),
        };
        if let Some(event) = wire::own(frame)? {
            self.own(event, out);
            return Ok(());
        }
        let mut any = false;
        let mut error = None;
        for candidate in candidates.iter_mut() {
            let mut events = Vec::new();
            let result = candidate.decoder.read(frame, &mut events);
            let holding = candidate.decoder.holding();
            let fit = Fit::of(&result, &events, holding);
            candidate.score.count(fit, &events, holding);
            any |= fit.is_known();
            if fit != Fit::Unknown {
                candidate.begun |= events.iter().any(|event| matches!(event, SttEvent::Begin { .. }));
                candidate.said.append(&mut events);
            }
            error = error.or(result.err().filter(|error| error.code == ErrorCode::BadJson));
        }
        if !any {
            if let Some(error) = error {
                return Err(error);
            }
            out.push(SttEvent::Unknown { kind: "undecided".to_owned() });
            return Ok(());
        }
        *known += 1;
        if let Some(index) = ahead(candidates, *known >= MAX_UNDECIDED) {
            self.pick(index, out);
        }
        Ok(())
    }

    fn holding(&self) -> bool {
        match self {
            Self::Undecided { known, .. } => *known > 0,
            Self::Picked(_, decoder) => decoder.holding(),
        }
    }

    fn carry(&self) -> Carry {
        match self {
            Self::Undecided { known, .. } => Carry { closed: *known > 0, ..Carry::default() },
            Self::Picked(_, decoder) => decoder.carry(),
        }
    }

    fn carry_version(&self) -> u64 {
        match self {
            Self::Undecided { known, .. } => u64::from(*known > 0),
            Self::Picked(_, decoder) => 2 + decoder.carry_version(),
        }
    }

    fn finish(&mut self, out: &mut Vec<SttEvent>) {
        if let Self::Undecided { candidates, known: 1.. } = self
            && let Some(index) = ahead(candidates, true)
        {
            self.pick(index, out);
        }
        if let Self::Picked(_, decoder) = self {
            decoder.finish(out);
        }
    }

    fn picked(&self) -> Option<&'static dyn Dialect> {
        match self {
            Self::Undecided { .. } => None,
            Self::Picked(dialect, _) => Some(*dialect),
        }
    }
}

impl AutoDecoder {
    /// Picks the candidate at `index` and appends its events for the frames so far.
    fn pick(&mut self, index: usize, out: &mut Vec<SttEvent>) {
        let Self::Undecided { candidates, .. } = self else { return };
        let Candidate { dialect, decoder, mut said, .. } = candidates.swap_remove(index);
        out.push(SttEvent::Dialect { name: dialect.name() });
        out.append(&mut said);
        *self = Self::Picked(dialect, decoder);
    }
}

/// The candidate that leads. With `must`, the first of the best ones if none leads.
fn ahead(candidates: &[Candidate], must: bool) -> Option<usize> {
    let best = candidates.iter().map(|candidate| candidate.score).max()?;
    let mut leaders = candidates.iter().enumerate().filter(|(_, candidate)| candidate.score == best);
    let (index, leader) = leaders.next()?;
    let sure = leaders.next().is_none() && (leader.begun || best.speech > 0);
    (sure || must).then_some(index)
}
