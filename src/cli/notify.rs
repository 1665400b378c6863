//! Reports the daemon's state to systemd (`sd_notify`), if a unit of `Type=notify` started it.

use std::os::unix::net::UnixDatagram;

/// The variable with the address of systemd's socket.
const SOCKET_VARIABLE: &str = "NOTIFY_SOCKET";

/// Sends `state`, such as `READY=1`. Does nothing without a socket to send it to; a failure is logged.
pub(crate) fn state(state: &str) {
    let Some(path) = std::env::var_os(SOCKET_VARIABLE).filter(|path| !path.is_empty()) else { return };
    if let Err(error) = send(path.as_encoded_bytes(), state) {
        tracing::warn!(%error, state, "cannot notify systemd through {SOCKET_VARIABLE}");
    }
}

fn send(path: &[u8], state: &str) -> std::io::Result<()> {
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::net::SocketAddr;
    let socket = UnixDatagram::unbound()?;
    let address = match path.strip_prefix(b"@") {
        Some(name) => abstract_address(name)?,
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path))?,
    };
    socket.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

#[cfg(target_os = "linux")]
fn abstract_address(name: &[u8]) -> std::io::Result<std::os::unix::net::SocketAddr> {
    use std::os::linux::net::SocketAddrExt as _;
    std::os::unix::net::SocketAddr::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn abstract_address(_name: &[u8]) -> std::io::Result<std::os::unix::net::SocketAddr> {
    Err(std::io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_arrives_by_path_and_by_abstract_name() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("notify");
        let by_path = UnixDatagram::bind(&path).expect("bind");
        let mut buffer = [0; 32];
        send(path.as_os_str().as_encoded_bytes(), "READY=1").expect("send");
        let length = by_path.recv(&mut buffer).expect("receive");
        assert_eq!(&buffer[..length], b"READY=1");
        let name = format!("sidetone-notify-{}", std::process::id());
        let address = abstract_address(name.as_bytes()).expect("address");
        let by_name = UnixDatagram::bind_addr(&address).expect("bind");
        send(format!("@{name}").as_bytes(), "STOPPING=1").expect("send");
        let length = by_name.recv(&mut buffer).expect("receive");
        assert_eq!(&buffer[..length], b"STOPPING=1");
        assert!(send(b"/nowhere/at/all", "READY=1").is_err());
    }
}
