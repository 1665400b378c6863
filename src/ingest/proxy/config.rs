//! `[stt]`: the vendor to which `/v3/ws` is relayed.

use toml::Value;

use crate::base::secret::{Secret, outline};
use crate::base::settings::{Problems, Section};

/// URLs for the vendor's names of its hosts.
const HOSTS: &[(&str, &str)] = &[
    ("default", "wss://streaming.assemblyai.com"),
    ("us", "wss://streaming.us.assemblyai.com"),
    ("eu", "wss://streaming.eu.assemblyai.com"),
];
const SOCKET_PATH: &str = "/v3/ws";

/// Section `[stt]`.
#[derive(Debug, Clone)]
pub struct SttConfig {
    /// URL of the vendor's socket, with path and without a query.
    pub socket_url: String,
    /// URL of the vendor's token endpoint.
    pub token_url: String,
    /// Key that is sent to the vendor in place of the client's.
    pub api_key: Option<Secret>,
}

impl Default for SttConfig {
    fn default() -> Self {
        let (socket_url, token_url) = urls(HOSTS[0].1);
        Self { socket_url, token_url, api_key: None }
    }
}

impl SttConfig {
    /// Reads the section. A value that cannot be read is reported in `problems`, and its default is used.
    pub fn read(value: Option<Value>, problems: &mut Problems) -> Self {
        let mut section = Section::new("stt", value, problems);
        let mut config = Self::default();
        if let Some(upstream) = section.string("upstream") {
            let named = HOSTS.iter().find(|(name, _)| *name == upstream).map(|(_, url)| *url);
            match named.map_or_else(|| check(&upstream), |url| Ok(url.to_owned())) {
                Ok(base) => (config.socket_url, config.token_url) = urls(&base),
                Err(found) => section.problem(
                    "upstream",
                    format!("expected default, us, eu, \"wss://HOST\" or \"ws://HOST\", found {found}"),
                ),
            }
        }
        config.api_key = section.secret("api_key");
        section.finish();
        config
    }
}

fn check(upstream: &str) -> Result<String, String> {
    let known = url::Url::parse(upstream).is_ok_and(|url| {
        let bare = url.query().is_none() && url.username().is_empty() && url.password().is_none();
        matches!(url.scheme(), "ws" | "wss") && url.has_host() && bare
    });
    if known { Ok(upstream.trim_end_matches('/').to_owned()) } else { Err(outline(upstream)) }
}

/// The URLs of the socket and of the token endpoint below `base`, which may already contain the socket's path.
fn urls(base: &str) -> (String, String) {
    let host = base.strip_suffix(SOCKET_PATH).unwrap_or(base);
    let token = host.replacen("ws", "http", 1);
    let path = url::Url::parse(base).map_or(String::new(), |url| url.path().trim_end_matches('/').to_owned());
    // Any path other than the vendor's own belongs to some gateway and is used unchanged.
    let socket = if path.is_empty() { format!("{base}{SOCKET_PATH}") } else { base.to_owned() };
    (socket, format!("{token}/v3/token"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (SttConfig, Vec<String>) {
        let mut problems = Problems::default();
        let value = text.parse::<toml::Table>().expect("toml").remove("stt");
        let config = SttConfig::read(value, &mut problems);
        (config, problems.into_vec().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn hosts_by_name_by_url_and_by_full_path() {
        for (upstream, socket, token) in [
            ("eu", "wss://streaming.eu.assemblyai.com/v3/ws", "https://streaming.eu.assemblyai.com/v3/token"),
            ("ws://127.0.0.1:9", "ws://127.0.0.1:9/v3/ws", "http://127.0.0.1:9/v3/token"),
            ("ws://127.0.0.1:9/v3/ws", "ws://127.0.0.1:9/v3/ws", "http://127.0.0.1:9/v3/token"),
        ] {
            let (config, problems) = read(&format!("[stt]\nupstream = \"{upstream}\""));
            assert_eq!((config.socket_url.as_str(), config.token_url.as_str()), (socket, token));
            assert!(problems.is_empty(), "{problems:?}");
        }
        assert_eq!(
            read("[stt]\nupstream = \"https://x\"").1,
            ["stt.upstream: expected default, us, eu, \"wss://HOST\" or \"ws://HOST\", found \"https://x/…\""]
        );
    }
}
