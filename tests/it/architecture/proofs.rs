//! Mechanisms that exist in only one component: the tests check that the source of other components does not use them.
//!
//! Knows only the text of the code: the reason for a rule is documented at the mechanism.

use std::collections::BTreeSet;

use serde_json::Value;

use super::sources::{Source, files, sources};

/// Components that read and write the formats of vendors.
const VENDORS: &[&str] = &["stt", "llm", "standin"];

/// Fails with one line for each place.
fn none(places: &[String], rule: &str) {
    assert!(places.is_empty(), "{rule}:\n{}", places.join("\n"));
}

/// The places where the code of a source contains `text`, as `src/PATH: LINE`, except those in `homes`.
fn places(text: &str, homes: &[&str]) -> Vec<String> {
    let elsewhere = sources().iter().filter(|source| !homes.iter().any(|home| source.path.starts_with(home)));
    let lines = elsewhere.flat_map(|source| source.code.lines().map(|line| (source.path.as_str(), line.trim())));
    lines.filter(|(_, line)| line.contains(text)).map(|(path, line)| format!("src/{path}: {line}")).collect()
}

/// The types of all frames and events of the daemon's own sockets, from their schemas.
fn frame_types() -> BTreeSet<String> {
    fn collect(value: &Value, into: &mut BTreeSet<String>) {
        into.extend(value["properties"]["type"]["const"].as_str().map(str::to_owned));
        match value {
            Value::Object(members) => members.values().for_each(|value| collect(value, into)),
            Value::Array(items) => items.iter().for_each(|value| collect(value, into)),
            _ => {}
        }
    }
    let mut types = BTreeSet::new();
    for schema in files("tests/golden/schemas", &[".json"]) {
        collect(&serde_json::from_str(&schema.text).expect("a schema"), &mut types);
    }
    types
}

/// The values that code writes for a member `type`: the quoted texts after `"type":`, also within strings.
fn written_types(code: &str) -> impl Iterator<Item = &str> {
    code.split("\"type").skip(1).filter_map(|rest| {
        let rest = rest.strip_prefix(['"', '\\'])?.trim_start_matches(['"', ' ']);
        let value = rest.strip_prefix(':')?.trim_start_matches([' ', '\\']).strip_prefix('"')?;
        value.split(['"', '\\']).next()
    })
}

#[test]
fn frames_are_made_in_protocol() {
    let types = frame_types();
    assert!(types.contains("turn.final") && types.contains("subscribe"), "{types:?}");
    let mut found = Vec::new();
    for Source { path, code } in sources() {
        // The dialect contains one of its frames as an example, as every dialect does.
        if path.starts_with("protocol/") || path == "stt/sidetone.rs" {
            continue;
        }
        found
            .extend(written_types(code).filter(|name| types.contains(*name)).map(|name| format!("src/{path}: {name}")));
    }
    none(&found, "a frame that is made outside `protocol`");
}

/// The left side of each comparison with a text, or with a constant that is a text.
fn compared(line: &str) -> impl Iterator<Item = &str> {
    let is_text = |right: &str| {
        let right = right.strip_prefix("Some(").unwrap_or(right);
        let constant = right.split(|letter: char| !(letter.is_ascii_uppercase() || letter == '_')).next();
        right.starts_with('"') || constant.is_some_and(|name| name.len() > 3)
    };
    let comparisons = ["== ", "!= "].into_iter().flat_map(move |operator| line.match_indices(operator));
    comparisons.filter(move |(at, operator)| is_text(&line[at + operator.len()..])).map(|(at, _)| &line[..at])
}

/// Returns true if an expression ends with the name of a value that controls the program's flow.
fn decides(expression: &str) -> bool {
    const NAMES: [&str; 6] = ["code", "trigger", "reason", "outcome", "cause", "type"];
    let mut rest = expression.trim_end();
    for end in [".as_str()", ".as_deref()", ".as_ref()", "()"] {
        rest = rest.strip_suffix(end).unwrap_or(rest);
    }
    // In `frame["type"]`, `type` is the name; in `frame[type]` it is a variable.
    let rest = rest.strip_suffix("\"]").unwrap_or(rest);
    let name = rest.rsplit(|letter: char| !(letter.is_alphanumeric() || letter == '_')).next();
    name.is_some_and(|name| NAMES.contains(&name))
}

