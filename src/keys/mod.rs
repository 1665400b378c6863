//! Client keys, and what each may do. They are stored as hashes. A running daemon applies a change of the file to new
//! requests within [`FRESH`], and to open sockets within [`LOOK`].
//!
//! Knows no HTTP. A key has 200 random bits, so one SHA-256 of it is enough: it cannot be guessed.

pub mod admin;
mod file;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio_util::sync::CancellationToken;

pub use file::{Entry, create, list, revoke};

use crate::base::owner::Foreign;
use crate::base::sync::lock;
use file::{Stamp, Table};

/// Interval at which the file is checked without any request, so that open sockets learn of a revocation.
pub const LOOK: Duration = Duration::from_secs(1);
/// Maximum age of what was read: thousands of requests share one check of the file, which is a system call.
pub const FRESH: Duration = Duration::from_millis(1);
/// Name of the key in the configuration.
const CONFIGURED: &str = "server.key";

/// A permission of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Sockets of producers, and the STT proxy.
    Ingest,
    /// Reading calls and insights.
    Subscribe,
    /// Asking models.
    Gateway,
    /// Reading `/metrics`, for Prometheus.
    Metrics,
    /// Reading `/v1/usage`: tokens and cost.
    Usage,
    /// Everything.
    Admin,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 6] = [Self::Ingest, Self::Subscribe, Self::Gateway, Self::Metrics, Self::Usage, Self::Admin];

    /// The scope's name, as people type it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Subscribe => "subscribe",
            Self::Gateway => "gateway",
            Self::Metrics => "metrics",
            Self::Usage => "usage",
            Self::Admin => "admin",
        }
    }

    /// Describes for people what a key with this scope may do.
    pub fn opens(self) -> &'static str {
        match self {
            Self::Ingest => "Send turns, and use the speech-to-text proxy",
            Self::Subscribe => "Read calls, turns and insights",
            Self::Gateway => "Ask models",
            Self::Metrics => "Read /metrics",
            Self::Usage => "Read /v1/usage: tokens and cost",
            Self::Admin => "Everything, including erasing calls",
        }
    }

    /// Parses its name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == name)
    }
}

/// Whom a key identifies, and what that client may do.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The key's name.
    pub name: Arc<str>,
    pub scopes: Vec<Scope>,
    /// Cancelled when the key is revoked, which ends what it opened. Shared, because thousands of requests hold one
    /// each.
    pub revoked: Arc<CancellationToken>,
}

impl Identity {
    fn new(name: &str, scopes: Vec<Scope>) -> Self {
        Self { name: Arc::from(name), scopes, revoked: Arc::default() }
    }

    /// Returns true if the key has this scope, or `Admin`.
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.iter().any(|own| *own == scope || *own == Scope::Admin)
    }
}

/// Why keys cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be used.
    #[error("{path}: {error}")]
    File {
        /// Path of the file.
        path: PathBuf,
        /// The system's error.
        error: std::io::Error,
    },
    /// The file is not a key file of this daemon.
    #[error("{path} is not a key file of Sidetone: {reason}")]
    Damaged {
        /// Path of the file.
        path: PathBuf,
        /// The problem.
        reason: String,
    },
    /// The name is taken.
    #[error("a key named {0:?} exists already; a name is never used twice, so that old bills stay correct")]
    Taken(String),
    /// No key of that name.
    #[error("no key named {0:?}; `sidetone key list` shows all keys")]
    Unknown(String),
    /// The name is invalid.
    #[error("name: {0}")]
    Name(String),
    /// No scope is given, or an unknown one; holds the names of all scopes.
    #[error("scopes: expected at least one of {0}")]
    Scopes(String),
    /// The folder belongs to another user.
    #[error("{0}")]
    Foreign(#[from] Foreign),
}

/// The keys of a daemon. Clones share them.
#[derive(Clone)]
pub struct Keys(Arc<Inner>);

struct Inner {
    path: PathBuf,
    /// Hash of the key in the configuration, which has every scope.
    configured: Option<[u8; 32]>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// When the file was last checked.
    looked: Option<Instant>,
    /// State of the file that was last read.
    stamp: Option<Stamp>,
    /// The keys in effect.
    table: Arc<Table>,
    /// Why the file cannot be read, if it cannot.
    failing: Option<String>,
}

