//! `sidetone cert`: a certificate for local use.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use rcgen::{CertificateParams, DnType, IsCa, KeyPair, SanType};

use super::out::say;
use crate::base::owner;

/// Options of `sidetone cert`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sidetone cert --self-signed                        cert.pem and key.pem for localhost, 127.0.0.1 and ::1
  sidetone cert --self-signed --host voice.lan --dir /etc/sidetone

Then, in the configuration:
  [tls]
  cert = \"cert.pem\"
  key = \"key.pem\"
and, for the clients: SSL_CERT_FILE=cert.pem (Python), NODE_EXTRA_CA_CERTS=cert.pem (Node).")]
pub(crate) struct CertArgs {
    /// Sign it with its own key; this is the only kind of certificate that the command makes
    #[arg(long, required = true)]
    self_signed: bool,
    /// A further name or address of this machine; may be repeated
    #[arg(long, value_name = "NAME|ADDR")]
    host: Vec<String>,
    /// Folder for cert.pem and key.pem
    #[arg(long, value_name = "DIR", default_value = ".", value_parser = super::absolute())]
    dir: PathBuf,
    /// Replace existing files
    #[arg(long)]
    force: bool,
}

/// Runs the command.
///
/// # Errors
/// A name cannot be certified, or a file exists already or cannot be written.
pub(crate) fn run(args: &CertArgs) -> Result<ExitCode> {
    let (cert_path, key_path) = (args.dir.join("cert.pem"), args.dir.join("key.pem"));
    if !args.force {
        for path in [&cert_path, &key_path] {
            if path.exists() {
                bail!("{} exists; --force replaces it", path.display());
            }
        }
    }
    let (cert, key) = make(&args.host)?;
    std::fs::create_dir_all(&args.dir).with_context(|| format!("cannot create {}", args.dir.display()))?;
    std::fs::write(&cert_path, cert).with_context(|| format!("cannot write {}", cert_path.display()))?;
    write_private(&key_path, &key).with_context(|| format!("cannot write {}", key_path.display()))?;
    // If root makes the files in a daemon's folder, the daemon must be able to read them.
    let heir = owner::heir(&args.dir);
    for path in [&cert_path, &key_path] {
        owner::give(path, heir)
            .with_context(|| format!("cannot give {} to the owner of its folder", path.display()))?;
    }
    say!("{}\n{}", cert_path.display(), key_path.display())?;
    Ok(ExitCode::SUCCESS)
}

/// Makes a certificate and its key, PEM.
fn make(hosts: &[String]) -> Result<(String, String)> {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
    for host in ["127.0.0.1", "::1"].into_iter().chain(hosts.iter().map(String::as_str)) {
        params.subject_alt_names.push(match host.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(host.try_into().with_context(|| format!("{host:?} is not a host name"))?),
        });
    }
    params.distinguished_name.push(DnType::CommonName, "sidetone");
    // Clients that are configured to trust this file look for the leaf certificate itself.
    params.is_ca = IsCa::ExplicitNoCa;
    let key = KeyPair::generate()?;
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

fn write_private(path: &std::path::Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::tls::{Acceptor, TlsConfig};

    #[test]
    fn made_certificate_can_be_served_and_its_key_is_private() {
        let folder = tempfile::tempdir().expect("folder");
        let args =
            CertArgs { self_signed: true, host: vec!["voice.lan".to_owned()], dir: folder.path().into(), force: false };
        run(&args).expect("made");
        assert!(run(&args).expect_err("is there").to_string().contains("--force"));
        let files = TlsConfig { cert: folder.path().join("cert.pem"), key: folder.path().join("key.pem") };
        Acceptor::new(files.clone()).expect("served");
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(files.key).expect("key").permissions().mode() & 0o777, 0o600);
    }
}