#[test]
fn codes_are_enums() {
    let mut found = Vec::new();
    for source in sources() {
        let elsewhere = VENDORS.contains(&source.component())
            // JSON schemas.
            || source.path.starts_with("analysis/")
            // Frames of AssemblyAI's sockets, which the command sends as that vendor's clients do.
            || source.path == "cli/stream.rs";
        if elsewhere {
            continue;
        }
        let lines = source.code.lines().filter(|line| compared(line).any(decides));
        found.extend(lines.map(|line| format!("src/{}: {}", source.path, line.trim())));
        for (at, found_match) in source.code.match_indices("match ") {
            let Some((subject, arms)) = source.code[at + found_match.len()..].split_once(" {\n") else { continue };
            if !subject.contains('\n') && decides(subject) && arms.trim_start().starts_with('"') {
                found.push(format!("src/{}: match {subject}", source.path));
            }
        }
    }
    none(&found, "control flow that branches on a text; make it an enum");
}

#[test]
fn failed_cases_of_properties_are_kept() {
    let properties = files("src", &[".rs"]).into_iter().filter(|file| file.text.contains("proptest! {"));
    let forgetful = properties.filter(|file| !file.text.contains("kept()")).map(|file| file.path);
    none(&forgetful.collect::<Vec<_>>(), "properties whose failed cases are not kept (base::testing::kept)");
}

#[test]
fn locks_and_backoffs_are_in_one_module() {
    none(&places("PoisonError", &["base/sync.rs"]), "a poisoned lock that is entered elsewhere than in base::sync");
    none(&places("struct Backoff", &["base/backoff.rs"]), "a second backoff");
}

#[test]
fn data_directory_is_used_in_one_module() {
    none(&places("journal.dir", &["config/storage.rs"]), "the older name of storage.dir");
}

#[test]
fn mechanisms_are_in_one_module() {
    none(&places("Hmac", &["base/mac.rs"]), "an HMAC elsewhere than in base::mac");
    none(&places("saturating_mul(1 <<", &["base/backoff.rs"]), "a wait that doubles elsewhere");
    none(&places("\\u{2028}", &["base/escape.rs"]), "an escaping of what was said elsewhere");
    // A lower bound that refuses nothing by mistake, the floor of vendors' prompt caches, and parts that are no text.
    let bounds = ["gateway/catalogue/capabilities.rs", "llm/caching.rs", "llm/tokens.rs"];
    none(&places("PER_TOKEN", &bounds), "a number of bytes for a token elsewhere");
}

/// Code asks `types::provider` whether a name is the embedded provider's. `local` is also a key of the configuration and a
/// model in an example.
#[test]
fn names_of_built_in_providers_have_one_home() {
    let homes = ["types/provider.rs", "analysis/settings.rs", "cli/demo.rs"];
    none(&places("\"local\"", &homes), "the embedded provider's name elsewhere than in types::provider");
    none(&places("\"computed\"", &homes), "the name of computed values elsewhere than in types::provider");
}

#[test]
fn proofs_find_what_they_look_for() {
    let code = r#"json!({"type": "turn", "x": {"type" : "b"}}); "{\"type\":\"gap\"}"; r"{"type":7}""#;
    assert_eq!(written_types(code).collect::<Vec<_>>(), ["turn", "b", "gap"]);
    let line = r#"if a.code() == "x" && b != Some("y") && frame["type"] == TURN && c == d { }"#;
    let compared: Vec<bool> = compared(line).map(decides).collect();
    assert_eq!(compared, [true, true, false], "the code, the type, and b");
    assert!(
        places("fn main() -> ExitCode", &[]).len() > 1 && places("fn main() -> ExitCode", &["main", "cli"]).is_empty()
    );
}
