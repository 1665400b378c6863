//! The admin socket: key commands ask the running daemon by a Unix socket in its data folder, so that the daemon itself
//! writes its key file, as the user that has to read it.
//!
//! One request and one answer a connection, each one line of JSON. Only the daemon's own user and root may ask. Where no
//! daemon runs, a command does the same work on the files ([`apply`]).

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
/// Longest path of a socket that every system takes, bytes; a longer one is reached through its folder's descriptor.
const MAX_PATH_BYTES: usize = 100;
/// Longest request, bytes: a name of 128 and a handful of scopes.
const MAX_REQUEST_BYTES: u64 = 16 * 1024;
/// Longest answer, bytes: keys by the ten thousand.
const MAX_ANSWER_BYTES: u64 = 16 * 1024 * 1024;
/// How long the daemon waits for a request, and a command for the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Wait after a failed accept (out of descriptors), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a key command wants.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Request {
    /// A new key.
    Create {
        /// Its name.
        name: String,
        /// What it opens, by name.
        scopes: Vec<String>,
    },
    /// All keys, revoked ones too.
    List,
    /// No more of this key.
    Revoke {
        /// Its name.
        name: String,
    },
}

/// What came of it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Answer {
    /// The key that was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The keys that there are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<Entry>,
    /// Why nothing was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Does what is asked, on the key file.
///
/// # Errors
/// The file cannot be used, or the request names what it must not.
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

/// Asks the daemon that runs on `folder`; `None`: none runs there.
///
/// # Errors
/// A daemon is there and does not answer, or refuses to talk to this user.
pub fn ask(folder: &Path, request: &Request) -> Result<Option<Answer>, KeyError> {
    let path = folder.join(FILE);
    let failed = |error| KeyError::File { path: path.clone(), error };
    let connected = reachable(folder).and_then(|(at, _folder)| UnixStream::connect(at));
    let mut stream = match connected {
        Ok(stream) => stream,
        // A folder that is closed to this user is named by whoever looks for the files.
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
        Ok(0) => Err(failed(io::Error::other("the daemon hung up without an answer"))),
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
    /// Binds the socket in `folder`, in place of one that a dead daemon left: call it with the folder locked.
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

    /// Answers one command after the other until `stop`, then takes the socket away. Drop it to stop at once.
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
                                tracing::warn!(%error, "a key command could not be accepted");
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
        // Best effort: the next start takes a stale one away.
        let _ = fs::remove_file(path);
    }
}

/// The socket's path, through its folder's descriptor where it is too long; that descriptor must live as long as the path.
fn reachable(folder: &Path) -> io::Result<(PathBuf, Option<fs::File>)> {
    let path = folder.join(FILE);
    if path.as_os_str().len() <= MAX_PATH_BYTES {
        return Ok((path, None));
    }
    use std::os::fd::AsRawFd as _;
    let folder = fs::File::open(folder)?;
    Ok((PathBuf::from(format!("/proc/self/fd/{}/{FILE}", folder.as_raw_fd())), Some(folder)))
}

/// # Cancel safety
/// Dropped, a request that was read may still be done.
async fn answer(mut stream: tokio::net::UnixStream, keys: &Keys) -> io::Result<()> {
    let (uid, own) = (stream.peer_cred()?.uid(), owner::effective_uid());
    // Read whoever asks: a socket that closes on unread bytes resets, and the refusal would be lost.
    let mut line = String::new();
    let (read, _) = stream.split();
    tokio::io::BufReader::new(read.take(MAX_REQUEST_BYTES)).read_line(&mut line).await?;
    let answer = if uid == 0 || uid == own {
        match serde_json::from_str(&line) {
            Ok(request) => {
                let keys = keys.clone();
                // Syncs a file: not on a runtime's thread.
                let done = tokio::task::spawn_blocking(move || keys.apply(&request)).await.map_err(io::Error::other)?;
                done.unwrap_or_else(|error| Answer { error: Some(error.to_string()), ..Answer::default() })
            }
            Err(error) => Answer { error: Some(format!("no request: {error}")), ..Answer::default() },
        }
    } else {
        let message = format!("keys are managed by {} or root, and {} asked", owner::user(own), owner::user(uid));
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
    fn folder_without_a_daemon_has_nobody_to_ask() {
        let folder = tempfile::tempdir().expect("folder");
        assert!(ask(folder.path(), &Request::List).expect("nobody").is_none());
        assert!(ask(&folder.path().join("not/there"), &Request::List).expect("nobody").is_none());
        // A killed daemon leaves its socket file behind; nobody listens on it.
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
