//! What the process holds at this moment, for `/metrics`: a leak shows here first.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::runtime::Handle;

use super::limits::Gates;
use crate::base::inflight::Account;

/// Tasks on the runtimes, connections, and what they make us hold.
#[derive(Debug)]
pub(super) struct Vitals {
    pub(super) runtimes: Vec<Handle>,
    pub(super) gates: Gates,
    pub(super) account: Account,
}

impl Collector for Vitals {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let tasks: usize = self.runtimes.iter().map(|runtime| runtime.metrics().num_alive_tasks()).sum();
        let all = [
            ("sidetone_app_tasks", "Tasks alive on the runtimes", tasks),
            ("sidetone_app_connections", "Connections that were let in and are not over", self.gates.open()),
            ("sidetone_inflight_bytes", "Bytes in flight: bodies, answers and frames that wait", self.account.used()),
        ];
        for (name, help, count) in all {
            let gauge = ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}
