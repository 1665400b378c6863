//! The client's side: connects, with or without TLS, and reports why that failed.

use std::time::Duration;

use http::HeaderMap;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite;

use super::line::Line;
use super::progress::Progress;
use super::{ClientSocket, Socket, config};

/// Why a connection attempt failed.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The URL is not `ws:` or `wss:` with a host.
    #[error("{0}")]
    Url(String),
    /// The connection could not be made, or was lost in the handshake.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// The server refused the upgrade with an HTTP status.
    #[error("the server answered the upgrade with HTTP {status}{}", if body.is_empty() { String::new() } else { format!(": {body}") })]
    Status {
        /// The HTTP status.
        status: u16,
        /// The first 512 bytes of the body, as text.
        body: String,
    },
    /// The connection was not made in time.
    #[error("no connection within {0:?}")]
    Timeout(Duration),
}

/// Connects to `url` with `headers` added to the handshake; all of it takes at most `timeout`.
///
/// # Errors
/// See [`DialError`].
///
/// # Cancel safety
/// If this future is dropped, the connection is dropped.
pub async fn connect(
    url: &str,
    headers: &HeaderMap,
    max_message_bytes: usize,
    timeout: Duration,
) -> Result<ClientSocket, DialError> {
    use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
    let mut request = url.into_client_request().map_err(|error| DialError::Url(format!("{url}: {error}")))?;
    for (name, value) in headers {
        request.headers_mut().append(name.clone(), value.clone());
    }
    let uri = request.uri();
    let tls = match uri.scheme_str() {
        Some("ws") => false,
        Some("wss") => true,
        other => {
            return Err(DialError::Url(format!("{url}: expected ws:// or wss://, found {}", other.unwrap_or("none"))));
        }
    };
    let host = uri.host().ok_or_else(|| DialError::Url(format!("{url}: no host")))?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let dial = async {
        let stream =
            TcpStream::connect((host.as_str(), port)).await.map_err(|error| DialError::Connect(error.to_string()))?;
        stream.set_nodelay(true).map_err(|error| DialError::Connect(error.to_string()))?;
        let stream = Progress::new(stream);
        let traffic = stream.traffic();
        let config = Some(config(max_message_bytes));
        match tokio_tungstenite::client_async_tls_with_config(request, stream, config, None).await {
            Ok((inner, _)) => Ok(Socket { line: Box::new(Line::new(inner, traffic)) }),
            Err(tungstenite::Error::Http(response)) => {
                let status = response.status().as_u16();
                let body = response.into_body().unwrap_or_default();
                let body = String::from_utf8_lossy(&body[..body.len().min(512)]).trim().to_owned();
                Err(DialError::Status { status, body })
            }
            Err(error) => Err(DialError::Connect(error.to_string())),
        }
    };
    // The handshake future contains the TLS state; on the heap it does not enlarge every caller's future.
    tokio::time::timeout(timeout, Box::pin(dial)).await.map_err(|_| DialError::Timeout(timeout))?
}
