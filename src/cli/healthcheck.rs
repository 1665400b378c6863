//! `sidetone healthcheck`: is a daemon ready? For containers without a shell, and for scripts.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, anyhow};
use clap::Args;

use super::fetch;
use super::out::say;
use super::target::{DEFAULT_LISTEN, Target};

/// Options of `sidetone healthcheck`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sidetone healthcheck
  sidetone healthcheck --to http://127.0.0.1:7700 --timeout-ms 1000

Exit code: 0 when /readyz says that the daemon takes calls, else 1. No key is needed.")]
pub(crate) struct HealthcheckArgs {
    /// Address of the daemon
    #[arg(long, value_name = "URL", env = "SIDETONE_URL", default_value = DEFAULT_LISTEN)]
    to: Target,
    /// Time limit for the answer, ms
    #[arg(long, value_name = "MS", default_value_t = 3000, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    timeout_ms: u64,
}

/// Runs the command.
///
/// # Errors
/// The daemon does not answer in time, or says that it is not ready.
pub(crate) async fn run(args: HealthcheckArgs) -> Result<ExitCode> {
    let asked = fetch::status(&args.to, "/readyz");
    tokio::time::timeout(Duration::from_millis(args.timeout_ms), asked)
        .await
        .map_err(|_| anyhow!("no answer from {} within {} ms", args.to.http("/readyz"), args.timeout_ms))??;
    say!("ready")?;
    Ok(ExitCode::SUCCESS)
}
