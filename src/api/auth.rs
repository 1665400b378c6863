//! Keys and scopes: which key a request brings, and whether it opens what is asked for (DESIGN 5.5).
//!
//! Without any key made, nothing is asked: then the daemon listens on loopback only.

use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use http::{HeaderMap, Method, Request};
use tokio_util::sync::CancellationToken;

use crate::ingest::proxy::{Grant, Tokens};
use crate::keys::{Identity, Keys, Scope, UNAUTHENTICATED};

/// What a request has to bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Nothing,
    /// Any key.
    Key,
    One(Scope),
    Both(Scope, Scope),
}

/// Why a request is not let through. On a WebSocket, this is a close code after the upgrade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// A good key, but of another scope.
    pub known: bool,
    /// What is wrong, and what is needed.
    pub message: String,
}

impl Refusal {
    /// `unauthenticated` or `forbidden`.
    pub fn code(&self) -> &'static str {
        if self.known { "forbidden" } else { UNAUTHENTICATED }
    }

    /// The WebSocket close code.
    pub fn close_code(&self) -> u16 {
        if self.known { 4403 } else { 4401 }
    }
}

/// Who asks; put on each request that is let through. `None`: no keys are made, everybody may everything.
#[derive(Debug, Clone)]
pub struct Caller(pub Option<Identity>);

impl Caller {
    /// Cancelled when the key is revoked with which the caller came; never where it needed none.
    pub fn revoked(&self) -> CancellationToken {
        self.0.as_ref().map(|identity| (*identity.revoked).clone()).unwrap_or_default()
    }

    /// Whether the caller may.
    pub fn may(&self, scope: Scope) -> bool {
        self.0.as_ref().is_none_or(|identity| identity.may(scope))
    }
}

/// Looks at the request's key.
///
/// # Errors
/// Why it is not let through.
pub fn check<B>(request: &Request<B>, keys: &Keys, tokens: &Tokens) -> Result<Caller, Refusal> {
    if !keys.needed() {
        return Ok(Caller(None));
    }
    let path = request.uri().path();
    let query = request.uri().query().unwrap_or("");
    let need = need(request.method(), path, query);
    if need == Need::Nothing {
        return Ok(Caller(None));
    }
    let token = (path == "/v3/ws").then(|| grant(query, request.headers(), tokens)).flatten();
    let token = token.and_then(|grant| stand_in(&grant, keys));
    let identity = token.or_else(|| brought(request.headers()).and_then(|key| keys.find(&key)));
    let identity = identity.ok_or_else(|| Refusal {
        known: false,
        message:
            "a key is needed, as \"Authorization: Bearer KEY\" or as subprotocol \"sidetone.key.KEY\"; this request \
                  has none, or one that is not known"
                .to_owned(),
    })?;
    let lacks = match need {
        Need::Nothing | Need::Key => None,
        Need::One(scope) => Some(scope).filter(|scope| !identity.may(*scope)),
        Need::Both(one, other) => [one, other].into_iter().find(|scope| !identity.may(*scope)),
    };
    match lacks {
        None => Ok(Caller(Some(identity))),
        Some(scope) => Err(Refusal {
            known: true,
            message: format!("key {:?} lacks the scope {}, which this needs", &*identity.name, scope.as_str()),
        }),
    }
}

/// What a short-lived token of ours opens, where a request brings a good one: in the query, as the vendor's JavaScript
/// package sends them, or where a key would be, as its Python package does.
pub(super) fn grant(query: &str, headers: &HeaderMap, tokens: &Tokens) -> Option<Grant> {
    let token = parameter(query, "token").or_else(|| brought(headers))?;
    tokens.check(&token).ok()
}

/// Tokens stand in for the key that they were made with, on the one path that takes them and for as long as it holds.
fn stand_in(grant: &Grant, keys: &Keys) -> Option<Identity> {
    let key = keys.named(grant.key.as_deref()?)?;
    let mut scopes = vec![Scope::Ingest];
    scopes.extend(grant.gateway.then_some(Scope::Gateway));
    Some(Identity { scopes, ..key })
}

