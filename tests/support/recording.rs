//! Recordings: vendor frames with their times, as files or made up.

use std::path::{Path, PathBuf};

use super::{Json, json};

/// One recorded call.
#[derive(Debug, Clone)]
pub struct Recording {
    /// The file's stem.
    pub name: String,
    /// Vendor frames in order, with the time since the call began.
    pub frames: Vec<(u64, Json)>,
}

/// The folder of recordings: `SIDETONE_RECORDINGS`, or a folder next to the project.
pub fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("SIDETONE_RECORDINGS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/recordings"), PathBuf::from);
    let usable = std::fs::read_dir(&folder).is_ok();
    if !usable {
        println!("SKIPPED: no recordings at {}; set SIDETONE_RECORDINGS", folder.display());
    }
    usable.then_some(folder)
}

/// All recordings of the folder, by name; `None`, with a message, if there is no folder.
pub fn all() -> Option<Vec<Recording>> {
    let mut recordings: Vec<Recording> = std::fs::read_dir(folder()?)
        .expect("read the folder")
        .filter_map(|entry| read(&entry.expect("entry").path()))
        .collect();
    recordings.sort_by(|one, other| one.name.cmp(&other.name));
    assert!(recordings.len() >= 50, "only {} recordings found", recordings.len());
    Some(recordings)
}

/// Some recordings, by the start of their names; [`made_up`] ones if there is no folder.
pub fn some(prefixes: &[&str]) -> Vec<Recording> {
    let Some(all) = all() else {
        return (0..prefixes.len() as u64).map(|seed| made_up(&format!("made-up-{seed}"), 60, seed)).collect();
    };
    all.into_iter().filter(|one| prefixes.iter().any(|prefix| one.name.starts_with(prefix))).collect()
}

/// Reads a file; `None` if it is not a recording.
pub fn read(path: &Path) -> Option<Recording> {
    let name = path.file_name()?.to_str()?.strip_suffix(".jsonl")?.to_owned();
    let text = std::fs::read_to_string(path).ok()?;
    let mut frames = Vec::new();
    for line in text.lines() {
        let line: Json = serde_json::from_str(line).ok()?;
        if line.get("recording").is_none() {
            frames.push((line["at_ms"].as_u64()?, line.get("message")?.clone()));
        }
    }
    Some(Recording { name, frames })
}

/// A made-up recording: `turns` turns of two speakers, with partials.
pub fn made_up(name: &str, turns: u64, seed: u64) -> Recording {
    const WORDS: [&str; 24] = [
        "the", "order", "arrived", "late", "again", "and", "nobody", "called", "me", "about", "it", "please", "check",
        "my", "account", "thanks", "great", "help", "today", "refund", "seems", "fair", "to", "us",
    ];
    let mut chance = super::Chance(seed);
    let mut frames = vec![(0, json!({"type":"Begin","id":format!("made-up-{seed}"),"expires_at":1_760_010_800}))];
    let mut clock = 500;
    for order in 0..turns {
        let speaker = if order % 2 == 0 { "A" } else { "B" };
        let count = 3 + chance.below(12);
        let words: Vec<Json> = (0..count)
            .map(|position| {
                let start = clock + position as u64 * 250;
                json!({"text":WORDS[chance.below(WORDS.len())],"start":start,"end":start + 220,"confidence":0.9,
                       "word_is_final":true})
            })
            .collect();
        let end = clock + count as u64 * 250;
        frames.push((end - 200, turn_frame(order, false, false, &words[..count - 1], speaker)));
        frames.push((end + 560, turn_frame(order, true, true, &words, speaker)));
        clock = end + 400;
    }
    frames.push((
        clock + 1000,
        json!({"type":"Termination","audio_duration_seconds":clock / 1000,
        "session_duration_seconds":clock / 1000}),
    ));
    Recording { name: name.to_owned(), frames }
}

/// An AssemblyAI `Turn`.
pub fn turn_frame(order: u64, end_of_turn: bool, formatted: bool, words: &[Json], speaker: &str) -> Json {
    let text: Vec<&str> = words.iter().filter_map(|word| word["text"].as_str()).collect();
    json!({"type":"Turn","turn_order":order,"turn_is_formatted":formatted,"end_of_turn":end_of_turn,
        "transcript":text.join(" "),"end_of_turn_confidence":0.8,"words":words,"speaker_label":speaker})
}

impl Recording {
    /// The frames as text, as a producer sends them.
    pub fn texts(&self) -> Vec<String> {
        self.frames.iter().map(|(_, message)| message.to_string()).collect()
    }

    /// Writes the recording to a file.
    pub fn write(&self, folder: &Path) -> PathBuf {
        let path = folder.join(format!("{}.jsonl", self.name));
        let lines: Vec<String> =
            self.frames.iter().map(|(at_ms, message)| json!({"at_ms":at_ms,"message":message}).to_string()).collect();
        std::fs::write(&path, lines.join("\n") + "\n").expect("write recording");
        path
    }

    /// The same without partials.
    pub fn without_partials(mut self) -> Self {
        self.frames.retain(|(_, message)| message["type"] != "Turn" || message["end_of_turn"] == true);
        self
    }
}
