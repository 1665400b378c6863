//! Two programs with which the gateway is compared, because they do the least possible work. The relay uses the same
//! HTTP libraries: it reads a request, passes it on and passes the answer back; everything above its cost is the
//! gateway's own. The pipe passes bytes on between two sockets without parsing HTTP: no gateway can take less on this
//! machine.

use std::convert::Infallible;

use bytes::Bytes;
use futures::TryStreamExt as _;
use http::{Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

/// Serves as a pipe on loopback until killed; prints its port.
pub async fn pipe(vendor: u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    println!("port:{}", listener.local_addr().expect("address").port());
    loop {
        let Ok((mut client, _)) = listener.accept().await else { continue };
        tokio::spawn(async move {
            let mut upstream = TcpStream::connect(("127.0.0.1", vendor)).await.expect("the vendor");
            for stream in [&client, &upstream] {
                stream.set_nodelay(true).expect("an option of every socket");
            }
            // If either side closes its connection, both are closed.
            let (mut from_client, mut to_client) = client.split();
            let (mut from_vendor, mut to_vendor) = upstream.split();
            tokio::select! {
                _ = tokio::io::copy(&mut from_client, &mut to_vendor) => {}
                _ = tokio::io::copy(&mut from_vendor, &mut to_client) => {}
            }
        });
    }
}

/// Serves as a relay on loopback until killed; prints its port.
pub async fn relay(vendor: u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    println!("port:{}", listener.local_addr().expect("address").port());
    rustls::crypto::ring::default_provider().install_default().expect("the first one");
    let client = reqwest::Client::builder().tcp_nodelay(true).http1_only().no_proxy().tls_certs_only([]);
    let client = client.build().expect("client");
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let client = client.clone();
        let service = service_fn(move |request| pass_on(client.clone(), vendor, request));
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, reqwest::Error>;

async fn pass_on(
    client: reqwest::Client,
    vendor: u16,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.expect("a body").to_bytes();
    let post = client.post(format!("http://127.0.0.1:{vendor}{path}")).header("content-type", "application/json");
    let answer = post.body(body).send().await.expect("an answer");
    let mut response = Response::new(StreamBody::new(answer.bytes_stream().map_ok(Frame::data)).boxed_unsync());
    response.headers_mut().insert("content-type", "application/json".parse().expect("a value"));
    Ok(response)
}
