//! `[[sink]]`: the configuration of one consumer.
//!
//! Knows no setting of a single kind: each kind reads its own.

use std::fmt;
use std::sync::Arc;

use http::HeaderMap;
use sha2::{Digest, Sha256};
use toml::Value;
use url::Url;

use super::{Delivery, Kind, SINKS};
use crate::base::names;
use crate::base::secret::outline;
use crate::base::settings::{Problems, Section, found};
use crate::hub::{Filter, Include};
use crate::types::CallId;

/// The configuration of one consumer.
#[derive(Clone)]
pub struct Config {
    /// How the consumer is reached.
    pub kind: &'static dyn Kind,
    /// Unique name, for its files and metrics.
    pub name: String,
    /// URL of the consumer.
    pub url: Url,
    /// Only these calls; `None` = all.
    pub calls: Option<Vec<CallId>>,
    /// Which frames are sent.
    pub filter: Filter,
    /// Headers of every request or handshake.
    pub headers: HeaderMap,
    /// The kind with its own settings.
    pub(super) delivery: Arc<dyn Delivery>,
    /// Changes with any setting.
    digest: String,
}

impl fmt::Debug for Config {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL may contain a key.
        let mut shown = formatter.debug_struct("Config");
        shown.field("kind", &self.kind.name()).field("name", &self.name).field("digest", &self.digest).finish()
    }
}

impl Config {
    /// Reads all `[[sink]]` tables; `analyses` are those that exist. Two sinks must not have the same name, because
    /// they would share a position.
    pub fn read_all(value: Option<Value>, analyses: &[String], problems: &mut Problems) -> Vec<Self> {
        let items = match value {
            None => return Vec::new(),
            Some(Value::Array(items)) => items,
            Some(other) => {
                problems.push("sink", format!("expected [[sink]] tables, found {}", found(&other)));
                return Vec::new();
            }
        };
        let mut sinks: Vec<Self> = Vec::new();
        for (index, item) in items.into_iter().enumerate() {
            let path = format!("sink[{index}]");
            let Some(sink) = Self::read(path.clone(), item, analyses, problems) else { continue };
            if sinks.iter().any(|other| other.name == sink.name) {
                let message = format!("another sink has the name {:?} (kind and URL give the default name)", sink.name);
                problems.push(format!("{path}.name"), message);
                continue;
            }
            sinks.push(sink);
        }
        sinks
    }

    /// Reads the table at `path`; `analyses` are those that exist. `None` if its kind or URL is missing or invalid.
    pub fn read(path: String, value: Value, analyses: &[String], problems: &mut Problems) -> Option<Self> {
        let digest = hex::encode(&Sha256::digest(value.to_string())[..8]);
        let mut section = Section::new(path, Some(value), problems);
        let kinds: Vec<&'static str> = SINKS.iter().map(|kind| kind.name()).collect();
        let kind_name = section.required("kind", |section| section.choice("kind", &kinds));
        let kind = SINKS.iter().copied().find(|kind| Some(kind.name()) == kind_name);
        let url = section.required("url", |section| section.string("url"));
        let url = url.and_then(|url| read_url(&mut section, &url, kind));
        let calls = read_calls(&mut section);
        let filter = read_filter(&mut section, analyses);
        if let Some(kind) = kind {
            if !kind.takes_live() && (filter.include.partials || filter.include.deltas) {
                let message = format!("kind = {:?} supports no partials and deltas, which have no seq", kind.name());
                section.problem("include", message);
            }
            // An ignored key would mislead: somebody might believe that frames are signed.
            let others = SINKS.iter().flat_map(|other| other.own_keys()).filter(|key| !kind.own_keys().contains(key));
            for key in others.copied() {
                if section.take(key).is_some() {
                    section.problem(key, format!("has no meaning with kind = {:?}", kind.name()));
                }
            }
        }
        // Without a kind, the settings of all kinds are checked.
        let own = SINKS.iter().filter(|known| kind.is_none_or(|kind| kind.name() == known.name()));
        let delivery = own.map(|kind| kind.read(&mut section)).last();
        let headers = section.headers("headers");
        let name = section.string("name").filter(|name| {
            let valid = crate::types::id::check(name).is_ok();
            if !valid {
                section.problem("name", format!("expected letters, digits and _ . ~ : -, found {name:?}"));
            }
            valid
        });
        section.finish();
        let (kind, url, delivery) = (kind?, url?, delivery?);
        let name = name.unwrap_or_else(|| derived_name(kind, &url));
        Some(Self { kind, name, url, calls, filter, headers, delivery, digest })
    }
}

/// Stable across restarts: a sink keeps its position as long as its kind and URL stay the same.
fn derived_name(kind: &dyn Kind, url: &Url) -> String {
    let digest = Sha256::digest(format!("{} {url}", kind.name()));
    format!("{}-{}", kind.name(), hex::encode(&digest[..6]))
}

fn read_url(section: &mut Section<'_>, text: &str, kind: Option<&'static dyn Kind>) -> Option<Url> {
    let schemes = kind.map_or(&[][..], |kind| kind.schemes());
    let url = Url::parse(text).ok().filter(|url| url.host_str().is_some_and(|host| !host.is_empty()));
    match url {
        Some(url) if kind.is_none() || schemes.contains(&url.scheme()) => Some(url),
        _ => {
            let expected: Vec<String> = schemes.iter().map(|scheme| format!("{scheme}://HOST/…")).collect();
            let expected = if expected.is_empty() { "a URL with a host".to_owned() } else { expected.join(" or ") };
            section.problem("url", format!("expected {expected}, found {}", outline(text)));
            None
        }
    }
}

