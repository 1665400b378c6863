//! Recordings: a call's vendor frames and their times, as JSON Lines. Reads and writes the form; knows no file system,
//! no socket and no dialect: a frame is text that is never looked into.
//!
//! One line is `{"at_ms": N, "message": {…}}`: a frame, verbatim, and its time since the start of the call. The first
//! line may be `{"recording": {"version": 1, "dialect": "assemblyai", "title": "…", "license": "…"}}`.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Number;
use serde_json::value::RawValue;

/// The version of the form that is written, and the newest that is read.
pub const VERSION: u32 = 1;

/// The dialect of a recording that does not name one.
pub const DEFAULT_DIALECT: &str = "assemblyai";

/// What the optional first line says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the form.
    #[serde(default = "first_version")]
    pub version: u32,
    /// The wire format of the frames.
    #[serde(default = "default_dialect")]
    pub dialect: String,
    /// What it is, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Under which terms it may be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
}

impl Default for Header {
    fn default() -> Self {
        Self { version: VERSION, dialect: default_dialect(), title: None, license: None }
    }
}

fn first_version() -> u32 {
    1
}

fn default_dialect() -> String {
    DEFAULT_DIALECT.to_owned()
}

/// A vendor's frame, and when it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Time since the start of the call. Never before the frame above it: one that says so comes right after that.
    pub at: Duration,
    /// One JSON object, byte for byte as it stands in the file.
    pub message: Box<str>,
}

/// A whole recording.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recording {
    /// The first line, or what stands for it.
    pub header: Header,
    /// In order; at least one.
    pub frames: Vec<Frame>,
    /// The last line was cut short, as by a crash of whoever wrote it, and is left out.
    pub cut: bool,
}

impl Recording {
    /// Time of the last frame.
    pub fn duration(&self) -> Duration {
        self.frames.last().map_or(Duration::ZERO, |frame| frame.at)
    }
}

/// Why a text is no recording, or not a whole one. Lines count from 1. Messages hold no transcript text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordingError {
    /// The first line is of another form: this is some other file.
    #[error("no recording: {0}")]
    NotARecording(&'static str),
    /// It begins as a recording, and a later line cannot be read.
    #[error("line {line}: {message}")]
    Damaged {
        /// Where.
        line: usize,
        /// What was found, and what is allowed.
        message: String,
    },
    /// Made by a newer program.
    #[error("its version is {0}; this program reads up to {VERSION}")]
    Version(u32),
    /// A header without a frame.
    #[error("it holds no frame")]
    Empty,
}

#[derive(Deserialize)]
struct FrameLine {
    at_ms: Number,
    message: Box<RawValue>,
}

#[derive(Serialize, Deserialize)]
struct HeaderLine {
    recording: Header,
}