/// The hash under which a key is stored.
fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

/// Path of the key file in a data directory.
pub fn path(dir: &Path) -> PathBuf {
    dir.join("keys.json")
}

impl Keys {
    /// The keys in a file, which need not exist, and the one in the configuration.
    pub fn new(path: PathBuf, configured: Option<&SecretString>) -> Self {
        let configured = configured.map(|key| digest(key.expose_secret()));
        Self(Arc::new(Inner { path, configured, known: Mutex::default() }))
    }

    /// Returns true if clients need a key: as soon as one was ever created. Revoking the last one does not open access.
    pub fn needed(&self) -> bool {
        self.0.configured.is_some() || !self.table().is_empty()
    }

    /// The identity of `key`; `None` if the key is unknown or revoked.
    pub fn find(&self, key: &str) -> Option<Identity> {
        let hash = digest(key);
        if self.0.configured.is_some_and(|own| own.ct_eq(&hash).into()) {
            return Some(Identity::new(CONFIGURED, vec![Scope::Admin]));
        }
        self.table().find(&hash)
    }

    /// The identity of the key with this name, for a token that stands in for it; `None` if it is unknown or revoked.
    pub fn named(&self, name: &str) -> Option<Identity> {
        if name == CONFIGURED {
            return self.0.configured.map(|_| Identity::new(CONFIGURED, vec![Scope::Admin]));
        }
        self.table().named(name)
    }

    /// Executes the request of a key command. It takes effect at once, for open sockets too.
    ///
    /// # Errors
    /// As [`admin::apply`].
    pub fn apply(&self, request: &admin::Request) -> Result<admin::Answer, KeyError> {
        let answer = admin::apply(&self.0.path, request)?;
        drop(self.known(Duration::ZERO));
        Ok(answer)
    }

    /// Checks that the key file can be read, if there is one.
    ///
    /// # Errors
    /// The file's path, and the system's error.
    pub fn health(&self) -> Result<(), String> {
        self.known(FRESH).failing.clone().map_or(Ok(()), Err)
    }

    /// Checks the file forever, so that open sockets learn of a revocation without any request. Drop the future to
    /// stop.
    pub async fn watch(self) {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            self.table();
        }
    }

    /// The keys, at most [`FRESH`] old.
    fn table(&self) -> Arc<Table> {
        Arc::clone(&self.known(FRESH).table)
    }

    /// The state of the file, at most `age` old. The file is read again only if it has changed.
    fn known(&self, age: Duration) -> MutexGuard<'_, Known> {
        let mut known = lock(&self.0.known);
        let now = Instant::now();
        if known.looked.is_none_or(|looked| now.saturating_duration_since(looked) >= age) {
            known.looked = Some(now);
            self.look(&mut known);
        }
        known
    }

    fn look(&self, known: &mut Known) {
        match file::stamp(&self.0.path) {
            // Keys are removed by revoking them: if a missing file removed them, the daemon would be open to everybody.
            Ok(None) => {
                if known.stamp.take().is_some() {
                    tracing::error!(path = %self.0.path.display(), "the key file is missing; the last known keys stay \
                        valid");
                }
                known.failing = None;
            }
            Ok(stamp) if known.stamp == stamp => {}
            Ok(stamp) => match file::read(&self.0.path) {
                Ok(table) => {
                    known.table = Arc::new(table.replace(&known.table));
                    known.stamp = stamp;
                    known.failing = None;
                }
                Err(error) => {
                    // A damaged file stays damaged until it is written again; its mode or owner can change without
                    // that.
                    known.stamp = stamp.filter(|_| matches!(error, KeyError::Damaged { .. }));
                    failed(known, &error);
                }
            },
            Err(error) => {
                known.stamp = None;
                failed(known, &error);
            }
        }
    }
}

