//! Imports point down only: every `use crate::…` and `crate::…` path of `src/` is checked against the layers, and the
//! crates that only one module may know are named nowhere else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The layer of each top-level module. A module may name those of the layers below it.
const LAYERS: &[&[&str]] = &[
    &["types", "base", "docs"],
    &["protocol", "stt", "llm", "analysis", "context", "recording", "rules", "transcript", "turns", "call"],
    &["gateway", "journal", "keys", "ledger", "hub", "placement", "standin"],
    &["session", "sink"],
    &["ingest", "api", "config", "standin"],
    &["app"],
    &["cli"],
    &["main"],
];

/// What may be named beside one's own layer's floor: neighbours, in one direction only.
const NEIGHBOURS: &[(&str, &str)] = &[
    ("base", "types"),
    // Decoders name the codes of their errors.
    ("stt", "protocol"),
    ("analysis", "llm"),
    ("analysis", "context"),
    ("call", "analysis"),
    ("call", "context"),
    ("call", "protocol"),
    ("call", "rules"),
    ("call", "stt"),
    ("call", "turns"),
    // A transcript's turns become the frames of a recording.
    ("transcript", "protocol"),
    ("hub", "journal"),
    ("placement", "journal"),
    // The HTTP surface mounts the producers' socket; the configuration is made of everybody's sections.
    ("api", "ingest"),
    ("config", "api"),
    ("config", "ingest"),
];

/// Modules of the middle that may name less than all that is below them.
const NARROW: &[(&str, &[&str])] = &[
    ("protocol", &["types", "base"]),
    ("gateway", &["types", "base", "llm"]),
    ("journal", &["types", "base"]),
    ("keys", &["types", "base"]),
    ("rules", &["types", "base"]),
    ("ledger", &["types", "base"]),
    ("hub", &["types", "base", "protocol", "journal"]),
    ("placement", &["types", "base", "journal"]),
    ("sink", &["types", "base", "protocol", "hub", "journal"]),
];

/// Rooms that still have circles of imports. To be emptied: a room that has none any more must leave this list.
const CIRCULAR: &[&str] = &["api"];

/// Rooms whose folders, too, must have no circles: all files of a folder count as one.
const STRICT: &[&str] = &["gateway"];

/// Crates that only these files may name.
const ONLY: &[(&str, &[&str])] = &[
    ("reqwest", &["base/http"]),
    ("hyper::client", &["base/http"]),
    ("hyper_util::client", &["base/http"]),
    ("hyper_rustls", &["base/http"]),
    ("tungstenite", &["base/ws", "ingest", "api/stream", "sink/websocket"]),
    ("rusqlite", &["ledger"]),
    ("pulldown_cmark", &["docs"]),
];

/// Modules that must be free of input and output, clocks and the async runtime.
const PURE: &[&str] =
    &["protocol", "stt", "llm", "analysis", "context", "rules", "transcript", "turns", "call", "types"];

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

/// Modules by name, such as `gateway::error`, each with the modules that it imports.
type Imports = BTreeMap<String, BTreeSet<String>>;

/// The paths of `use a::{b, c::{d}};`, each in full.
fn leaves(tree: &str) -> Vec<String> {
    let Some((before, inner)) = tree.split_once('{') else {
        return vec![tree.split(" as ").next().unwrap_or_default().trim().to_owned()];
    };
    let inner = inner.rsplit_once('}').map_or(inner, |(inner, _)| inner);
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, character) in inner.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&inner[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&inner[start..]);
    let parts = parts.into_iter().filter(|part| !part.trim().is_empty());
    parts.flat_map(leaves).map(|leaf| format!("{}{leaf}", before.trim())).collect()
}

/// All paths that code names: those of `use`, and those in the text that begin with `crate`, `super` or `self`.
fn paths(code: &str) -> Vec<String> {
    // `pub(in crate::a)` says who may see an item, and imports nothing.
    let code: Vec<&str> = code.split("pub(in crate::").collect();
    let code: String = code.iter().enumerate().fold(String::new(), |all, (index, part)| {
        all + if index == 0 { part } else { part.split_once(')').map_or(*part, |(_, rest)| rest) }
    });
    let mut found = Vec::new();
    let mut rest = code.as_str();
    let mut text = String::new();
    while let Some(at) = rest.find("use ") {
        let (before, from) = rest.split_at(at);
        text.push_str(before);
        let line = before.rsplit('\n').next().unwrap_or_default();
        let begins = matches!(line.trim(), "" | "pub" | "pub(crate)" | "pub(super)");
        let Some((tree, after)) = from["use ".len()..].split_once(';').filter(|_| begins) else {
            text.push_str("use ");
            rest = &from["use ".len()..];
            continue;
        };
        found.extend(leaves(&tree.split_whitespace().collect::<Vec<_>>().join(" ")));
        rest = after;
    }
    text.push_str(rest);
    for root in ["crate::", "super::", "self::"] {
        for (at, _) in text.match_indices(root) {
            if !text[..at].ends_with(|before: char| before.is_alphanumeric() || matches!(before, '_' | ':' | '$')) {
                let path =
                    text[at..].split(|character: char| !character.is_alphanumeric() && !"_:".contains(character));
                found.push(path.take(1).collect());
            }
        }
    }
    found
}

