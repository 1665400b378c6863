//! Every path of the HTTP surface, in one table: its method, the access that it needs, the largest body that it reads,
//! the format of its errors, and its handler. The router, the key check, `/openapi.json` and the table of
//! `docs/security.md` are made from this table; a route without an access rule does not compile.

use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};
use http::header::CONTENT_TYPE;

use super::auth::{self, Refusal};
use super::error::{ApiError, OpenAiError};
use super::route::{Access, BodyLimit, Form, Route, Verb, route};
use super::state::Api;
use super::{calls, chat, docs, health, models, openapi, pages, schemas, sockets, stt, transcripts, usage};
use crate::keys::Scope;

use Access::{AnyKey, Open, Scopes};
use Form::{OpenAi, Problem, Socket};
use Scope::{Admin, Gateway, Ingest, Subscribe};
use Verb::{Delete, Get, Post};

const MIB: usize = 1024 * 1024;

/// All routes. Completions come first, because they are looked up before the router is asked.
pub(super) static ROUTES: &[Route] = &[
    route(Post, "/v1/chat/completions", Scopes(&[Gateway]), OpenAi, "A chat completion", |method| {
        on(method, chat::post)
    })
    .with_body(16 * MIB),
    route(Post, "/chat/completions", Scopes(&[Gateway]), OpenAi, "A chat completion", |method| on(method, chat::post))
        .with_body(16 * MIB),
    route(Get, "/v1/models", Scopes(&[Gateway]), OpenAi, "Available models", |method| on(method, models::list)),
    route(Get, "/models", Scopes(&[Gateway]), OpenAi, "Available models", |method| on(method, models::list)),
    route(Get, "/v1/models/{*id}", Scopes(&[Gateway]), OpenAi, "One model", |method| on(method, models::show)),
    route(Get, "/models/{*id}", Scopes(&[Gateway]), OpenAi, "One model", |method| on(method, models::show)),
    route(
        Post,
        "/v1/transcripts",
        Scopes(&[Gateway]),
        Problem,
        "The analyses of a whole recording or transcript",
        |method| on(method, transcripts::post),
    )
    .with_body(64 * MIB)
    .with_schema(transcripts::schema),
    route(Get, "/v1/ingest", Scopes(&[Ingest]), Socket, "The socket of a producer", |method| {
        on(method, sockets::producer)
    })
    .with_query(&["call_id", "stream_id", "dialect", "analyses", "results", "offset_ms", "variants", "meta"]),
    route(Get, "/v1/dialects", AnyKey, Problem, "Dialects of producers", |method| on(method, stt::dialects)),
    route(Get, "/v3/ws", Scopes(&[Ingest]), Socket, "A socket relayed to the STT vendor", |method| {
        on(method, stt::socket)
    })
    .with_parameter("llm_gateway", Gateway)
    .with_token()
    .with_query(&["llm_gateway", "sidetone", "token"]),
    route(Get, "/v3/token", Scopes(&[Ingest]), Problem, "A short-lived token for /v3/ws", |method| {
        on(method, stt::token)
    })
    .with_query(&["expires_in_seconds", "max_session_duration_seconds"]),
    route(Get, "/v1/subscribe", Scopes(&[Subscribe]), Socket, "The socket of a subscriber", |method| {
        on(method, sockets::subscriber)
    }),
    route(Get, "/v1/calls", Scopes(&[Subscribe]), Problem, "Calls, in pages", |method| on(method, calls::list))
        .with_query(&["state", "limit", "after"]),
    route(Get, "/v1/calls/{id}", Scopes(&[Subscribe]), Problem, "One call", |method| on(method, calls::show)),
    route(Delete, "/v1/calls/{id}", Scopes(&[Admin]), Problem, "Erases a completed call", |method| {
        on(method, calls::erase)
    }),
    route(Get, "/v1/calls/{id}/turns", Scopes(&[Subscribe]), Problem, "Turns of a call, in pages", |method| {
        on(method, calls::turns)
    })
    .with_query(&["from", "to", "after", "limit"]),
    route(Get, "/v1/calls/{id}/events", Scopes(&[Subscribe]), Problem, "Events of a call, in pages", |method| {
        on(method, calls::events)
    })
    .with_query(&["after", "limit"]),
    route(
        Post,
        "/v1/calls/{id}/analyses/{name}",
        Scopes(&[Gateway, Subscribe]),
        Problem,
        "Runs an analysis now",
        |method| on(method, calls::run),
    )
    .with_query(&["wait_ms"]),
    route(Get, "/v1/usage", Scopes(&[Scope::Usage]), Problem, "Attempts, tokens and cost", |method| {
        on(method, usage::usage)
    })
    .with_query(&["group_by", "from", "to", "changes"]),
    route(Get, "/metrics", Scopes(&[Scope::Metrics]), Problem, "Metrics for Prometheus", |method| {
        on(method, health::metrics)
    }),
    route(Get, "/healthz", Open, Problem, "The process answers", |method| on(method, health::live)),
    route(Get, "/readyz", Open, Problem, "The daemon takes calls", |method| on(method, health::ready)),
    route(Get, "/version", Open, Problem, "Version of the daemon and of the protocol", |method| {
        on(method, health::version)
    }),
    route(Get, "/schemas/", Open, Problem, "JSON Schemas of the frames on sockets", |method| on(method, schemas::list)),
    route(Get, "/schemas/{name}", Open, Problem, "One JSON Schema", |method| on(method, schemas::show)),
    route(Get, "/openapi.json", Open, Problem, "This surface as an OpenAPI document", |method| on(method, document)),
    // The page contains no data: it requests everything that it shows with a key.
    route(Get, "/", Open, Problem, "The dashboard", |method| on(method, pages::dashboard)),
    route(Get, "/docs", Open, Problem, "The documentation", |method| on(method, docs::folder)),
    route(Get, "/docs/", Open, Problem, "The documentation: its topics", |method| on(method, docs::index)),
    route(Get, "/docs/{topic}", Open, Problem, "One topic of the documentation", |method| on(method, docs::topic)),
];

