//! Creates and registers a metric in one line.

use prometheus_client::registry::{Metric, Registry};

/// Registers the metrics that it creates.
pub trait Register {
    /// Registers `metric` under `name` and returns it.
    fn add<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M;

    /// Creates, registers and returns a metric of the requested type with its initial value.
    fn metric<M: Metric + Clone + Default>(&mut self, name: &str, help: &str) -> M {
        self.add(name, help, M::default())
    }
}

impl Register for Registry {
    fn add<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.register(name, help, metric.clone());
        metric
    }
}
