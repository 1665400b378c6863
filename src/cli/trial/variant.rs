//! A variant: a configuration with which recordings are played, or a route that replaces those of a configuration.
//!
//! Knows no recording.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, anyhow, bail};

use super::Answers;
use crate::app::offline::Offline;
use crate::cli::settings;
use crate::config::Config;
use crate::types::provider::LOCAL;

/// Longest name of a variant, characters: it is the heading of a column.
const MAX_NAME_CHARS: usize = 24;

/// A configuration with which recordings are played.
pub(crate) struct Variant {
    pub(crate) name: String,
    /// A description of the variant, for people.
    pub(crate) what: String,
    pub(crate) offline: Offline,
    /// Analyses that the variant runs.
    pub(crate) analyses: Vec<String>,
    /// Variants of routes that are pinned.
    pub(crate) pins: BTreeMap<String, String>,
}

/// Reads `NAME=ROUTE|CONFIG`.
pub(crate) fn parse_variant(text: &str) -> Result<(String, String), String> {
    let expected = "expected NAME=ROUTE, NAME=ROUTE:VARIANT or NAME=FILE.toml, such as a=local or b=strict.toml";
    let (name, what) = text.split_once('=').ok_or(expected)?;
    let named = !name.is_empty()
        && name.chars().count() <= MAX_NAME_CHARS
        && name.chars().all(|character| character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '.'));
    if !named {
        return Err(format!("{expected}; a name has 1 to {MAX_NAME_CHARS} characters of A-Z a-z 0-9 _ - ."));
    }
    if what.is_empty() { Err(expected.to_owned()) } else { Ok((name.to_owned(), what.to_owned())) }
}

impl Variant {
    /// Opens a variant. `what` is the path of a configuration file, or a name that replaces the routes of all analyses
    /// of `config`. The variant runs `analyses`; if there are none, those of the configuration.
    ///
    /// # Errors
    /// There is no such file or name, or an analysis cannot be asked of it.
    pub(crate) fn open(
        name: &str,
        what: &str,
        config: Option<&Path>,
        analyses: &[String],
        answers: &Answers,
    ) -> Result<Self> {
        let path = Path::new(what);
        if path.extension().is_some_and(|extension| extension == "toml") || path.is_file() {
            let path = std::path::absolute(path)?;
            let config = settings::load(Some(&path)).map_err(|error| anyhow!("variant {name}: {error:#}"))?;
            let shown = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            return Self::checked(name, shown, &config, analyses, BTreeMap::new(), answers);
        }
        let mut config = settings::load(config)?;
        let (route, pinned) = route_of(&config, what).map_err(|message| anyhow!("variant {name}: {message}"))?;
        config.analyses.ask(route);
        let pins = pinned.map(|variant| (route.to_owned(), variant.to_owned())).into_iter().collect();
        Self::checked(name, what.to_owned(), &config, analyses, pins, answers)
    }

    /// A variant that uses a configuration unchanged.
    ///
    /// # Errors
    /// It has problems, or an analysis cannot be asked.
    pub(crate) fn of_config(config: Option<&Path>, analyses: &[String], answers: &Answers) -> Result<Self> {
        let shown = config.map_or_else(|| LOCAL.into(), |path| path.file_name().unwrap_or_default().to_string_lossy());
        let name = shown.into_owned();
        Self::checked(&name, name.clone(), &settings::load(config)?, analyses, BTreeMap::new(), answers)
    }

    fn checked(
        name: &str,
        what: String,
        config: &Config,
        analyses: &[String],
        pins: BTreeMap<String, String>,
        answers: &Answers,
    ) -> Result<Self> {
        let analyses = if analyses.is_empty() { config.default_analyses() } else { analyses.to_vec() };
        for analysis in &analyses {
            if let Some(message) = fault(config, analysis, &pins) {
                bail!("variant {name}: {message}");
            }
        }
        let offline = Offline::new(config, answers.exchanges());
        for (route, variant) in &pins {
            offline.check_variant(route, variant).map_err(|message| anyhow!("variant {name}: {message}"))?;
        }
        Ok(Self { name: name.to_owned(), what, offline, analyses, pins })
    }
}

/// Splits `what` into a route or model and, after a colon, a variant. A whole name that contains a colon takes
/// precedence, because vendors' model names can contain one.
fn route_of<'a>(config: &Config, what: &'a str) -> Result<(&'a str, Option<&'a str>), String> {
    let known = config.gateway.target("", Some(what));
    if known.is_ok() {
        return Ok((what, None));
    }
    match what.rsplit_once(':') {
        Some((route, variant)) if config.gateway.routes.iter().any(|known| known.name == route) => {
            Ok((route, Some(variant)))
        }
        _ => known.map(|_| (what, None)).map_err(|message| format!("{message}; and there is no such file")),
    }
}

