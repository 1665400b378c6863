//! A daemon for one command: on a free loopback port, with its data in a temporary folder.
//!
//! Knows no analysed file.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::Result;

use crate::api::config::ServerConfig;
use crate::app::{self, Running};
use crate::cli::settings;
use crate::cli::target::Target;
use crate::cli::temporary::Folder;
use crate::config::StorageConfig;

/// The daemon, until [`Own::stop`].
pub(super) struct Own {
    running: Running,
    target: Target,
    /// Deleted after the daemon has stopped.
    folder: Folder,
}

impl Own {
    /// Starts a daemon with the endpoints, models, routes, analyses and limits of `config`, and without everything that
    /// contacts others or keeps data: keys, sinks, sources, recordings, TLS. Must be called outside of async code.
    ///
    /// # Errors
    /// The configuration has problems, or the daemon does not start.
    pub(super) fn start(config: Option<&Path>) -> Result<Self> {
        let folder = Folder::create("analyze")?;
        let mut config = settings::load(config)?;
        config.storage = StorageConfig::at(folder.path().join("data"));
        config.server = ServerConfig::default();
        config.tls = None;
        config.record = None;
        config.sinks.clear();
        config.sources.clear();
        let running = app::start(config, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let target = Target::at(running.address);
        Ok(Self { running, target, folder })
    }

    /// The daemon's address.
    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// Stops it and deletes its data.
    pub(super) fn stop(self) {
        self.running.stop();
        drop(self.folder);
    }
}
