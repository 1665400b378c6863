//! Accepts connections and gives each to the runtime that has the fewest.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::connection;
use super::limits::Gates;
use crate::api::error::ApiError;
use crate::api::{Answered, ConnectionGuard, Service};
use crate::base::body::TimedBody;
use crate::base::drain::Drain;
use crate::base::inflight::Account;
use crate::base::tls::Acceptor;

/// Number of connections that may wait to be accepted.
const BACKLOG: i32 = 4096;
/// Pause after a failed accept (no free descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Minimum time between two log lines about failed accepts.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// Rate limit for log lines about failed accepts.
#[derive(Debug, Default)]
struct Failures {
    logged: Option<Instant>,
    /// Number of failures since the last log line.
    silent: u64,
}

impl Failures {
    /// Records a failure at `now`. Returns the number of failures since the last log line if one is due.
    fn note(&mut self, now: Instant) -> Option<u64> {
        if self.logged.is_some_and(|logged| now.duration_since(logged) < LOG_EVERY) {
            self.silent += 1;
            return None;
        }
        self.logged = Some(now);
        Some(std::mem::take(&mut self.silent))
    }
}

/// Binds `address` so that it can be bound again immediately after a restart.
pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    use rustix::net::{AddressFamily, SocketType, bind, listen, socket, sockopt};
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let fd = socket(family, SocketType::STREAM, None)?;
    sockopt::set_socket_reuseaddr(&fd, true)?;
    bind(&fd, &address)?;
    listen(&fd, BACKLOG)?;
    let listener = TcpListener::from(fd);
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The limits that all connections share.
pub(super) struct Bounds {
    /// Counts the bytes in flight.
    pub(super) account: Account,
    /// `limits.body_timeout_ms`
    pub(super) body_timeout: Duration,
}

/// Accepts connections until the daemon stops.
pub(super) async fn accept(
    listener: TcpListener,
    tls: Option<Acceptor>,
    service: Service,
    gates: Gates,
    bounds: Bounds,
    runtimes: Vec<Handle>,
    drain: Drain,
) {
    let Bounds { account, body_timeout } = bounds;
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the listener cannot be used");
            return;
        }
    };
    let mut failures = Failures::default();
    let loads: Vec<Arc<AtomicUsize>> = runtimes.iter().map(|_| Arc::default()).collect();
    loop {
        let accepted = tokio::select! {
            biased;
            () = drain.stop.cancelled() => return,
            accepted = next(&listener) => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if let Some(more) = failures.note(Instant::now()) {
                    tracing::warn!(%error, more, "connections cannot be accepted; retrying (logged once a minute)");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let pass = match gates.enter(peer.ip()) {
            Ok(pass) => pass,
            Err(message) => {
                refuse(stream, &message);
                continue;
            }
        };
        let Ok(stream) = stream.into_std() else { continue };
        let Some((index, load)) = loads.iter().enumerate().min_by_key(|(_, load)| load.load(Ordering::Relaxed)) else {
            return;
        };
        let load = Load::new(load);
        let (service, tls) = (service.clone(), tls.clone());
        let stop = drain.stop.clone();
        let holder = account.holder();
        let serve = async move {
            let hold = ConnectionGuard { counts: Arc::new((load, pass)), holder };
            let Ok(stream) = TcpStream::from_std(stream) else { return };
            match tls {
                None => serve(stream, service, hold, body_timeout, stop).await,
                Some(tls) => {
                    // A failed handshake is not logged: a client that does not trust the certificate reports that
                    // itself.
                    if let Ok(stream) = Box::pin(tls.accept(stream)).await {
                        serve(stream, service, hold, body_timeout, stop).await;
                    }
                }
            }
        };
        runtimes[index].spawn(drain.tasks.track_future(serve));
    }
}

/// Accepts the next connection. It is the only place that does: hyper leaves Nagle's algorithm on, which with delayed
/// acknowledgements delays small frames by 40 ms.
async fn next(listener: &tokio::net::TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, peer))
}

async fn serve<S>(stream: S, service: Service, hold: ConnectionGuard, body_timeout: Duration, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let answer = |request: http::Request<TimedBody<hyper::body::Incoming>>| {
        let (service, hold) = (service.clone(), hold.clone());
        async move {
            let Answered { response, lease } = service.respond(request, hold).await;
            (response, lease)
        }
    };
    connection::serve(stream, answer, hold.holder.clone(), body_timeout, stop).await;
}

/// Answers 503 and closes the connection, without reading the request.
fn refuse(mut stream: TcpStream, message: &str) {
    let answer = ApiError::unavailable("rate_limited", message).to_http1();
    tokio::spawn(async move {
        // Best effort: the peer may be gone, and nothing waits longer than this.
        let _ = tokio::time::timeout(Duration::from_secs(1), stream.write_all(&answer)).await;
    });
}

/// Counts one connection on a runtime.
struct Load(Arc<AtomicUsize>);

impl Load {
    fn new(load: &Arc<AtomicUsize>) -> Self {
        load.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(load))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_accepts_are_logged_once_a_minute() {
        let begun = Instant::now();
        let mut failures = Failures::default();
        let logged: Vec<_> = (0..2401).filter_map(|step| failures.note(begun + ACCEPT_PAUSE * step)).collect();
        assert_eq!(logged, [0, 1199, 1199]);
    }

    #[tokio::test]
    async fn every_accepted_connection_sends_at_once() {
        let bound = bind("127.0.0.1:0".parse().expect("address")).expect("bind");
        let address = bound.local_addr().expect("address");
        let listener = tokio::net::TcpListener::from_std(bound).expect("listener");
        for _ in 0..3 {
            let _client = TcpStream::connect(address).await.expect("connect");
            let (stream, _) = next(&listener).await.expect("accepted");
            assert!(stream.nodelay().expect("the option can be read"));
        }
    }
}
