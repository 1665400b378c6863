//! Measures the cost of a transcript's format: tokens of the recordings as prompts show them, beside other formats, and
//! how often each mark occurs. Tokens are the library's estimate. The recordings are those of `SIDETONE_RECORDINGS`,
//! else `../shared/recordings`; without them nothing is measured.
//!
//! `cargo bench --bench lines`
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, clippy::cast_precision_loss)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;
use sidetone::context::tokens::estimate;
use sidetone::context::{Context, Window};
use sidetone::turns::Turns;
use sidetone::types::{StreamId, Turn};
use sidetone::{recording, stt};

/// Names of the formats, in the order of [`formats`].
const FORMATS: [&str; 6] = ["text", "speaker", "+ time", "+ number", "+ marks", "JSON"];
const MARKS: [&str; 6] = ["after", "interrupts", "overlaps", "in", "unsure", "(?)"];

fn main() {
    let folder = std::env::var_os("SIDETONE_RECORDINGS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/recordings"), PathBuf::from);
    let Ok(entries) = std::fs::read_dir(&folder) else {
        return println!("SKIPPED: no recordings at {}; set SIDETONE_RECORDINGS", folder.display());
    };
    let mut sets: BTreeMap<String, Set> = BTreeMap::new();
    for path in entries.map(|entry| entry.expect("entry").path()) {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let Some(turns) = turns(&text).filter(|turns| !turns.is_empty()) else { continue };
        let set = name.split('-').next().unwrap_or_default().to_owned();
        for name in [set, "all".to_owned()] {
            sets.entry(name).or_default().add(&turns);
        }
    }
    println!("tokens a turn; in brackets: against the format before (JSON: against the one with marks)");
    print!("{:<12} {:>5} {:>6}", "recordings", "calls", "turns");
    FORMATS.iter().for_each(|name| print!(" {name:>14}"));
    println!();
    for (name, set) in &sets {
        print!("{name:<12} {:>5} {:>6}", set.calls, set.turns);
        for (index, tokens) in set.tokens.iter().enumerate() {
            let share = match index {
                0 => String::new(),
                _ => format!(" (+{:.1} %)", 100.0 * (*tokens as f64 / set.tokens[index - 1] as f64 - 1.0)),
            };
            print!(" {:>14}", format!("{:.1}{share}", *tokens as f64 / set.turns as f64));
        }
        println!();
    }
    println!("\nmarks of 1,000 turns");
    print!("{:<12}", "recordings");
    MARKS.iter().for_each(|name| print!(" {name:>10}"));
    println!();
    for (name, set) in &sets {
        print!("{name:<12}");
        set.marks.iter().for_each(|count| print!(" {:>10.1}", 1_000.0 * *count as f64 / set.turns as f64));
        println!();
    }
}

/// Recordings of one kind.
#[derive(Default)]
struct Set {
    calls: u64,
    turns: u64,
    tokens: [u64; FORMATS.len()],
    marks: [u64; MARKS.len()],
}

impl Set {
    fn add(&mut self, turns: &[Arc<Turn>]) {
        self.calls += 1;
        self.turns += turns.len() as u64;
        let formats = formats(turns);
        for (sum, text) in self.tokens.iter_mut().zip(&formats) {
            *sum += estimate(text);
        }
        for line in formats[4].lines() {
            let (head, text) = line.split_once("): ").expect("a line");
            let marks: Vec<&str> = head.split(", ").skip(1).collect();
            for (sum, mark) in self.marks.iter_mut().zip(MARKS) {
                *sum += marks.iter().filter(|found| found.split(' ').next() == Some(mark)).count() as u64;
            }
            self.marks[5] += text.matches(MARKS[5]).count() as u64;
        }
    }
}

/// The final turns of a recording with text; `None` if the file is none.
fn turns(text: &str) -> Option<Vec<Arc<Turn>>> {
    let recording = recording::parse(text).ok()?;
    let dialect = stt::dialect(&recording.header.dialect)?;
    let (mut decoder, mut turns, stream) = (dialect.open(), Turns::new(), StreamId::parse("s_1").expect("id"));
    let (mut events, mut changes) = (Vec::new(), Vec::new());
    for frame in &recording.frames {
        let _ = decoder.decode(&frame.message, &mut events);
    }
    decoder.finish(&mut events);
    for event in &events {
        let _ = turns.apply(&stream, dialect.splits(), 0, 0, event, &mut changes);
    }
    Some(turns.iter().filter(|turn| !turn.text.trim().is_empty()).cloned().collect())
}

/// The transcript in each format.
fn formats(turns: &[Arc<Turn>]) -> [String; FORMATS.len()] {
    let mut context = Context::new();
    for (number, turn) in (0..).zip(turns) {
        context.upsert(&Arc::new(Turn { turn: number, ..Turn::clone(turn) }));
    }
    let with_marks: String = context.snapshot(&mut Window::new(u64::MAX)).parts().map(|part| &**part).collect();
    let lines = |line: &dyn Fn(usize, &Turn) -> String| -> String {
        turns.iter().enumerate().map(|(number, turn)| line(number, turn) + "\n").collect()
    };
    let speaker = |turn: &Turn| turn.speaker.clone().unwrap_or_default();
    let time = |turn: &Turn| format!("({}:{:02})", turn.start_ms / 60_000, turn.start_ms / 1_000 % 60);
    let json: Vec<_> = turns
        .iter()
        .map(|turn| json!({"speaker": turn.speaker, "text": turn.text, "start_ms": turn.start_ms, "end_ms": turn.end_ms}))
        .collect();
    [
        lines(&|_, turn| turn.text.clone()),
        lines(&|_, turn| format!("{}: {}", speaker(turn), turn.text)),
        lines(&|_, turn| format!("{} {}: {}", speaker(turn), time(turn), turn.text)),
        lines(&|number, turn| format!("[{number}] {} {}: {}", speaker(turn), time(turn), turn.text)),
        with_marks,
        json!(json).to_string(),
    ]
}
