//! The recordings and their labels, read as the daemon reads recordings.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use sidetone::evaluation::labels::Labels;
use sidetone::turns::Turns;
use sidetone::types::{StreamId, Turn};
use sidetone::{recording, stt};

/// The collection that a call is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Set {
    DialogSum,
    QmSum,
    Other,
}

/// A call with its human labels.
pub(crate) struct Call {
    pub(crate) name: String,
    pub(crate) set: Set,
    pub(crate) turns: Vec<Arc<Turn>>,
    /// Sentiment by the vendor's number of the turn.
    pub(crate) sentiment: HashMap<String, String>,
    pub(crate) summary: Option<String>,
}

impl Call {
    /// Text and gold label of each labelled turn.
    pub(crate) fn labelled(&self) -> impl Iterator<Item = (&str, &str)> {
        self.turns.iter().filter_map(|turn| {
            let gold = self.sentiment.get(turn.vendor_turn.as_deref()?)?;
            Some((turn.text.as_str(), gold.as_str()))
        })
    }
}

pub(crate) fn folder() -> PathBuf {
    let default = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/recordings");
    std::env::var_os("SIDETONE_RECORDINGS").map_or_else(default, PathBuf::from)
}

/// All calls by name; `None` if there are no recordings.
pub(crate) fn load() -> Option<Vec<Call>> {
    let labels = std::fs::read_to_string(folder().join("labels.jsonl")).ok()?;
    let labels = Labels::read(&labels).expect("labels");
    let mut names: Vec<String> = std::fs::read_dir(folder())
        .ok()?
        .filter_map(|entry| entry.expect("an entry").file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".jsonl").filter(|stem| *stem != "labels").map(str::to_owned))
        .collect();
    names.sort();
    Some(names.into_iter().map(|name| read(name, &labels)).collect())
}

fn read(name: String, labels: &Labels) -> Call {
    let text = std::fs::read_to_string(folder().join(format!("{name}.jsonl"))).expect("a file");
    let recording = recording::parse(&text).expect("a recording");
    let dialect = stt::dialect(&recording.header.dialect).expect("a dialect");
    let stream = StreamId::parse("s_1").expect("an id");
    let (mut decoder, mut turns) = (dialect.open(), Turns::new());
    let (mut events, mut changes) = (Vec::new(), Vec::new());
    for frame in &recording.frames {
        decoder.decode(&frame.message, &mut events).expect("a good frame");
    }
    decoder.finish(&mut events);
    for event in &events {
        turns.apply(&stream, dialect.splits(), 0, 0, event, &mut changes).expect("applied");
    }
    let labels = labels.of(&name).cloned().unwrap_or_default();
    let set = match name.split('-').next() {
        Some("dialogsum") => Set::DialogSum,
        Some("qmsum") => Set::QmSum,
        _ => Set::Other,
    };
    let turns = turns.iter().filter(|turn| !turn.text.trim().is_empty()).cloned().collect();
    Call { name, set, turns, sentiment: labels.sentiment, summary: labels.summary }
}
