//! Builds a daemon from a [`Config`], starts it and stops it again. The only module that knows every other one; it does
//! not know what they do, and decides nothing about a call, a request or a key.
//!
//! Threads: one `current_thread` runtime per core. A connection, the session that it opened and the requests of that
//! session's jobs stay on one thread, so that the hot path never wakes another core.

mod accounting;
mod connection;
mod limits;
mod listener;
pub mod offline;
mod otel;
mod process_metrics;
mod recovery;
mod reload;
mod workers;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::sync::Semaphore;

use self::workers::Workers;
use crate::api::guard::Guard;
use crate::api::{Api, Service, SessionViews, subscribe};
use crate::base::drain::Drain;
use crate::base::inflight::{self, Account};
use crate::base::owner;
use crate::base::queue::QueueMetrics;
use crate::base::tls::{Acceptor, TlsError};
use crate::config::Config;
use crate::gateway::{self, Gateway};
use crate::hub::{self, Hub};
use crate::journal::{self, Store};
use crate::keys::{self, Keys};
use crate::ledger::{self, Ledger};
use crate::session::{self, Sessions};
use crate::{call, ingest, placement, protocol, sink};

/// Maximum number of jobs that run at once, over all calls. Endpoints have limits of their own; this one bounds memory.
const JOBS: usize = 512;
/// Jobs that still run this long before the deadline of a shutdown are aborted, so that the remaining events can be
/// written.
const ABORT_MARGIN: Duration = Duration::from_millis(500);

