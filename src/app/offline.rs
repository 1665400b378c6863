//! Plays recordings on a virtual clock, with the analyses, models and limits of a configuration.
//!
//! Opens no socket, no journal and no ledger: what the requests took is in their [`Exchanges`].

use std::collections::BTreeMap;
use std::sync::Arc;

use prometheus_client::registry::Registry;
use tokio::sync::Semaphore;

use super::{JOBS, call_settings};
use crate::base::drain::Drain;
use crate::base::queue::QueueMetrics;
use crate::config::Config;
use crate::gateway::exchanges::{Exchanges, Tally};
use crate::gateway::{self, Budget, Gateway};
use crate::hub::{self, Hub};
use crate::ingest::batch::BatchRecording;
use crate::journal::Store;
use crate::journal::memory::Memory;
use crate::recording::Recording;
use crate::session::offline::{Played, Script, TimedEvent, play};
use crate::session::{self, Deps};
use crate::types::CallId;
use crate::{placement, stt};

/// The parts of a daemon that are needed to play recordings with one configuration.
pub struct Offline {
    deps: Arc<Deps>,
    exchanges: Arc<Exchanges>,
}

/// The result of playing one recording.
#[derive(Debug)]
pub struct Run {
    /// The events of the call, in order.
    pub events: Vec<TimedEvent>,
    /// Tokens, cost and time of the call's requests.
    pub tally: Tally,
    /// The parts of the recording that were left out, and why; one sentence each.
    pub notes: Vec<String>,
}

impl Offline {
    /// Makes it from a configuration. Its spending limits begin with nothing spent.
    pub fn new(config: &Config, exchanges: Exchanges) -> Self {
        let mut registry = Registry::default();
        let queues = QueueMetrics::register(&mut registry);
        let exchanges = Arc::new(exchanges);
        let caps = &config.limits;
        let budget = Budget::new(caps.usd_per_call, caps.usd_per_day, 0, Box::new(|_| 0));
        let metrics = gateway::Metrics::register(&mut registry, &queues);
        let gateway = Gateway::offline(config.gateway.clone(), metrics, budget, Arc::clone(&exchanges));
        // Required by the hub, from which nobody reads here.
        let store: Arc<dyn Store> = Arc::new(Memory::default());
        let hub = Hub::new(Arc::clone(&store), hub::Config::default(), hub::Metrics::register(&mut registry));
        let deps = Deps {
            store,
            placement: Arc::new(placement::Local),
            hub,
            gateway,
            call: Arc::new(call_settings(config)),
            permits: Arc::new(Semaphore::new(JOBS)),
            metrics: session::Metrics::register(&mut registry),
            queue: Arc::new(queues.queue("session")),
            drain: Drain::default(),
        };
        Self { deps: Arc::new(deps), exchanges }
    }

    /// Checks that `route` has the variant.
    ///
    /// # Errors
    /// A message for people that lists what exists.
    pub fn check_variant(&self, route: &str, variant: &str) -> Result<(), String> {
        self.deps.gateway.check_variant(route, variant)
    }

    /// Reads the vendors' lists of models, which may have prices.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the reads in progress.
    pub async fn read_lists(&self) {
        self.deps.gateway.list_now().await;
    }

    /// Plays a recording as `call`, which runs `analyses`. `variants` pins variants of routes.
    ///
    /// # Errors
    /// A frame cannot be read, the call refuses the recording, or a request has no stored answer.
    ///
    /// # Cancel safety
    /// Dropping the future aborts the request in progress.
    pub async fn play(
        &self,
        call: &CallId,
        recording: &Recording,
        analyses: &[String],
        variants: &BTreeMap<String, String>,
    ) -> Result<Run, String> {
        let name = &recording.header.dialect;
        let dialect = stt::dialect(name)
            .ok_or_else(|| format!("dialect {name:?} is not known; `sidetone dialects` lists all"))?;
        let frames = recording.frames.iter().map(|frame| &*frame.message);
        let whole = BatchRecording::read(dialect, frames, &self.deps.call.limits)
            .map_err(|(position, error)| format!("frame {}: {}", position + 1, error.message))?;
        let lost = whole.lost().iter().map(|(position, error)| format!("frame {}: {}", position + 1, error.message));
        let mut notes: Vec<String> = lost.chain(whole.not_understood().map(str::to_owned)).collect();
        let times = recording.frames.iter().map(|frame| u64::try_from(frame.at.as_millis()).unwrap_or(u64::MAX));
        let script = Script {
            call: call.clone(),
            dialect,
            frames: whole.timed(times),
            analyses: analyses.to_vec(),
            variants: variants.clone(),
        };
        let Played { events, errors } = Box::pin(play(&self.deps, &self.exchanges, script)).await?;
        notes.extend(errors);
        Ok(Run { events, tally: self.exchanges.tally(call).0, notes })
    }
}
