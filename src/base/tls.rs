//! TLS with rustls: a client that trusts the system's root certificates, and a server whose certificate can be replaced
//! while it runs.
//!
//! Knows no protocol above TLS.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use toml::Value;

use super::settings::{Problems, Section};

/// Time limit of a client's handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Interval of checks whether the files have changed.
const LOOK: Duration = Duration::from_secs(2);

/// Does the handshake with the server `host` on `stream`.
///
/// # Errors
/// Its certificate is not trusted, or it does not use TLS.
pub async fn connect(stream: TcpStream, host: &str) -> io::Result<client::TlsStream<TcpStream>> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    TlsConnector::from(client_config(true)?).connect(name, stream).await
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A client's trusted certificates: the system's roots (`SSL_CERT_FILE` and `SSL_CERT_DIR` name others). Without
/// `roots`, for a client that will see no certificate, nothing is trusted and the system's roots are not read.
///
/// # Errors
/// The cryptography provider does not support TLS.
pub fn client_config(roots: bool) -> io::Result<Arc<ClientConfig>> {
    static CONFIGS: [OnceLock<Arc<ClientConfig>>; 2] = [const { OnceLock::new() }; 2];
    let place = &CONFIGS[usize::from(roots)];
    if let Some(config) = place.get() {
        return Ok(Arc::clone(config));
    }
    let mut trusted = RootCertStore::empty();
    if roots {
        trusted.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(trusted)
        .with_no_client_auth();
    Ok(Arc::clone(place.get_or_init(|| Arc::new(config))))
}

/// `[tls]`: certificate chain and private key, PEM.
#[derive(Debug, Clone)]
pub struct TlsConfig {
    /// Path of the certificate chain, the daemon's own certificate first.
    pub cert: PathBuf,
    /// Path of the private key.
    pub key: PathBuf,
}

impl TlsConfig {
    /// Reads the section; relative paths are resolved against `base`. `None` if there is no section, or if it is
    /// invalid.
    pub fn read(value: Option<Value>, base: &Path, problems: &mut Problems) -> Option<Self> {
        value.as_ref()?;
        let mut section = Section::new("tls", value, problems);
        let (cert, key) = (section.string("cert"), section.string("key"));
        for (name, found) in [("cert", &cert), ("key", &key)] {
            if found.is_none() && !section.has(name) {
                section.problem(name, "required, the path of a PEM file");
            }
        }
        section.finish();
        let config = Self { cert: base.join(cert?), key: base.join(key?) };
        match load(&config) {
            Ok(_) => Some(config),
            Err(error) => {
                problems.push(error.key, error.message);
                None
            }
        }
    }
}

/// What is wrong with the certificate or key file.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{key}: {message}")]
pub struct TlsError {
    key: &'static str,
    message: String,
}

/// The server's side. Clones share the certificate.
#[derive(Clone)]
pub struct Acceptor {
    files: TlsConfig,
    current: Arc<ArcSwap<ServerConfig>>,
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Acceptor").field(&self.files).finish()
    }
}

impl Acceptor {
    /// An acceptor with the certificate of `files`.
    ///
    /// # Errors
    /// A file cannot be read, or the two do not belong together.
    pub fn new(files: TlsConfig) -> Result<Self, TlsError> {
        let current = Arc::new(ArcSwap::new(load(&files)?));
        Ok(Self { files, current })
    }

    /// Does the handshake with a client.
    ///
    /// # Errors
    /// The client does not use TLS, does not trust the certificate, or takes too long.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<server::TlsStream<TcpStream>> {
        let acceptor = TlsAcceptor::from(self.current.load_full());
        tokio::time::timeout(HANDSHAKE, acceptor.accept(stream))
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no TLS handshake in time"))?
    }

    /// Loads the files again.
    ///
    /// # Errors
    /// They cannot be used; the present certificate stays in use.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.current.store(load(&self.files)?);
        Ok(())
    }

    /// Loads the files again whenever they change; never ends.
    pub async fn watch(self) {
        let mut known = self.changed();
        loop {
            tokio::time::sleep(LOOK).await;
            let now = self.changed();
            if now == known {
                continue;
            }
            // A certificate and its key are replaced one after the other, so files that do not match yet are tried
            // again.
            match self.reload() {
                Ok(()) => {
                    known = now;
                    tracing::info!(cert = %self.files.cert.display(), "the TLS certificate was replaced");
                }
                Err(error) => tracing::warn!(%error, "the TLS certificate cannot be reloaded; the old one stays in \
                    use"),
            }
        }
    }

    fn changed(&self) -> [Option<SystemTime>; 2] {
        [&self.files.cert, &self.files.key].map(|path| std::fs::metadata(path).and_then(|meta| meta.modified()).ok())
    }
}

fn load(files: &TlsConfig) -> Result<Arc<ServerConfig>, TlsError> {
    let wrong =
        |key, path: &Path, error: &dyn fmt::Display| TlsError { key, message: format!("{}: {error}", path.display()) };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&files.cert)
        .and_then(Iterator::collect)
        .map_err(|error| wrong("tls.cert", &files.cert, &error))?;
    if chain.is_empty() {
        return Err(wrong("tls.cert", &files.cert, &"it contains no certificate"));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| wrong("tls.key", &files.key, &error))?;
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong("tls.cert", &files.cert, &error))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| wrong("tls.key", &files.key, &error))?;
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(folder: &Path, names: &[&str]) -> TlsConfig {
        let made = rcgen::generate_simple_self_signed(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        let made = made.expect("certificate");
        let files = TlsConfig { cert: folder.join("cert.pem"), key: folder.join("key.pem") };
        std::fs::write(&files.cert, made.cert.pem()).expect("write");
        std::fs::write(&files.key, made.signing_key.serialize_pem()).expect("write");
        files
    }

    #[test]
    fn files_are_checked_and_replaced_as_a_whole() {
        let folder = tempfile::tempdir().expect("folder");
        let acceptor = Acceptor::new(put(folder.path(), &["localhost"])).expect("acceptor");
        let before = acceptor.current.load_full();
        let other = tempfile::tempdir().expect("folder");
        std::fs::copy(put(other.path(), &["localhost"]).key, folder.path().join("key.pem")).expect("copy");
        assert!(acceptor.reload().is_err_and(|error| error.to_string().starts_with("tls.key: ")));
        assert!(Arc::ptr_eq(&before, &acceptor.current.load_full()), "what was in use stays");
        put(folder.path(), &["localhost"]);
        acceptor.reload().expect("reload");
        assert!(!Arc::ptr_eq(&before, &acceptor.current.load_full()));
    }
}
