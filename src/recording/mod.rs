//! Recordings: a call's vendor frames with their times, as JSON Lines. Reads and writes the format. Knows no file
//! system, no socket and no dialect: the content of a frame is never parsed.
//!
//! Each line is `{"at_ms": N, "message": {…}}`: one frame, verbatim, and its time since the start of the call. The
//! first line may be a header: `{"recording": {"version": 1, "dialect": "assemblyai", "title": "…", "license": "…"}}`.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Number;
use serde_json::value::RawValue;

use crate::base::surrogates;

/// Version of the format that is written, and the newest that can be read.
pub const VERSION: u32 = 1;

/// Number of unreadable lines that are reported one by one.
pub const SKIPPED_SHOWN: usize = 20;

/// Dialect of a recording whose header names none, or that has no header.
pub const DEFAULT_DIALECT: &str = "assemblyai";

/// The optional first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the format.
    #[serde(default = "first_version")]
    pub version: u32,
    /// Wire format of the frames.
    #[serde(default = "default_dialect")]
    pub dialect: String,
    /// Title, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Terms of use.
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

/// A vendor's frame and its arrival time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Time since the start of the call. Never earlier than the previous frame: an earlier time in the file is raised
    /// to it.
    pub at: Duration,
    /// One JSON object, byte for byte as in the file.
    pub message: Box<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recording {
    /// The header, or the default if the file has none.
    pub header: Header,
    /// In order; at least one.
    pub frames: Vec<Frame>,
    /// Set if the last line was incomplete, for example after a crash of the writer, and was left out.
    pub cut: bool,
    /// Number of other unreadable lines, which were left out.
    pub skipped: usize,
    /// The first of those lines, at most [`SKIPPED_SHOWN`].
    pub damage: Vec<Damage>,
}

/// A line that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Line number, from 1.
    pub line: usize,
    /// What was found and what is allowed. Contains no transcript text.
    pub message: String,
}

impl Recording {
    /// Time of the last frame; zero if there is none.
    pub fn duration(&self) -> Duration {
        self.frames.last().map_or(Duration::ZERO, |frame| frame.at)
    }
}

/// Why a text is not a recording that can be played. Line numbers count from 1. Messages contain no transcript text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordingError {
    /// The first line is neither a header nor a frame: the file is something else.
    #[error("not a recording: {0}")]
    NotARecording(&'static str),
    /// A header cannot be read, or differs from the first one, so the dialect of the frames after it is unknown.
    #[error("line {line}: {message}")]
    Header {
        /// Line number, from 1.
        line: usize,
        /// What is wrong and what is allowed.
        message: String,
    },
    /// Written in a newer version of the format.
    #[error("its version is {0}; this program reads up to {VERSION}")]
    Version(u32),
    /// The file has no readable frame.
    #[error("it contains no frame{}", if *skipped == 0 { String::new() } else { format!(" that can be read, and \
        {skipped} lines that cannot") })]
    Empty {
        /// Number of unreadable lines.
        skipped: usize,
    },
}

#[derive(Deserialize)]
struct FrameLine {
    at_ms: Number,
    message: Box<RawValue>,
}

#[derive(Deserialize)]
struct HeaderLine {
    recording: serde_json::Map<String, serde_json::Value>,
}

