//! The generator's side of a kept-alive connection: requests are written beforehand, answers are read without a parser.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::mock::{find, now};

pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// A time stamp of the mock, and when it was read here.
#[derive(Clone, Copy)]
pub struct Stamp {
    pub sent: u64,
    pub received: u64,
    pub here: u64,
}

impl Stamp {
    /// Time from the mock's socket to here.
    pub fn one_way(&self) -> Duration {
        Duration::from_nanos(self.here.saturating_sub(self.sent))
    }

    /// Time from a request's start to here, without the mock's own time.
    pub fn without_vendor(&self, began: u64) -> Duration {
        let vendor = self.sent.saturating_sub(self.received);
        Duration::from_nanos(self.here.saturating_sub(began).saturating_sub(vendor))
    }
}

impl Connection {
    pub async fn open(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("connect");
        stream.set_nodelay(true).expect("nodelay");
        Self { stream, buffer: Vec::with_capacity(64 * 1024) }
    }

    async fn more(&mut self) {
        let count = self.stream.read_buf(&mut self.buffer).await.expect("read");
        assert!(count > 0, "closed in the middle: {}", String::from_utf8_lossy(&self.buffer));
    }

    /// Sends a request and reads the answer's head into the buffer; returns where the head ends.
    async fn head(&mut self, request: &[u8]) -> usize {
        self.buffer.clear();
        self.stream.write_all(request).await.expect("write");
        loop {
            self.more().await;
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                let ok = self.buffer.get(9..12) == Some(b"200");
                assert!(ok, "{}", String::from_utf8_lossy(&self.buffer));
                return end + 4;
            }
        }
    }

    /// Sends a plain request and reads its answer to the last byte; returns the answer's stamp.
    pub async fn plain(&mut self, request: &[u8]) -> Stamp {
        let head = self.head(request).await;
        let length = self.header(head, b"content-length").and_then(|text| text.parse::<usize>().ok());
        loop {
            let whole = match length {
                Some(length) => self.buffer.len() >= head + length,
                None => self.buffer.ends_with(b"0\r\n\r\n"),
            };
            if whole {
                break;
            }
            self.more().await;
        }
        stamps(&self.buffer[head..], now()).0.pop().expect("a stamp")
    }

    /// Reads one stream to its end; passes every stamp to `each` as it comes. Returns the number of reads.
    pub async fn stream(&mut self, request: &[u8], mut each: impl FnMut(Stamp)) -> usize {
        let head = self.head(request).await;
        self.buffer.drain(..head);
        let mut reads = 1;
        loop {
            let (found, used) = stamps(&self.buffer, now());
            found.into_iter().for_each(&mut each);
            if self.buffer.ends_with(b"\r\n0\r\n\r\n") {
                let done = find(&self.buffer, b"[DONE]").is_some();
                assert!(done, "no [DONE]: {}", String::from_utf8_lossy(&self.buffer));
                return reads;
            }
            self.buffer.drain(..used);
            self.more().await;
            reads += 1;
        }
    }

    /// Begins a stream and drops it after this many stamps; returns the time.
    pub async fn abandon(mut self, request: &[u8], after: usize) -> u64 {
        let head = self.head(request).await;
        self.buffer.drain(..head);
        let mut seen = 0;
        loop {
            let (found, used) = stamps(&self.buffer, now());
            self.buffer.drain(..used);
            seen += found.len();
            if seen >= after {
                break;
            }
            self.more().await;
        }
        let when = now();
        drop(self);
        when
    }

    /// Sends a plain GET; returns the body.
    pub async fn get(&mut self, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n");
        let head = self.head(request.as_bytes()).await;
        let length = self.header(head, b"content-length").and_then(|text| text.parse::<usize>().ok()).unwrap_or(0);
        while self.buffer.len() < head + length {
            self.more().await;
        }
        String::from_utf8_lossy(&self.buffer[head..]).into_owned()
    }

    /// A header of the answer in the buffer.
    fn header(&self, head: usize, name: &[u8]) -> Option<String> {
        self.buffer[..head].split(|byte| *byte == b'\n').find_map(|line| {
            let (own, value) = line.split_at_checked(name.len())?;
            let value = own.eq_ignore_ascii_case(name).then(|| value.strip_prefix(b":"))??;
            Some(String::from_utf8_lossy(value).trim().to_owned())
        })
    }

    /// A header of the answer in the whole buffer: for use after [`Connection::plain`].
    pub fn last_header(&self, name: &str) -> Option<String> {
        self.header(find(&self.buffer, b"\r\n\r\n")?, name.as_bytes())
    }
}

/// The stamps (`@SENT/RECEIVED;`, 19 digits each) in a text, and where the last one ends.
fn stamps(text: &[u8], here: u64) -> (Vec<Stamp>, usize) {
    let number = |digits: &[u8]| digits.iter().fold(0u64, |sum, byte| sum * 10 + u64::from(byte.wrapping_sub(b'0')));
    let mut found = Vec::new();
    let mut used = 0;
    let mut from = 0;
    while let Some(at) = text[from..].iter().position(|byte| *byte == b'@') {
        let start = from + at + 1;
        let Some(stamp) = text.get(start..start + 40) else { break };
        found.push(Stamp { sent: number(&stamp[..19]), received: number(&stamp[20..39]), here });
        from = start + 40;
        used = from;
    }
    (found, used)
}
