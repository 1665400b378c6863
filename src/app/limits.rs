//! Limits on the number of connections, in total and per address; and the process' own limit on open files.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::base::sync::lock;
use crate::call::config::LimitsConfig;

/// Raises the soft limit on open files to the hard limit: a call holds a socket and a log file.
pub(super) fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if setrlimit(Resource::Nofile, raised).is_err() {
        tracing::warn!(limit = ?limit.current, "the limit on open files could not be raised");
    }
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// Counts connections and refuses those over a limit.
#[derive(Debug, Clone)]
pub(super) struct Gates {
    connections: usize,
    per_address: usize,
    counts: Arc<Mutex<Counts>>,
}

impl Gates {
    pub(super) fn new(limits: &LimitsConfig) -> Self {
        Self { connections: limits.connections, per_address: limits.per_address, counts: Arc::default() }
    }

    /// Number of connections that are open.
    pub(super) fn open(&self) -> usize {
        lock(&self.counts).all
    }

    /// Admits a connection; it counts until the returned pass is dropped.
    ///
    /// # Errors
    /// The name of the limit that refuses it.
    pub(super) fn enter(&self, address: IpAddr) -> Result<Pass, String> {
        let mut counts = lock(&self.counts);
        if counts.all >= self.connections {
            return Err(format!("{} connections are open, the limit (limits.connections)", self.connections));
        }
        let here = counts.by_address.entry(address).or_default();
        if *here >= self.per_address {
            return Err(format!(
                "{} connections from your address are open, the limit (limits.per_address)",
                self.per_address
            ));
        }
        *here += 1;
        counts.all += 1;
        Ok(Pass { address, counts: Arc::clone(&self.counts) })
    }
}

/// Counts an admitted connection.
#[derive(Debug)]
pub(super) struct Pass {
    address: IpAddr,
    counts: Arc<Mutex<Counts>>,
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut counts = lock(&self.counts);
        counts.all = counts.all.saturating_sub(1);
        if let Some(here) = counts.by_address.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                counts.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::settings::Problems;

    #[test]
    fn connection_permit_counts_until_it_is_dropped() {
        let mut limits = LimitsConfig::read(None, &mut Problems::default());
        (limits.connections, limits.per_address) = (2, 1);
        let gates = Gates::new(&limits);
        let (here, there): (IpAddr, IpAddr) = ("127.0.0.1".parse().expect("ip"), "127.0.0.2".parse().expect("ip"));
        let pass = gates.enter(here).expect("first");
        assert!(gates.enter(here).expect_err("second").contains("limits.per_address"));
        let _other = gates.enter(there).expect("other address");
        assert!(gates.enter("127.0.0.3".parse().expect("ip")).expect_err("third").contains("limits.connections"));
        drop(pass);
        assert!(gates.enter(here).is_ok());
    }
}
