//! What a route is: method, path, the access that it needs, the largest body that it reads, the format of its errors, and
//! its handler.
//!
//! Knows no route and no handler: `routes` lists them.

use std::sync::Arc;

use axum::routing::{MethodFilter, MethodRouter};

use super::state::Api;
use crate::keys::Scope;

/// The key that a request needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// No key is needed.
    Open,
    /// Any valid key.
    AnyKey,
    /// A key with all of these scopes.
    Scopes(&'static [Scope]),
}

/// The format of refusals and errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A problem document (RFC 9457).
    Problem,
    /// OpenAI's `{"error":{…}}`.
    OpenAi,
    /// A close code after the upgrade: a browser cannot read the status of a refused upgrade.
    Socket,
}

/// The method of a route; `GET` answers `HEAD` too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    Post,
    Delete,
}

impl Verb {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Delete => "DELETE",
        }
    }
}

/// One path with one method.
pub(super) struct Route {
    pub(super) verb: Verb,
    pub(super) path: &'static str,
    pub(super) access: Access,
    /// A parameter of the query and the scope that a request with it needs in addition.
    pub(super) also: Option<(&'static str, Scope)>,
    /// Set if one of the daemon's short-lived tokens is accepted in place of the key.
    pub(super) takes_token: bool,
    /// A short description for the documentation.
    pub(super) about: &'static str,
    /// Names of the query parameters.
    pub(super) query: &'static [&'static str],
    /// Largest body that the route reads, bytes; 0 if it reads none.
    pub(super) body_bytes: usize,
    /// The JSON schema of the body, if there is one.
    pub(super) body_schema: Option<fn() -> serde_json::Value>,
    pub(super) form: Form,
    pub(super) handler: fn(MethodFilter) -> MethodRouter<Arc<Api>>,
}

/// A route without query parameters and body.
pub(super) const fn route(
    verb: Verb,
    path: &'static str,
    access: Access,
    form: Form,
    about: &'static str,
    handler: fn(MethodFilter) -> MethodRouter<Arc<Api>>,
) -> Route {
    Route {
        verb,
        path,
        access,
        also: None,
        takes_token: false,
        about,
        query: &[],
        body_bytes: 0,
        body_schema: None,
        form,
        handler,
    }
}

/// The largest body that a request's route reads, bytes. The router attaches it to each request.
#[derive(Debug, Clone, Copy)]
pub(super) struct BodyLimit(pub(super) usize);

impl Route {
    pub(super) const fn with_parameter(self, parameter: &'static str, scope: Scope) -> Self {
        Self { also: Some((parameter, scope)), ..self }
    }

    pub(super) const fn with_token(self) -> Self {
        Self { takes_token: true, ..self }
    }

    pub(super) const fn with_query(self, query: &'static [&'static str]) -> Self {
        Self { query, ..self }
    }

    pub(super) const fn with_body(self, body_bytes: usize) -> Self {
        Self { body_bytes, ..self }
    }

    pub(super) const fn with_schema(self, schema: fn() -> serde_json::Value) -> Self {
        Self { body_schema: Some(schema), ..self }
    }
}
