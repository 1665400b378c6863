//! Authentication: finds the key that a request brings, and checks that it has the scopes that a route needs. Knows no
//! path.
//!
//! While no key exists, no request needs one: the daemon then listens on loopback addresses only.

use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use http::{HeaderMap, Request};
use tokio_util::sync::CancellationToken;

use super::route::{Access, Route};
use crate::ingest::proxy::{Grant, Tokens};
use crate::keys::{Identity, Keys, Scope};
use crate::protocol::{CloseCode, ErrorCode};

/// Why a request was refused. A WebSocket gets it as a close code after the upgrade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// True if the key is valid but lacks a scope.
    pub known: bool,
    /// Message for people: what is wrong, and what is needed.
    pub message: String,
}

impl Refusal {
    /// [`ErrorCode::Unauthenticated`] or [`ErrorCode::Forbidden`].
    pub fn code(&self) -> ErrorCode {
        if self.known { ErrorCode::Forbidden } else { ErrorCode::Unauthenticated }
    }

    pub fn close_code(&self) -> CloseCode {
        if self.known { CloseCode::Forbidden } else { CloseCode::Unauthenticated }
    }
}

/// Who sent the request; attached to each request that is let through. `None`: no key exists, so every request may do
/// everything.
#[derive(Debug, Clone)]
pub struct Caller(pub Option<Identity>);

impl Caller {
    /// A token that is cancelled when the caller's key is revoked; never cancelled for a caller that needed no key.
    pub fn revoked(&self) -> CancellationToken {
        self.0.as_ref().map(|identity| (*identity.revoked).clone()).unwrap_or_default()
    }

    /// Returns true if the caller has the scope.
    pub fn may(&self, scope: Scope) -> bool {
        self.0.as_ref().is_none_or(|identity| identity.may(scope))
    }
}

/// Checks the request's key against what `route` needs.
///
/// # Errors
/// The reason for a refusal.
pub(super) fn check<B>(request: &Request<B>, route: &Route, keys: &Keys, tokens: &Tokens) -> Result<Caller, Refusal> {
    if route.access == Access::Open || !keys.needed() {
        return Ok(Caller(None));
    }
    let query = request.uri().query().unwrap_or("");
    let token = route.takes_token.then(|| grant(query, request.headers(), tokens)).flatten();
    let token = token.and_then(|grant| stand_in(&grant, keys));
    let identity = token.or_else(|| identity(request.headers(), keys)).ok_or_else(unknown)?;
    let needed = match route.access {
        Access::Open | Access::AnyKey => &[][..],
        Access::Scopes(scopes) => scopes,
    };
    let also = route.also.filter(|(name, _)| parameter(query, name).is_some()).map(|(_, scope)| scope);
    match needed.iter().copied().chain(also).find(|scope| !identity.may(*scope)) {
        None => Ok(Caller(Some(identity))),
        Some(scope) => Err(Refusal {
            known: true,
            message: format!("key {:?} lacks the scope {}, which this request needs", &*identity.name, scope.as_str()),
        }),
    }
}

/// Checks that the request brings a valid key, whatever its scopes.
///
/// # Errors
/// The request brings no key, or one that is unknown or revoked.
pub(super) fn any_key<B>(request: &Request<B>, keys: &Keys) -> Result<(), Refusal> {
    if !keys.needed() || identity(request.headers(), keys).is_some() { Ok(()) } else { Err(unknown()) }
}

fn identity(headers: &HeaderMap, keys: &Keys) -> Option<Identity> {
    keys.find(&brought(headers)?)
}

fn unknown() -> Refusal {
    Refusal {
        known: false,
        message:
            "a key is needed, as \"Authorization: Bearer KEY\" or as subprotocol \"sidetone.key.KEY\"; this request \
             has no key, or an unknown one"
                .to_owned(),
    }
}

/// The grant of a valid short-lived token of the daemon, if the request brings one: in the query, as AssemblyAI's
/// JavaScript package sends it, or in place of a key, as its Python package does.
pub(super) fn grant(query: &str, headers: &HeaderMap, tokens: &Tokens) -> Option<Grant> {
    let token = parameter(query, "token").or_else(|| brought(headers))?;
    tokens.check(&token).ok()
}

