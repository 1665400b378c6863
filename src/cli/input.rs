//! Reads a file that contains a call: a transcript in one of the known formats, or a recording.
//!
//! Knows no daemon.

use std::fmt;
use std::io::Read as _;
use std::path::Path;

use clap::builder::PossibleValuesParser;
use serde_json::{Value, json};

use super::replay::left_out;
use crate::recording::{self, Recording, RecordingError};
use crate::transcript::{self, Times, Transcript, TranscriptError};

/// Largest file, bytes; the same limit as for recordings that are played.
const MAX_FILE_BYTES: u64 = 1024 * 1024 * 1024;
/// The path that stands for the standard input.
const STDIN: &str = "-";

/// The contents of a file.
#[derive(Debug)]
pub(crate) enum Input {
    Recording(Recording),
    /// A transcript, and the name of its format.
    Transcript(&'static str, Transcript),
}

/// Why a file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The file's name as it is shown.
    file: String,
    /// Line and column, from 1, if the fault is at one place in the file.
    place: Option<(usize, usize)>,
    message: String,
}

impl Fault {
    /// A fault of the file as a whole.
    pub(crate) fn new(path: &Path, message: impl Into<String>) -> Self {
        Self { file: shown(path), place: None, message: message.into() }
    }

    fn at(path: &Path, error: TranscriptError) -> Self {
        Self { file: shown(path), place: Some((error.line, error.column)), message: error.message }
    }

    /// The fault as a member of a line of JSON.
    pub(crate) fn json(&self) -> Value {
        match self.place {
            Some((line, column)) => json!({"line": line, "column": column, "message": self.message}),
            None => json!({"message": self.message}),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, place, message } = self;
        match place {
            Some((line, column)) => write!(formatter, "{file}:{line}:{column}: {message}"),
            None => write!(formatter, "{file}: {message}"),
        }
    }
}

impl std::error::Error for Fault {}

/// The names of the formats, for `--format`.
pub(crate) fn formats() -> PossibleValuesParser {
    PossibleValuesParser::new(transcript::names())
}

/// How a path is shown.
pub(crate) fn shown(path: &Path) -> String {
    if is_stdin(path) { "standard input".to_owned() } else { path.display().to_string() }
}

/// Returns true if a path stands for standard input (or output).
pub(crate) fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == STDIN
}

/// Reads a file in `format`; without one, as a recording, or in the format that fits best.
///
/// # Errors
/// The file cannot be read, or is neither a recording nor a known transcript format.
pub(crate) fn read(path: &Path, format: Option<&str>) -> Result<Input, Fault> {
    let bytes = bytes(path).map_err(|error| Fault::new(path, error.to_string()))?;
    if bytes.trim_ascii().is_empty() {
        return Err(Fault::new(path, "the file is empty; expected a transcript or a recording"));
    }
    let format = format.map(transcript::format).transpose().map_err(|message| Fault::new(path, message))?;
    if format.is_none() {
        match recording::parse(&bytes) {
            Ok(recording) => return Ok(Input::Recording(recording)),
            Err(RecordingError::NotARecording(_)) => {}
            Err(error) => return Err(Fault::new(path, error.to_string())),
        }
    }
    let (format, transcript) = transcript::read(&bytes, format).map_err(|error| Fault::at(path, error))?;
    Ok(Input::Transcript(format.name(), transcript))
}

fn bytes(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if is_stdin(path) {
        std::io::stdin().lock().take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    } else {
        std::fs::File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    }
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(std::io::Error::other("the file is larger than 1 GiB"));
    }
    Ok(bytes)
}

impl Input {
    /// Notes about parts of the file that are left out or estimated, one sentence each.
    pub(crate) fn notes(&self, path: &Path) -> Vec<String> {
        let (name, transcript) = match self {
            Self::Recording(recording) => return left_out(path, recording),
            Self::Transcript(name, transcript) => (name, transcript),
        };
        let file = shown(path);
        let mut notes: Vec<String> = transcript
            .left_out
            .iter()
            .map(|part| format!("{file}:{}: {}, left out", part.line, part.message))
            .collect();
        if transcript.times == Times::Estimated {
            notes.push(format!("{file}: read as {name}; the file has no times, so they are estimated from the words"));
        }
        notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_recordings_or_transcripts_or_faults_with_a_place() {
        let folder = tempfile::tempdir().expect("folder");
        let put = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("write");
            path
        };
        let recording = put("a.jsonl", "{\"at_ms\":0,\"message\":{\"type\":\"end\"}}\n");
        assert!(matches!(read(&recording, None), Ok(Input::Recording(_))));
        let text = put("b.txt", "Ann: Hi.\nBob: Hello.\n");
        let Ok(Input::Transcript("text", transcript)) = read(&text, None) else { panic!("text") };
        assert_eq!(transcript.turns.len(), 2);
        assert!(read(&text, Some("text")).expect("text").notes(&text)[0].contains("estimated"));
        let broken = put("c.vtt", "WEBVTT\n\n00:01.000 --> soon\nHi.\n");
        let fault = read(&broken, None).expect_err("a wrong time");
        assert!(fault.to_string().starts_with(&format!("{}:3:15: expected a time", broken.display())), "{fault}");
        assert_eq!((&fault.json()["line"], &fault.json()["column"]), (&json!(3), &json!(15)));
        for (path, what) in [
            (put("d.txt", " \n"), "empty"),
            (put("e.txt", "no names here"), "vtt (WebVTT"),
            (put("f.jsonl", "{\"recording\":{\"version\":9}}\n"), "version is 9"),
            (folder.path().join("nowhere"), "No such file"),
            (folder.path().to_owned(), "directory"),
        ] {
            let fault = read(&path, None).expect_err(what).to_string();
            assert!(fault.starts_with(&path.display().to_string()) && fault.contains(what), "{fault}");
        }
    }
}
