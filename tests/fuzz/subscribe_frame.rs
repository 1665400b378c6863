//! Frames on a live subscribe socket of a daemon in this process: whatever is sent, the next ping is answered, or the
//! socket is closed with the right code.
#![no_main]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use sidetone::app;
use sidetone::config::Config;

static ADDRESS: OnceLock<SocketAddr> = OnceLock::new();
static SOCKET: Mutex<Option<TcpStream>> = Mutex::new(None);

fn address() -> SocketAddr {
    *ADDRESS.get_or_init(|| {
        let dir = std::env::temp_dir().join(format!("sidetone-fuzz-{}", std::process::id()));
        let text = format!("[storage]\ndir = {:?}\n", dir.display().to_string());
        let config = Config::parse(&text, &dir).expect("a valid configuration");
        let running = app::start(config, ([127, 0, 0, 1], 0).into()).expect("start");
        let address = running.address;
        std::mem::forget(running);
        address
    })
}

fn connect() -> TcpStream {
    let address = address();
    let mut socket = TcpStream::connect(address).expect("connect");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("timeout");
    let upgrade = format!(
        "GET /v1/subscribe HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    );
    socket.write_all(upgrade.as_bytes()).expect("upgrade");
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        socket.read_exact(&mut byte).expect("the upgrade's answer");
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101"));
    socket
}

/// A masked text frame; the mask is zero.
fn send(socket: &mut TcpStream, text: &str) -> std::io::Result<()> {
    let mut frame = vec![0x81, 0x80 | 127];
    frame.extend_from_slice(&(text.len() as u64).to_be_bytes());
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(text.as_bytes());
    socket.write_all(&frame)
}

/// The next frame's opcode and payload.
fn receive(socket: &mut TcpStream) -> std::io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    socket.read_exact(&mut head)?;
    let mut length = [0; 8];
    match head[1] & 0x7f {
        126 => socket.read_exact(&mut length[6..])?,
        127 => socket.read_exact(&mut length)?,
        short => length[7] = short,
    }
    let mut payload = vec![0; usize::try_from(u64::from_be_bytes(length)).expect("a length")];
    socket.read_exact(&mut payload)?;
    Ok((head[0] & 0x0f, payload))
}

fuzz_target!(|text: &str| {
    let mut held = SOCKET.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut socket = held.take().unwrap_or_else(connect);
    if send(&mut socket, text).and_then(|()| send(&mut socket, r#"{"id":"fuzz-ping","type":"ping"}"#)).is_err() {
        return;
    }
    loop {
        match receive(&mut socket) {
            Ok((1, payload)) if payload.windows(11).any(|window| window == b"\"fuzz-ping\"") => break,
            Ok((8, payload)) => {
                let code = payload.get(..2).map_or(1005, |code| u16::from_be_bytes([code[0], code[1]]));
                assert!([4400, 4408, 4413, 4429].contains(&code), "closed {code}");
                return;
            }
            Ok(_) => {}
            Err(error) => panic!("no answer: {error}"),
        }
    }
    *held = Some(socket);
});
