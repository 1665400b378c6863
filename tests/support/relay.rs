//! A relay in front of the daemon that stores the frames of every ingest connection, in both directions, and may stop
//! after a number of a producer's frames. Other requests pass unchanged.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use futures::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::{accept_hdr_async, client_async};

use super::Json;

/// The first bytes of an ingest connection.
const INGEST: &[u8] = b"GET /v1/ingest";

/// The frames of one connection.
#[derive(Debug, Clone, Default)]
pub struct Connection {
    /// The frames that the producer sent, including those that were held back.
    pub sent: Vec<String>,
    /// The frames that the daemon sent.
    pub received: Vec<Json>,
}

impl Connection {
    /// Returns true if the daemon sent a welcome.
    pub fn is_welcomed(&self) -> bool {
        self.received.iter().any(|frame| frame["type"] == "welcome")
    }

    /// The highest `ack.frames`.
    pub fn acked(&self) -> Option<u64> {
        let acks = self.received.iter().filter(|frame| frame["type"] == "ack");
        acks.filter_map(|frame| frame["frames"].as_u64()).max()
    }
}

/// The relay. It ends with the test.
pub struct Relay {
    /// The address to which producers connect.
    pub address: SocketAddr,
    connections: Arc<Mutex<Vec<Connection>>>,
    server: tokio::task::JoinHandle<()>,
}

impl Relay {
    /// Starts a relay to the daemon at `port`. Of the first connection, only the first `passes` frames are passed on.
    pub async fn start(port: u16, passes: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let connections: Arc<Mutex<Vec<Connection>>> = Arc::default();
        let seen = Arc::clone(&connections);
        let server = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                open.spawn(serve(stream, port, passes, Arc::clone(&seen)));
            }
        });
        Self { address, connections, server }
    }

    /// All ingest connections so far that reached the daemon.
    pub fn connections(&self) -> Vec<Connection> {
        self.connections.lock().expect("lock").clone()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Dropping the streams ends the connection on both sides.
#[expect(clippy::result_large_err, reason = "the type is the library's")]
async fn serve(mut stream: TcpStream, port: u16, passes: usize, seen: Arc<Mutex<Vec<Connection>>>) {
    let mut first = [0; INGEST.len()];
    while stream.peek(&mut first).await.is_ok_and(|count| count > 0 && count < first.len()) {
        tokio::task::yield_now().await;
    }
    let Ok(mut daemon) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    if first != INGEST {
        let _ = tokio::io::copy_bidirectional(&mut stream, &mut daemon).await;
        return;
    }
    let mut target = None;
    let note = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        target = request.uri().path_and_query().map(ToString::to_string);
        Ok(response)
    };
    let Ok(producer) = accept_hdr_async(stream, note).await else { return };
    let url = format!("ws://127.0.0.1:{port}{}", target.expect("a path"));
    let Ok((daemon, _)) = client_async(url, daemon).await else { return };
    let (index, passes) = {
        let mut seen = seen.lock().expect("lock");
        seen.push(Connection::default());
        (seen.len() - 1, if seen.len() == 1 { passes } else { usize::MAX })
    };
    let (mut to_producer, mut from_producer) = producer.split();
    let (mut to_daemon, mut from_daemon) = daemon.split();
    let up = async {
        let mut count = 0;
        while let Some(Ok(message)) = from_producer.next().await {
            if let Message::Text(text) = &message {
                seen.lock().expect("lock")[index].sent.push(text.to_string());
                count += 1;
                if count > passes {
                    continue;
                }
            }
            if to_daemon.send(message).await.is_err() {
                return;
            }
        }
    };
    let down = async {
        while let Some(Ok(message)) = from_daemon.next().await {
            if let Message::Text(text) = &message {
                let frame = serde_json::from_str(text).expect("JSON");
                seen.lock().expect("lock")[index].received.push(frame);
            }
            if to_producer.send(message).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}
