//! `sidetone serve`: the daemon, in the foreground, until SIGTERM or SIGINT.

use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::app;

use super::target::DEFAULT_LISTEN;
use super::{discovery, notify, panics, settings};

/// Interval at which the configuration file is checked for changes.
const RELOAD_INTERVAL: Duration = Duration::from_secs(2);

/// A changed file that stays the same for this long counts as completely written.
const SETTLED: Duration = Duration::from_millis(100);
/// A signal within this time after the first counts as its repetition, and is ignored.
const ECHO: Duration = Duration::from_millis(250);

/// Logged if there is no configuration although usable models were found.
const UNUSED: &str = "no configuration: the embedded provider (local) answers, and the models that were found are not \
    used; `sidetone init` writes a configuration with these lines";

/// Options of `sidetone serve`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sidetone serve                                    defaults, on 127.0.0.1:7700
  sidetone serve --config /etc/sidetone.toml
  sidetone serve --listen 127.0.0.1:0               a free port; the first line on stdout names it

The log is written to stderr. SIDETONE_LOG sets its levels, such as \"debug\" or \"sidetone::session=debug,info\".
SIGHUP, or a change of the file, reloads endpoints, models, routes, prices and spending limits; an invalid file
changes nothing, and the log says so.
SIGTERM stops the daemon properly: no call ends, and all calls continue at the next start.")]
pub(crate) struct ServeArgs {
    /// Configuration file; without it, the defaults and the embedded provider
    #[arg(long, value_name = "FILE", env = "SIDETONE_CONFIG", value_parser = super::absolute())]
    config: Option<PathBuf>,
    /// Address to listen on; port 0 picks a free port. Default: [server] listen, else 127.0.0.1:7700
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Format of the log
    #[arg(long, value_enum, default_value_t = LogForm::Text)]
    log: LogForm,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogForm {
    /// Text for people
    Text,
    /// One JSON object per line
    Json,
}

/// Runs the daemon until a signal stops it.
///
/// # Errors
/// It did not start.
pub(crate) fn run(args: &ServeArgs) -> Result<ExitCode> {
    start_log(args.log, "info");
    panics::to_log();
    // Recorded before the file is read, so that a later write counts as a change.
    let seen = stamp(args.config.as_deref());
    let config = settings::load(args.config.as_deref())?;
    // The handlers are installed before the address is printed, because a reader of the address may send a signal at
    // once.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    let (mut stop, mut hangup) =
        runtime.block_on(async { anyhow::Ok((Stop::listen()?, signal(SignalKind::hangup())?)) })?;
    let listen = args.listen.or(config.server.listen);
    let listen = listen.map_or_else(|| DEFAULT_LISTEN.parse().context("the default address"), Ok)?;
    let running = app::start(config, listen)?;
    {
        let mut out = std::io::stdout().lock();
        // The parent process may have closed stdout; the daemon serves in any case.
        let _ = writeln!(out, "listening on {}", running.url()).and_then(|()| out.flush());
    }
    notify::state("READY=1");
    if args.config.is_none() {
        suggest(&runtime, args.log);
    }
    runtime.block_on(serve_until_stopped(&mut stop, &mut hangup, &running, args.config.as_deref(), seen));
    notify::state("STOPPING=1");
    tracing::info!("stopping; a second signal stops at once");
    std::thread::spawn(move || {
        runtime.block_on(async {
            // A program that forwards a signal (`timeout`, `npm run`) often sends it both to the daemon and to its
            // whole process group; the two count as one.
            let echoes = async {
                loop {
                    stop.wait().await
                }
            };
            let _: Result<(), _> = tokio::time::timeout(ECHO, echoes).await;
            stop.wait().await;
        });
        std::process::exit(1);
    });
    running.stop();
    Ok(ExitCode::SUCCESS)
}

/// Logs usable models that no configuration uses, and the configuration lines for them. Runs in a task of its own as
/// long as the probe of Ollama takes.
fn suggest(runtime: &tokio::runtime::Runtime, form: LogForm) {
    runtime.spawn(async move {
        let found = discovery::look().await;
        found.notes.iter().for_each(|note| tracing::info!("{note}"));
        let found = found.found;
        if found.is_empty() {
            tracing::info!("no configuration and no model found: the embedded provider (local) answers");
            return;
        }
        let names: Vec<String> =
            found.iter().map(|found| format!("{} ({})", found.candidate(), found.reason())).collect();
        let names = names.join(", ");
        let lines = discovery::configuration(&found);
        match form {
            LogForm::Json => tracing::info!(found = %names, configuration = %lines, "{UNUSED}"),
            LogForm::Text => {
                tracing::info!(found = %names, "{UNUSED}");
                // Printed outside the log, so that the lines can be copied.
                anstream::eprintln!("\n{lines}");
            }
        }
    });
}

/// Identifies one state of a file: modification time and size.
type Stamp = Option<(SystemTime, u64)>;

fn stamp(config: Option<&Path>) -> Stamp {
    std::fs::metadata(config?).and_then(|meta| Ok((meta.modified()?, meta.len()))).ok()
}

/// Waits for a signal to stop. Meanwhile, SIGHUP or a change of the file reloads the configuration; an invalid one
/// changes nothing and is logged.
async fn serve_until_stopped(
    stop: &mut Stop,
    hangup: &mut Signal,
    running: &app::Running,
    config: Option<&Path>,
    mut seen: Stamp,
) {
    let mut ticks = tokio::time::interval(RELOAD_INTERVAL);
    loop {
        tokio::select! {
            biased;
            () = stop.wait() => return,
            _ = hangup.recv() => {}
            _ = ticks.tick() => {
                running.note_keys();
                let now = stamp(config);
                if now == seen {
                    continue;
                }
                // The file may still be being written: if it keeps changing, the next tick checks it again.
                tokio::time::sleep(SETTLED).await;
                if stamp(config) != now {
                    continue;
                }
            }
        }
        seen = stamp(config);
        match settings::load(config) {
            Ok(config) => running.reload(&config),
            Err(error) => {
                running.reload_refused();
                tracing::error!("the configuration is not changed: {error:#}");
            }
        }
    }
}

/// The handlers of SIGTERM and SIGINT.
pub(crate) struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    /// Installs the handlers. Must be called on a runtime.
    ///
    /// # Errors
    /// The system refuses a handler.
    pub(crate) fn listen() -> Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next signal.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Sends the log to stderr. `level` applies unless SIDETONE_LOG is set.
fn start_log(form: LogForm, level: &str) {
    let filter = EnvFilter::try_from_env("SIDETONE_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let filter = match crate::base::ws::LOG_LIMIT.parse() {
        Ok(directive) => filter.add_directive(directive),
        Err(_) => filter,
    };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // If a log was set up before (as in a test), it stays.
    let _ = match form {
        LogForm::Text => log.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogForm::Json => log.json().flatten_event(true).try_init(),
    };
}
