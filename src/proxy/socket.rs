//! Where clients connect: TCP addresses and Unix sockets, bound alike and accepted from alike.
//!
//! A Unix socket is open to its owner and group (mode 0660) and to whoever may enter its directory; TLS is not spoken on it. A file
//! left behind by a process that was killed is replaced, one that somebody still listens on is not.

use std::{
    fmt, fs, io,
    net::{IpAddr, SocketAddr},
    os::unix::{fs::FileTypeExt as _, fs::PermissionsExt as _, net::UnixStream as Probe},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpSocket, UnixListener};

use super::stream::Stream;

/// Connections the kernel keeps for us while we are busy.
const BACKLOG: u32 = 1024;
/// From when on a silent client is asked whether it is still there; it has twice that long to answer.
const TCP_KEEP_ALIVE: Duration = Duration::from_secs(60);
/// Who may connect to a Unix socket: owner and group.
const MODE: u32 = 0o660;

/// One entry of `listen`.
#[derive(Clone, PartialEq, Eq)]
pub enum Address {
    /// Address and port; port 0 picks a free one.
    Tcp(SocketAddr),
    /// `unix:` and the path of a socket.
    Unix(PathBuf),
}

/// A bound address that does not accept yet.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

// === impl Address ===

impl Address {
    /// The TCP address, if it is one.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// In lists of addresses, as it is written in `listen`.
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// === impl Listener ===

impl Listener {
    /// Binds `address`, one of `all`.
    pub(super) fn bind(address: &Address, all: &[Address]) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => bind_tcp(*address, all).map(Self::Tcp),
            Address::Unix(path) => bind_unix(path).map(|listener| Self::Unix(listener, path.clone())),
        }
    }

    /// The address it listens on, with the port that was picked.
    pub(super) fn address(&self) -> Option<Address> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok().map(Address::Tcp),
            Self::Unix(_, path) => Some(Address::Unix(path.clone())),
        }
    }

    /// The next client.
    pub(super) async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(|(stream, _)| Stream::Tcp(stream)),
            Self::Unix(listener, _) => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            // Else the next start finds it stale and replaces it.
            let _ = fs::remove_file(path);
        }
    }
}

fn bind_tcp(address: SocketAddr, all: &[Address]) -> io::Result<TcpListener> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
    socket.set_reuseaddr(true)?;
    // Accepted connections inherit it: a silent WebSocket whose client vanished must end.
    socket.set_keepalive(true)?;
    sockopt::set_tcp_keepidle(&socket, TCP_KEEP_ALIVE)?;
    sockopt::set_tcp_keepintvl(&socket, TCP_KEEP_ALIVE / 3)?;
    sockopt::set_tcp_keepcnt(&socket, 3)?;
    // `[::]` takes IPv4 too, unless that has an address of its own.
    let both = all.contains(&SocketAddr::new(IpAddr::from([0, 0, 0, 0]), address.port()).into());
    if address.ip() == IpAddr::from([0_u16; 8]) && both {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    if let Ok(there) = fs::symlink_metadata(path) {
        if !there.file_type().is_socket() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something else than a socket is there"));
        }
        match Probe::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)?,
            Ok(_) | Err(_) => return Err(io::ErrorKind::AddrInUse.into()),
        }
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(path: &Path) -> io::Result<Listener> {
        Listener::bind(&Address::Unix(path.to_owned()), &[])
    }

    #[tokio::test]
    async fn a_socket_is_replaced_only_when_nobody_listens() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.sock");
        let first = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        assert_eq!(bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        assert!(!path.exists(), "removed by its owner");

        // A killed process leaves its file.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(bind(&path).unwrap());

        fs::write(&path, "a file").unwrap();
        assert_eq!(bind(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"a file");
    }
}
