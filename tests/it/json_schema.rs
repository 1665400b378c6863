//! Runs the official JSON-Schema-Test-Suite against the daemon's validator. The suite is not part of the project: the
//! source package of Python's `jsonschema` contains it, and `.ci/run` unpacks it.

use std::path::{Path, PathBuf};

use serde_json::Value;
use sidetone::base::budget::Budget;
use sidetone::llm::schema::{CHECKING, SchemaError, Validator, Verdict};

/// The drafts, and the `$schema` for drafts whose cases have none.
const DRAFTS: &[(&str, Option<&str>)] = &[
    ("draft4", Some("http://json-schema.org/draft-04/schema#")),
    ("draft6", Some("http://json-schema.org/draft-06/schema#")),
    ("draft7", Some("http://json-schema.org/draft-07/schema#")),
    ("draft2019-09", None),
    ("draft2020-12", None),
];

fn suite() -> Option<PathBuf> {
    let folder = std::env::var_os("SIDETONE_JSON_SCHEMA_SUITE").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/json-schema-suite/json/tests"),
        PathBuf::from,
    );
    folder.join("draft2020-12").is_dir().then_some(folder)
}

#[test]
fn validator_agrees_with_the_official_suite() {
    let Some(suite) = suite() else {
        assert!(std::env::var_os("CI").is_none(), "CI has to run the JSON-Schema-Test-Suite, and it is not there");
        eprintln!("SKIPPED: no JSON-Schema-Test-Suite; SIDETONE_JSON_SCHEMA_SUITE names its folder of tests");
        return;
    };
    let (mut right, mut wrong) = (0, Vec::new());
    for (draft, dialect) in DRAFTS {
        for entry in std::fs::read_dir(suite.join(draft)).expect("the draft's folder") {
            let path = entry.expect("entry").path();
            if path.extension().is_none_or(|end| end != "json") {
                continue;
            }
            let text = std::fs::read(&path).expect("a file of cases");
            let groups: Vec<Value> = serde_json::from_slice(&text).expect("cases");
            for group in &groups {
                let mut schema = group["schema"].clone();
                if let (Some(dialect), Some(object)) = (dialect, schema.as_object_mut()) {
                    object.entry("$schema").or_insert_with(|| Value::from(*dialect));
                }
                let name = format!("{draft}/{}: {}", path.file_stem().expect("a name").display(), group["description"]);
                let validator = match Validator::compile(&schema) {
                    Ok(validator) => validator,
                    // References out of a schema, and too deep schemas, are refused by design.
                    Err(SchemaError::RemoteRef(_) | SchemaError::TooDeep) => continue,
                    Err(_) if schema.to_string().contains("localhost:1234") => continue,
                    Err(error) => {
                        wrong.push(format!("{name}: {error}"));
                        continue;
                    }
                };
                for case in group["tests"].as_array().expect("tests") {
                    let verdict = validator.check(&case["data"].to_string(), &mut Budget::new(CHECKING));
                    let valid = matches!(verdict, Ok(Verdict::Valid(..)));
                    if valid == (case["valid"] == true) {
                        right += 1;
                    } else {
                        wrong.push(format!("{name} / {}", case["description"]));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), wrong.len() + right, wrong.join("\n"));
    assert!(right > 4000, "only {right} cases were found");
}
