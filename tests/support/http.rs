//! A minimal HTTP/1.1 client that sends exactly the headers that a test wants, including `Host` and `Origin`.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Json, PATIENCE};

/// An answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// HTTP status; 0 = the connection ended without an answer.
    pub status: u16,
    /// Header names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, unchunked.
    pub body: Vec<u8>,
}

impl Reply {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Json {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {}", self.text()))
    }

    /// A header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Sends one request on a new connection. `Host` is the loopback address unless `headers` contains another one.
pub async fn request(port: u16, method: &str, path: &str, headers: &[(&str, &str)], body: Option<String>) -> Reply {
    let exchange = exchange(port, method, path, headers, body);
    match tokio::time::timeout(PATIENCE, exchange).await {
        Ok(Ok(reply)) => reply,
        Ok(Err(_)) => Reply { status: 0, headers: Vec::new(), body: Vec::new() },
        Err(_) => panic!("{method} {path}: no answer within {PATIENCE:?}"),
    }
}

async fn exchange(
    port: u16,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<String>,
) -> std::io::Result<Reply> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await?;
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        head.push_str(&format!("host: 127.0.0.1:{port}\r\n"));
    }
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("connection")) {
        head.push_str("connection: close\r\n");
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Some(body) = &body {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    socket.write_all(head.as_bytes()).await?;
    if let Some(body) = body {
        socket.write_all(body.as_bytes()).await?;
    }
    let mut bytes = Vec::new();
    loop {
        if let Some(reply) = parse(&bytes, false) {
            return Ok(reply);
        }
        if socket.read_buf(&mut bytes).await? == 0 {
            return parse(&bytes, true).ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn parse(bytes: &[u8], ended: bool) -> Option<Reply> {
    let head_end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..head_end]).into_owned();
    let mut lines = head.split("\r\n");
    let status: u16 = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let rest = &bytes[head_end + 4..];
    let reply = |body: Vec<u8>| Some(Reply { status, headers: headers.clone(), body });
    let find = |name: &str| headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    if status == 101 {
        return reply(Vec::new());
    }
    if find("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
        return unchunk(rest).and_then(reply);
    }
    if let Some(length) = find("content-length").and_then(|text| text.parse::<usize>().ok()) {
        return (rest.len() >= length).then(|| rest[..length].to_vec()).and_then(reply);
    }
    if ended { reply(rest.to_vec()) } else { None }
}

fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line_end = rest.windows(2).position(|window| window == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line_end]).ok()?.trim(), 16).ok()?;
        rest = &rest[line_end + 2..];
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size + 2..)?;
    }
}
