//! For tests: a scripted daemon on a real socket.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming as Body;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;

use super::target::Target;
use crate::base::ws::{ServerSocket, Upgrade};

/// Starts the daemon. `converse` gets each WebSocket with its number, from 0; `get` answers all other requests, `None`
/// = 404.
pub(super) async fn daemon<F>(
    converse: impl Fn(usize, ServerSocket) -> F + Send + Sync + 'static,
    get: impl Fn(&str) -> Option<Value> + Send + Sync + 'static,
) -> Target
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let target = Target::at(listener.local_addr().expect("addr"));
    let (converse, get, sockets) = (Arc::new(converse), Arc::new(get), Arc::new(AtomicUsize::new(0)));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (converse, get, sockets) = (Arc::clone(&converse), Arc::clone(&get), Arc::clone(&sockets));
            let service = service_fn(move |mut request: Request<Body>| {
                let response = if request.headers().contains_key(http::header::UPGRADE) {
                    let offered = request.headers().get(http::header::SEC_WEBSOCKET_PROTOCOL);
                    let protocol = offered.map(|value| value.to_str().expect("text").to_owned());
                    let (upgrade, response) =
                        Upgrade::new(&mut request, 1 << 20, protocol.as_deref(), Full::<Bytes>::default)
                            .expect("handshake");
                    let (converse, number) = (Arc::clone(&converse), sockets.fetch_add(1, Ordering::SeqCst));
                    tokio::spawn(async move { converse(number, upgrade.socket().await.expect("socket")).await });
                    response
                } else {
                    let answer = get(request.uri().path());
                    let status = if answer.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND };
                    let body = Full::from(answer.unwrap_or_default().to_string());
                    Response::builder().status(status).body(body).expect("response")
                };
                async { Ok::<_, Infallible>(response) }
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades(),
            );
        }
    });
    target
}
