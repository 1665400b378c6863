//! Ollama: its address, and which of its installed models can answer.

use std::time::Duration;

use serde_json::Value;
use url::Url;

use super::{Found, Price};
use crate::cli::fetch;
use crate::cli::target::Target;

/// Name of its endpoint in the configuration.
pub(super) const NAME: &str = "ollama";
/// The variable that sets its address.
pub(super) const HOST_VARIABLE: &str = "OLLAMA_HOST";
/// The model that is suggested if none is installed.
pub(super) const EXAMPLE_MODEL: &str = "llama3.2";

const DEFAULT_PORT: u16 = 11434;
/// Timeout of the probe: on the loopback interface, Ollama answers within a few ms.
const TIMEOUT: Duration = Duration::from_millis(500);
/// Parts of the names of models that cannot chat, for servers that do not list capabilities.
const NO_CHAT: &[&str] = &["embed", "minilm", "bge-", "gte-", "e5-", "rerank", "ocr", "whisper"];
/// Architectures of models that only embed.
const ENCODERS: &[&str] = &["bert", "nomic-bert", "xlm-roberta", "roberta"];

/// Result of the probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Probe {
    /// No Ollama answers at the address.
    Absent,
    /// Ollama runs.
    Running {
        /// The server's URL, without a trailing slash.
        url: String,
        /// Installed models that can chat, in Ollama's own order: the newest first.
        models: Vec<String>,
    },
}

/// Asks whether Ollama runs, and for its models. Sends no key.
///
/// # Cancel safety
/// Safe.
pub(crate) async fn probe(host: Option<String>) -> Probe {
    let Some(url) = address(host.as_deref().unwrap_or_default()) else { return Probe::Absent };
    let Some(target) = Target::other(&url) else { return Probe::Absent };
    let base = url.as_str().trim_end_matches('/');
    let path = format!("{}/api/tags", url.path().trim_end_matches('/'));
    match tokio::time::timeout(TIMEOUT, fetch::get(&target, &path)).await {
        Ok(Ok(Some(list))) => {
            chat_models(&list).map_or(Probe::Absent, |models| Probe::Running { url: base.to_owned(), models })
        }
        _ => Probe::Absent,
    }
}

/// The address in `OLLAMA_HOST`: `[SCHEME://][HOST][:PORT][/PATH]`. The address of all interfaces means loopback.
/// `None` if it is not an address.
fn address(host: &str) -> Option<Url> {
    let host = host.trim().trim_matches(['"', '\'']);
    let (scheme, rest) = host.split_once("://").unwrap_or(("", host));
    let (authority, path) = rest.split_once('/').map_or((rest, ""), |(authority, path)| (authority, path));
    let authority = if authority.is_empty() || authority.starts_with(':') {
        format!("127.0.0.1{authority}")
    } else {
        authority.to_owned()
    };
    let default = if scheme.is_empty() { "http" } else { scheme };
    let mut url = Url::parse(&format!("{default}://{authority}/{path}")).ok()?;
    if !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() || url.password().is_some() {
        return None;
    }
    url.set_query(None);
    url.set_fragment(None);
    // A scheme implies its own port; a bare host has Ollama's. (The URL parser drops an explicit port 80, so the text
    // itself is examined.)
    let port_given = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if scheme.is_empty() && !port_given {
        url.set_port(Some(DEFAULT_PORT)).ok()?;
    }
    match url.host()? {
        url::Host::Ipv4(ip) if ip.is_unspecified() => url.set_host(Some("127.0.0.1")).ok()?,
        url::Host::Ipv6(ip) if ip.is_unspecified() => url.set_host(Some("[::1]")).ok()?,
        _ => {}
    }
    Some(url)
}

/// The models in an answer of `/api/tags` that can chat on that machine: no embedding models, and none that Ollama only
/// forwards to its cloud. `None` if it is not such an answer.
fn chat_models(list: &Value) -> Option<Vec<String>> {
    let models = list.get("models")?;
    let models = match models {
        Value::Null => &[][..],
        models => models.as_array()?,
    };
    Some(models.iter().filter_map(chat_model).collect())
}

