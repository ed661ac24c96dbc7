//! A blocking TCP socket that is read up to a deadline, whole thing by whole thing.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Instant;

/// What came and was not taken yet stays in `buffer`: a deadline that passes loses nothing.
pub struct Socket {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Socket {
    pub fn connect(address: SocketAddr) -> io::Result<Socket> {
        Socket::over(TcpStream::connect(address)?)
    }

    /// The same from an address of this machine's own: all of 127.0.0.0/8 are.
    pub fn connect_from(source: Ipv4Addr, address: SocketAddr) -> io::Result<Socket> {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((source, 0)).into())?;
        socket.connect(&address.into())?;
        Socket::over(socket.into())
    }

    fn over(stream: TcpStream) -> io::Result<Socket> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(super::PATIENCE))?;
        Ok(Socket { stream, buffer: Vec::new() })
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Waits until `parse` finds something whole at the start of what came, and takes that many bytes.
    pub fn take<T>(&mut self, deadline: Instant, mut parse: impl FnMut(&[u8]) -> Option<(T, usize)>) -> io::Result<T> {
        loop {
            if let Some((whole, length)) = parse(&self.buffer) {
                self.buffer.drain(..length);
                return Ok(whole);
            }
            self.fill(deadline)?;
        }
    }

    /// What is there until the other side ends.
    pub fn rest(&mut self, deadline: Instant) -> io::Result<Vec<u8>> {
        loop {
            match self.fill(deadline) {
                Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(std::mem::take(&mut self.buffer)),
                other => other?,
            }
        }
    }

    fn fill(&mut self, deadline: Instant) -> io::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        let mut chunk = [0; 64 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                self.buffer.extend_from_slice(&chunk[..n]);
                Ok(())
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => Ok(()),
            // What Linux says when a read timeout passes.
            Err(e) if e.kind() == ErrorKind::WouldBlock => Err(ErrorKind::TimedOut.into()),
            // Closed with something of ours unread: for a reader that is an end like any other.
            Err(e) if e.kind() == ErrorKind::ConnectionReset => Err(ErrorKind::UnexpectedEof.into()),
            Err(e) => Err(e),
        }
    }
}
