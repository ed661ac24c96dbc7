//! Addresses: bound before anything is promised, accepted without ever waiting for a client.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::gate::peer::Remote;

/// Connections the kernel holds until they are accepted: a reconnect storm comes within milliseconds.
const BACKLOG: i32 = 4096;
/// Sent but not acknowledged for so long: the other side is gone.
const USER_TIMEOUT: Duration = Duration::from_secs(60);
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Where to listen, as the file says it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Address {
    Tcp(SocketAddr),
    Unix {
        path: PathBuf,
        mode: Option<u32>,
    },
    /// Sockets passed by systemd.
    Systemd,
}

/// A bound socket.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

/// An accepted connection.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    /// The next connection and where it comes from.
    pub async fn accept(&self) -> io::Result<(Stream, Remote)> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, remote) = listener.accept().await?;
                let socket = SockRef::from(&stream);
                socket.set_tcp_nodelay(true)?;
                socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
                socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
                Ok((Stream::Tcp(stream), Remote::Ip(remote.ip())))
            }
            Listener::Unix(listener, _) => Ok((Stream::Unix(listener.accept().await?.0), Remote::Unix)),
        }
    }

    /// Whether only this machine can reach it.
    pub fn is_local(&self) -> bool {
        match self {
            Listener::Tcp(listener) => listener.local_addr().is_ok_and(|a| a.ip().is_loopback()),
            Listener::Unix(..) => true,
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listener::Tcp(listener) => match listener.local_addr() {
                Ok(address) => write!(f, "http://{address}"),
                Err(_) => write!(f, "http://?"),
            },
            Listener::Unix(_, path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => write!(f, "{address}"),
            Address::Unix { path, .. } => write!(f, "unix:{}", path.display()),
            Address::Systemd => write!(f, "systemd"),
        }
    }
}

impl Stream {
    /// The socket itself, no longer known to the runtime.
    pub fn into_socket(self) -> io::Result<Socket> {
        Ok(match self {
            Stream::Tcp(stream) => stream.into_std()?.into(),
            Stream::Unix(stream) => stream.into_std()?.into(),
        })
    }
}

/// Sockets that systemd passed, by the name of their unit's `FileDescriptorName=`.
pub struct Passed(HashMap<bool, Vec<Listener>>);

impl Passed {
    /// Takes them from the environment, once at start. `admin` is the name of those for the admin address.
    pub fn from_env() -> anyhow::Result<Passed> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let names: Vec<&str> = names.split(':').collect();
        let mut passed = listenfd::ListenFd::from_env();
        let mut listeners: HashMap<bool, Vec<Listener>> = HashMap::new();
        for at in 0..passed.len() {
            let listener = take(&mut passed, at).context("a socket passed by systemd is neither TCP nor Unix")?;
            listeners.entry(names.get(at) == Some(&"admin")).or_default().push(listener);
        }
        Ok(Passed(listeners))
    }

    /// Those for the public or the admin address.
    pub fn take(&mut self, admin: bool) -> Vec<Listener> {
        self.0.remove(&admin).unwrap_or_default()
    }
}

fn take(passed: &mut listenfd::ListenFd, at: usize) -> anyhow::Result<Listener> {
    if let Ok(Some(tcp)) = passed.take_tcp_listener(at) {
        tcp.set_nonblocking(true)?;
        return Ok(Listener::Tcp(TcpListener::from_std(tcp)?));
    }
    let unix = passed.take_unix_listener(at)?.context("it was taken already")?;
    unix.set_nonblocking(true)?;
    let path = unix.local_addr()?.as_pathname().unwrap_or(Path::new("(unnamed)")).to_owned();
    Ok(Listener::Unix(UnixListener::from_std(unix)?, path))
}

/// Binds one address of the file.
pub fn bind(address: &Address) -> anyhow::Result<Listener> {
    match address {
        Address::Tcp(address) => bind_tcp(*address).with_context(|| format!("cannot listen on {address}")),
        Address::Unix { path, mode } => {
            bind_unix(path, *mode).with_context(|| format!("cannot listen on unix:{}", path.display()))
        }
        Address::Systemd => anyhow::bail!("sockets of systemd are passed at start only"),
    }
}

fn bind_tcp(address: SocketAddr) -> anyhow::Result<Listener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.ip() == IpAddr::from([0u16; 8]) {
        socket.set_only_v6(false)?; // `[::]` is every address of this machine
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(Listener::Tcp(TcpListener::from_std(socket.into())?))
}

fn bind_unix(path: &Path, mode: Option<u32>) -> anyhow::Result<Listener> {
    // What an earlier process left behind; a socket that somebody still answers on is not ours to take.
    if std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket()) {
        anyhow::ensure!(std::os::unix::net::UnixStream::connect(path).is_err(), "another process listens there");
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    if let Some(mode) = mode {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    }
    Ok(Listener::Unix(listener, path.to_owned()))
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(())) // a socket keeps nothing back
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
