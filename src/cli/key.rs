//! `sidetone key`: creates, lists and revokes client keys, through the running daemon or, if none runs, directly in its
//! files.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};

use super::out::{self, say};
use super::{settings, table};
use crate::base::owner;
use crate::keys::admin::{Answer, Request};
use crate::keys::{self, Scope};

/// Options of `sidetone key`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sidetone key create --name agent --scope ingest
  sidetone key create --name dashboard --scope subscribe,gateway --config sidetone.toml
  sidetone key create --name prometheus --scope metrics
  sidetone key list
  sidetone key revoke agent

The command asks a running daemon through a socket in its data directory ([storage] dir), which root and the daemon's
user may use. If none runs, it changes the files there; files that root creates get the directory's owner.")]
pub(crate) struct KeyArgs {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Create a key; it is printed only this once
    Create {
        /// Scopes of the key, separated by commas, or given by repeating --scope
        #[arg(long = "scope", value_name = "SCOPES", required = true, value_delimiter = ',', value_parser = scopes())]
        scopes: Vec<Scope>,
        /// Name of the key in lists and on the bill
        #[arg(long, value_name = "NAME")]
        name: String,
        /// The daemon's configuration
        #[arg(long, value_name = "FILE", env = "SIDETONE_CONFIG", value_parser = super::absolute())]
        config: Option<PathBuf>,
    },
    /// List the names and scopes of all keys, never the keys themselves
    List {
        /// The daemon's configuration
        #[arg(long, value_name = "FILE", env = "SIDETONE_CONFIG", value_parser = super::absolute())]
        config: Option<PathBuf>,
    },
    /// Revoke a key permanently
    Revoke {
        /// Name of the key
        #[arg(value_name = "NAME")]
        name: String,
        /// The daemon's configuration
        #[arg(long, value_name = "FILE", env = "SIDETONE_CONFIG", value_parser = super::absolute())]
        config: Option<PathBuf>,
    },
}

/// Parses a scope's name; help and errors list all of them.
fn scopes() -> impl TypedValueParser<Value = Scope> {
    let names = Scope::ALL.map(|scope| PossibleValue::new(scope.as_str()).help(scope.opens()));
    PossibleValuesParser::new(names).try_map(|name| Scope::parse(&name).ok_or("unknown scope"))
}

/// Runs the command.
///
/// # Errors
/// The configuration or the key file cannot be used, or the name is invalid.
pub(crate) fn run(args: &KeyArgs) -> Result<ExitCode> {
    match &args.command {
        KeyCommand::Create { scopes, name, config } => {
            let scopes = scopes.iter().map(|scope| scope.as_str().to_owned()).collect();
            let done = Done::of(config, &Request::Create { name: name.clone(), scopes })?;
            let key = done.answer.key.as_deref().context("the daemon created no key")?;
            say!("{key}").with_context(|| {
                format!("key {name:?} was created but could not be printed: `sidetone key revoke {name}` revokes it")
            })?;
            done.note();
        }
        KeyCommand::List { config } => {
            let done = Done::of(config, &Request::List)?;
            let mut lines = vec![["NAME", "SCOPES", "CREATED", "REVOKED"].map(str::to_owned).to_vec()];
            for entry in &done.answer.keys {
                let revoked = entry.revoked_at.clone().unwrap_or_default();
                lines.push(vec![entry.name.clone(), entry.scopes.join(","), entry.created_at.clone(), revoked]);
            }
            out::lines(&table::draw(&lines, usize::MAX))?;
            say!("{}", done.place())?;
        }
        KeyCommand::Revoke { name, config } => {
            let done = Done::of(config, &Request::Revoke { name: name.clone() })?;
            say!("revoked {name}")?;
            done.note();
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Result of a request: the answer, the data directory, and whether a daemon gave the answer.
struct Done {
    answer: Answer,
    folder: PathBuf,
    by_daemon: bool,
}

impl Done {
    /// Sends the request to the daemon that runs on the configuration's data directory; if none runs, changes its
    /// files.
    fn of(config: &Option<PathBuf>, request: &Request) -> Result<Self> {
        let storage = settings::storage(config.as_deref())?;
        let asked = keys::admin::ask(storage.dir(), request)?;
        let by_daemon = asked.is_some();
        let answer = match asked {
            Some(answer) => answer,
            None => {
                owner::writer(storage.dir())?;
                keys::admin::apply(&storage.keys(), request)?
            }
        };
        match answer.error {
            Some(error) => bail!("{error}"),
            None => Ok(Self { answer, folder: storage.dir().to_owned(), by_daemon }),
        }
    }

    fn place(&self) -> String {
        let who = if self.by_daemon { "a daemon runs on it" } else { "no daemon runs on it" };
        format!("keys of {}; {who}", self.folder.display())
    }

    /// Says on stderr that a key was changed without a daemon: the folder may not be the one that the daemon uses.
    fn note(&self) {
        if !self.by_daemon {
            anstream::eprintln!("{}", self.place());
        }
    }
}
