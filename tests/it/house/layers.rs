//! The layers (DESIGN 4): which room may name which, that no modules of a room import each other in a circle, and that
//! what only one room may know is named nowhere else.
//!
//! Where the code differs from DESIGN 4, it is said beside the room.

use std::collections::BTreeSet;

use super::imports::{Imports, circles, imports, reached, room_of};
use super::sources::{Source, sources};

/// Each layer's rooms, and the rooms that each may name. They are all of a lower layer, or stand before it in its own.
const LAYERS: &[&[(&str, &[&str])]] = &[
    // Plain data; mechanisms that know no domain type.
    &[
        ("types", &[]),
        ("base", &[]),
        // Pages of Markdown, which name nothing.
        ("docs", &[]),
    ],
    // Pure and sans-IO.
    &[
        ("protocol", &["types", "base"]),
        // Decoders name the codes of their errors.
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
        // A stand-in for the STT vendor, for tests and trials. DESIGN 4 does not have it.
        ("standin", &["base", "recording"]),
    ],
    &[
        // The hub: producers get insights on their own sockets. The analysis: names and questions in the query.
        ("ingest", &["types", "base", "protocol", "stt", "analysis", "call", "recording", "hub", "session"]),
        // It mounts the producers' sockets, which `ingest` serves.
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
        // The sections of other rooms.
        (
            "config",
            &["types", "base", "analysis", "rules", "call", "gateway", "journal", "keys", "sink", "ingest", "api"],
        ),
    ],
    // The only wiring.
    &[("app", ALL)],
    // A client like any other; see `COMMANDS` for what is more.
    &[("cli", ALL)],
    &[("main", &["cli"])],
];

/// Every room of the layers below.
const ALL: &[&str] = &["*"];

/// What any command may name: it speaks to a daemon by the protocol, and reads and writes recordings.
const CLIENT: &[&str] = &["types", "base", "docs", "protocol", "recording", "transcript"];

/// Commands that name more, because they run something themselves.
const COMMANDS: &[(&str, &[&str])] = &[
    // A daemon of its own.
    ("cli/serve.rs", &["app"]),
    ("cli/demo", &["app", "config", "stt", "analysis", "llm"]),
    ("cli/analyze/daemon.rs", &["app", "config", "api"]),
    ("cli/replay/standin.rs", &["standin"]),
    // The configuration, read without a daemon.
    ("cli/settings.rs", &["config"]),
    ("cli/check.rs", &["config"]),
    ("cli/init.rs", &["config"]),
    ("cli/key.rs", &["keys"]),
    ("cli/models.rs", &["api", "gateway", "llm"]),
    ("cli/discovery", &["gateway"]),
    // The prompt that a daemon would send.
    ("cli/render.rs", &["stt", "llm", "turns", "context", "analysis"]),
    // Recordings on a virtual clock, without a daemon.
    ("cli/trial", &["app", "config", "evaluation", "gateway"]),
    ("cli/compare", &["evaluation", "gateway"]),
    ("cli/eval", &["evaluation"]),
    // Dialects by name.
    ("cli/dialects.rs", &["stt"]),
    ("cli/replay", &["stt"]),
];

/// The gateway's rooms: each may name those before it.
const GATEWAY: &[&str] = &["admission", "transport", "catalogue", "attempt", "schedule"];

/// Crates and modules that only files whose paths begin so may name.
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
    // Clients read statuses, and the stand-in plays somebody else's server.
    ("StatusCode::", &["api/error.rs", "cli/", "standin/"]),
];

/// Rooms without input and output, clocks and the async runtime.
const PURE: &[&str] =
    &["types", "protocol", "stt", "llm", "turns", "context", "analysis", "rules", "evaluation", "transcript", "call"];

fn layer_of(room: &str) -> Option<usize> {
    LAYERS.iter().position(|rooms| rooms.iter().any(|(name, _)| *name == room))
}

/// The rooms that a file may name, without its own.
fn allowed(path: &str, room: &str) -> Vec<&'static str> {
    if room == "cli" {
        let own = COMMANDS.iter().filter(|(command, _)| path.starts_with(command)).flat_map(|(_, more)| more.iter());
        return CLIENT.iter().chain(own).copied().collect();
    }
    let rooms = LAYERS.iter().copied().flatten();
    let listed = rooms.clone().find(|(name, _)| *name == room).map_or(&[] as &[&str], |(_, names)| *names);
    if listed != ALL {
        return listed.to_vec();
    }
    let below = layer_of(room).unwrap_or_default();
    LAYERS[..below].iter().copied().flatten().map(|(name, _)| *name).collect()
}

#[test]
fn layers_point_down_only() {
    let mut before: BTreeSet<&str> = BTreeSet::new();
    for (room, names) in LAYERS.iter().copied().flatten() {
        for name in names.iter().filter(|name| !ALL.contains(name)) {
            assert!(before.contains(name), "{room} may name {name}, which stands neither below nor before it");
        }
        assert!(before.insert(room), "{room} has two layers");
    }
    let more = COMMANDS.iter().flat_map(|(_, names)| names.iter()).chain(CLIENT);
    for name in more {
        assert!(before.contains(name), "{name} is no room");
    }
}

#[test]
fn rooms_name_only_what_their_layer_allows() {
    let imports = imports();
    let mut faults = Vec::new();
    for source in sources().iter().filter(|source| source.path != "lib.rs") {
        let room = source.room();
        if layer_of(room).is_none() {
            faults.push(format!("src/{}: {room} has no layer; give it one in LAYERS", source.path));
            continue;
        }
        let allowed = allowed(&source.path, room);
        let named: BTreeSet<&str> = imports[&source.module()].iter().map(|module| room_of(module)).collect();
        for name in named.into_iter().filter(|name| *name != room && !allowed.contains(name)) {
            faults.push(format!("src/{}: {room} names crate::{name}", source.path));
        }
    }
    assert!(faults.is_empty(), "imports that the layers do not allow:\n{}", faults.join("\n"));
}

#[test]
fn rooms_have_no_circles_inside() {
    let inside = imports().into_iter().map(|(module, others)| {
        let own = others.into_iter().filter(|other| room_of(other) == room_of(&module)).collect();
        (module, own)
    });
    let found = circles(&inside.collect());
    assert!(found.is_empty(), "circles of imports: {found:?}");
}

#[test]
fn rooms_of_the_gateway_name_only_those_before_them() {
    let folder = |module: &str| module.strip_prefix("gateway::")?.split("::").next().map(str::to_owned);
    let mut folders = Imports::new();
    for (module, others) in imports() {
        let Some(own) = folder(&module) else { continue };
        let others = others.iter().filter_map(|other| folder(other)).filter(|other| *other != own);
        folders.entry(own.clone()).or_default().extend(others);
    }
    for (at, room) in GATEWAY.iter().enumerate() {
        let others = &folders[*room];
        for later in &GATEWAY[at..] {
            assert!(!others.contains(*later), "gateway::{room} names gateway::{later}");
        }
    }
    for name in folders.keys() {
        assert!(!reached(name, &folders).contains(name), "a circle of imports through gateway::{name}: {folders:?}");
    }
}

#[test]
fn each_mechanism_has_one_home() {
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
fn pure_rooms_have_no_input_output_and_clock() {
    let mut faults = Vec::new();
    for source in sources() {
        // A user's analysis is a folder: read there once, at start-up, and data from then on.
        if !PURE.contains(&source.room()) || source.path == "analysis/folder.rs" {
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