/// Reads a recording. Empty lines are skipped, fields that are not known are ignored, and so is a last line without a line
/// break that cannot be read. A first line may come again further down, as where a recording's files are put together.
///
/// # Errors
/// [`RecordingError::NotARecording`] when already the first line has another form, so that a caller that walks a folder
/// can tell other files from damaged recordings.
pub fn parse(text: &str) -> Result<Recording, RecordingError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let torn = text.lines().count() + usize::from(text.ends_with('\n'));
    let mut lines = text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty())
        .peekable();
    let Some(&(_, first)) = lines.peek() else {
        return Err(RecordingError::NotARecording("it is empty"));
    };
    let mut recording = Recording::default();
    if let Ok(line) = serde_json::from_str::<HeaderLine>(first) {
        if line.recording.version > VERSION {
            return Err(RecordingError::Version(line.recording.version));
        }
        recording.header = line.recording;
        lines.next();
    } else if read_frame(first).is_err() {
        return Err(RecordingError::NotARecording(r#"its first line is not {"at_ms": N, "message": {…}}"#));
    }
    for (line, text) in lines {
        let mut frame = match read_frame(text) {
            Ok(frame) => frame,
            Err(_) if serde_json::from_str::<HeaderLine>(text).is_ok_and(|line| line.recording == recording.header) => {
                continue;
            }
            Err(_) if line == torn && !recording.frames.is_empty() => {
                recording.cut = true;
                break;
            }
            Err(message) => return Err(RecordingError::Damaged { line, message }),
        };
        if let Some(last) = recording.frames.last() {
            frame.at = frame.at.max(last.at);
        }
        recording.frames.push(frame);
    }
    if recording.frames.is_empty() {
        return Err(RecordingError::Empty);
    }
    Ok(recording)
}

fn read_frame(text: &str) -> Result<Frame, String> {
    let line: FrameLine = serde_json::from_str(text).map_err(|error| {
        // A message of serde_json can quote what it found; only its place is safe to show.
        format!("found something else at column {} ({:?})", error.column(), error.classify())
    })?;
    let message = line.message.get();
    if !message.starts_with('{') {
        return Err("message is no JSON object".to_owned());
    }
    let at = time(&line.at_ms).ok_or("at_ms is no time: expected a number >= 0")?;
    Ok(Frame { at, message: message.into() })
}

/// Whole milliseconds, as they are written; others may come with a fraction.
fn time(ms: &Number) -> Option<Duration> {
    match ms.as_u64() {
        Some(ms) => Some(Duration::from_millis(ms)),
        None => Duration::try_from_secs_f64(ms.as_f64()? / 1000.0).ok(),
    }
}

/// The first line, without its line break.
pub fn write_header(header: &Header) -> String {
    serde_json::json!({ "recording": header }).to_string()
}

/// A frame's line, without its line break. `message` must be one JSON value; line breaks between its tokens become
/// spaces.
pub fn write_frame(at: Duration, message: &str) -> String {
    // Inside JSON strings a raw line break is not allowed, so every one in valid JSON is white space.
    let message = message.replace(['\n', '\r'], " ");
    format!("{{\"at_ms\":{},\"message\":{}}}", at.as_millis(), message.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TURN: &str = r#"{"type":"Turn",  "x":1}"#;

    #[test]
    fn what_is_written_reads_back_byte_for_byte() {
        let header = Header { dialect: "sidetone".into(), title: Some("Two people".into()), ..Header::default() };
        let text = [
            write_header(&header),
            write_frame(Duration::from_millis(0), TURN),
            String::new(),
            write_frame(Duration::from_millis(1200), "{\n\"type\":\"end\"}"),
        ]
        .join("\n");
        let recording = parse(&text).expect("recording");
        assert_eq!(recording.header, header);
        assert_eq!(&*recording.frames[0].message, TURN);
        assert_eq!(&*recording.frames[1].message, r#"{ "type":"end"}"#);
        assert_eq!(recording.duration(), Duration::from_millis(1200));
    }

    #[test]
    fn a_recording_without_a_first_line_is_assemblyai() {
        let recording = parse(&format!("\u{feff}{{\"at_ms\":0,\"message\":{TURN}}}\r\n")).expect("recording");
        assert_eq!(recording.header, Header::default());
        assert_eq!(recording.header.dialect, "assemblyai");
    }

    #[test]
    fn times_may_have_a_fraction_and_order_is_that_of_the_lines() {
        let lines =
            [r#"{"recording":{"dialect":"sidetone"}}"#, r#"{"at_ms":9.5,"message":{}}"#, r#"{"at_ms":4,"message":{}}"#];
        let recording = parse(&lines.join("\n")).expect("recording");
        assert_eq!((recording.header.version, recording.header.dialect.as_str()), (1, "sidetone"));
        let times: Vec<Duration> = recording.frames.iter().map(|frame| frame.at).collect();
        assert_eq!(times, [Duration::from_micros(9500); 2]);
    }

    #[test]
    fn other_files_are_told_from_damaged_recordings() {
        for other in ["", "\n\n", "hello", "[]", r#"{"kind":"turn","call_id":"a"}"#, r#"{"at_ms":1}"#] {
            assert!(matches!(parse(other), Err(RecordingError::NotARecording(_))), "{other}");
        }
        let good = write_frame(Duration::from_millis(5), TURN);
        for (bad, what) in [
            ("{", "column"),
            (r#"{"at_ms":-1,"message":{}}"#, "at_ms"),
            (r#"{"at_ms":"4","message":{}}"#, "column"),
            (r#"{"at_ms":9,"message":"secret words"}"#, "object"),
        ] {
            let error = parse(&format!("{good}\n{bad}\n")).expect_err(bad);
            assert!(matches!(error, RecordingError::Damaged { line: 2, .. }), "{error}");
            assert!(error.to_string().contains(what) && !error.to_string().contains("secret"), "{error}");
        }
        let cut = parse(&format!("{good}\n{}", &good[..good.len() - 1])).expect("all but its last line");
        assert!(cut.cut && cut.frames.len() == 1);
        assert!(!parse(&good).expect("whole").cut);
        let header = write_header(&Header::default());
        let two = parse(&format!("{header}\n{good}\n{header}\n{good}\n")).expect("two files of one recording");
        assert_eq!(two.frames.len(), 2);
        let other = write_header(&Header { dialect: "zoom".to_owned(), ..Header::default() });
        assert!(parse(&format!("{header}\n{good}\n{other}\n{good}\n")).is_err(), "of another dialect");
        assert_eq!(parse(r#"{"recording":{"version":2}}"#), Err(RecordingError::Version(2)));
        assert_eq!(parse(r#"{"recording":{"version":1}}"#), Err(RecordingError::Empty));
    }
}