/// The module that a path leads to from `module`: the longest known beginning of it.
fn target(module: &str, path: &str, known: &BTreeSet<String>) -> Option<String> {
    let mut at: Vec<&str> = module.split("::").collect();
    let mut segments = path.split("::").peekable();
    match *segments.peek()? {
        "crate" => {
            segments.next();
            at.clear();
        }
        "self" => {
            segments.next();
        }
        "super" => {
            while segments.next_if_eq(&"super").is_some() {
                at.pop();
            }
        }
        first if known.contains(&format!("{module}::{first}")) => {}
        _ => return None,
    }
    let mut best = known.contains(&at.join("::")).then(|| at.join("::"));
    for segment in segments {
        at.push(segment);
        let name = at.join("::");
        if !known.contains(&name) {
            break;
        }
        best = Some(name);
    }
    best
}

fn imports() -> Imports {
    let mut code_by_module = BTreeMap::new();
    each_source(|file, _, code| {
        let module = file.trim_end_matches(".rs").trim_end_matches("/mod").replace('/', "::");
        code_by_module.insert(module, code.to_owned());
    });
    let known: BTreeSet<String> = code_by_module.keys().cloned().collect();
    let of = |module: &String, code: &String| -> BTreeSet<String> {
        let found = paths(code).into_iter().filter_map(|path| target(module, &path, &known));
        // A folder's own file holds what the files below it share.
        found.filter(|other| other != module && !module.starts_with(&format!("{other}::"))).collect()
    };
    code_by_module.iter().map(|(module, code)| (module.clone(), of(module, code))).collect()
}

/// Everything that can be reached from `start`.
fn reached(start: &str, imports: &Imports) -> BTreeSet<String> {
    let (mut seen, mut open) = (BTreeSet::new(), vec![start.to_owned()]);
    while let Some(module) = open.pop() {
        for next in imports.get(&module).into_iter().flatten() {
            if seen.insert(next.clone()) {
                open.push(next.clone());
            }
        }
    }
    seen
}

/// The modules of each room that can be reached from themselves.
fn circles(imports: &Imports) -> BTreeMap<String, Vec<String>> {
    let room_of = |module: &str| module.split("::").next().unwrap_or_default().to_owned();
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for module in imports.keys() {
        if reached(module, imports).contains(module) {
            found.entry(room_of(module)).or_default().push(module.clone());
        }
    }
    found
}

#[test]
fn rooms_have_no_circles_inside() {
    let all = imports();
    let room_of = |module: &str| module.split("::").next().unwrap_or_default().to_owned();
    let inside = all.iter().map(|(module, others)| {
        let own = others.iter().filter(|other| room_of(other) == room_of(module)).cloned();
        (module.clone(), own.collect())
    });
    let found = circles(&inside.collect());
    for (room, modules) in &found {
        assert!(CIRCULAR.contains(&room.as_str()), "a circle of imports in {room}: {}", modules.join(", "));
    }
    for room in CIRCULAR {
        assert!(found.contains_key(*room), "{room} has no circle any more: take it out of CIRCULAR");
    }
}

#[test]
fn folders_of_strict_rooms_have_no_circles() {
    for room in STRICT {
        let folder = |module: &str| {
            let below = module.strip_prefix(room)?.strip_prefix("::")?;
            below.split("::").next().map(str::to_owned)
        };
        let mut folders = Imports::new();
        for (module, others) in imports() {
            let Some(own) = folder(&module) else { continue };
            let others = others.iter().filter_map(|other| folder(other)).filter(|other| *other != own);
            folders.entry(own.clone()).or_default().extend(others);
        }
        assert!(folders.len() > 1, "no folders found in {room}");
        for name in folders.keys() {
            assert!(!reached(name, &folders).contains(name), "{room}: a circle through {name}: {folders:?}");
        }
    }
}

#[test]
fn circles_are_found() {
    let known: BTreeSet<String> = ["a", "a::b", "a::b::c", "a::d"].map(str::to_owned).into();
    for (module, path, expected) in [
        ("a::d", "super::b::c::Item", Some("a::b::c")),
        ("a::b", "c::Item", Some("a::b::c")),
        ("a::b::c", "super::super::d", Some("a::d")),
        ("a::b", "crate::a::Item", Some("a")),
        ("a::b", "std::sync::Arc", None),
    ] {
        assert_eq!(target(module, path, &known).as_deref(), expected, "{module} {path}");
    }
    let code = "pub(in crate::z) use super::{b::{self, X as Y}, d};\nfn f() { crate::a::g(); $crate::no() }\n";
    assert_eq!(paths(code), ["super::b::self", "super::b::X", "super::d", "crate::a::g"]);
    let edges = [("a::b", "a::d"), ("a::d", "a::b"), ("a::b::c", "a::b")];
    let mut imports = Imports::new();
    for (from, to) in edges {
        imports.entry(from.to_owned()).or_default().insert(to.to_owned());
    }
    assert_eq!(circles(&imports)["a"], ["a::b", "a::d"]);
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
