//! A minimal vendor: upgrades, reads masked messages, and lets the load write turns. Written by hand, so that it costs
//! little.

use std::os::fd::AsFd as _;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// The address to which the relay under test connects.
pub struct Vendor {
    pub port: u16,
    accepted: Mutex<mpsc::Receiver<Session>>,
}

/// A session at the vendor's end.
pub struct Session {
    /// The writing side for unmasked frames; the socket does not block.
    pub out: std::net::TcpStream,
    pub heard: Heard,
}

/// The reading side.
pub struct Heard {
    stream: TcpStream,
    buffer: BytesMut,
}

impl Vendor {
    pub async fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let port = listener.local_addr().expect("address").port();
        let (sender, accepted) = mpsc::channel(1);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if sender.send(Session::accept(stream).await).await.is_err() {
                    return;
                }
            }
        });
        Self { port, accepted: Mutex::new(accepted) }
    }

    pub async fn session(&self) -> Session {
        self.accepted.lock().await.recv().await.expect("a session")
    }
}

impl Session {
    async fn accept(mut stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("nodelay");
        let mut buffer = BytesMut::with_capacity(4096);
        let end = loop {
            if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(stream.read_buf(&mut buffer).await.expect("read") > 0, "closed during the upgrade");
        };
        let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
        let key = head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"))
            .expect("a key")
            .1;
        let accept = derive_accept_key(key.as_bytes());
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        stream.write_all(answer.as_bytes()).await.expect("answer");
        buffer.advance(end);
        let out = stream.as_fd().try_clone_to_owned().expect("a second handle").into();
        Self { out, heard: Heard { stream, buffer } }
    }
}

impl Heard {
    /// The first eight bytes of the next binary message; `None` once the connection has ended.
    pub async fn stamp(&mut self) -> Option<[u8; 8]> {
        loop {
            while let Some((opcode, stamp)) = self.take() {
                match opcode {
                    2 => return Some(stamp),
                    8 => return None,
                    _ => {}
                }
            }
            if self.stream.read_buf(&mut self.buffer).await.ok()? == 0 {
                return None;
            }
        }
    }

    fn take(&mut self) -> Option<(u8, [u8; 8])> {
        let head = *self.buffer.first()?;
        let (skip, length) = match *self.buffer.get(1)? & 0x7f {
            126 => (4, usize::from(u16::from_be_bytes(self.buffer.get(2..4)?.try_into().ok()?))),
            127 => (10, u64::from_be_bytes(self.buffer.get(2..10)?.try_into().ok()?) as usize),
            short => (2, usize::from(short)),
        };
        let whole = skip + 4 + length;
        if self.buffer.len() < whole {
            self.buffer.reserve(whole - self.buffer.len());
            return None;
        }
        let mask: [u8; 4] = self.buffer[skip..skip + 4].try_into().ok()?;
        let mut stamp = [0; 8];
        for (at, byte) in self.buffer[skip + 4..whole].iter().take(8).enumerate() {
            stamp[at] = byte ^ mask[at % 4];
        }
        self.buffer.advance(whole);
        Some((head & 0x0f, stamp))
    }
}
