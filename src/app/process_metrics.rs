//! Gauges of what the process holds at this moment, for `/metrics`: a leak shows here first.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::runtime::Handle;

use super::limits::Gates;
use crate::base::inflight::Account;
use crate::gateway::Gateway;
use crate::session::Sessions;

/// Numbers of tasks, connections and bytes in flight, and the sizes of caches that fill over time.
pub(super) struct ProcessMetrics {
    pub(super) runtimes: Vec<Handle>,
    pub(super) gates: Gates,
    pub(super) account: Account,
    pub(super) gateway: Gateway,
    pub(super) sessions: Sessions,
}

impl fmt::Debug for ProcessMetrics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ProcessMetrics")
    }
}

impl Collector for ProcessMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let tasks: usize = self.runtimes.iter().map(|runtime| runtime.metrics().num_alive_tasks()).sum();
        let all = [
            ("sidetone_app_tasks", "Tasks alive on the runtimes", tasks),
            ("sidetone_app_connections", "Open connections", self.gates.open()),
            ("sidetone_inflight_bytes", "Bytes in flight: bodies, answers and frames that wait", self.account.used()),
        ];
        for (name, help, count) in all {
            let gauge = ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        let caches = [
            ("compiled_schemas", self.gateway.schema_cache_bytes()),
            ("call_indexes", u64::try_from(self.sessions.index_cache_bytes()).unwrap_or(u64::MAX)),
        ];
        let (name, help) = ("sidetone_app_cache_bytes", "Estimated memory of caches that fill up to a limit");
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (cache, bytes) in caches {
            let gauge = ConstGauge::new(i64::try_from(bytes).unwrap_or(i64::MAX));
            gauge.encode(family.encode_family(&[("cache", cache)])?)?;
        }
        Ok(())
    }
}
