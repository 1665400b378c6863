//! Sends batches of spans by OTLP over HTTP, with the daemon's HTTP client.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use opentelemetry_http::{HttpClient, HttpError};
use tokio::runtime::Handle;
use url::Url;

use crate::base::http::post::Poster;

/// Time limit for sending one batch.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Sends the exporter's requests. The exporter has a thread of its own; its requests run on one of the daemon's
/// runtimes.
pub(super) struct Client(pub(super) Handle);

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Client")
    }
}

impl HttpClient for Client {
    fn send_bytes<'life, 'out>(
        &'life self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'out>>
    where
        'life: 'out,
        Self: 'out,
    {
        let sent = self.0.spawn(async move {
            let (parts, body) = request.into_parts();
            let url: Url = parts.uri.to_string().parse()?;
            let answer = Poster::new(&url)?.post(&parts.headers, body, TIMEOUT).await?;
            Ok(Response::builder().status(answer.status).body(Bytes::new())?)
        });
        Box::pin(async move { sent.await? })
    }
}
