//! Client keys: who may do what. Hashed at rest; a change of the file holds at once in a running daemon.
//!
//! Knows no HTTP. A key is 200 random bits, so that one SHA-256 of it is as good as it gets: there is nothing to guess.

mod file;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

pub use file::{Entry, create, list, revoke};

use file::{Stamp, Table};

/// What a key opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Sockets of producers, and the STT proxy.
    Ingest,
    /// Reading calls and insights.
    Subscribe,
    /// Asking models.
    Gateway,
    /// Everything.
    Admin,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Ingest, Self::Subscribe, Self::Gateway, Self::Admin];

    /// As it is typed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Subscribe => "subscribe",
            Self::Gateway => "gateway",
            Self::Admin => "admin",
        }
    }

    /// Reads its name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == name)
    }
}

/// Whose key it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The key's name.
    pub name: Arc<str>,
    /// What it opens.
    pub scopes: Vec<Scope>,
}

impl Identity {
    /// Whether it opens this.
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
        /// Which.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// The file is none of ours.
    #[error("{path} is no key file of ours: {reason}")]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The name is taken.
    #[error("a key named {0:?} is there already; names are never used twice, so that old bills stay true")]
    Taken(String),
    /// No key of that name.
    #[error("no key named {0:?}")]
    Unknown(String),
    /// The name is none.
    #[error("name: {0}")]
    Name(String),
}

/// The keys of a daemon. Clones are the same keys.
#[derive(Clone)]
pub struct Keys(Arc<Inner>);

struct Inner {
    path: PathBuf,
    /// From the configuration: one key with every scope.
    configured: Option<[u8; 32]>,
    known: Mutex<(Option<Stamp>, Arc<Table>)>,
}

/// The hash under which a key is kept.
fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

/// Where the keys of a daemon with this journal are.
pub fn path(journal: &Path) -> PathBuf {
    journal.join("keys.json")
}

impl Keys {
    /// The keys in a file, which need not be there, and the one of the configuration.
    pub fn new(path: PathBuf, configured: Option<&SecretString>) -> Self {
        let configured = configured.map(|key| digest(key.expose_secret()));
        Self(Arc::new(Inner { path, configured, known: Mutex::new((None, Arc::default())) }))
    }

    /// Whether a key is needed: as soon as one was ever made. Revoking the last one opens nothing.
    pub fn needed(&self) -> bool {
        self.0.configured.is_some() || !self.table().is_empty()
    }

    /// Whose key this is; `None` for one that is unknown or revoked.
    pub fn find(&self, key: &str) -> Option<Identity> {
        let hash = digest(key);
        if self.0.configured.is_some_and(|own| own.ct_eq(&hash).into()) {
            return Some(Identity { name: Arc::from("server.key"), scopes: vec![Scope::Admin] });
        }
        self.table().find(&hash)
    }

    /// The file as it is now: looked at each time, read again only when it is another.
    fn table(&self) -> Arc<Table> {
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        match file::stamp(&self.0.path) {
            Ok(stamp) if known.0 != stamp => match file::read(&self.0.path) {
                Ok(table) => *known = (stamp, Arc::new(table)),
                // The last good ones hold; where there are none, nobody gets in.
                Err(error) => {
                    tracing::error!(%error, "the key file cannot be read; the keys stay as they were");
                    if known.0.is_none() {
                        known.1 = Arc::new(Table::closed());
                    }
                }
            },
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "the key file cannot be looked at; the keys stay as they were"),
        }
        Arc::clone(&known.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_found_revoked_and_never_open_again() {
        let folder = tempfile::tempdir().expect("folder");
        let path = path(folder.path());
        let keys = Keys::new(path.clone(), None);
        assert!(!keys.needed());
        let key = create(&path, "agent", &[Scope::Ingest, Scope::Subscribe]).expect("made");
        assert!(keys.needed());
        let identity = keys.find(&key).expect("found");
        assert_eq!(
            (&*identity.name, identity.may(Scope::Ingest), identity.may(Scope::Gateway)),
            ("agent", true, false)
        );
        assert_eq!(keys.find("wrong"), None);
        let text = std::fs::read_to_string(&path).expect("file");
        assert!(!text.contains(&key) && !text.contains(&key[3..15]));
        assert!(matches!(create(&path, "agent", &[Scope::Admin]), Err(KeyError::Taken(_))));
        assert!(matches!(revoke(&path, "nobody"), Err(KeyError::Unknown(_))));
        revoke(&path, "agent").expect("revoked");
        assert_eq!(keys.find(&key), None);
        assert!(keys.needed());
        let other = create(&path, "boss", &[Scope::Admin]).expect("made");
        assert!(keys.find(&other).expect("found").may(Scope::Gateway));
        let shown = list(&path).expect("list");
        assert_eq!(
            shown.iter().map(|entry| (&*entry.name, entry.revoked_at.is_some())).collect::<Vec<_>>(),
            [("agent", true), ("boss", false)]
        );
    }

    #[test]
    fn a_damaged_file_lets_nobody_in() {
        let folder = tempfile::tempdir().expect("folder");
        let path = path(folder.path());
        std::fs::write(&path, "{nonsense").expect("file");
        let keys = Keys::new(path.clone(), Some(&SecretString::from("configured".to_owned())));
        assert!(keys.needed());
        assert_eq!(keys.find("x"), None);
        assert!(keys.find("configured").expect("configured").may(Scope::Admin));
        let keys = Keys::new(path, None);
        assert!(keys.needed());
    }
}
