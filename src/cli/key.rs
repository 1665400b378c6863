//! `sidetone key`: client keys, made, listed and revoked. A running daemon honours all three at once.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};

use super::out::{self, say};
use super::{settings, table};
use crate::keys::{self, Scope};

/// Options of `sidetone key`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sidetone key create --name agent --scope ingest
  sidetone key create --name dashboard --scope subscribe,gateway --config sidetone.toml
  sidetone key list
  sidetone key revoke agent")]
pub(crate) struct KeyArgs {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Make a key; it is printed this once
    Create {
        /// What it opens: ingest, subscribe, gateway, admin
        #[arg(long = "scope", value_name = "SCOPES", required = true, value_delimiter = ',', value_parser = scope)]
        scopes: Vec<Scope>,
        /// Its name, on the bill and in the list
        #[arg(long, value_name = "NAME")]
        name: String,
        /// The daemon's configuration
        #[arg(long, value_name = "FILE", env = "SIDETONE_CONFIG")]
        config: Option<PathBuf>,
    },
    /// List the keys; never the keys themselves
    List {
        /// The daemon's configuration
        #[arg(long, value_name = "FILE", env = "SIDETONE_CONFIG")]
        config: Option<PathBuf>,
    },
    /// Revoke a key, for ever
    Revoke {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
        /// The daemon's configuration
        #[arg(long, value_name = "FILE", env = "SIDETONE_CONFIG")]
        config: Option<PathBuf>,
    },
}

fn scope(text: &str) -> Result<Scope, String> {
    let names = || Scope::ALL.map(Scope::as_str).join(", ");
    Scope::parse(text).ok_or_else(|| format!("expected of {}, found {text:?}", names()))
}

/// Runs the command.
///
/// # Errors
/// The configuration or the key file cannot be used, or the name is wrong.
pub(crate) fn run(args: &KeyArgs) -> Result<ExitCode> {
    let path = |config: &Option<PathBuf>| -> Result<PathBuf> {
        Ok(keys::path(&settings::load(config.as_deref())?.journal.dir))
    };
    match &args.command {
        KeyCommand::Create { scopes, name, config } => {
            let key = keys::create(&path(config)?, name, scopes)?;
            say!("{key}").with_context(|| {
                format!("key {name:?} is made, and nobody has seen it: `sidetone key revoke {name}` takes it back")
            })?;
        }
        KeyCommand::List { config } => {
            let mut lines = vec![["NAME", "SCOPES", "CREATED", "REVOKED"].map(str::to_owned).to_vec()];
            for entry in keys::list(&path(config)?)? {
                let revoked = entry.revoked_at.unwrap_or_default();
                lines.push(vec![entry.name, entry.scopes.join(","), entry.created_at, revoked]);
            }
            out::lines(&table::draw(&lines, usize::MAX))?;
        }
        KeyCommand::Revoke { name, config } => {
            keys::revoke(&path(config)?, name)?;
            say!("revoked {name}")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