fn parameter(query: &str, name: &str) -> Option<String> {
    url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

/// The key that a request brings: `Authorization`, Bearer or raw, or a subprotocol.
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

fn need(method: &Method, path: &str, query: &str) -> Need {
    match path {
        // The page itself holds nothing; what it shows, it asks for with a key.
        "/healthz" | "/readyz" | "/version" | "/" => Need::Nothing,
        "/v1/ingest" | "/v3/token" => Need::One(Scope::Ingest),
        "/v3/ws" if parameter(query, "llm_gateway").is_some() => Need::Both(Scope::Ingest, Scope::Gateway),
        "/v3/ws" => Need::One(Scope::Ingest),
        "/v1/subscribe" => Need::One(Scope::Subscribe),
        "/metrics" | "/v1/usage" => Need::One(Scope::Admin),
        "/v1/transcripts" | "/v1/feedback" => Need::One(Scope::Gateway),
        _ if is_chat(path) => Need::One(Scope::Gateway),
        _ if path == "/v1/calls" || path.starts_with("/v1/calls/") => match *method {
            Method::GET | Method::HEAD => Need::One(Scope::Subscribe),
            Method::POST => Need::Both(Scope::Gateway, Scope::Subscribe),
            _ => Need::One(Scope::Admin),
        },
        _ => Need::Key,
    }
}

/// Paths whose errors are of OpenAI's shape.
pub(super) fn is_chat(path: &str) -> bool {
    let path = path.strip_prefix("/v1").unwrap_or(path);
    matches!(path, "/chat/completions" | "/models") || path.starts_with("/models/")
}

/// Paths that are WebSockets: refused after the upgrade, as browsers see nothing else.
pub(super) fn is_socket(path: &str) -> bool {
    matches!(path, "/v1/ingest" | "/v1/subscribe" | "/v3/ws")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys;

    /// Every path, and the scopes that it takes all of.
    const PATHS: &[(&str, &str, &[Scope])] = &[
        ("GET", "/v1/ingest", &[Scope::Ingest]),
        ("GET", "/v3/ws", &[Scope::Ingest]),
        ("GET", "/v3/ws?llm_gateway=%7B%7D", &[Scope::Ingest, Scope::Gateway]),
        ("GET", "/v3/token", &[Scope::Ingest]),
        ("GET", "/v1/subscribe", &[Scope::Subscribe]),
        ("GET", "/v1/calls", &[Scope::Subscribe]),
        ("GET", "/v1/calls/c", &[Scope::Subscribe]),
        ("GET", "/v1/calls/c/turns", &[Scope::Subscribe]),
        ("GET", "/v1/calls/c/events", &[Scope::Subscribe]),
        ("POST", "/v1/calls/c/analyses/summary", &[Scope::Gateway, Scope::Subscribe]),
        ("DELETE", "/v1/calls/c", &[Scope::Admin]),
        ("POST", "/v1/chat/completions", &[Scope::Gateway]),
        ("POST", "/chat/completions", &[Scope::Gateway]),
        ("GET", "/v1/models", &[Scope::Gateway]),
        ("GET", "/models", &[Scope::Gateway]),
        ("GET", "/v1/models/x", &[Scope::Gateway]),
        ("POST", "/v1/transcripts", &[Scope::Gateway]),
        ("GET", "/v1/usage", &[Scope::Admin]),
        ("GET", "/metrics", &[Scope::Admin]),
        ("GET", "/healthz", &[]),
        ("GET", "/readyz", &[]),
        ("GET", "/version", &[]),
    ];

    fn ask(keys: &Keys, method: &str, path: &str, header: Option<(&str, &str)>) -> Option<u16> {
        let mut request = Request::builder().method(method).uri(path);
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let request = request.body(()).expect("request");
        check(&request, keys, &Tokens::default()).err().map(|refusal| refusal.close_code())
    }

    #[test]
    fn every_path_with_every_key() {
        let folder = tempfile::tempdir().expect("folder");
        let file = keys::path(folder.path());
        let all = Keys::new(file.clone(), None);
        for (method, path, _) in PATHS {
            assert_eq!(ask(&all, method, path, None), None, "{path} without any key made");
        }
        let made: Vec<(Scope, String)> = Scope::ALL
            .into_iter()
            .map(|scope| (scope, keys::create(&file, scope.as_str(), &[scope]).expect("made")))
            .collect();
        let revoked = keys::create(&file, "gone", &[Scope::Admin]).expect("made");
        keys::revoke(&file, "gone").expect("revoked");
        std::thread::sleep(keys::FRESH);
        for (method, path, needed) in PATHS {
            let open = needed.is_empty();
            for bad in [None, Some("wrong"), Some(revoked.as_str())] {
                let header = bad.map(|key| ("authorization", key));
                assert_eq!(ask(&all, method, path, header), (!open).then_some(4401), "{path} with {bad:?}");
            }
            for (scope, key) in &made {
                let opens = *scope == Scope::Admin || needed.iter().all(|need| need == scope);
                let expected = (!opens).then_some(4403);
                for (name, value) in [
                    ("authorization", format!("Bearer {key}")),
                    ("authorization", key.clone()),
                    ("sec-websocket-protocol", format!("sidetone.v1, sidetone.key.{key}")),
                ] {
                    assert_eq!(ask(&all, method, path, Some((name, &value))), expected, "{path} with {scope:?}");
                }
            }
        }
        let tokens = Tokens::default();
        for gateway in [false, true] {
            let minute = std::time::Duration::from_secs(60);
            let mint = |key: &str| {
                let grant = Grant { gateway, session: minute, key: Some(key.into()) };
                tokens.mint(crate::base::time::unix_ms(), minute, &grant)
            };
            let of_revoked = Request::get(format!("/v3/ws?token={}", mint("gone"))).body(()).expect("request");
            assert!(check(&of_revoked, &all, &tokens).is_err_and(|refusal| refusal.close_code() == 4401));
            let token = mint("ingest");
            for (path, open) in [("/v3/ws?", true), ("/v3/ws?llm_gateway=%7B%7D", gateway), ("/v3/token?", false)] {
                let ask = |request: http::request::Builder| {
                    check(&request.body(()).expect("request"), &all, &tokens).map_err(|refusal| refusal.close_code())
                };
                let in_query = ask(Request::get(format!("{path}&token={token}")));
                let in_header = ask(Request::get(path).header("authorization", &token));
                assert_eq!((in_query.is_ok(), in_header.is_ok()), (open, open), "{path} with {gateway}");
            }
        }
        let both = keys::create(&file, "both", &[Scope::Gateway, Scope::Subscribe]).expect("made");
        std::thread::sleep(keys::FRESH);
        assert_eq!(ask(&all, "POST", "/v1/calls/c/analyses/x", Some(("authorization", &both))), None);
    }
}
