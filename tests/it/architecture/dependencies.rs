//! Checks licences, versions and sources of dependencies against `.deny.toml`, which `cargo deny` reads too.
//!
//! Uses no network: versions come from `Cargo.lock`, licences from the packages that the build has downloaded. Knows no
//! advisories: only `cargo deny check` can look them up.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// The registry that packages come from, as `Cargo.lock` names it.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

#[derive(Deserialize)]
struct Rules {
    licenses: Licenses,
    bans: Bans,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Exception>,
    skip: Vec<Exception>,
}

/// `NAME` or `NAME@VERSION`, and the reason.
#[derive(Deserialize)]
struct Exception {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
}

#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    source: Option<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read<T: DeserializeOwned>(name: &str) -> T {
    let text = std::fs::read_to_string(root().join(name)).expect("read the file");
    toml::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The output of `cargo`.
fn cargo(arguments: &[&str]) -> String {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo).args(arguments).current_dir(root()).output().expect("run cargo");
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// The packages that the build uses on this machine.
fn packages() -> Vec<Package> {
    let version = cargo(&["-vV"]);
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("the host's triple");
    let arguments = ["metadata", "--locked", "--offline", "--format-version=1", "--filter-platform", host];
    let metadata: Metadata = serde_json::from_str(&cargo(&arguments)).expect("metadata");
    metadata.packages
}

/// Returns true if one alternative of an SPDX expression contains only licences of `allow`. `/` is an older spelling of
/// `OR`.
fn is_allowed(expression: &str, allow: &[String]) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut words = spaced.split_whitespace().peekable();
    let allowed = any(&mut words, allow);
    allowed && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any(words: &mut Words<'_>, allow: &[String]) -> bool {
    let mut allowed = every(words, allow);
    while words.next_if_eq(&"OR").is_some() {
        allowed |= every(words, allow);
    }
    allowed
}

fn every(words: &mut Words<'_>, allow: &[String]) -> bool {
    let mut allowed = one(words, allow);
    while words.next_if_eq(&"AND").is_some() {
        allowed &= one(words, allow);
    }
    allowed
}

fn one(words: &mut Words<'_>, allow: &[String]) -> bool {
    let Some(word) = words.next() else { return false };
    if word == "(" {
        let allowed = any(words, allow);
        return words.next() == Some(")") && allowed;
    }
    let name = match words.next_if_eq(&"WITH").and_then(|_| words.next()) {
        Some(exception) => format!("{word} WITH {exception}"),
        None => word.to_owned(),
    };
    allow.contains(&name)
}

#[test]
fn licences_are_allowed() {
    let rules: Rules = read(".deny.toml");
    let mut faults = Vec::new();
    for Package { name, version, license } in packages() {
        if !license.as_deref().is_some_and(|license| is_allowed(license, &rules.licenses.allow)) {
            faults.push(format!("{name} {version}: {license:?} is not among [licenses] allow of .deny.toml"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn packages_have_one_version_and_one_source() {
    let (rules, lock): (Rules, Lock) = (read(".deny.toml"), read("Cargo.lock"));
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut faults = Vec::new();
    for Locked { name, version, source } in &lock.package {
        versions.entry(name).or_default().push(version);
        if source.as_deref().is_some_and(|source| source != REGISTRY) || source.is_none() && name != "sidetone" {
            faults.push(format!("{name} {version}: it comes from {source:?}, and only crates.io is allowed"));
        }
        if let Some(ban) = rules.bans.deny.iter().find(|ban| ban.name == *name) {
            faults.push(format!("{name} {version}: it is banned: {}", ban.reason));
        }
    }
    for Exception { name, reason } in &rules.bans.skip {
        let (name, wanted) = name.split_once('@').unwrap_or_else(|| panic!("skip {name}: expected NAME@VERSION"));
        assert!(!reason.is_empty(), "skip {name}@{wanted}: no reason");
        let Some(known) = versions.get_mut(name).filter(|known| known.len() > 1) else {
            faults.push(format!("{name}: there are no two versions any more; take it out of [bans] skip"));
            continue;
        };
        let before = known.len();
        known.retain(|version| *version != wanted && !version.starts_with(&format!("{wanted}.")));
        if known.len() == before {
            faults.push(format!("{name}@{wanted}: there is no such version any more; take it out of [bans] skip"));
        }
    }
    for (name, versions) in versions.iter().filter(|(_, versions)| versions.len() > 1) {
        faults.push(format!(
            "{name}: versions {}; list the older one under [bans] skip, with a reason",
            versions.join(", ")
        ));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn expressions_of_licences_are_read() {
    let allow = ["MIT", "ISC", "Apache-2.0", "X WITH E"].map(str::to_owned);
    for (expression, expected) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0/MIT", true),
        ("Apache-2.0 / MIT", true),
        ("GPL-3.0 AND MIT", false),
        ("(MIT OR GPL-3.0) AND ISC", true),
        ("(MIT OR GPL-3.0) AND Zlib", false),
        ("MIT OR ISC AND Zlib", true),
        ("X WITH E", true),
        ("X", false),
        ("MIT WITH E", false),
        ("(MIT", false),
        ("MIT MIT", false),
        ("", false),
    ] {
        assert_eq!(is_allowed(expression, &allow), expected, "{expression:?}");
    }
}