/// The completions route at `path`. Its requests skip the router, which takes as much time as all other checks
/// together.
pub(super) fn completions(path: &str) -> Option<&'static Route> {
    ROUTES[..2].iter().find(|route| route.path == path)
}

/// Returns true if errors at `path` have OpenAI's format. An unlisted path has the format of the routes beside it,
/// because a client that requests `/v1/chat/complete` expects OpenAI's API.
pub(super) fn speaks_openai(path: &str) -> bool {
    let area = area(path);
    ROUTES.iter().any(|route| route.form == OpenAi && self::area(route.path) == area)
}

/// The first segment after the version. Some routes exist without the version too.
fn area(path: &str) -> &str {
    let path = path.strip_prefix("/v1/").or_else(|| path.strip_prefix('/')).unwrap_or(path);
    path.split('/').next().unwrap_or(path)
}

/// The router of all routes. Each route refuses requests that its access rule does not admit. An unknown path needs a
/// valid key, so that clients without one cannot find out which paths exist.
pub(super) fn router(api: &Arc<Api>) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        let filter = match route.verb {
            Get => MethodFilter::GET,
            Post => MethodFilter::POST,
            Delete => MethodFilter::DELETE,
        };
        let api = Arc::clone(api);
        let guarded = from_fn(move |request: Request, next: Next| admit(Arc::clone(&api), route, request, next));
        router = router.route(route.path, (route.handler)(filter).route_layer(guarded));
    }
    let (unknown, other_method) = (Arc::clone(api), Arc::clone(api));
    router
        .method_not_allowed_fallback(move |request: Request| {
            let refused = refused_without_key(&other_method, &request);
            async move { refused.unwrap_or_else(|| ApiError::method_not_allowed("other methods").into_response()) }
        })
        .fallback(move |request: Request| {
            let refused = refused_without_key(&unknown, &request);
            async move { refused.unwrap_or_else(|| unknown_path(request.uri().path())) }
        })
        .with_state(Arc::clone(api))
}

