//! The folder of an analysis: `v1.j2` (and `v2.j2`, …), `schema.json` and optionally `analysis.toml`.
//!
//! Does not interpret the files. Reading a user's folder at start-up is the only I/O of this module.

use std::fmt;
use std::path::Path;

/// Largest file of an analysis, bytes.
const MAX_FILE_BYTES: u64 = 256 * 1024;

/// Text files, sorted by name.
#[derive(Debug, Clone, Default)]
pub struct Folder {
    files: Vec<(String, String)>,
}

/// An error in a file, and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Name of the file. Empty if the configuration is wrong; the message then starts with the key.
    pub file: String,
    /// Line and column, from 1.
    pub at: Option<(usize, usize)>,
    /// What is wrong, and what is allowed.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            Some((line, column)) => write!(formatter, "{}:{line}:{column}: {}", self.file, self.message),
            None => write!(formatter, "{}: {}", self.file, self.message),
        }
    }
}

impl Fault {
    /// A fault at `offset` bytes into `source`.
    pub(super) fn at(file: &str, source: &str, offset: usize, message: impl Into<String>) -> Self {
        let at = Some(super::position::line_column(source, offset));
        Self { file: file.to_owned(), at, message: message.into() }
    }

    /// A fault of a whole file.
    pub(super) fn whole(file: &str, message: impl Into<String>) -> Self {
        Self { file: file.to_owned(), at: None, message: message.into() }
    }
}

impl Folder {
    /// A folder of the given files.
    pub fn new<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut files: Vec<(String, String)> =
            files.into_iter().map(|(name, text)| (name.to_owned(), text.to_owned())).collect();
        files.sort();
        Self { files }
    }

    /// One file's text.
    pub fn file(&self, name: &str) -> Option<&str> {
        self.files.iter().find(|(known, _)| known == name).map(|(_, text)| text.as_str())
    }

    /// Name and text of each file.
    pub fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|(name, text)| (name.as_str(), text.as_str()))
    }
}

/// Reads the files of an analysis from a folder; other files in it are ignored.
///
/// # Errors
/// The path is not a folder, or one of its files cannot be read, is too large or is not UTF-8.
pub fn load_dir(path: &Path) -> Result<Folder, Fault> {
    let unreadable = |name: &str, error: &std::io::Error| Fault::whole(name, format!("cannot be read: {error}"));
    let shown = path.display().to_string();
    let entries = std::fs::read_dir(path).map_err(|error| unreadable(&shown, &error))?;
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| unreadable(&shown, &error))?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let wanted = name == "analysis.toml" || name == "schema.json" || version_of(&name).is_some();
        if !wanted {
            continue;
        }
        let bytes = std::fs::metadata(entry.path()).map_err(|error| unreadable(&name, &error))?.len();
        if bytes > MAX_FILE_BYTES {
            return Err(Fault::whole(
                &name,
                format!("has {bytes} bytes; at most {MAX_FILE_BYTES} are allowed (analysis_file_bytes)"),
            ));
        }
        let text = std::fs::read_to_string(entry.path()).map_err(|error| unreadable(&name, &error))?;
        files.push((name, text));
    }
    Ok(Folder::new(files.iter().map(|(name, text)| (name.as_str(), text.as_str()))))
}

/// The prompt version in a file of this name; `None` if the name is not that of a prompt file.
pub(super) fn version_of(file: &str) -> Option<&str> {
    let version = file.strip_suffix(".j2")?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    (!version.is_empty() && !version.starts_with('.') && version.bytes().all(allowed)).then_some(version)
}