/// Reads a recording. Empty lines are skipped and unknown fields are ignored. An unreadable last line without a line
/// break is left out and sets [`Recording::cut`]; other unreadable lines are left out and counted in
/// [`Recording::skipped`]. The header may be repeated further down, as in concatenated files of one recording.
///
/// # Errors
/// [`RecordingError::NotARecording`] if the first line is neither a header nor a frame, so that a caller that walks a
/// folder can tell other files from damaged recordings. Otherwise the error that makes the recording unusable.
pub fn parse<T: AsRef<[u8]> + ?Sized>(bytes: &T) -> Result<Recording, RecordingError> {
    let bytes = bytes.as_ref();
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    // If the file ends with a line break, the last line is empty.
    let last_line = bytes.split(|byte| *byte == b'\n').count();
    let mut lines = bytes
        .split(|byte| *byte == b'\n')
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim_ascii()))
        .filter(|(_, line)| !line.is_empty())
        .peekable();
    let Some(&(line, first)) = lines.peek() else {
        return Err(RecordingError::NotARecording("it is empty"));
    };
    let mut recording = Recording::default();
    if let Some(header) = read_header(line, first) {
        recording.header = header?;
        lines.next();
    } else if read_frame(first).is_err() {
        return Err(RecordingError::NotARecording(r#"its first line is not {"at_ms": N, "message": {…}}"#));
    }
    for (line, text) in lines {
        let mut frame = match read_frame(text) {
            Ok(frame) => frame,
            Err(message) => match read_header(line, text).transpose()? {
                Some(header) if header == recording.header => continue,
                Some(_) => {
                    let message =
                        "the header differs from the first one: the frames after it belong to another recording"
                            .to_owned();
                    return Err(RecordingError::Header { line, message });
                }
                None if line == last_line && !recording.frames.is_empty() => {
                    recording.cut = true;
                    break;
                }
                None => {
                    recording.skipped += 1;
                    if recording.damage.len() < SKIPPED_SHOWN {
                        recording.damage.push(Damage { line, message });
                    }
                    continue;
                }
            },
        };
        if let Some(last) = recording.frames.last() {
            frame.at = frame.at.max(last.at);
        }
        recording.frames.push(frame);
    }
    if recording.frames.is_empty() {
        return Err(RecordingError::Empty { skipped: recording.skipped });
    }
    Ok(recording)
}

/// The header in a line; `None` if the line is not a header.
fn read_header(line: usize, text: &[u8]) -> Option<Result<Header, RecordingError>> {
    let found: HeaderLine = surrogates::from_slice(text).ok()?;
    let header = serde_json::from_value::<Header>(found.recording.into()).map_err(|_| RecordingError::Header {
        line,
        message: r#"the header is not {"recording": {"version": N, "dialect": "…", "title": "…", "license": "…"}}"#
            .into(),
    });
    Some(match header {
        Ok(header) if header.version > VERSION => Err(RecordingError::Version(header.version)),
        header => header,
    })
}

fn read_frame(text: &[u8]) -> Result<Frame, String> {
    let text =
        std::str::from_utf8(text).map_err(|error| format!("not UTF-8 from byte {} on", error.valid_up_to() + 1))?;
    let line: FrameLine = serde_json::from_str(text).map_err(|error| {
        // A serde_json message can quote the text that it found; only the position is safe to show.
        format!(
            "expected {{\"at_ms\": N, \"message\": {{…}}}}; the line differs from column {} on ({:?})",
            error.column(),
            error.classify()
        )
    })?;
    let message = line.message.get();
    if !message.starts_with('{') {
        return Err("message is not a JSON object".to_owned());
    }
    let at = time(&line.at_ms).ok_or("at_ms is not a time: expected a number >= 0")?;
    Ok(Frame { at, message: message.into() })
}

/// A time in milliseconds, whole (as we write it) or with a fraction. `None` if negative or too large.
fn time(ms: &Number) -> Option<Duration> {
    match ms.as_u64() {
        Some(ms) => Some(Duration::from_millis(ms)),
        None => Duration::try_from_secs_f64(ms.as_f64()? / 1000.0).ok(),
    }
}

/// The header line, without its line break.
pub fn write_header(header: &Header) -> String {
    serde_json::json!({ "recording": header }).to_string()
}

/// The line of a frame, without its line break. `message` must be one JSON value; line breaks between its tokens become
/// spaces.
pub fn write_frame(at: Duration, message: &str) -> String {
    // JSON strings cannot contain a raw line break, so every one in valid JSON is white space.
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
    fn other_files_are_distinguished_from_damaged_recordings() {
        for other in ["", "\n\n", "hello", "[]", r#"{"kind":"turn","call_id":"a"}"#, r#"{"at_ms":1}"#] {
            assert!(matches!(parse(other), Err(RecordingError::NotARecording(_))), "{other}");
        }
        let good = write_frame(Duration::from_millis(5), TURN);
        let cut = parse(&format!("{good}\n{}", &good[..good.len() - 1])).expect("all but its last line");
        assert!(cut.cut && cut.frames.len() == 1 && cut.skipped == 0);
        assert!(!parse(&good).expect("whole").cut);
        let mut in_a_letter = format!("{good}\n{{\"at_ms\":9,\"message\":\"é").into_bytes();
        in_a_letter.pop();
        assert!(parse(&in_a_letter).expect("all but its last line").cut);
        let header = write_header(&Header::default());
        let two = parse(&format!("{header}\n{good}\n{header}\n{good}\n")).expect("two files of one recording");
        assert_eq!(two.frames.len(), 2);
        assert_eq!(parse(r#"{"recording":{"version":2}}"#), Err(RecordingError::Version(2)));
        assert_eq!(parse(r#"{"recording":{"version":1}}"#), Err(RecordingError::Empty { skipped: 0 }));
    }

    #[test]
    fn a_line_that_cannot_be_read_is_left_out_and_told_of() {
        let good = write_frame(Duration::from_millis(5), TURN);
        for (bad, what) in [
            (&b"{"[..], "column"),
            (b"\x00\x00\x00", "column"),
            (br#"{"at_ms":-1,"message":{}}"#, "at_ms"),
            (br#"{"at_ms":"4","message":{}}"#, "column"),
            (br#"{"at_ms":9,"message":"secret words"}"#, "object"),
            (b"{\"at_ms\":9,\"message\":{\"x\":\"secret \xff\"}}", "UTF-8"),
        ] {
            let text = [good.as_bytes(), bad, good.as_bytes(), b""].join(&b'\n');
            let recording = parse(&text).expect("the rest of it");
            let (line, message) = (recording.damage[0].line, &recording.damage[0].message);
            assert_eq!((recording.frames.len(), recording.skipped, line, recording.cut), (2, 1, 2, false), "{message}");
            assert!(message.contains(what) && !message.contains("secret"), "{message}");
        }
        let many = parse(&format!("{good}\n{}", "x\n".repeat(1000))).expect("a recording");
        assert_eq!((many.frames.len(), many.skipped, many.damage.len()), (1, 1000, SKIPPED_SHOWN));
    }

    #[test]
    fn a_damaged_header_is_an_error() {
        let (header, good) = (write_header(&Header::default()), write_frame(Duration::ZERO, TURN));
        let zoom = write_header(&Header { dialect: "zoom".to_owned(), ..Header::default() });
        let wrong = r#"{"recording":{"version":1,"dialect":5}}"#;
        for (text, line) in [
            (format!("{wrong}\n{good}\n"), 1),
            (format!("{header}\n{good}\n{wrong}\n{good}\n"), 3),
            (format!("{header}\n{good}\n{zoom}\n{good}\n"), 3),
        ] {
            assert!(matches!(parse(&text), Err(RecordingError::Header { line: at, .. }) if at == line), "{text}");
        }
        assert_eq!(parse(&format!("{header}\nx\ny\n")), Err(RecordingError::Empty { skipped: 2 }));
    }
}
