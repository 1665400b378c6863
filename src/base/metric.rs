//! A metric and its registration in one line.

use prometheus_client::registry::{Metric, Registry};

/// Registers what it makes.
pub trait Register {
    /// Registers `metric` under `name` and gives it back.
    fn add<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M;

    /// A metric of the type that is wanted, at its start, registered.
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