/// The identity of the key that a short-lived token was made with, while that key is valid.
fn stand_in(grant: &Grant, keys: &Keys) -> Option<Identity> {
    let key = keys.named(grant.key.as_deref()?)?;
    let mut scopes = vec![Scope::Ingest];
    scopes.extend(grant.gateway.then_some(Scope::Gateway));
    Some(Identity { scopes, ..key })
}

fn parameter(query: &str, name: &str) -> Option<String> {
    url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

/// The key that a request brings: in `Authorization` (with or without `Bearer`), or as a subprotocol.
fn brought(headers: &HeaderMap) -> Option<String> {
    if let Some(value) = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()) {
        let bearer = value.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case("bearer "));
        return Some(bearer.map_or(value, |_| &value[7..]).trim().to_owned());
    }
    headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .find_map(|protocol| protocol.trim().strip_prefix("sidetone.key.").map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::super::route::Verb;
    use super::super::routes::ROUTES;
    use super::*;
    use crate::keys;

    /// Every route of the contract with an example query, and the scopes that are required together; `None`: any key is
    /// enough.
    const PATHS: &[(Verb, &str, &str, Option<&[Scope]>)] = &[
        (Verb::Get, "/v1/ingest", "", Some(&[Scope::Ingest])),
        (Verb::Get, "/v1/dialects", "", None),
        (Verb::Get, "/v3/ws", "", Some(&[Scope::Ingest])),
        (Verb::Get, "/v3/ws", "?llm_gateway=%7B%7D", Some(&[Scope::Ingest, Scope::Gateway])),
        (Verb::Get, "/v3/token", "", Some(&[Scope::Ingest])),
        (Verb::Get, "/v1/subscribe", "", Some(&[Scope::Subscribe])),
        (Verb::Get, "/v1/calls", "", Some(&[Scope::Subscribe])),
        (Verb::Get, "/v1/calls/{id}", "", Some(&[Scope::Subscribe])),
        (Verb::Get, "/v1/calls/{id}/turns", "", Some(&[Scope::Subscribe])),
        (Verb::Get, "/v1/calls/{id}/events", "", Some(&[Scope::Subscribe])),
        (Verb::Post, "/v1/calls/{id}/analyses/{name}", "", Some(&[Scope::Gateway, Scope::Subscribe])),
        (Verb::Delete, "/v1/calls/{id}", "", Some(&[Scope::Admin])),
        (Verb::Post, "/v1/chat/completions", "", Some(&[Scope::Gateway])),
        (Verb::Post, "/chat/completions", "", Some(&[Scope::Gateway])),
        (Verb::Get, "/v1/models", "", Some(&[Scope::Gateway])),
        (Verb::Get, "/models", "", Some(&[Scope::Gateway])),
        (Verb::Get, "/v1/models/{*id}", "", Some(&[Scope::Gateway])),
        (Verb::Get, "/models/{*id}", "", Some(&[Scope::Gateway])),
        (Verb::Post, "/v1/transcripts", "", Some(&[Scope::Gateway])),
        (Verb::Get, "/v1/usage", "", Some(&[Scope::Usage])),
        (Verb::Get, "/metrics", "", Some(&[Scope::Metrics])),
        (Verb::Get, "/healthz", "", Some(&[])),
        (Verb::Get, "/readyz", "", Some(&[])),
        (Verb::Get, "/version", "", Some(&[])),
        (Verb::Get, "/schemas/", "", Some(&[])),
        (Verb::Get, "/schemas/{name}", "", Some(&[])),
        (Verb::Get, "/openapi.json", "", Some(&[])),
        (Verb::Get, "/docs", "", Some(&[])),
        (Verb::Get, "/docs/", "", Some(&[])),
        (Verb::Get, "/docs/{topic}", "", Some(&[])),
        (Verb::Get, "/", "", Some(&[])),
    ];

    fn route(verb: Verb, path: &str) -> &'static Route {
        let found = ROUTES.iter().find(|route| route.verb == verb && route.path == path);
        found.unwrap_or_else(|| panic!("no route {verb:?} {path}"))
    }

    #[test]
    fn every_route_is_in_the_contract() {
        for route in ROUTES {
            let listed = PATHS.iter().any(|(verb, path, ..)| (*verb, *path) == (route.verb, route.path));
            assert!(listed, "{:?} {} is a route that PATHS does not list", route.verb, route.path);
        }
    }

    fn ask(keys: &Keys, verb: Verb, path: &str, query: &str, header: Option<(&str, &str)>) -> Option<CloseCode> {
        let mut request = Request::builder().uri(format!("/x{query}"));
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let request = request.body(()).expect("request");
        check(&request, route(verb, path), keys, &Tokens::default()).err().map(|refusal| refusal.close_code())
    }

    #[test]
    fn every_path_with_every_key() {
        let folder = tempfile::tempdir().expect("folder");
        let file = keys::path(folder.path());
        let all = Keys::new(file.clone(), None);
        for (verb, path, query, _) in PATHS {
            assert_eq!(ask(&all, *verb, path, query, None), None, "{path} without any key made");
        }
        let made: Vec<(Scope, String)> = Scope::ALL
            .into_iter()
            .map(|scope| (scope, keys::create(&file, scope.as_str(), &[scope]).expect("made")))
            .collect();
        let revoked = keys::create(&file, "gone", &[Scope::Admin]).expect("made");
        keys::revoke(&file, "gone").expect("revoked");
        std::thread::sleep(keys::FRESH);
        for (verb, path, query, needed) in PATHS {
            let open = needed.is_some_and(<[Scope]>::is_empty);
            for bad in [None, Some("wrong"), Some(revoked.as_str())] {
                let header = bad.map(|key| ("authorization", key));
                assert_eq!(
                    ask(&all, *verb, path, query, header),
                    (!open).then_some(CloseCode::Unauthenticated),
                    "{path} with {bad:?}"
                );
            }
            for (scope, key) in &made {
                let needed = needed.unwrap_or_default();
                let opens = *scope == Scope::Admin || needed.iter().all(|need| need == scope);
                let expected = (!opens).then_some(CloseCode::Forbidden);
                for (name, value) in [
                    ("authorization", format!("Bearer {key}")),
                    ("authorization", key.clone()),
                    ("sec-websocket-protocol", format!("sidetone.v1, sidetone.key.{key}")),
                ] {
                    assert_eq!(ask(&all, *verb, path, query, Some((name, &value))), expected, "{path} with {scope:?}");
                }
            }
        }
        let tokens = Tokens::default();
        let proxy = route(Verb::Get, "/v3/ws");
        for gateway in [false, true] {
            let minute = std::time::Duration::from_secs(60);
            let mint = |key: &str| {
                let grant = Grant { gateway, session: minute, key: Some(key.into()) };
                tokens.mint(crate::base::time::unix_ms(), minute, &grant)
            };
            let of_revoked = Request::get(format!("/v3/ws?token={}", mint("gone"))).body(()).expect("request");
            assert!(
                check(&of_revoked, proxy, &all, &tokens)
                    .is_err_and(|refusal| refusal.close_code() == CloseCode::Unauthenticated)
            );
            let token = mint("ingest");
            for (path, open) in [("/v3/ws?", true), ("/v3/ws?llm_gateway=%7B%7D", gateway), ("/v3/token?", false)] {
                let at = route(Verb::Get, path.trim_end_matches("llm_gateway=%7B%7D").trim_end_matches('?'));
                let ask = |request: http::request::Builder| {
                    let request = request.body(()).expect("request");
                    check(&request, at, &all, &tokens).map_err(|refusal| refusal.close_code())
                };
                let in_query = ask(Request::get(format!("{path}&token={token}")));
                let in_header = ask(Request::get(path).header("authorization", &token));
                assert_eq!((in_query.is_ok(), in_header.is_ok()), (open, open), "{path} with {gateway}");
            }
        }
        let both = keys::create(&file, "both", &[Scope::Gateway, Scope::Subscribe]).expect("made");
        std::thread::sleep(keys::FRESH);
        assert_eq!(ask(&all, Verb::Post, "/v1/calls/{id}/analyses/{name}", "", Some(("authorization", &both))), None);
    }
}
