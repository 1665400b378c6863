//! A vendor that takes almost no CPU time: raw sockets, no parser. The prompt says what it does: `answer d50.` answers
//! after 50 ms, `answer d50c20i10.` streams 20 chunks, 10 ms apart; without `i`, as fast as the socket accepts them.
//! Every text that it sends contains a stamp, `@SENT/RECEIVED;` in Unix nanoseconds: when the text was written to the
//! socket, and when the request had arrived. The time between the two is the vendor's own, including its timers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// Unix nanoseconds, now.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// Streams that the client dropped, and when the mock noticed the last one.
static ABORTED: AtomicU64 = AtomicU64::new(0);
static LAST: AtomicU64 = AtomicU64::new(0);

/// Serves on loopback until killed; prints its port.
pub async fn run(port: &str) {
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await.expect("bind");
    println!("port:{}", listener.local_addr().expect("address").port());
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        tokio::spawn(connection(stream));
    }
}

/// What a prompt requests.
#[derive(Default, Clone, Copy)]
struct Spec {
    delay: u64,
    chunks: u64,
    interval: u64,
}

fn spec(words: &[u8]) -> Spec {
    let mut spec = Spec::default();
    let mut at = &mut spec.delay;
    for byte in words {
        match byte {
            b'd' => at = &mut spec.delay,
            b'c' => at = &mut spec.chunks,
            b'i' => at = &mut spec.interval,
            b'0'..=b'9' => *at = *at * 10 + u64::from(byte - b'0'),
            _ => {}
        }
    }
    spec
}

pub fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

async fn connection(mut stream: TcpStream) {
    let mut buffer = Vec::with_capacity(64 * 1024);
    let (mut reader, mut writer) = stream.split();
    loop {
        buffer.clear();
        let head = loop {
            if let Some(end) = find(&buffer, b"\r\n\r\n") {
                break end + 4;
            }
            if reader.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
        };
        let lower = buffer[..head].to_ascii_lowercase();
        if lower.starts_with(b"get ") {
            let body = if lower.starts_with(b"get /aborted") {
                format!("{{\"aborted\":{},\"last\":{}}}", ABORTED.load(Ordering::Relaxed), LAST.load(Ordering::Relaxed))
            } else {
                "{\"object\":\"list\",\"data\":[]}".to_owned()
            };
            if whole(&mut writer, &body).await.is_none() {
                return;
            }
            continue;
        }
        let length = find(&lower, b"content-length:").map(|at| {
            let digits = lower[at + 15..].iter().skip_while(|byte| **byte == b' ');
            digits.take_while(|byte| byte.is_ascii_digit()).fold(0, |sum, byte| sum * 10 + usize::from(byte - b'0'))
        });
        let complete = |buffer: &[u8]| match length {
            Some(length) => buffer.len() >= head + length,
            None => buffer.ends_with(b"0\r\n\r\n"),
        };
        while !complete(&buffer) {
            if reader.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let received = now();
        let body = &buffer[head..];
        let wanted = find(body, b"answer d").map_or(&b""[..], |at| &body[at + 7..]);
        let spec = spec(wanted.split(|byte| *byte == b'.').next().unwrap_or_default());
        let streamed = [&b"\"stream\":true"[..], b"\"stream\": true"].iter().any(|flag| find(body, flag).is_some());
        let served = if streamed {
            events(&mut reader, &mut writer, spec, received).await
        } else {
            if spec.delay > 0 {
                tokio::time::sleep(Duration::from_millis(spec.delay)).await;
            }
            let text = format!(
                "{{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":1700000000,\"model\":\"m\",\
                 \"choices\":[{{\"index\":0,\"message\":{{\"role\":\"assistant\",\"content\":\"@{:019}/{received:019}; An \
                 answer of the usual length, said in one sentence.\"}},\"finish_reason\":\"stop\"}}],\
                 \"usage\":{{\"prompt_tokens\":40,\"completion_tokens\":12,\"total_tokens\":52}}}}",
                now()
            );
            whole(&mut writer, &text).await
        };
        if served.is_none() {
            return;
        }
    }
}

async fn whole(writer: &mut WriteHalf<'_>, body: &str) -> Option<()> {
    let text =
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    writer.write_all(text.as_bytes()).await.ok()
}

const OPEN: &str =
    "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"m\",";

/// Each event is one HTTP chunk and one write.
async fn events(reader: &mut ReadHalf<'_>, writer: &mut WriteHalf<'_>, spec: Spec, received: u64) -> Option<()> {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    wait(reader, spec.delay).await?;
    writer.write_all(head.as_bytes()).await.ok()?;
    let mut out = String::with_capacity(512);
    for number in 0..spec.chunks {
        if number > 0 && spec.interval > 0 {
            wait(reader, spec.interval).await?;
        }
        out.clear();
        let role = if number == 0 { "\"role\":\"assistant\"," } else { "" };
        let sent = now();
        event(
            &mut out,
            &format!(
                "{OPEN}\"choices\":[{{\"index\":0,\"delta\":{{{role}\"content\":\"@{sent:019}/{received:019};\"}},\
                 \"finish_reason\":null}}]}}\n\n"
            ),
        );
        if writer.write_all(out.as_bytes()).await.is_err() {
            gone();
            return None;
        }
    }
    out.clear();
    let usage = "\"usage\":{\"prompt_tokens\":40,\"completion_tokens\":50,\"total_tokens\":90}}\n\n";
    event(&mut out, &format!("{OPEN}\"choices\":[{{\"index\":0,\"delta\":{{}},\"finish_reason\":\"stop\"}}]}}\n\n"));
    event(&mut out, &format!("{OPEN}\"choices\":[],{usage}"));
    event(&mut out, "data: [DONE]\n\n");
    out.push_str("0\r\n\r\n");
    writer.write_all(out.as_bytes()).await.ok()
}

fn event(out: &mut String, text: &str) {
    use std::fmt::Write as _;
    let _ = write!(out, "{:x}\r\n{text}\r\n", text.len());
}

/// Sleeps, unless the other side closes the connection meanwhile.
async fn wait(reader: &mut ReadHalf<'_>, millis: u64) -> Option<()> {
    if millis == 0 {
        return Some(());
    }
    let mut byte = [0; 1];
    tokio::select! {
        () = tokio::time::sleep(Duration::from_millis(millis)) => Some(()),
        // The client sends nothing in between: any read means the end.
        _ = reader.read(&mut byte) => {
            gone();
            None
        }
    }
}

fn gone() {
    LAST.store(now(), Ordering::Relaxed);
    ABORTED.fetch_add(1, Ordering::Relaxed);
}
