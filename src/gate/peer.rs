//! The address a client comes from, behind trusted proxies.

use std::net::IpAddr;

/// A network: `10.0.0.0/8`, `::1`, `192.168.1.7`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Network {
    pub address: IpAddr,
    pub prefix: u8,
}

impl Network {
    /// Reads one; the error is for the operator.
    pub fn parse(text: &str) -> Result<Network, String> {
        let _ = text;
        todo!()
    }
    /// Whether the address lies in it (IPv4-mapped IPv6 counts as IPv4).
    pub fn contains(&self, ip: IpAddr) -> bool {
        let _ = ip;
        todo!()
    }
}

/// Where a connection really comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Remote {
    Ip(IpAddr),
    Unix,
}

/// Who counts. `None` is a Unix socket without a forwarded address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Peer(pub Option<IpAddr>);

impl Peer {
    /// What limits count by: IPv4 whole, IPv6 by its /64.
    pub fn key(self) -> Option<IpAddr> {
        todo!()
    }
}

/// Resolves the peer: a remote that is trusted (a listed network, or a Unix socket) lets `Forwarded` (RFC 7239) or else
/// `X-Forwarded-For` speak, read from the right, skipping trusted hops. The flag says that the header was there but
/// the remote is not trusted (worth one warning).
pub fn resolve(remote: Remote, headers: &http::HeaderMap, trusted: &[Network]) -> (Peer, bool) {
    let _ = (remote, headers, trusted);
    todo!()
}
