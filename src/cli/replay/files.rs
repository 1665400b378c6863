//! Finds recordings: given files, and the files of given folders by name, without hidden files. Other files are skipped
//! and reported.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::recording::{self, Recording, RecordingError};

/// Maximum file size, bytes: whole recordings are kept in memory while they play, and no call is larger.
const MAX_FILE_BYTES: u64 = 1024 * 1024 * 1024;

/// The files that were found, in the order of the arguments, and by name within a folder.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    /// Recordings, with their number of frames. They are read again when they are played, so that a folder of any size
    /// fits into memory.
    pub(crate) recordings: Vec<(PathBuf, usize)>,
    /// Files that are not recordings, and why.
    pub(crate) skipped: Vec<(PathBuf, String)>,
    /// Recordings that cannot be played, and why.
    pub(crate) damaged: Vec<(PathBuf, String)>,
    /// The lines that are left out of recordings, one sentence each.
    pub(crate) left_out: Vec<String>,
}

/// Reads every file of `paths` once, and folders recursively.
///
/// # Errors
/// A path that cannot be read at all.
pub(crate) fn walk(paths: &[PathBuf]) -> Result<Walk> {
    let mut walk = Walk::default();
    for path in paths {
        visit(path, &mut walk).with_context(|| format!("cannot read {}", path.display()))?;
    }
    Ok(walk)
}

fn visit(path: &Path, walk: &mut Walk) -> Result<()> {
    if path.is_dir() {
        let mut entries = std::fs::read_dir(path)?.collect::<std::io::Result<Vec<_>>>()?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            // Hidden files are hidden on purpose.
            if entry.file_name().to_string_lossy().starts_with('.') {
                continue;
            }
            visit(&path, walk).with_context(|| format!("in {}", path.display()))?;
        }
        return Ok(());
    }
    match load(path)? {
        Ok(recording) => {
            walk.left_out.extend(left_out(path, &recording));
            walk.recordings.push((path.to_owned(), recording.frames.len()));
        }
        Err(error @ RecordingError::NotARecording(_)) => walk.skipped.push((path.to_owned(), error.to_string())),
        Err(error) => walk.damaged.push((path.to_owned(), error.to_string())),
    }
    Ok(())
}

/// What is left out of a recording, one sentence each.
pub(crate) fn left_out(path: &Path, recording: &Recording) -> Vec<String> {
    let path = path.display();
    let damage = recording.damage.iter();
    let mut said: Vec<String> =
        damage.map(|damage| format!("{path}:{}: {}; the line is left out", damage.line, damage.message)).collect();
    if recording.skipped > said.len() {
        said.push(format!("{path}: {} more lines like these are left out", recording.skipped - said.len()));
    }
    said.extend(recording.cut.then(|| format!("{path}: its last line was cut short and is left out")));
    said
}

/// Reads one recording.
///
/// # Errors
/// Outer: the file cannot be read. Inner: it is not a recording, or one that cannot be played.
pub(crate) fn load(path: &Path) -> Result<Result<Recording, RecordingError>> {
    let size = std::fs::metadata(path)?.len();
    if size > MAX_FILE_BYTES {
        return Ok(Err(RecordingError::NotARecording("the file is larger than 1 GiB")));
    }
    Ok(recording::parse(&std::fs::read(path)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_walked_in_order_and_other_files_named() {
        let folder = tempfile::tempdir().expect("folder");
        let put = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("parent")).expect("folder");
            std::fs::write(path, text).expect("write");
        };
        let good = r#"{"at_ms":0,"message":{"type":"Begin"}}"#;
        put("b.jsonl", good);
        put("a/c.jsonl", good);
        put("labels.jsonl", r#"{"kind":"turn"}"#);
        put("y.jsonl", &format!("{good}\n{{"));
        put("w.jsonl", &format!("{good}\n{{\n{good}\n"));
        put("z.jsonl", &format!("{{\"recording\":{{\"dialect\":5}}}}\n{good}\n"));
        put(".hidden.jsonl", good);
        put("picture.png", "\u{fffd}");
        std::fs::write(folder.path().join("raw"), [0xff, 0xfe]).expect("write");
        let walk = walk(&[folder.path().to_owned()]).expect("walk");
        let names = |paths: Vec<&PathBuf>| -> Vec<String> {
            paths
                .into_iter()
                .map(|path| path.strip_prefix(folder.path()).expect("inside").display().to_string())
                .collect()
        };
        assert_eq!(
            names(walk.recordings.iter().map(|(path, _)| path).collect()),
            ["a/c.jsonl", "b.jsonl", "w.jsonl", "y.jsonl"]
        );
        let said = walk.left_out.join("\n");
        assert!(said.contains("w.jsonl:2: ") && said.contains("y.jsonl: its last line"), "{said}");
        assert_eq!(names(walk.skipped.iter().map(|(path, _)| path).collect()), ["labels.jsonl", "picture.png", "raw"]);
        assert_eq!(names(walk.damaged.iter().map(|(path, _)| path).collect()), ["z.jsonl"]);
        assert!(super::walk(&[folder.path().join("nowhere")]).is_err());
    }
}
