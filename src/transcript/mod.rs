//! Reads transcript files, as captioning and meeting products export them, into turns. Bytes in, turns out.
//!
//! Knows no file system, no call and no analysis. Speech is kept unchanged; content that no format allows is an error
//! with its line and column, or a note in [`Transcript::left_out`].

mod captions;
mod cues;
mod frames;
mod headed;
mod markup;
mod merge;
mod names;
mod otter;
mod pace;
mod rolling;
mod source;
mod srt;
mod teams;
#[cfg(test)]
mod tests;
mod text;
mod time;
mod vtt;
mod zoom;

pub use frames::frames;
pub use source::Line;

use crate::base::names as known_names;

/// All formats, in the order in which they are listed and tried. To add one, add a file, a line here, and a folder of
/// fixtures in `tests/golden/transcripts`.
pub static FORMATS: &[&dyn Format] = &[&vtt::Vtt, &srt::Srt, &zoom::Zoom, &teams::Teams, &otter::Otter, &text::Text];

/// `transcript_bytes`: longest file, bytes. A meeting of ten hours has about one MiB.
pub const MAX_BYTES: usize = 16 << 20;
/// `transcript_lines`: maximum number of lines of a file.
pub const MAX_LINES: usize = 1_000_000;
/// `transcript_line_bytes`: longest line, bytes.
pub const MAX_LINE_BYTES: usize = 256 << 10;
/// `transcript_turns`: maximum number of cues, and of turns, of a file.
pub const MAX_TURNS: usize = 100_000;

/// Maximum number of left-out parts that are listed.
const LEFT_OUT_SHOWN: usize = 20;

/// A format of transcript files.
pub trait Format: Send + Sync {
    /// The name in `format`.
    fn name(&self) -> &'static str;
    /// A description of what it reads, for lists of formats and for errors.
    fn about(&self) -> &'static str;
    /// How well a file fits it.
    fn fit(&self, lines: &[Line<'_>]) -> Fit;
    /// Reads a file, all or nothing.
    ///
    /// # Errors
    /// The first thing that cannot be read.
    fn read(&self, lines: &[Line<'_>]) -> Result<Transcript, TranscriptError>;
}

impl std::fmt::Debug for dyn Format {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name())
    }
}

/// How well a file fits a format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fit {
    /// The format cannot read it.
    No,
    /// The format can read it.
    Maybe,
    /// The file has marks that only this format uses.
    Surely,
}

/// A transcript file after it was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transcript {
    /// The file's own title, if it has one.
    pub title: Option<String>,
    /// In order of their start; in the order of the file if the file is not sorted by time.
    pub turns: Vec<Turn>,
    /// Where the times come from.
    pub times: Times,
    /// Content that is not speech and was left out, apart from the comments of the format.
    pub left_out: Vec<LeftOut>,
}

/// One turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// The line where it begins, from 1.
    pub line: usize,
    /// The speaker's name as it is written; `None` if the file does not say.
    pub speaker: Option<String>,
    /// What was said; never empty.
    pub text: String,
    /// Start, ms.
    pub start_ms: u64,
    /// End, ms, never before the start.
    pub end_ms: u64,
}

/// Where times come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Times {
    /// The file has starts and ends.
    #[default]
    Given,
    /// The file has starts only, or not all of them; the rest is estimated.
    Starts,
    /// The file has no times; all are estimated.
    Estimated,
}

impl Times {
    /// The name in the answer of `POST /v1/transcripts`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Given => "given",
            Self::Starts => "starts",
            Self::Estimated => "estimated",
        }
    }
}

/// Something in a file that is not speech.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// First line of the part that was left out, from 1.
    pub line: usize,
    /// What the part is. Contains no text of the file.
    pub message: String,
}

impl LeftOut {
    /// A name without any speech.
    fn name(line: usize) -> Self {
        Self { line, message: "a name without any speech".to_owned() }
    }
}

/// Why a file cannot be read. The message says what is expected. It contains no transcript text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct TranscriptError {
    /// Line, from 1.
    pub line: usize,
    /// Column, in characters from 1.
    pub column: usize,
    /// What is wrong and what is expected.
    pub message: String,
}

impl TranscriptError {
    fn new(line: usize, column: usize, message: impl Into<String>) -> Self {
        Self { line, column, message: message.into() }
    }
}

/// The format of that name.
///
/// # Errors
/// A message that lists the existing formats.
pub fn format(name: &str) -> Result<&'static dyn Format, String> {
    FORMATS
        .iter()
        .copied()
        .find(|format| format.name() == name)
        .ok_or_else(|| known_names::unknown("format", name, &names()))
}

/// The names of all formats.
pub fn names() -> Vec<&'static str> {
    FORMATS.iter().map(|format| format.name()).collect()
}

/// Reads a file in `format`; without one, in the format that fits best. Returns the format that was used. The file may
/// be UTF-8, or UTF-16 with a byte order mark.
///
/// # Errors
/// The first part that cannot be read, a limit that the file exceeds, or that it contains no turn.
pub fn read(
    bytes: &[u8],
    format: Option<&'static dyn Format>,
) -> Result<(&'static dyn Format, Transcript), TranscriptError> {
    let text = source::decode(bytes)?;
    let lines = source::lines(&text)?;
    let format = match format {
        Some(format) => format,
        None => detect(&lines)?,
    };
    let mut transcript = format.read(&lines)?;
    if transcript.turns.is_empty() {
        return Err(TranscriptError::new(1, 1, format!("it contains no speech; expected {}", format.about())));
    }
    if transcript.turns.len() > MAX_TURNS {
        let line = transcript.turns.get(MAX_TURNS).map_or(1, |turn| turn.line);
        return Err(TranscriptError::new(line, 1, format!("more than {MAX_TURNS} turns (transcript_turns)")));
    }
    if let Some(next) = transcript.left_out.get(LEFT_OUT_SHOWN) {
        let more = transcript.left_out.len() - LEFT_OUT_SHOWN;
        let rest = LeftOut { line: next.line, message: format!("{more} more parts like these, from this line on") };
        transcript.left_out.truncate(LEFT_OUT_SHOWN);
        transcript.left_out.push(rest);
    }
    Ok((format, transcript))
}

/// Appends a line to a text.
fn append(text: &mut String, line: &str) {
    let gap = crate::base::text::gap(text, line);
    text.push_str(gap);
    text.push_str(line);
}

/// The format that the file fits best; on a tie, the first.
fn detect(lines: &[Line<'_>]) -> Result<&'static dyn Format, TranscriptError> {
    let fits = FORMATS.iter().copied().map(|format| (format.fit(lines), format));
    let best = fits.fold((Fit::No, None), |best, (fit, format)| if fit > best.0 { (fit, Some(format)) } else { best });
    best.1.ok_or_else(|| {
        let known: Vec<String> =
            FORMATS.iter().map(|format| format!("{} ({})", format.name(), format.about())).collect();
        let first = lines.iter().find(|line| !line.is_blank()).map_or(1, |line| line.number);
        TranscriptError::new(first, 1, format!("not a known transcript format; there are: {}", known.join("; ")))
    })
}
