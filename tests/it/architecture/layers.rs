//! The layers (DESIGN 4): which components a component may import, that no modules of a component import each other in a circle, and
//! that some names occur only in one component.
//!
//! Differences from DESIGN 4 are explained at the component.

use std::collections::BTreeSet;

use super::imports::{Imports, circles, component_of, imports, reached};
use super::sources::{Source, sources};

/// Each layer's components, and the components that each may import. These are in a lower layer, or come earlier in the same
/// layer.
const LAYERS: &[&[(&str, &[&str])]] = &[
    // Plain data; mechanisms without domain types.
    &[
        ("types", &[]),
        ("base", &[]),
        // Pages of Markdown; they import nothing.
        ("docs", &[]),
    ],
    // Without input and output.
    &[
        ("protocol", &["types", "base"]),
        // Decoders use the codes of errors.
        ("stt", &["types", "base", "protocol"]),
        ("llm", &["types", "base"]),
        ("turns", &["types", "base"]),
        ("context", &["types", "base"]),
        ("analysis", &["types", "base", "llm", "context"]),
        ("rules", &["types", "base"]),
        // Figures of insights. DESIGN 4 does not have it.
        ("evaluation", &["types", "base"]),
        // Transcript files: their turns become the frames of a recording.
        ("transcript", &["types", "base", "protocol"]),
        ("call", &["types", "base", "protocol", "stt", "turns", "context", "analysis", "rules"]),
    ],
    &[
        ("gateway", &["types", "base", "llm"]),
        ("journal", &["types", "base"]),
        ("ledger", &["types", "base"]),
        ("keys", &["types", "base"]),
        ("recording", &["types", "base", "protocol"]),
        ("hub", &["types", "base", "protocol", "journal"]),
        ("placement", &["types", "base", "journal"]),
    ],
    &[
        (
            "session",
            &[
                "types",
                "base",
                "protocol",
                "stt",
                "llm",
                "context",
                "analysis",
                "call",
                "gateway",
                "journal",
                "hub",
                "placement",
            ],
        ),
        ("sink", &["types", "base", "protocol", "hub"]),
        // A stand-in for the STT vendor, for tests and trials. It is not in DESIGN 4.
        ("standin", &["base", "recording"]),
    ],
    &[
        // The hub, because producers get insights on their sockets; the analyses, because the query has their names and
        // questions.
        ("ingest", &["types", "base", "protocol", "stt", "analysis", "call", "recording", "hub", "session"]),
        // The API routes requests to the producers' sockets, which `ingest` serves.
        (
            "api",
            &[
                "types",
                "base",
                "docs",
                "protocol",
                "stt",
                "llm",
                "transcript",
                "call",
                "gateway",
                "journal",
                "ledger",
                "keys",
                "hub",
                "session",
                "ingest",
            ],
        ),
        // The configuration has sections of other components.
        (
            "config",
            &["types", "base", "analysis", "rules", "call", "gateway", "journal", "keys", "sink", "ingest", "api"],
        ),
    ],
    // The only component that connects all others.
    &[("app", ALL)],
    // A client like any other; `COMMANDS` lists the exceptions.
    &[("cli", ALL)],
    &[("main", &["cli"])],
];

/// Every component of the lower layers.
const ALL: &[&str] = &["*"];

/// Components that every command may import: it talks to a daemon by the protocol, and reads and writes recordings.
const CLIENT: &[&str] = &["types", "base", "docs", "protocol", "recording", "transcript"];

/// Commands that may import more, because they run other parts themselves.
const COMMANDS: &[(&str, &[&str])] = &[
    // Runs a daemon.
    ("cli/serve.rs", &["app"]),
    ("cli/demo", &["app", "config", "stt", "analysis", "llm"]),
    ("cli/analyze/daemon.rs", &["app", "config", "api"]),
    ("cli/replay/standin.rs", &["standin"]),
    // Reads the configuration without a daemon.
    ("cli/settings.rs", &["config"]),
    ("cli/check.rs", &["config"]),
    ("cli/init.rs", &["config"]),
    ("cli/key.rs", &["keys"]),
    ("cli/models.rs", &["api", "gateway", "llm"]),
    ("cli/discovery", &["gateway"]),
    // Makes the prompt that a daemon would send.
    ("cli/render.rs", &["stt", "llm", "turns", "context", "analysis", "config"]),
    // Recordings on a virtual clock, without a daemon.
    ("cli/trial", &["app", "config", "evaluation", "gateway"]),
    ("cli/compare", &["evaluation", "gateway"]),
    ("cli/eval", &["evaluation"]),
    // Lists dialects by name.
    ("cli/dialects.rs", &["stt"]),
    ("cli/replay", &["stt"]),
];

/// The gateway's components: each may import those before it.
const GATEWAY: &[&str] = &["admission", "transport", "catalogue", "attempt", "schedule"];