fn chat_model(model: &Value) -> Option<String> {
    let name = [model.get("model"), model.get("name")].into_iter().flatten().find_map(Value::as_str)?;
    let lower = name.to_ascii_lowercase();
    let cloud = lower.ends_with("-cloud") || lower.ends_with(":cloud");
    let remote = ["remote_host", "remote_model"]
        .iter()
        .any(|key| model.get(key).and_then(Value::as_str).is_some_and(|value| !value.is_empty()));
    let words = |value: Option<&Value>| -> Vec<String> {
        value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_lowercase).collect()
    };
    let capabilities = words(model.get("capabilities"));
    let chats = if capabilities.is_empty() {
        let details = model.get("details");
        let mut families = words(details.and_then(|details| details.get("families")));
        families.extend(details.and_then(|details| details.get("family")?.as_str()).map(str::to_lowercase));
        let encoder = families.iter().any(|family| ENCODERS.contains(&family.as_str()));
        !encoder && !NO_CHAT.iter().any(|part| lower.contains(part))
    } else {
        capabilities.iter().any(|capability| capability == "completion")
    };
    // A name that is not a valid vendor id cannot be configured.
    let usable = crate::gateway::config::vendor_id_is_valid(name);
    (chats && usable && !cloud && !remote).then(|| name.to_owned())
}

/// Ollama as an endpoint. A model on this machine costs nothing; the price of one elsewhere is unknown.
pub(super) fn endpoint(url: Option<&str>, model: &str) -> Found {
    let local = url.is_none_or(|url| {
        let host = Url::parse(url).ok();
        match host.as_ref().and_then(Url::host) {
            Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
            Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
            Some(url::Host::Domain(name)) => name == "localhost",
            None => false,
        }
    });
    let usual = format!("http://127.0.0.1:{DEFAULT_PORT}");
    Found {
        name: NAME,
        title: "Ollama",
        base_url: url.filter(|url| **url != usual).map(|url| format!("{url}/v1")),
        redirected_by: None,
        key: None,
        model: model.to_owned(),
        price: local.then_some(Price { input: 0.0, output: 0.0 }),
        slow: true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ollama_host_in_each_form_names_one_address() {
        for (host, expected) in [
            ("", "http://127.0.0.1:11434/"),
            ("0.0.0.0", "http://127.0.0.1:11434/"),
            ("[::]:8000", "http://[::1]:8000/"),
            (":9000", "http://127.0.0.1:9000/"),
            (" \"192.0.2.7\" ", "http://192.0.2.7:11434/"),
            ("box.lan:80", "http://box.lan/"),
            ("http://box.lan", "http://box.lan/"),
            ("https://box.lan/ollama/", "https://box.lan/ollama/"),
            ("localhost:11434", "http://localhost:11434/"),
        ] {
            assert_eq!(address(host).expect(host).as_str(), expected, "{host:?}");
        }
        for host in ["ftp://box", "http://user:pass@box", "a b", "host:99999"] {
            assert_eq!(address(host), None, "{host:?}");
        }
    }

    #[test]
    fn chat_models_leave_out_what_only_embeds_or_runs_elsewhere() {
        let list = json!({"models": [
            {"name": "nomic-embed-text:latest", "model": "nomic-embed-text:latest", "details": {"family": "nomic-bert", "families": ["nomic-bert"]}},
            {"name": "snowflake:335m", "model": "snowflake:335m", "details": {"family": "bert", "families": null}},
            {"name": "mxbai-embed-large", "model": "mxbai-embed-large"},
            {"name": "gpt-oss:120b-cloud", "model": "gpt-oss:120b-cloud", "remote_host": "https://ollama.com:443"},
            {"name": "custom", "model": "custom", "capabilities": ["embedding"]},
            {"name": "odd name", "model": "odd name"},
            {"name": "qwen3:4b", "model": "qwen3:4b", "details": {"family": "qwen3", "families": ["qwen3"]}},
            {"name": "hf.co/user/model:Q4_K_M"},
            {"name": "seen", "model": "seen", "capabilities": ["completion", "vision"]},
            17,
        ]});
        assert_eq!(chat_models(&list), Some(vec!["qwen3:4b".into(), "hf.co/user/model:Q4_K_M".into(), "seen".into()]));
        assert_eq!(chat_models(&json!({"models": null})), Some(Vec::new()));
        assert_eq!(chat_models(&json!({"data": []})), None);
        assert_eq!(chat_models(&json!([1])), None);
    }

    #[test]
    fn price_of_a_server_elsewhere_is_unknown_and_not_zero() {
        let price = |url: &str| endpoint(Some(url), "m").price;
        assert!(price("http://127.0.0.1:11434").is_some() && price("http://localhost:1").is_some());
        assert!(price("https://box.lan/ollama").is_none() && price("http://192.0.2.7:11434").is_none());
    }
}
