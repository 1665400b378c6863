//! A minimal WebSocket client: an upgrade, masked text frames out, frames in. Written by hand, so that the generator
//! costs little and can write from its own thread.

use std::io::Write as _;
use std::os::fd::AsFd as _;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The reading half.
pub struct Reader {
    stream: TcpStream,
    buffer: BytesMut,
    pongs: Writer,
}

/// The writing half: a blocking socket that shares the connection.
pub struct Writer(std::net::TcpStream);

/// Connects and upgrades.
pub async fn connect(port: u16, path: &str) -> (Writer, Reader) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("connect");
    stream.set_nodelay(true).expect("nodelay");
    let upgrade = format!(
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    );
    stream.write_all(upgrade.as_bytes()).await.expect("upgrade");
    let mut buffer = BytesMut::with_capacity(4096);
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        assert!(stream.read_buf(&mut buffer).await.expect("read") > 0, "closed during the upgrade of {path}");
    };
    assert!(buffer.starts_with(b"HTTP/1.1 101"), "{path}: {}", String::from_utf8_lossy(&buffer));
    buffer.advance(end);
    let copy = || Writer(std::net::TcpStream::from(stream.as_fd().try_clone_to_owned().expect("a second handle")));
    let (writer, pongs) = (copy(), copy());
    (writer, Reader { stream, buffer, pongs })
}

/// A masked text frame. The mask is zero: the other side unmasks it all the same.
pub fn frame(text: &str) -> Vec<u8> {
    frame_of(0x81, text.as_bytes())
}

/// A masked binary frame.
pub fn binary(bytes: &[u8]) -> Vec<u8> {
    frame_of(0x82, bytes)
}

fn frame_of(head: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![head];
    match payload.len() {
        0..=125 => bytes.push(0x80 | payload.len() as u8),
        126..=65535 => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(payload.len() as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(payload);
    bytes
}

impl Writer {
    /// Writes a frame made by [`frame`]. The socket does not block, so a full one is tried again.
    pub fn send(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.0.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(error) => panic!("send: {error}"),
            }
        }
    }
}

impl Reader {
    /// The next text frame's payload; `None` once the connection has ended.
    pub async fn text(&mut self) -> Option<BytesMut> {
        loop {
            if let Some((opcode, payload)) = self.take() {
                match opcode {
                    1 => return Some(payload),
                    8 => return None,
                    9 => self.pongs.send(&frame_of(0x8a, &payload)),
                    _ => {}
                }
                continue;
            }
            if self.stream.read_buf(&mut self.buffer).await.ok()? == 0 {
                return None;
            }
        }
    }

    fn take(&mut self) -> Option<(u8, BytesMut)> {
        let head = *self.buffer.first()?;
        let (skip, length) = match *self.buffer.get(1)? & 0x7f {
            126 => (4, usize::from(u16::from_be_bytes(self.buffer.get(2..4)?.try_into().ok()?))),
            127 => (10, u64::from_be_bytes(self.buffer.get(2..10)?.try_into().ok()?) as usize),
            short => (2, usize::from(short)),
        };
        if self.buffer.len() < skip + length {
            self.buffer.reserve(skip + length - self.buffer.len());
            return None;
        }
        self.buffer.advance(skip);
        Some((head & 0x0f, self.buffer.split_to(length)))
    }
}