/// Crates and modules that may be named only in files whose paths begin with one of these.
const ONLY: &[(&str, &[&str])] = &[
    ("reqwest::", &["base/http"]),
    ("hyper::client::", &["base/http"]),
    ("hyper_util::client::", &["base/http"]),
    ("hyper_rustls::", &["base/http"]),
    ("tungstenite::", &["base/ws"]),
    ("rusqlite::", &["ledger"]),
    ("pulldown_cmark::", &["docs"]),
    ("minijinja::", &["analysis"]),
    ("journal::open(", &["journal", "app"]),
    // Clients read statuses, and the stand-in acts as another vendor's server.
    ("StatusCode::", &["api/error.rs", "cli/", "standin/"]),
];

/// Components without input and output, clocks and async runtime.
const PURE: &[&str] =
    &["types", "protocol", "stt", "llm", "turns", "context", "analysis", "rules", "evaluation", "transcript", "call"];

fn layer_of(component: &str) -> Option<usize> {
    LAYERS.iter().position(|components| components.iter().any(|(name, _)| *name == component))
}

/// The components that a file may import, except its own.
fn allowed(path: &str, component: &str) -> Vec<&'static str> {
    if component == "cli" {
        let own = COMMANDS.iter().filter(|(command, _)| path.starts_with(command)).flat_map(|(_, more)| more.iter());
        return CLIENT.iter().chain(own).copied().collect();
    }
    let components = LAYERS.iter().copied().flatten();
    let listed = components.clone().find(|(name, _)| *name == component).map_or(&[] as &[&str], |(_, names)| *names);
    if listed != ALL {
        return listed.to_vec();
    }
    let below = layer_of(component).unwrap_or_default();
    LAYERS[..below].iter().copied().flatten().map(|(name, _)| *name).collect()
}

#[test]
fn layers_import_only_from_below() {
    let mut before: BTreeSet<&str> = BTreeSet::new();
    for (component, names) in LAYERS.iter().copied().flatten() {
        for name in names.iter().filter(|name| !ALL.contains(name)) {
            assert!(before.contains(name), "{component} may name {name}, which stands neither below nor before it");
        }
        assert!(before.insert(component), "{component} has two layers");
    }
    let more = COMMANDS.iter().flat_map(|(_, names)| names.iter()).chain(CLIENT);
    for name in more {
        assert!(before.contains(name), "{name} is no component");
    }
}

#[test]
fn components_name_only_what_their_layer_allows() {
    let imports = imports();
    let mut faults = Vec::new();
    for source in sources().iter().filter(|source| source.path != "lib.rs") {
        let component = source.component();
        if layer_of(component).is_none() {
            faults.push(format!("src/{}: {component} has no layer; give it one in LAYERS", source.path));
            continue;
        }
        let allowed = allowed(&source.path, component);
        let named: BTreeSet<&str> = imports[&source.module()].iter().map(|module| component_of(module)).collect();
        for name in named.into_iter().filter(|name| *name != component && !allowed.contains(name)) {
            faults.push(format!("src/{}: {component} names crate::{name}", source.path));
        }
    }
    assert!(faults.is_empty(), "imports that the layers do not allow:\n{}", faults.join("\n"));
}

#[test]
fn components_have_no_circles_inside() {
    let inside = imports().into_iter().map(|(module, others)| {
        let own = others.into_iter().filter(|other| component_of(other) == component_of(&module)).collect();
        (module, own)
    });
    let found = circles(&inside.collect());
    assert!(found.is_empty(), "circles of imports: {found:?}");
}

#[test]
fn components_of_the_gateway_name_only_those_before_them() {
    let folder = |module: &str| module.strip_prefix("gateway::")?.split("::").next().map(str::to_owned);
    let mut folders = Imports::new();
    for (module, others) in imports() {
        let Some(own) = folder(&module) else { continue };
        let others = others.iter().filter_map(|other| folder(other)).filter(|other| *other != own);
        folders.entry(own.clone()).or_default().extend(others);
    }
    for (at, component) in GATEWAY.iter().enumerate() {
        let others = &folders[*component];
        for later in &GATEWAY[at..] {
            assert!(!others.contains(*later), "gateway::{component} names gateway::{later}");
        }
    }
    for name in folders.keys() {
        assert!(!reached(name, &folders).contains(name), "a circle of imports through gateway::{name}: {folders:?}");
    }
}

#[test]
fn each_mechanism_is_in_one_component() {
    let mut faults = Vec::new();
    for Source { path, code } in sources() {
        for (name, homes) in ONLY {
            if code.contains(name) && !homes.iter().any(|home| path.starts_with(home)) {
                faults.push(format!("src/{path}: names {name}, which only {} may", homes.join(", ")));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn pure_components_have_no_input_output_and_clock() {
    let mut faults = Vec::new();
    for source in sources() {
        // A user's analysis is a folder. It is read only there, at start-up, and is data from then on.
        if !PURE.contains(&source.component()) || source.path == "analysis/folder.rs" {
            continue;
        }
        for word in ["tokio::", "std::fs", "std::net", "Instant::now", "SystemTime::now", "Timestamp::now"] {
            if source.code.contains(word) {
                faults.push(format!("src/{}: {word} in a layer without input, output and clock", source.path));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
