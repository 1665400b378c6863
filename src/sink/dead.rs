//! Dead letters: events that a consumer refused for good, stored in a file beside the sink's position.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::base::time::{rfc3339_ms, unix_ms};

/// Size at which the file is renamed to `.old`, replacing the older one, bytes.
const MAX_BYTES: u64 = 8 * 1024 * 1024;

/// Appends letters to `NAME.dead.jsonl`, one JSON object per line: `at`, `status`, `event`.
pub(super) async fn keep(dir: &Path, name: &str, status: u16, frames: Vec<String>) {
    let file = dir.join(format!("{name}.dead.jsonl"));
    let shown = file.display().to_string();
    let written = tokio::task::spawn_blocking(move || append(&file, status, &frames)).await;
    if let Ok(Err(error)) = written {
        tracing::warn!(file = shown, %error, "dead letters could not be stored and are lost");
    }
}

fn append(file: &PathBuf, status: u16, frames: &[String]) -> io::Result<()> {
    let mut lines = String::new();
    for frame in frames {
        // A frame is one line of JSON already.
        lines.push_str(&format!("{{\"at\":\"{}\",\"status\":{status},\"event\":{frame}}}\n", rfc3339_ms(unix_ms())));
    }
    if fs::metadata(file).is_ok_and(|metadata| metadata.len() + lines.len() as u64 > MAX_BYTES) {
        fs::rename(file, file.with_extension("jsonl.old"))?;
    }
    let mut out = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(file)?;
    out.write_all(lines.as_bytes())
}