/// Why a daemon could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Without a key, only this machine may connect.
    #[error(
        "{0} is not a loopback address: without a key anyone who reaches it could read every call; listen on \
         127.0.0.1, or create a key first (`sidetone key create --scope admin --name NAME`)"
    )]
    NotLoopback(SocketAddr),
    /// The address is in use, or does not belong to this machine.
    #[error(
        "cannot listen on {address}: {error}; --listen ADDR or [server] listen names another address, and port 0 \
         picks a free port"
    )]
    Listen {
        address: SocketAddr,
        /// The system's error.
        error: std::io::Error,
    },
    /// The data folder belongs to another user.
    #[error("{0}")]
    Foreign(#[from] owner::Foreign),
    /// The journal cannot be opened.
    #[error("{0}")]
    Journal(String),
    /// The certificate cannot be used.
    #[error("{0}")]
    Tls(#[from] TlsError),
    /// The ledger cannot be opened.
    #[error("{0}")]
    Ledger(String),
    /// The gateway cannot be built.
    #[error("{0}")]
    Gateway(String),
    /// Spans cannot be exported.
    #[error("{0}")]
    Telemetry(String),
    /// The system refused a thread or a descriptor.
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
}

/// A running daemon.
pub struct Running {
    /// The address on which the daemon listens.
    pub address: SocketAddr,
    secure: bool,
    drain: Drain,
    store: Arc<dyn Store>,
    workers: Workers,
    deadline: Duration,
    reloader: reload::Reloader,
    spans: Option<Arc<otel::Spans>>,
}

/// Starts a daemon on `listen` (port 0 picks a free port).
///
/// Blocks, but only for file work; call it outside of async code.
///
/// # Errors
/// See [`StartError`]; then nothing is left running.
pub fn start(config: Config, listen: SocketAddr) -> Result<Running, StartError> {
    run(config, listen, None)
}

/// As [`start`], over another store than the embedded one; the section `[journal]` is not used. The ledger, the keys
/// and the positions of sinks are still in the data directory.
///
/// # Errors
/// As [`start`].
pub fn start_over(config: Config, listen: SocketAddr, store: Arc<dyn Store>) -> Result<Running, StartError> {
    run(config, listen, Some(store))
}

fn run(config: Config, listen: SocketAddr, store: Option<Arc<dyn Store>>) -> Result<Running, StartError> {
    let started = reload::Sections::of(&config);
    config.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
    let storage = &config.storage;
    owner::check(storage.dir())?;
    let keys = Keys::new(storage.keys(), config.server.key.as_ref().map(|key| &key.value));
    check_address(listen, &keys)?;
    limits::raise_open_files();
    let mut registry = Registry::default();
    let queues = QueueMetrics::register(&mut registry);
    let store: Arc<dyn Store> = match store {
        Some(store) => store,
        None => {
            let metrics = journal::Metrics::register(&mut registry);
            journal::open(storage.dir(), &config.journal, metrics, protocol::sniff::header)
                .map_err(|error| StartError::Journal(error.to_string()))?
        }
    };
    let hub = Hub::new(Arc::clone(&store), hub::Config::default(), hub::Metrics::register(&mut registry));
    store.set_tail(Arc::new(hub.clone()));
    let ledger = Ledger::open(&storage.ledger(), ledger::Metrics::register(&mut registry))
        .map_err(|error| StartError::Ledger(error.to_string()))?;
    let key_source = config.server.key.as_ref().map(|key| key.source.clone());
    let audit = accounting::ConfigAudit::new(ledger.clone(), storage.keys(), key_source);
    // If the ledger could not be opened yet, the configuration is recorded later.
    let missing = ledger.health().is_err();
    if !missing {
        audit.note_config(&config.gateway).map_err(|error| StartError::Ledger(error.to_string()))?;
        audit.note_keys();
    }
    let workers = Workers::start()?;
    let gates = limits::Gates::new(&config.limits);
    let in_flight = inflight::Metrics::register(&mut registry);
    let account = Account::new("limits.inflight_bytes", config.limits.inflight_bytes, in_flight);
    let spans =
        otel::Spans::start(&config.telemetry, workers.handles().last().cloned()).map_err(StartError::Telemetry)?;
    let attempts = Arc::new(accounting::LedgerRecorder { ledger: ledger.clone(), spans: spans.clone() });
    let metrics = gateway::Metrics::register(&mut registry, &queues);
    let reloads = reload::Metrics::register(&mut registry);
    let budget = accounting::budget(&ledger, &config.limits).map_err(|error| StartError::Ledger(error.to_string()))?;
    let gateway = Gateway::recorded(config.gateway.clone(), metrics, attempts, Some(budget))
        .map_err(|error| StartError::Gateway(error.to_string()))?;
    let drain = Drain::default();
    let deps = Arc::new(session::Deps {
        store: Arc::clone(&store),
        placement: Arc::new(placement::Local),
        hub: hub.clone(),
        gateway: gateway.clone(),
        call: Arc::new(call_settings(&config)),
        permits: Arc::new(Semaphore::new(JOBS)),
        metrics: session::Metrics::register(&mut registry),
        queue: Arc::new(queues.queue("session")),
        drain: drain.clone(),
    });
    let sessions = Sessions::new(deps, workers.handles());
    registry.register_collector(Box::new(process_metrics::ProcessMetrics {
        runtimes: workers.handles(),
        gates: gates.clone(),
        account: account.clone(),
        gateway: gateway.clone(),
        sessions: sessions.clone(),
    }));
    let sink_metrics = sink::Metrics::register(&mut registry);
    let subscribe_metrics = subscribe::Metrics::register(&mut registry);
    let ingest_metrics = ingest::Metrics::register(&mut registry);
    let recorder = ingest::record::Recorder::start(config.record.clone(), &mut registry)?;
    let proxy = ingest::proxy::Deps {
        sessions: sessions.clone(),
        hub: hub.clone(),
        metrics: ingest::proxy::Metrics::register(&mut registry),
        config: Arc::new(config.stt.clone()),
        tokens: Arc::default(),
        tap: Arc::new(queues.queue("stt_tap")),
        recorder: recorder.clone(),
    };
    let source_metrics = ingest::source::Metrics::register(&mut registry);
    let tls = config.tls.clone().map(Acceptor::new).transpose()?;
    let bound = listener::bind(listen).map_err(|error| StartError::Listen { address: listen, error })?;
    let address = bound.local_addr()?;
    let health = workers.within(|| subscribe::watch_health(Arc::clone(&store), drain.stop.clone()));
    workers.spawn(sessions.clone().tell_health(health.clone()));
    let subscribers = subscribe::Deps {
        hub: hub.clone(),
        views: Arc::new(SessionViews(sessions.clone())),
        analyses: config.analyses.names().to_vec(),
        subscribe_timeout: config.subscribe.subscribe_timeout,
        ping_interval: subscribe::PING_INTERVAL,
        subscriptions_per_socket: config.limits.subscriptions_per_socket,
        calls_per_subscription: config.limits.calls_per_subscription,
        health,
        metrics: subscribe_metrics,
    };
    let watched_keys = keys.clone();
    let api = Arc::new(Api {
        sessions: sessions.clone(),
        hub: hub.clone(),
        store: Arc::clone(&store),
        ledger: ledger.clone(),
        keys,
        ingest: ingest_metrics,
        proxy,
        subscribe: Arc::new(subscribers),
        registry: Arc::new(registry),
        drain: drain.clone(),
    });
    let service = Service::new(api, Guard::new(&config.server, address, tls.is_some()));
    workers.spawn(recovery::run(sessions.clone(), Arc::clone(&store), config.ingest.clone(), drain.clone()));
    for source in config.sources.clone() {
        let run = ingest::source::run(source, sessions.clone(), recorder.clone(), source_metrics.clone());
        workers.spawn(drain.tasks.track_future(run));
    }
    match keys::admin::Socket::bind(storage.dir()) {
        Ok(socket) => workers.spawn(socket.serve(watched_keys.clone(), drain.stop.clone())),
        // Then key commands change the files directly, and this daemon notices the changes.
        Err(error) => tracing::warn!(%error, "the admin socket cannot be created"),
    }
    workers.spawn(watched_keys.watch());
    workers.spawn(gateway.clone().keep_listings(drain.stop.clone()));
    for sink in config.sinks {
        let run = sink::run(sink, storage.sinks(), hub.clone(), sink_metrics.clone(), drain.stop.clone());
        workers.spawn(drain.tasks.track_future(run));
    }
    if missing {
        workers.spawn(accounting::catch_up(audit.fresh(), config.gateway, gateway.clone(), drain.clone()));
    }
    let reloader = reload::Reloader::new(started, gateway, audit, reloads);
    let secure = tls.is_some();
    if let Some(tls) = tls.clone() {
        workers.spawn(tls.watch());
    }
    let bounds = listener::Bounds { account, body_timeout: config.limits.body_timeout };
    workers.spawn_first(listener::accept(bound, tls, service, gates, bounds, workers.handles(), drain.clone()));
    tracing::info!(%address, storage = %storage.dir().display(), "sidetone is running");
    Ok(Running { address, secure, drain, store, workers, deadline: config.shutdown.deadline, reloader, spans })
}

/// What all calls with this configuration have in common.
fn call_settings(config: &Config) -> call::Settings {
    call::Settings {
        analyses: Arc::new(config.analyses.clone()),
        default_analyses: config.default_analyses(),
        rules: Arc::clone(&config.rules),
        ingest: config.ingest.clone(),
        limits: config.limits.clone(),
    }
}

impl Running {
    /// Applies the parts of another configuration that can be changed at run time. Requests in flight keep the old
    /// ones.
    pub fn reload(&self, config: &Config) {
        self.reloader.take_over(config);
    }

    /// Counts a configuration that was to be reloaded but is invalid. Nothing has changed.
    pub fn reload_refused(&self) {
        self.reloader.refused();
    }

    /// Records the keys in the ledger, so that a key that was made or revoked meanwhile appears on the bill by name.
    pub fn note_keys(&self) {
        self.reloader.audit.note_keys();
    }

    /// Base URL of the daemon's HTTP surface.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.secure { "https" } else { "http" }, self.address)
    }

    /// Finishes the work in hand, ends no call, and returns once everything is written, at the latest after the
    /// configured deadline.
    pub fn stop(self) {
        let Self { drain, store, workers, deadline, spans, .. } = self;
        drain.stop.cancel();
        drain.tasks.close();
        let tasks = drain.tasks.clone();
        let patience = deadline.saturating_sub(ABORT_MARGIN);
        if !workers.wait(async move { tasks.wait().await }, patience) {
            tracing::warn!(left = drain.tasks.len(), "the shutdown deadline is near; the remaining tasks are aborted");
            drain.kill.cancel();
            let tasks = drain.tasks.clone();
            workers.wait(async move { tasks.wait().await }, ABORT_MARGIN);
        }
        let closed = store.close();
        workers.wait(
            async move {
                if let Err(error) = closed.await {
                    tracing::error!(%error, "the journal could not be closed properly");
                }
            },
            ABORT_MARGIN,
        );
        if let Some(spans) = spans {
            spans.close();
        }
        workers.stop();
    }
}

fn check_address(listen: SocketAddr, keys: &Keys) -> Result<(), StartError> {
    let loopback = match listen.ip() {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_loopback(),
    };
    if loopback || keys.needed() { Ok(()) } else { Err(StartError::NotLoopback(listen)) }
}
