//! The address a client comes from, behind trusted proxies.

use std::net::{IpAddr, Ipv6Addr};

use http::header::{FORWARDED, HeaderMap};

const X_FORWARDED_FOR: &str = "x-forwarded-for";
const X_FORWARDED_HOST: &str = "x-forwarded-host";

/// Nobody stands behind more proxies than this; what is left of them is not read.
const MAX_HOPS: usize = 32;

/// A network: `10.0.0.0/8`, `::1`, `192.168.1.7`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Network {
    pub address: IpAddr,
    pub prefix: u8,
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

impl Network {
    /// Reads one; the error is for the operator.
    pub fn parse(text: &str) -> Result<Network, String> {
        let bad = || format!("`{text}` is no network; write `10.0.0.0/8`, `2001:db8::/32` or an address");
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(number::<u8>(prefix).ok_or_else(bad)?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let prefix = prefix.unwrap_or(width(address));
        if prefix > width(address) {
            return Err(format!("`{text}`: the prefix of this address is at most {}", width(address)));
        }
        let base = masked(address, prefix);
        if base != address {
            return Err(format!("`{text}` has bits beyond its prefix; is `{base}/{prefix}` or `{address}` meant?"));
        }
        Ok(Network { address, prefix }.canonical())
    }

    /// Whether the address lies in it (IPv4-mapped IPv6 counts as IPv4).
    pub fn contains(&self, ip: IpAddr) -> bool {
        let (network, ip) = (self.canonical(), ip.to_canonical());
        network.address.is_ipv4() == ip.is_ipv4() && masked(ip, network.prefix) == network.address
    }

    /// `::ffff:10.0.0.0/104` is `10.0.0.0/8`.
    fn canonical(self) -> Network {
        match self.address.to_canonical() {
            address @ IpAddr::V4(_) if self.address.is_ipv6() && self.prefix >= 96 => {
                Network { address, prefix: self.prefix - 96 }
            }
            _ => self,
        }
    }
}

impl Remote {
    /// Whether what it says about others counts: a listed network, or a Unix socket.
    pub fn is_trusted(self, trusted: &[Network]) -> bool {
        match self {
            Remote::Ip(ip) => trusted.iter().any(|network| network.contains(ip)),
            Remote::Unix => true,
        }
    }
}

impl Peer {
    /// What limits count by: IPv4 whole, IPv6 by its /64.
    pub fn key(self) -> Option<IpAddr> {
        Some(match self.0?.to_canonical() {
            IpAddr::V6(ip) => masked(IpAddr::V6(ip), 64),
            v4 => v4,
        })
    }
}

impl From<Remote> for Peer {
    fn from(remote: Remote) -> Peer {
        match remote {
            Remote::Ip(ip) => Peer(Some(ip.to_canonical())),
            Remote::Unix => Peer(None),
        }
    }
}

/// Resolves the peer: a remote that is trusted (a listed network, or a Unix socket) lets `X-Forwarded-For` or else
/// `Forwarded` (RFC 7239) speak, read from the right, skipping trusted hops; a hop that is no address ends the reading.
/// The flag says that the header was there but the remote is not trusted (worth one warning).
///
/// `X-Forwarded-For` goes first because proxies that append to it commonly pass on a `Forwarded` that the client made up.
pub fn resolve(remote: Remote, headers: &HeaderMap, trusted: &[Network]) -> (Peer, bool) {
    let plain = headers.contains_key(X_FORWARDED_FOR);
    let said = plain || headers.contains_key(FORWARDED);
    if !remote.is_trusted(trusted) {
        return (Peer::from(remote), said);
    }
    let peer = match plain {
        true => nearest(remote, hops(headers, X_FORWARDED_FOR).map(address), trusted),
        false => nearest(remote, hops(headers, FORWARDED.as_str()).map(forwarded_for), trusted),
    };
    (peer, false)
}

/// The public name that a trusted proxy was asked for (`X-Forwarded-Host`; the first, as the outermost proxy saw it).
pub fn forwarded_host(remote_trusted: bool, headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(X_FORWARDED_HOST).filter(|_| remote_trusted)?.to_str().ok()?;
    value.split(',').map(str::trim).next().filter(|host| !host.is_empty())
}

/// The first hop from the right that is not itself a trusted proxy; else the farthest that was still readable.
fn nearest(remote: Remote, hops: impl Iterator<Item = Option<IpAddr>>, trusted: &[Network]) -> Peer {
    let mut peer = Peer::from(remote);
    for hop in hops.take(MAX_HOPS) {
        let Some(ip) = hop else { break };
        peer = Peer(Some(ip.to_canonical()));
        if !Remote::Ip(ip).is_trusted(trusted) {
            break;
        }
    }
    peer
}

/// The elements of all lines of a header, the last one first; a line that is no text is one bad element.
///
/// Commas within quotes split as well: an address never has one, so a piece of a quoted text is not taken for a hop,
/// and a quote that a client left open cannot swallow what a proxy appended.
fn hops<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).iter().rev().map(|line| line.to_str().unwrap_or("?"));
    lines.flat_map(|line| line.rsplit(',')).map(str::trim).filter(|hop| !hop.is_empty())
}

