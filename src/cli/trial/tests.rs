//! Recordings for tests, and the results of playing them.

use std::path::{Path, PathBuf};

use clap::Parser;
use serde_json::json;

use super::{AnswerArgs, Answers, Call, Source, Variant, sources};
use crate::cli::meter::Meter;

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    answers: AnswerArgs,
}

/// Answers that come from models and are not stored.
pub(crate) fn live() -> Answers {
    Args::parse_from(["x"]).answers.open().expect("answers")
}

/// Writes a recording in the `sidetone` dialect: a turn every `pace_ms`, by two speakers.
pub(crate) fn record(folder: &Path, name: &str, pace_ms: u64, turns: &[&str]) -> PathBuf {
    let mut text = json!({"recording": {"version": 1, "dialect": "sidetone", "title": "<b>A test</b>"}}).to_string();
    for (order, said) in (0..).zip(turns) {
        let (start, end) = (order * pace_ms, (order + 1) * pace_ms);
        let speaker = if order % 2 == 0 { "A" } else { "B" };
        let turn = json!({"type": "turn", "turn_order": order, "speaker": speaker, "text": said, "start_ms": start,
            "end_ms": end - 1});
        text.push_str(&format!("\n{}", json!({"at_ms": end, "message": turn})));
    }
    let path = folder.join(format!("{name}.jsonl"));
    std::fs::write(&path, text).expect("write");
    path
}

/// The recordings of a folder.
pub(crate) fn all(folder: &Path) -> Vec<Source> {
    sources(&[folder.to_owned()]).expect("recordings")
}

/// Plays recordings for which the embedded provider answers.
pub(crate) async fn played(sources: &[Source], analyses: &[&str]) -> (Variant, Vec<Call>) {
    let analyses: Vec<String> = analyses.iter().map(|name| (*name).to_owned()).collect();
    let answers = live();
    let variant = Variant::open("a", "local", None, &analyses, &answers).expect("a variant");
    let calls = variant.play(sources, &answers, &Meter::new(0, "calls", true)).await.expect("calls");
    (variant, calls)
}