/// Records a failure. The last good keys stay in effect; without any, nobody gets in. Logged once, not at every check.
fn failed(known: &mut Known, error: &KeyError) {
    let message = error.to_string();
    if known.failing.as_ref() != Some(&message) {
        tracing::error!(%error, "the key file cannot be read; the last known keys stay valid");
    }
    known.failing = Some(message);
    if known.table.is_empty() {
        known.table = Arc::new(Table::closed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits until a change of the file is certain to be noticed.
    fn settle() {
        std::thread::sleep(FRESH);
    }

    #[test]
    fn keys_are_created_found_and_revoked_forever() {
        let folder = tempfile::tempdir().expect("folder");
        let path = path(folder.path());
        let keys = Keys::new(path.clone(), None);
        assert!(!keys.needed());
        let key = create(&path, "agent", &[Scope::Ingest, Scope::Subscribe]).expect("made");
        settle();
        assert!(keys.needed());
        let identity = keys.find(&key).expect("found");
        assert_eq!(
            (&*identity.name, identity.may(Scope::Ingest), identity.may(Scope::Gateway)),
            ("agent", true, false)
        );
        assert!(keys.find("wrong").is_none());
        let text = std::fs::read_to_string(&path).expect("file");
        assert!(!text.contains(&key) && !text.contains(&key[3..15]));
        assert!(matches!(create(&path, "agent", &[Scope::Admin]), Err(KeyError::Taken(_))));
        assert!(matches!(revoke(&path, "nobody"), Err(KeyError::Unknown(_))));
        revoke(&path, "agent").expect("revoked");
        settle();
        assert!(keys.find(&key).is_none());
        assert!(keys.needed());
        let other = create(&path, "boss", &[Scope::Admin]).expect("made");
        settle();
        assert!(keys.find(&other).expect("found").may(Scope::Gateway));
        let shown = list(&path).expect("list");
        assert_eq!(
            shown.iter().map(|entry| (&*entry.name, entry.revoked_at.is_some())).collect::<Vec<_>>(),
            [("agent", true), ("boss", false)]
        );
    }

    #[test]
    fn damaged_key_file_accepts_no_key() {
        let folder = tempfile::tempdir().expect("folder");
        let path = path(folder.path());
        std::fs::write(&path, "{nonsense").expect("file");
        let keys = Keys::new(path.clone(), Some(&SecretString::from("configured".to_owned())));
        assert!(keys.needed());
        assert!(keys.find("x").is_none());
        assert!(keys.find("configured").expect("configured").may(Scope::Admin));
        let keys = Keys::new(path, None);
        assert!(keys.needed());
    }

    #[test]
    fn only_holders_of_a_revoked_key_are_notified() {
        let folder = tempfile::tempdir().expect("folder");
        let path = path(folder.path());
        let keys = Keys::new(path.clone(), Some(&SecretString::from("configured".to_owned())));
        let agent = create(&path, "agent", &[Scope::Ingest]).expect("made");
        let (first, configured) = (keys.find(&agent).expect("found"), keys.named("server.key").expect("configured"));
        let boss = create(&path, "boss", &[Scope::Admin]).expect("made");
        settle();
        let boss = keys.find(&boss).expect("found");
        let again = keys.named("agent").expect("found");
        revoke(&path, "agent").expect("revoked");
        assert!(!first.revoked.is_cancelled(), "nobody has looked");
        settle();
        assert!(keys.named("agent").is_none());
        assert!(first.revoked.is_cancelled() && again.revoked.is_cancelled());
        assert!(!boss.revoked.is_cancelled() && !configured.revoked.is_cancelled());
        assert!(matches!(create(&path, "server.key", &[Scope::Ingest]), Err(KeyError::Taken(_))));
    }

    #[test]
    fn damaged_or_missing_file_keeps_the_loaded_keys() {
        let folder = tempfile::tempdir().expect("folder");
        let path = path(folder.path());
        let keys = Keys::new(path.clone(), None);
        let identity = keys.find(&create(&path, "agent", &[Scope::Ingest]).expect("made"));
        let identity = identity.expect("found");
        std::fs::write(&path, "{nonsense").expect("file");
        settle();
        assert!(keys.needed() && keys.named("agent").is_some());
        std::fs::remove_file(&path).expect("removed");
        settle();
        assert!(keys.needed() && keys.named("agent").is_some());
        assert!(!identity.revoked.is_cancelled());
        create(&path, "other", &[Scope::Ingest]).expect("made");
        settle();
        assert!(keys.named("agent").is_none() && identity.revoked.is_cancelled());
    }
}
