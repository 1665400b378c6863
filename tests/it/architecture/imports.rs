//! Which module imports which others, read from the text of `use` and of paths; and which modules can be reached from a
//! module.
//!
//! Knows no layer.

use std::collections::{BTreeMap, BTreeSet};

use super::sources::sources;

/// Modules by name, such as `gateway::error`, each with the modules that it imports.
pub(super) type Imports = BTreeMap<String, BTreeSet<String>>;

/// The complete paths of `use a::{b, c::{d}};`.
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

/// All paths that code contains: those of `use`, and those that begin with `crate`, `super` or `self`.
pub(super) fn paths(code: &str) -> Vec<String> {
    // `pub(in crate::a)` restricts access to an item, and imports nothing.
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

/// The module to which a path leads from `module`: the path's longest known beginning.
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

/// The imports of all modules.
pub(super) fn imports() -> Imports {
    let code_by_module: BTreeMap<String, &str> =
        sources().iter().map(|source| (source.module(), source.code.as_str())).collect();
    let known: BTreeSet<String> = code_by_module.keys().cloned().collect();
    let of = |module: &String, code: &str| -> BTreeSet<String> {
        let found = paths(code).into_iter().filter_map(|path| target(module, &path, &known));
        // A folder's `mod.rs` contains what the folder's files share, and names these files: both count as one module.
        found.filter(|other| other != module && !module.starts_with(&format!("{other}::"))).collect()
    };
    code_by_module.iter().map(|(module, code)| (module.clone(), of(module, code))).collect()
}

/// The component of a module: the first segment of its path.
pub(super) fn component_of(module: &str) -> &str {
    module.split("::").next().unwrap_or_default()
}

/// All modules that can be reached from `start`.
pub(super) fn reached(start: &str, imports: &Imports) -> BTreeSet<String> {
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

/// The modules of each component that can be reached from themselves.
pub(super) fn circles(imports: &Imports) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for module in imports.keys() {
        if reached(module, imports).contains(module) {
            found.entry(component_of(module).to_owned()).or_default().push(module.clone());
        }
    }
    found
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
