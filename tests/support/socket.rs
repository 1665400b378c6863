//! An HTTP server scripted down at the socket: what each request gets is a list of bytes, waits and endings, so that it
//! can cut, reset, stall or slow down a response, or send a wrong one, as no HTTP server would.
//!
//! Knows no vendor and nothing of the daemon. The gateway's own tests use it too, by its path.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;

/// What the server does, in order. Where the list ends, the connection serves the next request.
#[derive(Debug, Clone)]
pub enum Step {
    /// Sends these bytes.
    Write(Vec<u8>),
    /// Waits for this long.
    Wait(Duration),
    /// Sends nothing until the number is at least this.
    Until(watch::Receiver<usize>, usize),
    /// Sends these bytes again and again at this interval, until the client disconnects.
    Forever(Vec<u8>, Duration),
    /// Sends nothing more, and waits until the client disconnects.
    Hang,
    /// Closes the connection with FIN.
    Close,
    /// Resets the connection.
    Reset,
}

/// Serves one connection. `take` gets the head and the body of a request, and gives its number and what is done;
/// `hung_up` gets the number of a request whose client closed the connection before that was over.
pub async fn serve(
    socket: TcpStream,
    take: impl Fn(String, Vec<u8>) -> (u64, Vec<Step>) + Send,
    hung_up: impl Fn(u64) + Send,
) {
    let _ = socket.set_nodelay(true);
    let (mut reader, mut writer) = socket.into_split();
    let mut buffer = Vec::new();
    while let Some((head, body)) = read_request(&mut reader, &mut buffer).await {
        let (number, steps) = take(head, body);
        let then = tokio::select! {
            biased;
            then = play(&mut writer, steps) => then,
            () = gone(&mut reader) => return hung_up(number),
        };
        match then {
            Then::Next => {}
            Then::Close => return,
            Then::Reset => {
                let Ok(socket) = reader.reunite(writer) else { return };
                let _ = rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO));
                return;
            }
        }
    }
}

enum Then {
    Next,
    Close,
    Reset,
}

/// Carries out the actions. A write that fails waits for the reading side to notice the end.
async fn play(writer: &mut OwnedWriteHalf, steps: Vec<Step>) -> Then {
    for step in steps {
        match step {
            Step::Write(bytes) => write(writer, &bytes).await,
            Step::Wait(time) => tokio::time::sleep(time).await,
            // If the number can no longer rise, the rest is sent at once.
            Step::Until(mut number, least) => drop(number.wait_for(|number| *number >= least).await),
            Step::Forever(bytes, apart) => loop {
                write(writer, &bytes).await;
                tokio::time::sleep(apart).await;
            },
            Step::Hang => std::future::pending().await,
            Step::Close => return Then::Close,
            Step::Reset => return Then::Reset,
        }
    }
    Then::Next
}

async fn write(writer: &mut OwnedWriteHalf, bytes: &[u8]) {
    if writer.write_all(bytes).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Ends when the client has closed the connection; clients send nothing in advance.
async fn gone(reader: &mut OwnedReadHalf) {
    let mut byte = [0; 1];
    let _ = reader.read(&mut byte).await;
}

async fn read_request(reader: &mut OwnedReadHalf, buffer: &mut Vec<u8>) -> Option<(String, Vec<u8>)> {
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
            let length = head
                .lines()
                .find_map(|line| {
                    line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse::<usize>().ok()
                })
                .unwrap_or(0);
            while buffer.len() < end + 4 + length {
                if reader.read_buf(buffer).await.ok()? == 0 {
                    return None;
                }
            }
            let body = buffer[end + 4..end + 4 + length].to_vec();
            buffer.drain(..end + 4 + length);
            return Some((head, body));
        }
        if reader.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}

/// A whole body with this status.
pub fn reply(status: u16, headers: &str, body: &str) -> Vec<Step> {
    typed(status, "application/json", headers, body)
}

/// The same with another content type.
pub fn typed(status: u16, content_type: &str, headers: &str, body: &str) -> Vec<Step> {
    vec![Step::Write(
        format!(
            "HTTP/1.1 {status} X\r\ncontent-type: {content_type}\r\n{headers}content-length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes(),
    )]
}

/// The head of a stream.
pub fn stream_head() -> Step {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    Step::Write(head.as_bytes().to_vec())
}

/// One HTTP chunk of these bytes.
pub fn chunk(bytes: impl AsRef<[u8]>) -> Step {
    let bytes = bytes.as_ref();
    let mut out = format!("{:x}\r\n", bytes.len()).into_bytes();
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
    Step::Write(out)
}

/// The end of a chunked body.
pub fn end() -> Step {
    Step::Write(b"0\r\n\r\n".to_vec())
}
