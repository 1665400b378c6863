//! Transport errors, classified by what the caller can do about them. No message contains a URL.

use std::error::Error;
use std::time::Duration;

/// Why no complete response was received.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct HttpError {
    kind: Kind,
    message: String,
}

/// The kind of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing was sent: the address or the TLS configuration is unusable.
    NoClient,
    /// The connection could not be made: refused, no route, or unknown host name.
    Refused,
    /// The connection was not made within the time limit.
    ConnectTimeout,
    /// TLS failed; a retry would fail in the same way.
    Tls,
    /// The connection was lost before the response's header. The server may have acted on the request.
    NoAnswer,
    /// The connection was lost within the body.
    Cut,
    /// The body is longer than the caller allows.
    TooLong,
}

impl HttpError {
    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// An error before anything was sent, for `reason`.
    pub fn no_client(reason: impl std::fmt::Display) -> Self {
        Self::new(Kind::NoClient, format!("the HTTP client cannot be created: {reason}"))
    }

    pub(super) fn connect_timeout(limit: Duration) -> Self {
        Self::new(Kind::ConnectTimeout, format!("no connection within {} ms", limit.as_millis()))
    }

    pub(super) fn too_long(limit: usize) -> Self {
        Self::new(Kind::TooLong, format!("the response has more than {limit} bytes"))
    }

    pub(super) fn cut(cause: Option<&(dyn Error + 'static)>) -> Self {
        Self::new(Kind::Cut, format!("the body ended too early: {}", innermost(cause)))
    }

    /// Classifies the failure of a request by its causes. `connecting`: it failed before it was sent.
    pub(super) fn sort(cause: Option<&(dyn Error + 'static)>, connecting: bool) -> Self {
        for error in chain(cause).filter_map(|error| error.downcast_ref::<std::io::Error>()) {
            match error.kind() {
                std::io::ErrorKind::ConnectionRefused => return Self::new(Kind::Refused, "connection refused"),
                std::io::ErrorKind::ConnectionReset
                | std::io::ErrorKind::ConnectionAborted
                | std::io::ErrorKind::BrokenPipe
                | std::io::ErrorKind::UnexpectedEof => {
                    return Self::new(Kind::NoAnswer, "the connection was reset before a response");
                }
                _ => {}
            }
            if let Some(tls) = tls_error(error) {
                return Self::new(Kind::Tls, format!("TLS: {tls}"));
            }
        }
        let (kind, what) = if connecting { (Kind::Refused, "no connection") } else { (Kind::NoAnswer, "no answer") };
        Self::new(kind, format!("{what}: {}", innermost(cause)))
    }

    /// Adds to the message that the proxy should be checked first.
    pub(super) fn by_proxy(self) -> Self {
        Self { message: format!("by proxy: {}", self.message), ..self }
    }
}

/// An error and its causes, outermost first.
pub(super) fn chain<'e>(error: Option<&'e (dyn Error + 'static)>) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(error, |error: &&'e (dyn Error + 'static)| Error::source(*error))
}

/// The innermost cause: libraries wrap the system's error in messages of their own.
fn innermost(error: Option<&(dyn Error + 'static)>) -> String {
    chain(error).last().map_or_else(|| "no cause given".to_owned(), ToString::to_string)
}

/// The TLS error within an I/O error; connectors wrap it more than once.
fn tls_error(mut error: &std::io::Error) -> Option<&rustls::Error> {
    loop {
        let inner = error.get_ref()?;
        if let Some(tls) = inner.downcast_ref::<rustls::Error>() {
            return Some(tls);
        }
        error = inner.downcast_ref::<std::io::Error>()?;
    }
}
