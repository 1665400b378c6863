//! The floor: a plain relay between two WebSockets, written with tungstenite.

use futures::StreamExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

/// Relays to the vendor on `port` until killed.
pub fn run(port: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        println!("port:{}", listener.local_addr().expect("address").port());
        loop {
            let Ok((client, _)) = listener.accept().await else { continue };
            tokio::spawn(relay(client, port.to_owned()));
        }
    });
}

async fn relay(client: TcpStream, port: String) {
    let mut path = String::new();
    #[expect(clippy::result_large_err, reason = "the callback's type is tungstenite's")]
    let note = |request: &Request, response: Response| {
        path = request.uri().to_string();
        Ok(response)
    };
    client.set_nodelay(true).expect("nodelay");
    let client = tokio_tungstenite::accept_hdr_async(client, note).await.expect("upgrade");
    let upstream = TcpStream::connect(format!("127.0.0.1:{port}")).await.expect("connect");
    upstream.set_nodelay(true).expect("nodelay");
    let url = format!("ws://127.0.0.1:{port}{path}");
    let (upstream, _) = tokio_tungstenite::client_async(url, upstream).await.expect("upgrade");
    let (client_out, client_in) = client.split();
    let (upstream_out, upstream_in) = upstream.split();
    let _ = tokio::join!(client_in.forward(upstream_out), upstream_in.forward(client_out));
}
