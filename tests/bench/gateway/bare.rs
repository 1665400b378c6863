//! The floor of a gateway on these HTTP libraries: a relay that reads a request, passes it on and passes the answer back,
//! and does nothing else. What a gateway takes beyond it, is its own.

use std::convert::Infallible;

use bytes::Bytes;
use futures::TryStreamExt as _;
use http::{Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// Serves on loopback until killed; prints its port.
pub async fn run(vendor: u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    println!("port:{}", listener.local_addr().expect("address").port());
    rustls::crypto::ring::default_provider().install_default().expect("the first one");
    let client = reqwest::Client::builder().tcp_nodelay(true).http1_only().no_proxy().tls_certs_only([]);
    let client = client.build().expect("client");
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let client = client.clone();
        let service = service_fn(move |request| relay(client.clone(), vendor, request));
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, reqwest::Error>;

async fn relay(client: reqwest::Client, vendor: u16, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.expect("a body").to_bytes();
    let post = client.post(format!("http://127.0.0.1:{vendor}{path}")).header("content-type", "application/json");
    let answer = post.body(body).send().await.expect("an answer");
    let mut response = Response::new(StreamBody::new(answer.bytes_stream().map_ok(Frame::data)).boxed_unsync());
    response.headers_mut().insert("content-type", "application/json".parse().expect("a value"));
    Ok(response)
}