/// `for=` of one element of `Forwarded`; `None` unless every pair of it is well-formed and there is exactly one.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let mut found = None;
    let mut left = element;
    loop {
        let (name, after) = left.split_once('=')?;
        let (value, after) = pair_value(after)?;
        if name.contains(['"', '\\']) {
            return None;
        }
        if name.trim().eq_ignore_ascii_case("for") && found.replace(address(value)?).is_some() {
            return None;
        }
        left = match after.trim_start() {
            "" => return found,
            more => more.strip_prefix(';')?,
        };
    }
}

/// A token or a quoted text, and what follows it. An escape in it is left as it is: no address has one.
fn pair_value(text: &str) -> Option<(&str, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(|c: char| c == ';' || c.is_whitespace()).unwrap_or(text.len());
        let (token, after) = text.split_at(end);
        return (!token.is_empty() && !token.contains(['"', '\\'])).then_some((token, after));
    };
    let mut escaped = false;
    for (i, b) in quoted.bytes().enumerate() {
        match b {
            b'"' if !escaped => return Some((&quoted[..i], &quoted[i + 1..])),
            _ => escaped = b == b'\\' && !escaped,
        }
    }
    None
}

/// An address, perhaps with a port: `192.0.2.7:4711`, `2001:db8::7`, `[2001:db8::7]:4711`. Not `unknown`, not `_hidden`.
fn address(text: &str) -> Option<IpAddr> {
    if let Some(inner) = text.strip_prefix('[') {
        let (ip, port) = inner.split_once(']')?;
        let good = port.is_empty() || is_port(port.strip_prefix(':')?);
        return ip.parse::<Ipv6Addr>().ok().filter(|_| good).map(IpAddr::V6);
    }
    match text.split_once(':') {
        Some((ip, port)) if !port.contains(':') => ip.parse().ok().filter(|_| is_port(port)),
        _ => text.parse().ok(),
    }
}

/// RFC 7239 also allows a made-up one, `_p7`.
fn is_port(text: &str) -> bool {
    number::<u16>(text).is_some() || (text.starts_with('_') && !text.contains(':'))
}

/// Digits only: `parse` alone would take `+8`.
fn number<N: std::str::FromStr>(text: &str) -> Option<N> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

fn width(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

/// The first address of the network of this size around `ip`.
fn masked(ip: IpAddr, prefix: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(prefix.into())).unwrap_or(0);
            IpAddr::V4((u32::from(ip) & mask).into())
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(prefix.into())).unwrap_or(0);
            IpAddr::V6((u128::from(ip) & mask).into())
        }
    }
}

#[cfg(test)]
mod tests;