/// `GET /openapi.json`
async fn document() -> Response {
    static TEXT: LazyLock<String> = LazyLock::new(|| openapi::document(ROUTES).to_string());
    ([(CONTENT_TYPE, "application/json")], TEXT.as_str()).into_response()
}

/// The refusal in the route's format; `None` for a socket, whose handler refuses after the upgrade.
fn refused(route: &Route, refusal: &Refusal) -> Option<Response> {
    match route.form {
        Problem => Some(ApiError::refused(refusal).into_response()),
        OpenAi => Some(OpenAiError::refused(refusal).into_response()),
        Socket => None,
    }
}

async fn admit(api: Arc<Api>, route: &'static Route, mut request: Request, next: Next) -> Response {
    match auth::check(&request, route, &api.keys, &api.proxy.tokens) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            request.extensions_mut().insert(BodyLimit(route.body_bytes));
        }
        Err(refusal) => match refused(route, &refusal) {
            Some(response) => return response,
            None => {
                request.extensions_mut().insert(refusal);
            }
        },
    }
    next.run(request).await
}

/// The refusal of a request for an unknown path without a valid key.
fn refused_without_key(api: &Api, request: &http::Request<Body>) -> Option<Response> {
    let refusal = auth::any_key(request, &api.keys).err()?;
    Some(if speaks_openai(request.uri().path()) {
        OpenAiError::refused(&refusal).into_response()
    } else {
        ApiError::refused(&refusal).into_response()
    })
}

fn unknown_path(path: &str) -> Response {
    let error = ApiError::not_found("unknown_path", "no such path; /docs/security lists them");
    if speaks_openai(path) { OpenAiError::from(error).into_response() } else { error.into_response() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of `docs/security.md`, made from the routes.
    fn table() -> String {
        let mut lines = vec!["| method | path | scope |".to_owned(), "| --- | --- | --- |".to_owned()];
        for route in ROUTES {
            let scopes = match route.access {
                Open => "none".to_owned(),
                AnyKey => "any key".to_owned(),
                Scopes(scopes) => {
                    scopes.iter().map(|scope| format!("`{}`", scope.as_str())).collect::<Vec<_>>().join(" and ")
                }
            };
            let also = route.also.map(|(parameter, scope)| format!("; with `{parameter}` also `{}`", scope.as_str()));
            let verb = route.verb.as_str();
            lines.push(format!("| {verb} | `{}` | {scopes}{} |", route.path, also.unwrap_or_default()));
        }
        lines.join("\n")
    }

    #[test]
    fn table_of_the_documentation_matches_the_routes() {
        let page = crate::docs::topic("security").expect("the page").text;
        let table = table();
        assert!(page.contains(&table), "the table of src/docs/security.md is not this one:\n{table}");
    }

    #[test]
    fn routes_of_one_area_have_one_error_form() {
        for route in ROUTES {
            assert_eq!(speaks_openai(route.path), route.form == OpenAi, "{}", route.path);
        }
        for (path, openai) in [
            ("/v1/chat/complete", true),
            ("/chat", true),
            ("/v1/models-typo", false),
            ("/models/a/b", true),
            ("/v1/feedback", false),
            ("/v1", false),
            ("/", false),
            ("", false),
        ] {
            assert_eq!(speaks_openai(path), openai, "{path}");
        }
    }

    #[test]
    fn completions_are_looked_up_without_the_router() {
        for path in ["/v1/chat/completions", "/chat/completions"] {
            assert_eq!(completions(path).map(|route| route.path), Some(path));
        }
        assert!(completions("/v1/models").is_none());
    }
}
