//! `sidetone convert`: writes a transcript file as a recording, in the `sidetone` dialect.
//!
//! A replay of the recording gives the same turns as `POST /v1/transcripts` with the file.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;

use super::input::{self, Input};
use super::out::{self, say};
use crate::base::owner;
use crate::protocol::{self, ingest};
use crate::recording::{self, Header};
use crate::transcript::{self, Transcript};
use crate::types::EndScope;

/// Options of `sidetone convert`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sidetone convert standup.vtt                     into standup.jsonl, beside it
  sidetone convert notes.txt -o call.jsonl --format text --title 'Weekly call'
  sidetone convert captions.srt -o - | head        to standard output
  sidetone convert standup.vtt && sidetone replay standup.jsonl --speed 4

Formats: vtt, srt, zoom, teams, otter, text. An unreadable part is an error with line and column, and nothing is
written.")]
pub(crate) struct ConvertArgs {
    /// Transcript file; "-" is standard input
    #[arg(value_name = "FILE", value_parser = super::absolute())]
    file: PathBuf,
    /// Output file; "-" is standard output. Default: FILE with the extension jsonl, or standard output if FILE is "-"
    #[arg(short, long, value_name = "FILE", value_parser = super::absolute())]
    output: Option<PathBuf>,
    /// Format of the file; default: detected
    #[arg(long, value_name = "FORMAT", value_parser = input::formats())]
    format: Option<String>,
    /// Title of the recording; default: the title in the file, if there is one
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
    /// Replace an existing file
    #[arg(long)]
    force: bool,
}

/// Runs the command.
///
/// # Errors
/// The file cannot be read, or the recording cannot be written.
pub(crate) fn run(args: &ConvertArgs) -> Result<ExitCode> {
    let output = match &args.output {
        Some(output) => output.clone(),
        None if input::is_stdin(&args.file) => args.file.clone(),
        None => args.file.with_extension("jsonl"),
    };
    if !input::is_stdin(&output) && output == args.file {
        bail!("{} would replace itself; use -o to write another file", output.display());
    }
    let read = input::read(&args.file, args.format.as_deref())?;
    read.notes(&args.file).iter().for_each(|note| anstream::eprintln!("{note}"));
    let Input::Transcript(format, transcript) = read else {
        bail!("{} is a recording already", input::shown(&args.file));
    };
    let text = recording_of(&transcript, args.title.as_deref());
    if input::is_stdin(&output) {
        out::lines(&text)?;
    } else {
        write(&output, &text, args.force)?;
        say!("{} turns ({format}) in {}", transcript.turns.len(), output.display())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The lines of the recording.
fn recording_of(transcript: &Transcript, title: Option<&str>) -> String {
    let title = title.map(str::to_owned).or_else(|| transcript.title.clone());
    let header = Header { dialect: "sidetone".to_owned(), title, ..Header::default() };
    let mut text = recording::write_header(&header) + "\n";
    let mut at = Duration::ZERO;
    for (ended, frame) in transcript::frames(&transcript.turns) {
        at = at.max(ended);
        text.push_str(&recording::write_frame(at, &frame));
        text.push('\n');
    }
    let end = ingest::End { scope: Some(EndScope::Call), ..Default::default() };
    text.push_str(&recording::write_frame(at, &protocol::text(&end)));
    text.push('\n');
    text
}

fn write(path: &Path, text: &str, force: bool) -> Result<()> {
    let mut options = OpenOptions::new();
    let options = if force { options.create(true).truncate(true) } else { options.create_new(true) };
    let mut file: File = options.write(true).open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => anyhow!("{} exists; --force replaces it", path.display()),
        _ => anyhow!(error).context(format!("cannot write {}", path.display())),
    })?;
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(owner::give(path, path.parent().and_then(owner::heir))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recording_has_a_frame_for_each_turn_in_the_order_of_time() {
        let text = "WEBVTT\n\n00:01.000 --> 00:09.000\n<v Ann>One\u{2028}\"line\".</v>\n\n00:02.000 --> 00:03.000\n<v Bob>Two.</v>\n";
        let (_, transcript) = transcript::read(text.as_bytes(), None).expect("a transcript");
        let written = recording_of(&transcript, Some("A \"call\""));
        let recording = recording::parse(&written).expect("a recording");
        assert_eq!(
            (recording.header.dialect.as_str(), recording.header.title.as_deref()),
            ("sidetone", Some("A \"call\""))
        );
        let times: Vec<u128> = recording.frames.iter().map(|frame| frame.at.as_millis()).collect();
        assert_eq!(times, [9_000, 9_000, 9_000], "a turn comes when it has ended, and the end last");
        assert_eq!((recording.skipped, recording.cut, written.lines().count()), (0, false, 4));
    }

    #[test]
    fn file_that_is_there_is_replaced_by_force_only() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("a.jsonl");
        write(&path, "one\n", false).expect("new");
        let error = write(&path, "two\n", false).expect_err("it is there").to_string();
        assert!(error.contains("--force"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).expect("file"), "one\n");
        write(&path, "2\n", true).expect("replaced");
        assert_eq!(std::fs::read_to_string(&path).expect("file"), "2\n");
    }
}
