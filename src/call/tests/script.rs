//! A producer's frames, and the decoder that makes events from them. Every final word is unique in its run, so that
//! lost and doubled words are found.

use std::sync::Arc;

use super::random::Random;
use crate::stt::{self, Dialect};
use crate::types::{Carry, EndScope, Final, JsonMap, Revision, SttEvent, TurnKey, Word};

/// How a vendor names turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Naming {
    /// By the producer's own number; turns are not split.
    Order,
    /// By the vendor's id; finals are split by speaker.
    Vendor,
    /// Not at all: final words wait in the decoder for the end of their turn.
    Held,
}

impl Naming {
    pub(super) fn dialect(self) -> &'static dyn Dialect {
        let name = match self {
            Self::Order => "sidetone",
            Self::Vendor => "assemblyai",
            Self::Held => "deepgram",
        };
        let dialect = stt::dialect(name).expect("a dialect");
        assert_eq!(dialect.names_turns(), self != Self::Held);
        dialect
    }
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    Begin(u32),
    Partial(u64),
    /// A whole turn: its name, its words, and whether it is the formatted version.
    Turn(u64, Vec<u32>, bool),
    /// The speaker of a turn, which may not have come yet.
    Revise(u64),
    /// Words of a turn that continues.
    Words(Vec<u32>),
    /// The end of the turn of the previous words.
    EndTurn,
    Meta(u64),
    Unknown,
    VendorError,
    /// The vendor's voice detection: somebody begins to speak (true), or nobody speaks (false).
    Voice(bool),
    End(EndScope),
}

impl Frame {
    /// The final words in the frame.
    pub(super) fn words(&self) -> &[u32] {
        match self {
            Self::Turn(_, words, _) | Self::Words(words) => words,
            _ => &[],
        }
    }
}

pub(super) fn write(
    naming: Naming,
    turns: u64,
    next_word: &mut u32,
    ends: Option<EndScope>,
    random: &mut Random,
) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut words = |random: &mut Random| -> Vec<u32> {
        let count = 1 + u32::try_from(random.below(5)).expect("few");
        let first = *next_word;
        *next_word += count;
        (first..first + count).collect()
    };
    if naming != Naming::Order && random.chance(500) {
        frames.push(Frame::Begin(1));
    }
    let mut session = 1;
    for turn in 0..turns {
        for _ in 0..random.below(3) {
            frames.push(match random.below(12) {
                0 => Frame::Unknown,
                1 => Frame::Meta(random.below(4)),
                2 => Frame::VendorError,
                3 => Frame::Voice(random.chance(500)),
                _ => Frame::Partial(turn),
            });
        }
        match naming {
            Naming::Held => {
                for _ in 0..=random.below(3) {
                    frames.push(Frame::Words(words(random)));
                    if random.chance(200) {
                        frames.push(Frame::Partial(turn));
                    }
                }
                frames.push(Frame::EndTurn);
                if random.chance(30) {
                    session += 1;
                    frames.push(Frame::Begin(session));
                }
            }
            Naming::Order | Naming::Vendor => {
                if random.chance(50) {
                    frames.push(Frame::Revise(turn));
                }
                let said = words(random);
                let formatted = random.chance(500);
                frames.push(Frame::Turn(turn, said.clone(), formatted));
                if random.chance(300) {
                    frames.push(Frame::Turn(turn, said, true));
                }
                if random.chance(100) {
                    frames.push(Frame::Revise(random.below(turn + 1)));
                }
            }
        }
    }
    frames.extend(ends.map(Frame::End));
    frames
}

/// The decoder of one connection.
pub(super) struct Decoder {
    naming: Naming,
    held: Vec<u32>,
    carry: Arc<Carry>,
    /// Number of decoded frames; a turn's times are made from it.
    count: u64,
}

fn word(number: u32) -> String {
    format!("w{number}")
}

fn text(words: &[u32]) -> String {
    words.iter().map(|number| word(*number)).collect::<Vec<_>>().join(" ")
}

/// The numbers of the words in a text.
pub(super) fn numbers(text: &str) -> impl Iterator<Item = u32> {
    text.split_whitespace().filter_map(|token| {
        let token = token.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        token.strip_prefix(['w', 'W'])?.parse().ok()
    })
}

/// The speaker that a revision gives to a turn.
pub(super) fn revised_speaker(turn: u64) -> String {
    format!("R{turn}")
}

