//! The admin socket: key commands talk to the running daemon through a Unix socket in its data folder, so that the
//! daemon itself writes its key file, as the user that must read it.
//!
//! One request and one answer per connection, each one line of JSON. Only the daemon's own user and root are allowed.
//! If no daemon runs, a command does the same work on the files ([`apply`]).

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

use super::{Entry, KeyError, Keys, Scope, create, list, revoke};
use crate::base::owner;

/// The socket's name in the data folder.
const FILE: &str = "admin.sock";
/// Maximum length of a socket's path on every system, bytes; a longer path goes through its folder's descriptor.
const MAX_PATH_BYTES: usize = 100;
/// Maximum size of a request, bytes: a name of 128 and a few scopes.
const MAX_REQUEST_BYTES: u64 = 16 * 1024;
/// Maximum size of an answer, bytes: tens of thousands of keys.
const MAX_ANSWER_BYTES: u64 = 16 * 1024 * 1024;
/// How long the daemon waits for a request, and a command for the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Wait after a failed accept (no free descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The request of a key command.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Request {
    /// Creates a key.
    Create {
        /// The new key's name, not in use yet.
        name: String,
        /// Names of its scopes.
        scopes: Vec<String>,
    },
    /// Lists all keys, including revoked ones.
    List,
    /// Revokes a key.
    Revoke {
        /// The key's name.
        name: String,
    },
}

/// The answer to a request.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Answer {
    /// The key that was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The keys that exist.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<Entry>,
    /// Why the request failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Executes a request on the key file.
///
/// # Errors
/// The file cannot be used, or a name or scope in the request is invalid, taken or unknown.
pub fn apply(file: &Path, request: &Request) -> Result<Answer, KeyError> {
    match request {
        Request::Create { name, scopes } => {
            let scopes: Option<Vec<Scope>> = scopes.iter().map(|scope| Scope::parse(scope)).collect();
            let scopes = scopes.filter(|scopes| !scopes.is_empty());
            let scopes = scopes.ok_or_else(|| KeyError::Scopes(Scope::ALL.map(Scope::as_str).join(", ")))?;
            Ok(Answer { key: Some(create(file, name, &scopes)?), ..Answer::default() })
        }
        Request::List => Ok(Answer { keys: list(file)?, ..Answer::default() }),
        Request::Revoke { name } => revoke(file, name).map(|()| Answer::default()),
    }
}

/// Sends a request to the daemon that runs on `folder`; `None` if none runs there.
///
/// # Errors
/// A daemon runs there, but it does not answer in time or the connection fails.
pub fn ask(folder: &Path, request: &Request) -> Result<Option<Answer>, KeyError> {
    let path = folder.join(FILE);
    let failed = |error| KeyError::File { path: path.clone(), error };
    let connected = reachable(folder).and_then(|(at, _folder)| UnixStream::connect(at));
    let mut stream = match connected {
        Ok(stream) => stream,
        // A folder that is closed to this user is reported by the code that looks for the files.
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::PermissionDenied => return Ok(None),
            _ => return Err(failed(error)),
        },
    };
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
    let mut line = serde_json::to_vec(request).map_err(|error| failed(error.into()))?;
    line.push(b'\n');
    stream.write_all(&line).map_err(failed)?;
    let mut answer = String::new();
    let read = BufReader::new(stream.take(MAX_ANSWER_BYTES)).read_line(&mut answer);
    match read {
        Ok(0) => Err(failed(io::Error::other("the daemon closed the connection without an answer"))),
        Ok(_) => serde_json::from_str(&answer).map(Some).map_err(|error| failed(error.into())),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
            let message = format!("the daemon did not answer within {} s", PATIENCE.as_secs());
            Err(failed(io::Error::other(message)))
        }
        Err(error) => Err(failed(error)),
    }
}

/// The daemon's end of the socket.
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Binds the socket in `folder`, and replaces one that a dead daemon left. Must be called with the folder locked.
    ///
    /// # Errors
    /// The system refuses.
    pub fn bind(folder: &Path) -> io::Result<Self> {
        let path = folder.join(FILE);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let (at, _folder) = reachable(folder)?;
        let listener = UnixListener::bind(at)?;
        owner::make_private(&path)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, path })
    }

    /// Answers one command after the other until `stop`, then removes the socket. Drop the future to stop at once.
    pub async fn serve(self, keys: Keys, stop: CancellationToken) {
        let Self { listener, path } = self;
        match tokio::net::UnixListener::from_std(listener) {
            Err(error) => tracing::warn!(%error, "the admin socket cannot be used"),
            Ok(listener) => {
                let serve = async {
                    loop {
                        match listener.accept().await {
                            // One at a time: the file is changed under a lock anyway.
                            Ok((stream, _)) => drop(tokio::time::timeout(PATIENCE, answer(stream, &keys)).await),
                            Err(error) => {
                                tracing::warn!(%error, "the connection of a key command could not be accepted");
                                tokio::time::sleep(ACCEPT_PAUSE).await;
                            }
                        }
                    }
                };
                tokio::select! {
                    biased;
                    () = stop.cancelled() => {}
                    () = serve => {}
                }
            }
        }
        // Best effort: the next start removes a stale socket.
        let _ = fs::remove_file(path);
    }
}