fn read_calls(section: &mut Section<'_>) -> Option<Vec<CallId>> {
    match section.take("calls") {
        None => None,
        Some(Value::String(all)) if all == "*" => None,
        Some(Value::Array(items)) => {
            let mut calls = Vec::new();
            for item in &items {
                match item.as_str().map(CallId::parse) {
                    Some(Ok(call)) => calls.push(call),
                    _ => section.problem("calls", format!("expected call ids, found {}", found(item))),
                }
            }
            Some(calls)
        }
        Some(other) => {
            section.problem("calls", format!("expected \"*\" or a list of call ids, found {}", found(&other)));
            None
        }
    }
}

fn read_filter(section: &mut Section<'_>, analyses: &[String]) -> Filter {
    let names = section.strings("analyses");
    for name in names.iter().flatten() {
        if !analyses.contains(name) {
            section.problem("analyses", names::unknown("analysis", name, analyses));
        }
    }
    let include = match section.strings("include") {
        None => Include::default(),
        Some(names) => Include::from_names(names.iter().map(String::as_str)).unwrap_or_else(|name| {
            section.problem(
                "include",
                format!(
                    "expected any of {}, found {name:?}{}",
                    Include::NAMES.join(", "),
                    names::hint(name, &Include::NAMES)
                ),
            );
            Include::default()
        }),
    };
    let no_alerts = section.boolean("alerts") == Some(false);
    Filter { analyses: names, no_alerts, include, latest: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Option<Config>, Vec<String>) {
        let mut problems = Problems::default();
        let value = Value::Table(text.parse().expect("toml"));
        let config = Config::read("sink[0]".into(), value, &["summary".into()], &mut problems);
        (config, problems.into_vec().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn reads_everything() {
        let (config, problems) = read(
            "kind = \"webhook\"\nurl = \"https://hooks.example.com/x\"\ncalls = [\"c_1\"]\nanalyses = [\"summary\"]\n\
             include = []\nbatch = 10\nname = \"crm\"\nheaders = { x-team = \"billing\" }",
        );
        assert_eq!(problems, [""; 0]);
        let config = config.expect("valid");
        assert_eq!((config.kind.name(), config.name.as_str()), ("webhook", "crm"));
        assert!(!config.filter.include.turns);
        assert_eq!(config.headers["x-team"], "billing");
        assert!(!format!("{config:?}").contains("hooks"));
    }

    #[test]
    fn a_name_is_derived_and_stable() {
        let name = |path: &str| {
            let (config, _) = read(&format!("kind = \"websocket\"\nurl = \"ws://localhost:1/{path}\""));
            config.expect("valid").name
        };
        assert!(crate::types::id::check(&name("a")).is_ok());
        assert!(name("a").starts_with("websocket-"));
        assert_eq!(name("a"), name("a"));
        assert_ne!(name("a"), name("b"));
    }

    #[test]
    fn shown_form_changes_with_every_setting() {
        let shown = |more: &str| format!("{:?}", read(&format!("kind = \"webhook\"\nname = \"a\"\n{more}")).0);
        let plain = "url = \"http://x/\"";
        assert_eq!(shown(plain), shown(plain));
        for more in ["url = \"http://y/\"", &format!("{plain}\nbatch = 2"), &format!("{plain}\ninclude = []")] {
            assert_ne!(shown(plain), shown(more));
        }
    }

    #[test]
    fn two_sinks_cannot_share_a_position() {
        let mut problems = Problems::default();
        let table: toml::Table =
            "[[sink]]\nkind = \"webhook\"\nurl = \"http://x/\"\n[[sink]]\nkind = \"webhook\"\nurl = \"http://x/\""
                .parse()
                .expect("toml");
        let sinks = Config::read_all(table.get("sink").cloned(), &[], &mut problems);
        assert_eq!(sinks.len(), 1);
        assert_eq!(problems.into_vec()[0].path, "sink[1].name");
    }

    #[test]
    fn every_problem_is_found() {
        let (config, problems) = read(
            "kind = \"fax\"\nurl = \"x\"\ncalls = 5\nanalyses = [\"mood\"]\ninclude = [\"all\"]\nname = \"a/b\"\n\
             headers = { \"a b\" = \"c\" }\nsecret = \"plain\"\nretries = 5",
        );
        assert!(config.is_none());
        for path in ["kind", "url", "calls", "analyses", "include", "name", "headers.a b", "secret", "retries"] {
            assert!(
                problems.iter().any(|problem| problem.starts_with(&format!("sink[0].{path}: "))),
                "{path}: {problems:?}"
            );
        }
        assert!(read("").1.iter().any(|problem| problem == "sink[0].kind: is required"));
        let (_, problems) = read("kind = \"webhook\"\nurl = \"http://x/\"\ninclude = [\"turns\", \"deltas\"]");
        assert!(problems[0].starts_with("sink[0].include: kind = \"webhook\""), "{problems:?}");
        let (_, problems) =
            read("kind = \"websocket\"\nurl = \"ws://x/\"\ninclude = [\"deltas\"]\nbatch = 5\nsecret = \"env:PATH\"");
        let places: Vec<&str> = problems.iter().filter_map(|problem| problem.split(": ").next()).collect();
        assert_eq!(places, ["sink[0].secret", "sink[0].batch"], "{problems:?}");
        assert!(
            read("kind = \"webhook\"\nurl = \"ws://x/\"").1[0].contains("expected http://HOST/… or https://HOST/…")
        );
    }
}