impl Decoder {
    /// Continues from the state of an earlier connection's decoder.
    pub(super) fn resume(naming: Naming, carry: &Arc<Carry>) -> Self {
        let held = carry.held.first().map(|last| numbers(&last.text).collect()).unwrap_or_default();
        Self { naming, held, carry: Arc::clone(carry), count: 0 }
    }

    fn key(&self, turn: u64) -> TurnKey {
        match self.naming {
            Naming::Order => TurnKey::Order(turn),
            Naming::Vendor => TurnKey::Vendor(turn.to_string()),
            Naming::Held => TurnKey::Held("0".to_owned()),
        }
    }

    fn last(&self, key: TurnKey, said: String, words: Vec<Word>, formatted: bool) -> Final {
        Final {
            key,
            formatted,
            text: said,
            speaker: (self.naming == Naming::Order).then(|| "A".to_owned()),
            words,
            start_ms: None,
            end_ms: None,
            language: None,
            confidence: None,
        }
    }

    pub(super) fn decode(&mut self, frame: &Frame) -> (Vec<SttEvent>, Arc<Carry>) {
        self.count += 1;
        let events = match frame {
            Frame::Begin(session) => vec![SttEvent::Begin { vendor_session: Some(format!("v{session}")) }],
            Frame::Partial(turn) => {
                let text = format!("{} so far", text(&self.held));
                vec![SttEvent::Partial { key: self.key(*turn), speaker: None, text }]
            }
            Frame::Turn(turn, said, formatted) => {
                let mut shown = text(said);
                if *formatted {
                    shown = format!("{}.", shown.replacen('w', "W", 1));
                }
                vec![SttEvent::Final(Box::new(self.last(self.key(*turn), shown, self.words(*turn, said), *formatted)))]
            }
            Frame::Revise(turn) => {
                let speaker = Some(revised_speaker(*turn));
                let revision = Revision { key: self.key(*turn), speaker, text: None, words: Vec::new() };
                vec![SttEvent::Revise(Box::new(revision))]
            }
            Frame::Words(words) => {
                self.held.extend(words);
                Vec::new()
            }
            Frame::EndTurn if self.held.is_empty() => Vec::new(),
            Frame::EndTurn => {
                let said = text(&std::mem::take(&mut self.held));
                let last = self.last(TurnKey::Ended("0".to_owned()), said, Vec::new(), true);
                vec![SttEvent::Final(Box::new(last))]
            }
            Frame::Meta(number) => {
                let mut meta = JsonMap::new();
                meta.insert("number".to_owned(), (*number).into());
                vec![SttEvent::Meta(meta)]
            }
            Frame::Unknown => vec![SttEvent::Unknown { kind: "new".to_owned() }],
            Frame::VendorError => vec![SttEvent::VendorError { code: "x".to_owned(), message: "y".to_owned() }],
            Frame::Voice(true) => vec![SttEvent::SpeechStarted],
            Frame::Voice(false) => {
                vec![SttEvent::Silence { span: Some((self.count * 1_000, self.count * 1_000 + 900)) }]
            }
            Frame::End(scope) => vec![SttEvent::End { reason: None, scope: *scope }],
        };
        let known = self.carry.held.first().map(|last| numbers(&last.text).count()).unwrap_or_default();
        if known != self.held.len() {
            let key = TurnKey::Held("0".to_owned());
            let held =
                (!self.held.is_empty()).then(|| self.last(key, format!("{} ", text(&self.held)), Vec::new(), true));
            self.carry = Arc::new(Carry { held: held.into_iter().collect(), ..Carry::default() });
        }
        (events, Arc::clone(&self.carry))
    }

    /// Words with times. If the vendor distinguishes speakers, every fourth turn has two of them.
    fn words(&self, turn: u64, said: &[u32]) -> Vec<Word> {
        if self.naming != Naming::Vendor {
            return Vec::new();
        }
        let split = if turn % 4 == 1 { said.len() / 2 } else { said.len() };
        let of = |(index, number): (usize, &u32)| {
            let start_ms = turn * 10_000 + index as u64 * 300;
            let speaker = Some(if index < split { "A" } else { "B" }.to_owned());
            Word { text: word(*number), start_ms, end_ms: start_ms + 200, speaker, confidence: None }
        };
        said.iter().enumerate().map(of).collect()
    }
}
