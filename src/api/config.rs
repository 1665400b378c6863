//! The sections `[server]` (listening address, allowed hosts and origins, key) and `[subscribe]`.

use std::net::SocketAddr;
use std::time::Duration;

use toml::Value;

use crate::base::secret::Secret;
use crate::base::settings::{Problems, Section};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Section `[server]`.
#[derive(Debug, Clone, Default)]
pub struct ServerConfig {
    /// Address to listen on; `None` uses the command line's default.
    pub listen: Option<SocketAddr>,
    /// Additional names that a `Host` header may have (lower case, without port).
    pub hosts: Vec<String>,
    /// Additional origins from which a browser may connect, such as `https://dash.example.com`.
    pub origins: Vec<String>,
    /// One key that has every scope.
    pub key: Option<Secret>,
}

impl ServerConfig {
    /// Reads the section. A value that cannot be read is reported in `problems`, and its default is used.
    pub fn read(value: Option<Value>, problems: &mut Problems) -> Self {
        let mut section = Section::new("server", value, problems);
        let listen = read_listen(&mut section);
        let hosts = section.strings("hosts").unwrap_or_default();
        let origins = section.strings("origins").unwrap_or_default();
        for origin in &origins {
            if !origin.starts_with("http://") && !origin.starts_with("https://") {
                section.problem("origins", format!("expected \"http://HOST\" or \"https://HOST\", found {origin:?}"));
            }
        }
        let key = section.secret("key");
        section.finish();
        let origins = origins.into_iter().map(|origin| origin.trim_end_matches('/').to_ascii_lowercase()).collect();
        Self { listen, hosts: hosts.into_iter().map(|host| host.to_ascii_lowercase()).collect(), origins, key }
    }
}

fn read_listen(section: &mut Section<'_>) -> Option<SocketAddr> {
    let text = section.string("listen")?;
    let listen = text.parse().ok();
    if listen.is_none() {
        section.problem("listen", format!("expected \"ADDRESS:PORT\", such as \"127.0.0.1:7700\", found {text:?}"));
    }
    listen
}

/// Section `[subscribe]`.
#[derive(Debug, Clone)]
pub struct SubscribeConfig {
    /// A socket without a subscription is closed after this time.
    pub subscribe_timeout: Duration,
}

impl SubscribeConfig {
    /// Reads the section. A value that cannot be read is reported in `problems`, and its default is used.
    pub fn read(value: Option<Value>, problems: &mut Problems) -> Self {
        let mut section = Section::new("subscribe", value, problems);
        let subscribe_timeout = section.millis("subscribe_timeout_ms", 100..=DAY_MS).unwrap_or(Duration::from_secs(10));
        section.finish();
        Self { subscribe_timeout }
    }
}