/// The socket's path; if it is too long, a path through its folder's descriptor, which must live as long as the path.
fn reachable(folder: &Path) -> io::Result<(PathBuf, Option<fs::File>)> {
    let path = folder.join(FILE);
    if path.as_os_str().len() <= MAX_PATH_BYTES {
        return Ok((path, None));
    }
    use std::os::fd::AsRawFd as _;
    let folder = fs::File::open(folder)?;
    Ok((PathBuf::from(format!("/proc/self/fd/{}/{FILE}", folder.as_raw_fd())), Some(folder)))
}

/// Answers the request of one connection.
///
/// # Cancel safety
/// If the future is dropped, a request that was read may still be executed.
async fn answer(mut stream: tokio::net::UnixStream, keys: &Keys) -> io::Result<()> {
    let (uid, own) = (stream.peer_cred()?.uid(), owner::effective_uid());
    // Read for any user: a socket that is closed with unread bytes resets, and the refusal would be lost.
    let mut line = String::new();
    let (read, _) = stream.split();
    tokio::io::BufReader::new(read.take(MAX_REQUEST_BYTES)).read_line(&mut line).await?;
    let answer = if uid == 0 || uid == own {
        match serde_json::from_str(&line) {
            Ok(request) => {
                let keys = keys.clone();
                // This syncs a file: not on a runtime thread.
                let done = tokio::task::spawn_blocking(move || keys.apply(&request)).await.map_err(io::Error::other)?;
                done.unwrap_or_else(|error| Answer { error: Some(error.to_string()), ..Answer::default() })
            }
            Err(error) => Answer { error: Some(format!("the line is not a request: {error}")), ..Answer::default() },
        }
    } else {
        let message = format!("only {} or root may manage keys, but {} asked", owner::user(own), owner::user(uid));
        Answer { error: Some(message), ..Answer::default() }
    };
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_without_a_daemon_has_no_admin_socket() {
        let folder = tempfile::tempdir().expect("folder");
        assert!(ask(folder.path(), &Request::List).expect("nobody").is_none());
        assert!(ask(&folder.path().join("not/there"), &Request::List).expect("nobody").is_none());
        // A killed daemon leaves its socket file behind; nothing listens on it.
        drop(Socket::bind(folder.path()).expect("bound"));
        assert!(folder.path().join(FILE).exists());
        assert!(ask(folder.path(), &Request::List).expect("nobody").is_none());
        Socket::bind(folder.path()).expect("bound again");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn keys_are_made_listed_and_revoked_by_the_daemon() {
        let dir = tempfile::tempdir().expect("folder");
        // Longer than a socket's address may be.
        let folder = dir.path().join("a".repeat(120));
        fs::create_dir(&folder).expect("folder");
        let keys = Keys::new(super::super::path(&folder), None);
        let stop = CancellationToken::new();
        let socket = Socket::bind(&folder).expect("bound");
        let serving = tokio::spawn(socket.serve(keys.clone(), stop.clone()));
        let asked = |request: Request| {
            let folder = folder.clone();
            async move {
                let asked = tokio::task::spawn_blocking(move || ask(&folder, &request));
                asked.await.expect("join").expect("asked").expect("a daemon")
            }
        };
        let make = |scopes: &[&str]| Request::Create {
            name: "agent".to_owned(),
            scopes: scopes.iter().map(|&scope| scope.to_owned()).collect(),
        };
        for bad in [&[][..], &["everything"]] {
            let error = asked(make(bad)).await.error.expect("refused");
            assert!(error.contains("ingest, subscribe"), "{error}");
        }
        let key = asked(make(&["ingest"])).await.key.expect("made");
        let identity = keys.find(&key).expect("holds at once");
        assert_eq!(asked(Request::List).await.keys.len(), 1);
        assert!(asked(make(&["ingest"])).await.error.is_some_and(|error| error.contains("already")));
        asked(Request::Revoke { name: "agent".to_owned() }).await;
        assert!(identity.revoked.is_cancelled() && keys.find(&key).is_none(), "at once");
        stop.cancel();
        serving.await.expect("join");
        assert!(!folder.join(FILE).exists());
    }
}