/// The reason why an analysis cannot be asked with this configuration, if there is one.
fn fault(config: &Config, name: &str, pins: &BTreeMap<String, String>) -> Option<String> {
    let Some(analysis) = config.analyses.get(name) else { return Some(config.analyses.unknown(name)) };
    if analysis.is_computed() {
        return None;
    }
    // If no model is named, the embedded provider answers, if it can.
    let named = analysis.settings.route.is_some() || analysis.settings.local.is_none();
    if let Some(message) = config.unanswerable(name).filter(|_| named) {
        return Some(message);
    }
    let target = config.gateway.target(name, analysis.settings.route.as_deref()).ok()?;
    let route = config.gateway.routes.iter().find(|route| route.name == target)?;
    let asked = |name: &str| pins.get(&target).is_none_or(|pinned| pinned == name);
    let mut versions = route.variants.iter().filter(|variant| asked(&variant.name)).map(|variant| &variant.prompt);
    versions.find_map(|version| analysis.prompt(version.as_deref()).err()).map(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::trial::AnswerArgs;

    #[derive(clap::Parser)]
    struct Args {
        #[command(flatten)]
        answers: AnswerArgs,
    }

    const CONFIG: &str = "[endpoints.e]\nprovider = \"openai_compatible\"\nbase_url = \"http://127.0.0.1:9/v1\"\n\
        [models.m]\ncandidates = [\"e/v:free\"]\n\
        [[routes.r.variants]]\nname = \"a\"\nmodel = \"m\"\n[[routes.r.variants]]\nname = \"b\"\nmodel = \"m\"\nprompt = \"v9\"\n\
        [analyses.mine]\ndir = \"mine\"\nroute = \"r\"\n";

    #[test]
    fn names_come_before_a_file_or_a_route() {
        assert_eq!(parse_variant("a=local"), Ok(("a".into(), "local".into())));
        assert_eq!(parse_variant("b=r:v=1"), Ok(("b".into(), "r:v=1".into())));
        for wrong in ["local", "=local", "a=", "a b=local", &format!("{}=local", "a".repeat(MAX_NAME_CHARS + 1))] {
            assert!(parse_variant(wrong).expect_err(wrong).starts_with("expected NAME=ROUTE"), "{wrong}");
        }
    }

    #[test]
    fn variants_are_files_routes_and_models_and_what_is_none_is_named() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("c.toml");
        std::fs::write(&path, CONFIG).expect("write");
        std::fs::create_dir(folder.path().join("mine")).expect("folder");
        let schema =
            r#"{"type":"object","properties":{"a":{"type":"string"}},"required":["a"],"additionalProperties":false}"#;
        for (file, text) in [("v9.j2", "=== instructions ===\nSay it.\n"), ("schema.json", schema)] {
            std::fs::write(folder.path().join("mine").join(file), text).expect("write");
        }
        let answers = Args::parse_from(["x"]).answers.open().expect("answers");
        let summary = ["summary".to_owned()];
        let open = |what: &str, analyses: &[String]| Variant::open("a", what, Some(&path), analyses, &answers);
        for (what, pin) in [("local", None), ("m", None), ("e/v:free", None), ("r:a", Some("a"))] {
            let variant = open(what, &summary).map_err(|error| error.to_string()).expect(what);
            assert_eq!(variant.pins.get("r").map(String::as_str), pin, "{what}");
        }
        let file = open(&path.display().to_string(), &summary).map_err(|error| error.to_string()).expect("a file");
        assert_eq!((file.what.as_str(), file.analyses.as_slice()), ("c.toml", &summary[..]));
        let fault = |what: &str, analyses: &[&str]| {
            let analyses: Vec<String> = analyses.iter().map(|name| (*name).to_owned()).collect();
            open(what, &analyses).err().map(|error| format!("{error:#}")).unwrap_or_default()
        };
        for (what, analyses, said) in [
            ("nothing", &["summary"][..], "variant a: no route or model \"nothing\"; routes: r; models: m"),
            ("none.toml", &["summary"], "cannot be read"),
            ("r:c", &["summary"], "no variant \"c\" of route \"r\"; there are: a, b"),
            ("r", &["summary"], "no prompt version \"v9\""),
            ("r:b", &["summary"], "no prompt version \"v9\""),
            ("local", &["topics"], "topics needs a model"),
            ("local", &["moood"], "no analysis \"moood\""),
        ] {
            let message = fault(what, analyses);
            assert!(message.contains(said), "{what}: {message}");
        }
        assert_eq!(fault("local", &["stats"]), "", "figures need no model");
    }
}
