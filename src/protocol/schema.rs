//! JSON Schemas of the frames (draft 2020-12), which the daemon serves at `/schemas/`.
//!
//! The test below generates them from the types and compares them with `tests/golden/schemas`. The daemon serves these
//! files, so it does not contain the generator.

/// The schema of all frames of one direction on one socket.
#[derive(Debug, Clone, Copy)]
pub struct Schema {
    /// Name in the URL, without `.json`.
    pub name: &'static str,
    /// A title that says which frames the schema describes.
    pub title: &'static str,
    /// The schema, as JSON.
    pub text: &'static str,
}

/// All schemas.
pub const SCHEMAS: &[Schema] = &[
    Schema {
        name: "event",
        title: "An event of a call, as records, GET /v1/calls/{id}/events and sinks have it",
        text: include_str!("../../tests/golden/schemas/event.json"),
    },
    Schema {
        name: "ingest-client",
        title: "A frame that a producer sends to /v1/ingest in the sidetone dialect",
        text: include_str!("../../tests/golden/schemas/ingest-client.json"),
    },
    Schema {
        name: "ingest-server",
        title: "A frame that the daemon sends on /v1/ingest",
        text: include_str!("../../tests/golden/schemas/ingest-server.json"),
    },
    Schema {
        name: "subscribe-client",
        title: "A frame that a subscriber sends to /v1/subscribe",
        text: include_str!("../../tests/golden/schemas/subscribe-client.json"),
    },
    Schema {
        name: "subscribe-server",
        title: "A frame that the daemon sends on /v1/subscribe",
        text: include_str!("../../tests/golden/schemas/subscribe-server.json"),
    },
];

/// The schema with this name.
pub fn find(name: &str) -> Option<&'static Schema> {
    SCHEMAS.iter().find(|schema| schema.name == name)
}

/// The latest insight of an analysis, or the latest by turn.
#[cfg(test)]
#[derive(schemars::JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "stands for the values of `insights` in schemas only")]
pub(super) enum Latest {
    ByTurn { turns: std::collections::BTreeMap<u64, crate::types::Insight> },
    Whole(Box<crate::types::Insight>),
}

#[cfg(test)]
mod tests {
    use schemars::generate::SchemaSettings;
    use serde_json::{Value, json};

    use super::*;
    use crate::llm::schema::Validator;
    use crate::protocol::{Sequenced, ingest, subscribe};

    /// Generates the schema from the types; the golden file must equal it.
    fn made(schema: &Schema) -> String {
        let written = SchemaSettings::draft2020_12().for_serialize().into_generator();
        let read = SchemaSettings::draft2020_12().for_deserialize().into_generator();
        let made = match schema.name {
            "event" => written.into_root_schema_for::<Sequenced>(),
            "ingest-client" => read.into_root_schema_for::<ingest::ClientFrame<'static>>(),
            "ingest-server" => written.into_root_schema_for::<ingest::ServerFrame>(),
            "subscribe-client" => read.into_root_schema_for::<subscribe::ClientFrame>(),
            "subscribe-server" => written.into_root_schema_for::<subscribe::ServerFrame>(),
            other => panic!("no type for the schema {other}"),
        };
        let mut made = serde_json::to_value(made).expect("json");
        made["title"] = json!(schema.title);
        serde_json::to_string_pretty(&made).expect("json") + "\n"
    }

    /// With `UPDATE_SCHEMAS` in the environment, the files are written again.
    #[test]
    fn schemas_match_the_types() {
        for schema in SCHEMAS {
            let made = made(schema);
            if std::env::var_os("UPDATE_SCHEMAS").is_some() {
                let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/schemas");
                std::fs::write(folder.join(format!("{}.json", schema.name)), made).expect("written");
            } else {
                assert_eq!(made, schema.text, "{} is not what the types say; see UPDATE_SCHEMAS", schema.name);
            }
        }
    }

    #[test]
    fn schemas_are_valid_and_name_the_types_of_frames() {
        for schema in SCHEMAS {
            let value: Value = serde_json::from_str(schema.text).expect("json");
            Validator::compile(&value).unwrap_or_else(|error| panic!("{}: {error}", schema.name));
            assert!(find(schema.name).is_some());
            let kinds = schema.text.matches("\"const\":").count();
            assert!(kinds >= 3, "{}: {kinds} types of frames", schema.name);
        }
        assert!(find("frame").is_none());
    }
}
