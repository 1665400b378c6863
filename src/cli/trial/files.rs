//! A folder of models' answers: one JSON file for each request, named by the request's digest. `src/docs/comparing.md`
//! describes the form.
//!
//! Does not interpret a request: a file contains it only for people. No file contains an API key, because keys are
//! added when a request is sent.

use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::base::sync::lock;
use crate::gateway::exchanges::{Asked, Exchange, ExchangeStore};

/// The folder.
pub(super) struct Files {
    folder: PathBuf,
    /// Held while a file is changed.
    writing: Mutex<()>,
}

#[derive(Deserialize)]
struct Kept {
    answers: Vec<Exchange>,
}

#[derive(Serialize)]
struct File<'a> {
    asked: &'a Asked,
    answers: &'a [Exchange],
}

impl Files {
    /// Opens a folder for writing, and creates it if necessary. Only this user can read it, because the requests
    /// contain text of calls.
    ///
    /// # Errors
    /// The folder cannot be created.
    pub(super) fn create(folder: &Path) -> Result<Self> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        Self::open(folder)
    }

    /// Opens an existing folder.
    ///
    /// # Errors
    /// The folder does not exist.
    pub(super) fn open(folder: &Path) -> Result<Self> {
        if !folder.is_dir() {
            bail!("{} is not a folder; --record-llm creates one", folder.display());
        }
        Ok(Self { folder: folder.to_owned(), writing: Mutex::default() })
    }

    fn path(&self, digest: &str) -> PathBuf {
        self.folder.join(format!("{digest}.json"))
    }

    /// Writes a temporary file and renames it, so that a reader never sees an incomplete file.
    fn write(&self, path: &Path, file: &File<'_>) -> io::Result<()> {
        let mut text = serde_json::to_string_pretty(file)?;
        text.push('\n');
        let beside = path.with_extension("tmp");
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?.write_all(text.as_bytes())?;
        std::fs::rename(&beside, path)
    }
}

impl ExchangeStore for Files {
    fn read(&self, digest: &str) -> Result<Vec<Exchange>, String> {
        let path = self.path(digest);
        let wrong = |message: String| format!("{}: {message}", path.display());
        match std::fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(wrong(error.to_string())),
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map(|kept: Kept| kept.answers).map_err(|error| wrong(error.to_string()))
            }
        }
    }

    fn add(&self, asked: &Asked, position: usize, exchange: Exchange) -> Result<Exchange, String> {
        let _writing = lock(&self.writing);
        let mut answers = self.read(&asked.digest)?;
        if let Some(other) = answers.get(position) {
            return Ok(other.clone());
        }
        answers.push(exchange.clone());
        let path = self.path(&asked.digest);
        let written = self.write(&path, &File { asked, answers: &answers });
        written.map(|()| exchange).map_err(|error| format!("{}: {error}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::gateway::exchanges::{Answered, Failed, Outcome};

    #[test]
    fn answers_read_back_in_order_and_the_first_at_a_place_stays() {
        let folder = tempfile::tempdir().expect("folder");
        let files = Files::create(&folder.path().join("a/b")).expect("files");
        let asked = Asked {
            digest: "d1".into(),
            call: None,
            analysis: Some("summary".into()),
            candidates: vec!["e/v".into()],
            body: json!({"messages": []}),
        };
        let exchange = |outcome: Outcome, waited_us: u64| Exchange {
            outcome,
            attempts: 1,
            usage: crate::llm::Usage { input: Some(7), ..Default::default() },
            cost_pico: None,
            waited_us,
            first_token_us: Some(3),
        };
        let said = Outcome::Answer(Answered { text: Some("{}".into()), endpoint: "e".into(), ..Answered::default() });
        let failed = Outcome::Error(Failed { code: "timeout".into(), message: "no answer".into(), temporary: true });
        assert_eq!(files.read("d1"), Ok(Vec::new()));
        let (first, second) = (exchange(failed, 1), exchange(said, 2));
        assert_eq!(files.add(&asked, 0, first.clone()), Ok(first.clone()));
        assert_eq!(files.add(&asked, 0, second.clone()), Ok(first.clone()), "kept in the meantime");
        assert_eq!(files.add(&asked, 1, second.clone()), Ok(second.clone()));
        assert_eq!(Files::open(&folder.path().join("a/b")).expect("files").read("d1"), Ok(vec![first, second]));
        let names: Vec<_> = std::fs::read_dir(folder.path().join("a/b")).expect("folder").collect();
        assert_eq!(names.len(), 1, "{names:?}");
        std::fs::write(folder.path().join("a/b/d2.json"), "{").expect("write");
        assert!(files.read("d2").expect_err("a fault").contains("d2.json: "));
        assert!(Files::open(&folder.path().join("none")).is_err());
    }
}
