//! A connection to Redis that says what it is told to and nothing else. When it breaks, make a new one.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::client::PATIENCE;
use crate::client::socket::Socket;

/// So many requests go out before their replies are read: few enough for the buffers of a socket.
const RUN: usize = 1_000;

#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    Nil,
    Int(i64),
    /// A status or a bulk string.
    Bytes(Vec<u8>),
    List(Vec<Reply>),
    /// With its code, such as `MOVED`, in front.
    Error(String),
}

pub struct Talk {
    socket: Socket,
    patience: Duration,
}

impl Reply {
    #[track_caller]
    pub fn int(&self) -> i64 {
        match self {
            Reply::Int(number) => *number,
            other => panic!("a number was expected, not {other:?}"),
        }
    }
    #[track_caller]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Reply::Bytes(bytes) => bytes,
            other => panic!("bytes were expected, not {other:?}"),
        }
    }
    #[track_caller]
    pub fn text(&self) -> String {
        String::from_utf8(self.bytes().to_vec()).expect("UTF-8")
    }
    #[track_caller]
    pub fn list(&self) -> &[Reply] {
        match self {
            Reply::List(list) => list,
            other => panic!("a list was expected, not {other:?}"),
        }
    }
    /// Itself, if it is no error.
    #[track_caller]
    pub fn ok(self) -> Reply {
        assert!(!matches!(self, Reply::Error(_)), "{self:?}");
        self
    }

    /// One reply at the start of these bytes, if it is all there, and how long it is.
    fn parse(bytes: &[u8]) -> Option<(Reply, usize)> {
        let line = memchr::memmem::find(bytes, b"\r\n")?;
        let text = std::str::from_utf8(&bytes[1..line]).expect("a first line is UTF-8");
        let number = || text.parse::<i64>().unwrap_or_else(|e| panic!("{e}: {text:?}"));
        let after = line + 2;
        match bytes[0] {
            b'+' => Some((Reply::Bytes(text.into()), after)),
            b'-' => Some((Reply::Error(text.into()), after)),
            b':' => Some((Reply::Int(number()), after)),
            b'$' | b'*' if number() < 0 => Some((Reply::Nil, after)),
            b'$' => {
                let end = after + number() as usize;
                bytes.get(end..end + 2)?;
                Some((Reply::Bytes(bytes[after..end].to_vec()), end + 2))
            }
            b'*' => {
                let (list, length) = Reply::parse_all(&bytes[after..], number() as usize)?;
                Some((Reply::List(list), after + length))
            }
            other => panic!("a reply begins with {:?}", other as char),
        }
    }

    fn parse_all(bytes: &[u8], count: usize) -> Option<(Vec<Reply>, usize)> {
        let (mut all, mut at) = (Vec::with_capacity(count), 0);
        while all.len() < count {
            let (reply, length) = Reply::parse(&bytes[at..])?;
            all.push(reply);
            at += length;
        }
        Some((all, at))
    }
}

impl Talk {
    pub fn connect(address: SocketAddr) -> io::Result<Talk> {
        Ok(Talk { socket: Socket::connect(address)?, patience: PATIENCE })
    }

    /// Waits at most so long for a reply.
    pub fn patient(self, patience: Duration) -> Talk {
        Talk { patience, ..self }
    }

    /// Says it and waits for the reply. After an error the connection is of no use any more: a reply may be on its way.
    pub fn try_call<A: AsRef<[u8]>>(&mut self, words: &[A]) -> io::Result<Reply> {
        self.send(words)?;
        self.reply()
    }

    #[track_caller]
    pub fn call<A: AsRef<[u8]>>(&mut self, words: &[A]) -> Reply {
        self.try_call(words).expect("Redis answers")
    }

    /// Says it; the reply is [`Self::reply`].
    pub fn send<A: AsRef<[u8]>>(&mut self, words: &[A]) -> io::Result<()> {
        let mut request = Vec::new();
        write(words, &mut request);
        self.socket.write(&request)
    }

    /// The next reply, or what a subscription brings.
    pub fn reply(&mut self) -> io::Result<Reply> {
        self.socket.take(Instant::now() + self.patience, Reply::parse)
    }

    #[track_caller]
    pub fn auth(&mut self, user: &str, password: &str) {
        self.call(&["AUTH", user, password]).ok();
    }

    /// How many heard it, on this node.
    #[track_caller]
    pub fn publish(&mut self, channel: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> i64 {
        self.call(&[b"PUBLISH", channel.as_ref(), payload.as_ref()]).int()
    }

    /// The same on a sharded channel; only the node that owns it takes it.
    #[track_caller]
    pub fn spublish(&mut self, channel: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> i64 {
        self.call(&[b"SPUBLISH", channel.as_ref(), payload.as_ref()]).int()
    }

    /// The id of the new entry.
    #[track_caller]
    pub fn xadd<V: AsRef<[u8]>>(&mut self, stream: &str, fields: &[(&str, V)]) -> String {
        let mut words: Vec<&[u8]> = vec![b"XADD", stream.as_bytes(), b"*"];
        words.extend(fields.iter().flat_map(|(field, value)| [field.as_bytes(), value.as_ref()]));
        self.call(&words).text()
    }

    /// Publishes all of them in few writes: how many heard each.
    #[track_caller]
    pub fn publish_all<P: AsRef<[u8]>>(&mut self, channel: &str, payloads: &[P]) -> Vec<i64> {
        let commands: Vec<[&[u8]; 3]> =
            payloads.iter().map(|payload| [b"PUBLISH".as_slice(), channel.as_bytes(), payload.as_ref()]).collect();
        self.pipeline(&commands).iter().map(Reply::int).collect()
    }

    /// Says all of them without waiting between them.
    #[track_caller]
    pub fn pipeline<'a, C: AsRef<[&'a [u8]]>>(&mut self, commands: &[C]) -> Vec<Reply> {
        let mut replies = Vec::with_capacity(commands.len());
        for run in commands.chunks(RUN) {
            let mut request = Vec::new();
            run.iter().for_each(|words| write(words.as_ref(), &mut request));
            self.socket.write(&request).expect("Redis takes it");
            let parse = |bytes: &[u8]| Reply::parse_all(bytes, run.len());
            replies.extend(self.socket.take(Instant::now() + self.patience, parse).expect("Redis answers"));
        }
        replies
    }
}

fn write<A: AsRef<[u8]>>(words: &[A], out: &mut Vec<u8>) {
    out.extend(format!("*{}\r\n", words.len()).bytes());
    for word in words {
        let word = word.as_ref();
        out.extend(format!("${}\r\n", word.len()).bytes());
        out.extend(word);
        out.extend(b"\r\n");
    }
}

#[test]
fn replies_are_read_whole_or_not_at_all() {
    let bytes = b"*5\r\n$3\r\na\r\n\r\n:-1\r\n$-1\r\n*2\r\n+OK\r\n*-1\r\n-ERR no\r\n";
    for cut in 0..bytes.len() {
        assert_eq!(Reply::parse(&bytes[..cut]), None, "at {cut}");
    }
    let inner = Reply::List(vec![Reply::Bytes(b"OK".into()), Reply::Nil]);
    let error = Reply::Error("ERR no".into());
    let list = Reply::List(vec![Reply::Bytes(b"a\r\n".into()), Reply::Int(-1), Reply::Nil, inner, error]);
    assert_eq!(Reply::parse(&[bytes.as_slice(), b":7\r\n"].concat()), Some((list, bytes.len())));
}
