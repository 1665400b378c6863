//! `GET /openapi.json`: the HTTP surface as an OpenAPI 3.1 document, made from the table of routes.
//!
//! Knows no handler: only what is in the table is in the document. The document links to the schemas of the sockets'
//! frames.

use serde_json::{Map, Value, json};

use super::route::{Access, Form, Route, Verb};

/// Makes the document of these routes.
pub(super) fn document(routes: &[Route]) -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in routes {
        let operations = paths.entry(template(route.path)).or_insert_with(|| json!({}));
        operations[route.verb.as_str().to_ascii_lowercase()] = operation(route);
    }
    let key = "A key with the scopes that an operation names, from `sidetone key create`. On sockets also as the \
               subprotocol sidetone.key.KEY. While no key exists, none is needed.";
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Sidetone",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Paths, methods, parameters and scopes of the daemon. Frames of the sockets: /schemas/.",
        },
        "paths": paths,
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": key}},
            "schemas": {"Problem": problem(), "OpenAiError": openai_error()},
        },
    })
}

/// The path with `{name}` for each parameter, including one that takes the rest of the path.
fn template(path: &str) -> String {
    path.replace("{*", "{")
}

/// Names of the path's parameters.
fn path_parameters(path: &str) -> impl Iterator<Item = &str> {
    path.split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| name.trim_start_matches('*'))
}

fn operation(route: &Route) -> Value {
    let mut operation = json!({
        "summary": route.about,
        "parameters": parameters(route),
        "security": security(route.access),
        "responses": responses(route.form),
    });
    if let Some((parameter, scope)) = route.also {
        operation["description"] = json!(format!("With `{parameter}` the key needs the scope {} too.", scope.as_str()));
    }
    if route.body_bytes > 0 {
        let schema = route.body_schema.map_or_else(|| json!({"type": "object"}), |schema| schema());
        operation["requestBody"] = json!({
            "required": true,
            "description": format!("At most {} bytes.", route.body_bytes),
            "content": {"application/json": {"schema": schema}},
        });
    } else if route.verb == Verb::Post {
        operation["requestBody"] = json!({
            "description": "The body is not read, but the content type is required.",
            "content": {"application/json": {}},
        });
    }
    operation
}

fn parameters(route: &Route) -> Vec<Value> {
    let schema = json!({"type": "string"});
    let in_path =
        path_parameters(route.path).map(|name| json!({"name": name, "in": "path", "required": true, "schema": schema}));
    let in_query = route.query.iter().map(|name| json!({"name": name, "in": "query", "schema": schema}));
    in_path.chain(in_query).collect()
}

fn security(access: Access) -> Value {
    match access {
        Access::Open => json!([]),
        Access::AnyKey => json!([{"key": []}]),
        Access::Scopes(scopes) => {
            json!([{"key": scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>()}])
        }
    }
}

fn responses(form: Form) -> Value {
    let error = |media: &str, name: &str| {
        let schema = json!({"$ref": format!("#/components/schemas/{name}")});
        json!({"description": "An error", "content": {media: {"schema": schema}}})
    };
    match form {
        Form::Problem => json!({
            "2XX": {"description": "Done"}, "default": error("application/problem+json", "Problem"),
        }),
        Form::OpenAi => json!({
            "2XX": {"description": "Done"}, "default": error("application/json", "OpenAiError"),
        }),
        Form::Socket => json!({
            "101": {"description": "A WebSocket; an invalid key leads to a close code after this"},
            "default": error("application/problem+json", "Problem"),
        }),
    }
}

fn problem() -> Value {
    json!({
        "description": "A problem document (RFC 9457).",
        "type": "object",
        "required": ["type", "title", "status", "code", "detail"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "code": {"type": "string", "description": "Stable."},
            "detail": {"type": "string", "description": "What is wrong, where, and what is allowed."},
        },
    })
}

fn openai_error() -> Value {
    json!({
        "description": "An error in OpenAI's format.",
        "type": "object",
        "required": ["error"],
        "properties": {"error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "string", "description": "Stable."},
                "attempts": {"type": "array", "items": {"type": "object"}},
            },
        }},
    })
}

#[cfg(test)]
mod tests {
    use super::super::routes::ROUTES;
    use super::*;

    #[test]
    fn document_has_every_route_with_its_scopes_and_parameters() {
        let document = document(ROUTES);
        let operations: usize = document["paths"]
            .as_object()
            .expect("paths")
            .values()
            .map(|path| path.as_object().map_or(0, Map::len))
            .sum();
        assert_eq!(operations, ROUTES.len());
        let erase = &document["paths"]["/v1/calls/{id}"]["delete"];
        assert_eq!(erase["security"], json!([{"key": ["admin"]}]));
        assert_eq!(erase["parameters"][0]["name"], "id");
        let completion = &document["paths"]["/v1/chat/completions"]["post"];
        assert_eq!(completion["requestBody"]["description"], "At most 16777216 bytes.");
        let body = &document["paths"]["/v1/transcripts"]["post"]["requestBody"]["content"]["application/json"];
        let formats = &body["schema"]["properties"]["format"]["enum"];
        assert_eq!(*formats, json!(["vtt", "srt", "zoom", "teams", "otter", "text"]));
        assert_eq!(document["paths"]["/healthz"]["get"]["security"], json!([]));
        assert!(document["paths"]["/v1/models/{id}"]["get"].is_object());
    }

    #[test]
    fn only_posts_have_a_body() {
        for route in ROUTES {
            assert!(route.verb == Verb::Post || route.body_bytes == 0, "{}", route.path);
        }
    }
}
