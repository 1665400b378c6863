//! The layers (DESIGN 4): which rooms a room may import, that no modules of a room import each other in a circle, and
//! that some names occur only in one room.
//!
//! Differences from DESIGN 4 are explained at the room.

use std::collections::BTreeSet;

use super::imports::{Imports, circles, imports, reached, room_of};
use super::sources::{Source, sources};

/// Each layer's rooms, and the rooms that each may import. These are in a lower layer, or come earlier in the same
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
        // The configuration has sections of other rooms.
        (
            "config",
            &["types", "base", "analysis", "rules", "call", "gateway", "journal", "keys", "sink", "ingest", "api"],
        ),
    ],
    // The only room that connects all others.
    &[("app", ALL)],
    // A client like any other; `COMMANDS` lists the exceptions.
    &[("cli", ALL)],
    &[("main", &["cli"])],
];

/// Every room of the lower layers.
const ALL: &[&str] = &["*"];

/// Rooms that every command may import: it talks to a daemon by the protocol, and reads and writes recordings.
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
    ("cli/render.rs", &["stt", "llm", "turns", "context", "analysis"]),
    // Recordings on a virtual clock, without a daemon.
    ("cli/trial", &["app", "config", "evaluation", "gateway"]),
    ("cli/compare", &["evaluation", "gateway"]),
    ("cli/eval", &["evaluation"]),
    // Lists dialects by name.
    ("cli/dialects.rs", &["stt"]),
    ("cli/replay", &["stt"]),
];

/// The gateway's rooms: each may import those before it.
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

/// Rooms without input and output, clocks and async runtime.
const PURE: &[&str] =
    &["types", "protocol", "stt", "llm", "turns", "context", "analysis", "rules", "evaluation", "transcript", "call"];

fn layer_of(room: &str) -> Option<usize> {
    LAYERS.iter().position(|rooms| rooms.iter().any(|(name, _)| *name == room))
}

/// The rooms that a file may import, except its own.
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
        // A user's analysis is a folder. It is read only there, at start-up, and is data from then on.
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
