//! HTTP/1.1 as far as tests need it: requests that are exactly what is written here, answers read to the byte.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use serde_json::Value;

use super::socket::Socket;
use super::soon;

/// A status line with its headers.
#[derive(Debug, Clone)]
pub struct Head {
    pub status: u16,
    /// As it came, with the blank line.
    pub raw: String,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub head: Head,
    pub body: Vec<u8>,
}

/// A connection that is kept for request after request.
pub struct Http {
    pub socket: Socket,
    address: SocketAddr,
}

impl Head {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.raw.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    fn parse(bytes: &[u8]) -> Option<(Head, usize)> {
        let end = memchr::memmem::find(bytes, b"\r\n\r\n")? + 4;
        let raw = String::from_utf8(bytes[..end].to_vec()).expect("an HTTP head is ASCII");
        let status = raw.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line");
        Some((Head { status, raw }, end))
    }
}

impl Answer {
    pub fn status(&self) -> u16 {
        self.head.status
    }
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: not JSON: {}", self.text()))
    }
    /// Itself, if the status is this one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Answer {
        assert_eq!(self.status(), status, "{}{}", self.head.raw, self.text());
        self
    }
}

impl Http {
    pub fn connect(address: SocketAddr) -> io::Result<Http> {
        Ok(Http { socket: Socket::connect(address)?, address })
    }

    /// The same from an address of this machine's own.
    pub fn connect_from(source: Ipv4Addr, address: SocketAddr) -> io::Result<Http> {
        Ok(Http { socket: Socket::connect_from(source, address)?, address })
    }

    /// Sends a request; nothing is added but `Host` and, with a body, `Content-Length`.
    pub fn send(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<()> {
        self.socket.write(&request_bytes(self.address, method, target, headers, body))
    }

    pub fn head(&mut self, deadline: Instant) -> io::Result<Head> {
        self.socket.take(deadline, Head::parse)
    }

    /// Reads the body that belongs to a head.
    pub fn body(&mut self, head: &Head, deadline: Instant) -> io::Result<Vec<u8>> {
        if matches!(head.status, 101 | 204 | 304) {
            return Ok(Vec::new());
        }
        if head.header("transfer-encoding").is_some_and(|v| v.contains("chunked")) {
            let mut body = Vec::new();
            loop {
                let chunk = self.socket.take(deadline, parse_chunk)?;
                if chunk.is_empty() {
                    return Ok(body);
                }
                body.extend(chunk);
            }
        }
        match head.header("content-length") {
            Some(length) => {
                let length: usize = length.parse().expect("a length");
                self.socket.take(deadline, |bytes| bytes.get(..length).map(|body| (body.to_vec(), length)))
            }
            None => self.socket.rest(deadline),
        }
    }

    pub fn answer(&mut self, deadline: Instant) -> io::Result<Answer> {
        loop {
            let head = self.head(deadline)?;
            if head.status != 100 {
                let body = self.body(&head, deadline)?;
                return Ok(Answer { head, body });
            }
        }
    }

    pub fn request(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Answer> {
        self.send(method, target, headers, body)?;
        self.answer(soon())
    }
}

/// One request on a connection of its own.
#[track_caller]
pub fn request(address: SocketAddr, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut http = Http::connect(address).expect("the relay listens");
    http.request(method, target, headers, body).unwrap_or_else(|e| panic!("{method} {target}: {e}"))
}

#[track_caller]
pub fn get(address: SocketAddr, target: &str) -> Answer {
    request(address, "GET", target, &[], b"")
}

#[track_caller]
pub fn post_json(address: SocketAddr, target: &str, body: &[u8]) -> Answer {
    request(address, "POST", target, &[("Content-Type", "application/json")], body)
}

pub fn request_bytes(
    host: impl std::fmt::Display,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Vec<u8> {
    let mut text = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() || method == "POST" {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    text.push_str("\r\n");
    [text.as_bytes(), body].concat()
}

/// One HTTP chunk; the last one is empty.
pub fn parse_chunk(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let line = memchr::memmem::find(bytes, b"\r\n")?;
    let size = std::str::from_utf8(&bytes[..line]).expect("a chunk size is ASCII");
    let size = usize::from_str_radix(size, 16).unwrap_or_else(|e| panic!("{e}: chunk size {size:?}"));
    let end = line + 2 + size;
    let closing = bytes.get(end..end + 2)?;
    assert_eq!(closing, b"\r\n", "a chunk ends with a line break");
    Some((bytes[line + 2..end].to_vec(), end + 2))
}

#[test]
fn chunks_are_read_whole_or_not_at_all() {
    let bytes = b"5\r\nhello\r\n0\r\n\r\n";
    for cut in 0..10 {
        assert_eq!(parse_chunk(&bytes[..cut]), None);
    }
    assert_eq!(parse_chunk(bytes), Some((b"hello".to_vec(), 10)));
    assert_eq!(parse_chunk(&bytes[10..]), Some((vec![], 5)));
}
