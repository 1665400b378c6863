//! `sidetone init`: writes a configuration that uses the models found here; all other vendors are commented out.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use super::discovery::{self, Found};
use super::out::say;
use super::{progress, settings};
use crate::config::Config;

/// Options of `sidetone init`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sidetone init                             writes sidetone.toml
  sidetone init /etc/sidetone/sidetone.toml --force

It finds vendors whose key is in the environment under its usual name (OPENAI_API_KEY, ANTHROPIC_API_KEY, …), and a
running Ollama. Keys are named in the file (\"env:OPENAI_API_KEY\") and never written to it.")]
pub(crate) struct InitArgs {
    /// The file to write
    #[arg(value_name = "PATH", default_value = "sidetone.toml", value_parser = super::absolute())]
    path: PathBuf,
    /// Overwrite an existing file
    #[arg(long)]
    force: bool,
}

/// Runs the command.
///
/// # Errors
/// The file exists, or cannot be written.
pub(crate) async fn run(args: InitArgs) -> Result<ExitCode> {
    let path = args.path;
    if !args.force && path.exists() {
        bail!("{} exists; --force overwrites it", path.display());
    }
    let discovery = discovery::look().await;
    discovery.notes.iter().for_each(|note| progress::warn(note));
    let text = discovery::template(&discovery.found);
    let base = path.parent().unwrap_or(Path::new("."));
    if let Err(problems) = Config::parse(&text, base) {
        let lines: Vec<String> = problems.iter().map(settings::line).collect();
        bail!("nothing was written, because the configuration would be invalid: {}", lines.join("; "));
    }
    write(&path, &text, args.force)?;
    let file = path.display();
    say!("wrote {file}: {}", used(&discovery.found))?;
    say!("\nnext:\n  sidetone check --config {file}\n  sidetone serve --config {file}")?;
    Ok(ExitCode::SUCCESS)
}

fn used(found: &[Found]) -> String {
    if found.is_empty() {
        return "no model was found, so the embedded provider (local) answers".to_owned();
    }
    let names: Vec<String> = found.iter().map(|found| format!("{} ({})", found.candidate(), found.reason())).collect();
    format!("it asks {}, and the embedded provider (local) if none of them answers", names.join(", then "))
}

fn write(path: &Path, text: &str, force: bool) -> Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    if !force {
        options.create_new(true);
    }
    let mut file = options.open(path).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => anyhow::anyhow!("{} exists; --force overwrites it", path.display()),
        _ => anyhow::Error::from(error).context(format!("cannot write {}", path.display())),
    })?;
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}
