//! Imports point down only: every `use crate::…` and `crate::…` path of `src/` is checked against the layers, and the
//! crates that only one module may know are named nowhere else.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The layer of each top-level module. A module may name those of the layers below it.
const LAYERS: &[&[&str]] = &[
    &["types", "base"],
    &["stt", "llm", "analysis", "context", "recording"],
    &["gateway", "journal", "keys", "ledger", "hub", "standin"],
    &["session", "sink"],
    &["ingest", "api", "config", "standin"],
    &["app"],
    &["cli"],
    &["main"],
];

/// What may be named beside one's own layer's floor: neighbours, in one direction only.
const NEIGHBOURS: &[(&str, &str)] = &[
    ("base", "types"),
    ("analysis", "llm"),
    ("analysis", "context"),
    ("context", "llm"),
    ("hub", "journal"),
    // The HTTP surface mounts the producers' socket; the configuration is made of everybody's sections.
    ("api", "ingest"),
    ("config", "api"),
    ("config", "ingest"),
];

/// Modules of the middle that may name less than all that is below them.
const NARROW: &[(&str, &[&str])] = &[
    ("gateway", &["types", "base", "llm"]),
    ("journal", &["types", "base"]),
    ("keys", &["types", "base"]),
    ("ledger", &["types", "base"]),
    ("hub", &["types", "base", "journal"]),
    ("sink", &["types", "base", "hub", "journal"]),
];

/// Crates that only these files may name.
const ONLY: &[(&str, &[&str])] = &[
    ("reqwest", &["base/http"]),
    ("hyper::client", &["base/http"]),
    ("hyper_util::client", &["base/http"]),
    ("hyper_rustls", &["base/http"]),
    ("tungstenite", &["base/ws", "ingest", "api/stream", "sink/websocket"]),
    ("rusqlite", &["ledger"]),
];

/// Modules that must be free of input and output, clocks and the async runtime.
const PURE: &[&str] = &["stt", "llm", "analysis", "context", "types"];

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("read src") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|end| end == "rs") {
            into.push(path);
        }
    }
}

/// The code without comments, string contents and test modules (which stand last in a file).
fn code_of(text: &str) -> String {
    let end = text.find("#[cfg(test)]\nmod tests").unwrap_or(text.len());
    let mut code = String::new();
    for line in text[..end].lines() {
        let line = line.trim_start();
        if line.starts_with("//") {
            continue;
        }
        code.push_str(line.split(" // ").next().unwrap_or_default());
        code.push('\n');
    }
    code
}

/// Top-level modules that the code names through `crate::`.
fn named(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        // `$crate::` is a macro's own path; `other_crate::` is not ours.
        if code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        let group = rest.strip_prefix('{').map(top_of_group);
        for name in group.unwrap_or_else(|| vec![first_word(rest)]) {
            found.insert(name);
        }
    }
    found
}

fn first_word(text: &str) -> String {
    text.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect()
}

/// First segments of `use crate::{a::b, c::{d, e}}`.
fn top_of_group(inner: &str) -> Vec<String> {
    let (mut depth, mut names, mut expecting) = (0, Vec::new(), true);
    for (at, character) in inner.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => expecting = true,
            _ if expecting && (character.is_alphanumeric() || character == '_') => {
                names.push(first_word(&inner[at..]));
                expecting = false;
            }
            _ => {}
        }
    }
    names
}

fn each_source(mut check: impl FnMut(&str, &str, &str)) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(!files.is_empty(), "no sources found");
    for file in files {
        let relative = file.strip_prefix(&root).expect("below src").display().to_string();
        if relative.ends_with("tests.rs") || relative.contains("/tests/") {
            continue;
        }
        let module = relative.split(['/', '.']).next().unwrap_or_default().to_owned();
        let code = code_of(&std::fs::read_to_string(&file).expect("read source"));
        check(&relative, &module, &code);
    }
}

#[test]
fn imports_point_down_only() {
    let mut faults = Vec::new();
    each_source(|file, module, code| {
        if module == "lib" {
            return;
        }
        let layer_of = |module: &str| LAYERS.iter().position(|layer| layer.contains(&module));
        let own = layer_of(module);
        if own.is_none() {
            faults.push(format!("src/{file}: {module} has no layer; give it one in this test"));
        }
        for name in named(code) {
            let name = name.as_str();
            let below = layer_of(name).zip(own).is_some_and(|(theirs, own)| theirs < own);
            let narrow = NARROW.iter().find(|(who, _)| *who == module);
            let allowed = name == module
                || NEIGHBOURS.contains(&(module, name))
                || (below && narrow.is_none_or(|(_, whom)| whom.contains(&name)));
            if !allowed {
                faults.push(format!("src/{file}: {module} names crate::{name}"));
            }
        }
    });
    assert!(faults.is_empty(), "imports that do not point down:\n{}", faults.join("\n"));
}

#[test]
fn each_mechanism_has_one_home() {
    let mut faults = Vec::new();
    each_source(|file, _, code| {
        for (name, homes) in ONLY {
            if code.contains(&format!("{name}::")) && !homes.iter().any(|home| file.starts_with(home)) {
                faults.push(format!("src/{file}: names {name}, which only {} may", homes.join(", ")));
            }
        }
        // Clients read statuses, and the stand-in plays somebody else's server.
        let may_know = ["api/error.rs", "cli/", "standin/"].iter().any(|home| file.starts_with(home));
        if code.contains("StatusCode::") && !may_know {
            faults.push(format!("src/{file}: names HTTP status codes, which only api/error.rs may"));
        }
    });
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_pure_layer_is_pure() {
    let mut faults = Vec::new();
    each_source(|file, module, code| {
        // A user's analysis is a folder: read there once, at start-up, and data from then on.
        if !PURE.contains(&module) || file == "analysis/folder.rs" {
            return;
        }
        for word in ["tokio::", "std::fs", "std::net", "Instant::now", "SystemTime::now", "Timestamp::now"] {
            if code.contains(word) {
                faults.push(format!("src/{file}: {word} in a layer without input, output and clock"));
            }
        }
    });
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_checker_sees_what_it_must() {
    let code = code_of("use crate::{api::x, hub::{a, b}};\n// crate::no\nfn f() { crate::session::g() }\n");
    let names: Vec<String> = named(&code).into_iter().collect();
    assert_eq!(names, ["api", "hub", "session"]);
}
