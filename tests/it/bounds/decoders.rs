//! Inputs of the fuzz targets (`tests/fuzz/targets.rs`): fixtures of vendors' formats, each changed in a few places.
//!
//! Knows no decoder: the target decodes the bytes and checks the result.

use std::path::Path;
use std::sync::OnceLock;

use sidetone::llm::PROVIDERS;
use sidetone::stt::DIALECTS;

use super::Case;
use super::gateway::corpus;
use super::generate::{count, once_in, pick, spoil};
use super::meter::Spent;
use super::targets::{self, FRAMINGS};
use crate::support::{Chance, Json};

/// Texts that are special to decoders.
const TOKENS: &[&[u8]] = &[
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\n",
    b"\r\n",
    b"\n\n",
    b"\r",
    b"\0",
    b"\xef\xbb\xbf",
    b"null",
    b"true",
    b"-1",
    b"0.5",
    b"1e308",
    b"1e999",
    b"18446744073709551615",
    b"9007199254740993",
    b"\\u0000",
    b"\\ud83d",
    b"\xff",
    b"\xed\xa0\x80",
    b"data: ",
    b"event: error\n",
    b": x\n",
    b"```json\n",
    b"<think>",
    b"</think>",
    b"[DONE]",
    b"\"error\":{},",
    b"\"text\":",
    b"''",
    b"//",
    b"\xf0\x9f\x99\x82",
    b"e\xcc\x81",
];

/// Changes a few places of the bytes.
fn change(chance: &mut Chance, bytes: &mut Vec<u8>) {
    for _ in 0..1 + chance.below(4) {
        let at = chance.below(bytes.len() + 1);
        let to = (at + count(chance, 400)).min(bytes.len());
        match chance.below(7) {
            0 | 1 if at < bytes.len() => bytes[at] ^= 1 << chance.below(8),
            2 => drop(bytes.drain(at..to)),
            3 => {
                let again = bytes[at..to].to_vec();
                bytes.splice(at..at, again);
            }
            4 => {
                let from = chance.below(bytes.len() + 1);
                let moved: Vec<u8> = bytes[from..(from + to - at).min(bytes.len())].to_vec();
                bytes.splice(at..to, moved);
            }
            5 if once_in(chance, 4) => bytes.truncate(at),
            _ => drop(bytes.splice(at..at, pick(chance, TOKENS).iter().copied())),
        }
    }
}

/// A line of JSON with some wrong values, or the unchanged line.
fn changed_line(chance: &mut Chance, line: &str) -> String {
    match serde_json::from_str::<Json>(line) {
        Ok(mut value) if once_in(chance, 4) => {
            spoil(chance, &mut value);
            value.to_string()
        }
        _ => line.to_owned(),
    }
}

/// The fixtures of dialects: the dialect's index, and its frames.
fn recordings() -> &'static [(u8, String)] {
    static RECORDINGS: OnceLock<Vec<(u8, String)>> = OnceLock::new();
    RECORDINGS.get_or_init(|| {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/stt");
        let mut found = Vec::new();
        for (place, dialect) in (0..).zip(DIALECTS) {
            let files = std::fs::read_dir(golden.join(dialect.name())).expect("the dialect's fixtures");
            let paths = files.map(|file| file.expect("a file").path());
            for path in paths.filter(|path| path.extension().is_some_and(|end| end == "jsonl")) {
                found.push((place, std::fs::read_to_string(path).expect("a fixture")));
            }
        }
        found.sort();
        found
    })
}

pub(super) fn stt(chance: &mut Chance) -> Case {
    let (place, frames) = pick(chance, recordings());
    // A vendor's stream may be sent in another vendor's dialect.
    let place = if once_in(chance, 8) { chance.below(DIALECTS.len()) as u8 } else { *place };
    let mut lines: Vec<String> = frames.lines().map(|line| changed_line(chance, line)).collect();
    if once_in(chance, 4) {
        chance.shuffle(&mut lines);
    }
    let mut text = lines.join("\n").into_bytes();
    if once_in(chance, 2) {
        change(chance, &mut text);
    }
    text.insert(0, place);
    case(targets::stt, text)
}

pub(super) fn llm(chance: &mut Chance) -> Case {
    let (place, _, body) = pick(chance, corpus());
    let place = if once_in(chance, 8) { chance.below(PROVIDERS.len()) } else { *place };
    let mut data = body.clone();
    change(chance, &mut data);
    data.insert(0, place as u8);
    case(targets::llm, data)
}

/// A message of an AWS event stream; `headers` are complete.
fn aws_message(headers: &[u8], payload: &[u8]) -> Vec<u8> {
    let total = (16 + headers.len() + payload.len()) as u32;
    let mut message = [total.to_be_bytes(), (headers.len() as u32).to_be_bytes()].concat();
    message.extend(crc32fast::hash(&message).to_be_bytes());
    message.extend_from_slice(headers);
    message.extend_from_slice(payload);
    message.extend(crc32fast::hash(&message).to_be_bytes());
    message
}

pub(super) fn framing(chance: &mut Chance) -> Case {
    let place = chance.below(FRAMINGS.len());
    let mut stream = Vec::new();
    for _ in 0..1 + chance.below(4) {
        let (_, _, body) = pick(chance, corpus());
        let mut piece = body[..body.len().min(2_000)].to_vec();
        if FRAMINGS[place] == sidetone::llm::Framing::AwsEventStream {
            let mut headers = b"\x0b:event-type\x07\x00\x05chunk\x0d:message-type\x07\x00\x05event".to_vec();
            // Changed before the checksums are computed, so that the code after the checksums is reached too.
            if once_in(chance, 2) {
                change(chance, &mut headers);
            }
            piece = aws_message(&headers, &piece);
        }
        stream.extend(piece);
    }
    if once_in(chance, 2) {
        change(chance, &mut stream);
    }
    let head = [place as u8, chance.below(256) as u8];
    case(targets::framing, [&head[..], &stream].concat())
}

/// An answer of a model when JSON is requested.
pub(super) fn text(chance: &mut Chance) -> Case {
    let (_, _, body) = pick(chance, corpus());
    let mut said = body.clone();
    if once_in(chance, 2) {
        said = [b"Here it is:\n```json\n", &said[..], b"\n```\nAnything else?"].concat();
    }
    change(chance, &mut said);
    case(targets::repair, said)
}

pub(super) fn journal(chance: &mut Chance) -> Case {
    let whole = targets::whole_journal();
    let mut log = whole.files[whole.log].1.clone();
    change(chance, &mut log);
    case(targets::journal, log)
}

fn case(target: fn(&[u8]), data: Vec<u8>) -> Case {
    Box::new(move || {
        target(&data);
        Spent::default()
    })
}
