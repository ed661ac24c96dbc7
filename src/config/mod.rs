//! The file: read, checked, with every mistake in its place. Below this, nobody knows that there is a file.

mod command;
pub mod diff;
mod endpoint;
mod mistake;
mod reader;
mod redis;
mod secret;
mod server;
mod source;
mod stream;
mod template;
mod units;
mod value;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use toml::de::DeTable;

use crate::gate::{limits, peer::Network};
use crate::http::listen::Address;
use crate::http::path::PathPattern;
use mistake::{Lines, Wrong};
pub use mistake::{Mistake, Mistakes, Place};
use reader::{Reader, Table};
use value::{Kind, table, tables};

/// The quickstart, compiled in.
pub const EMBEDDED: &str = include_str!("../../relay.toml");

/// A line with one of these may have a secret in it.
const SECRET_KEYS: [&str; 6] = ["verify", "bearer", "password", "value", "url", "://"];

/// What code may use, whole and checked.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct Config {
    pub server: Server,
    pub admin: Admin,
    pub limits: Limits,
    pub store: Store,
    pub redis: Redis,
    /// The last is `events`, built in unless the file has one.
    pub streams: Vec<crate::stream::Settings>,
    pub webhooks: Vec<(PathPattern, crate::source::webhook::Settings)>,
    pub redis_sources: Vec<crate::source::redis::Settings>,
    pub endpoints: Vec<crate::session::endpoint::Settings>,
}

/// `[server]`.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct Server {
    pub listen: Vec<Address>,
    pub trusted_proxies: Vec<Network>,
    pub drain: Duration,
    pub session_age: Option<Duration>,
}

/// `[admin]`.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct Admin {
    pub listen: Vec<Address>,
}

/// `[limits]`: the gate's, and the sessions'.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct Limits {
    pub gate: limits::Settings,
    pub topics_per_session: usize,
    pub frame: usize,
    pub queue: usize,
    pub queues: usize,
    pub replay: u64,
}

/// `[store]`.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct Store {
    pub engine: Engine,
    pub memory: u64,
}

/// Where events are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Engine {
    Memory,
    Redis,
}

/// `[redis]`: of the store, and of sources that name no other.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct Redis {
    pub server: crate::link::server::Server,
    /// Of every key and channel that is Relay's own.
    pub prefix: String,
}

/// A file that was read, with the places that a reload may have to point at.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct Loaded {
    pub config: Config,
    pub places: Places,
}

/// Where keys stand in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The file's name.
    pub file: String,
    keys: BTreeMap<String, Place>,
}

impl Places {
    /// Of `server.listen` or `stream.NAME.partitions`; if the file does not say it, of the table it would stand in.
    pub fn of(&self, key: &str) -> Place {
        reader::nearest(&self.keys, key).cloned().unwrap_or_default()
    }
}

/// Reads a file, whole; `name` is what mistakes call it.
pub fn read_file(path: &Path) -> Result<Loaded, Mistakes> {
    let name = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|e| Mistakes::whole(&name, format!("cannot be read: {e}")))?;
    match std::str::from_utf8(&bytes) {
        Ok(text) => load(text, &name),
        Err(e) => {
            let line = 1 + bytes[..e.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
            Err(Mistakes::whole(&name, format!("is not UTF-8, from line {line} on")))
        }
    }
}

/// Reads the text of a file: all of it, or all mistakes in it.
pub fn load(text: &str, name: &str) -> Result<Loaded, Mistakes> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let reader = Reader::default();
    let readable = keep_syntax_errors(&reader, text, errors);
    // A key is not missing, nor another unknown, because a bracket is.
    let config = readable.then(|| {
        secret::hide_urls(&reader, document.get_ref());
        let mut table = Table::new(&reader, "the file", 0..0, Some(document.get_ref()));
        let config = root(&mut table);
        table.finish();
        config
    });
    let keys = reader.finish(name, text)?;
    let config = config.flatten().expect("where nothing is wrong, everything was read");
    Ok(Loaded { config, places: Places { file: name.to_owned(), keys } })
}

/// A JSON Schema (draft 2020-12) of the file, for editors.
pub fn schema() -> serde_json::Value {
    let mut schema = reader::describe(&root);
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "relay.toml".into();
    schema
}

/// The first error of each line, for the others mostly follow from it. Whether the tree can be trusted all the same.
fn keep_syntax_errors(reader: &Reader, text: &str, errors: Vec<toml::de::Error>) -> bool {
    let lines = Lines::new(text);
    let mut by_line = BTreeMap::new();
    for error in errors {
        let span = error.span().unwrap_or_default();
        by_line.entry(lines.line(span.start)).or_insert((span, error));
    }
    let readable = by_line.values().all(|(_, error)| error.message() == "duplicate key");
    for (line, (span, error)) in by_line {
        let end = lines.end(line);
        let shown = &text[lines.end(line - 1)..end];
        // Nothing tells here what is a secret, so what might be one is not shown.
        if !shown.contains('=') || SECRET_KEYS.iter().any(|key| shown.contains(key)) {
            reader.secret(end - shown.len() + start_of_value(shown)..end);
        }
        reader.wrong(span, error.message().to_owned());
    }
    readable
}

/// Where on a line what may be a secret begins. It may have lost its quotes; the head of a table is none.
fn start_of_value(line: &str) -> usize {
    match line.find(['"', '\'', '=']) {
        Some(at) => at + usize::from(line[at..].starts_with('=')),
        None if line.trim_start().starts_with('[') => line.len(),
        None => 0,
    }
}

fn root(table: &mut Table<'_>) -> Option<Config> {
    let server = section(table, "server", self::table("[server]", server::server), "where Relay listens");
    let admin = section(table, "admin", self::table("[admin]", server::admin), "where operators look");
    let limits = section(table, "limits", self::table("[limits]", server::limits), "what nobody can exceed");
    let store = section(table, "store", self::table("[store]", server::store), "where events are kept");
    let redis = section(table, "redis", self::table("[redis]", redis::redis), "the Redis of the store and of sources");
    let doc =
        "an ordered, bounded log of events; the first whose topics match wins, a built-in last one, events, takes **";
    let earlier = stream::Earlier::default();
    let streams = tables("[[stream]]", move |table| stream::stream(table, &earlier));
    let mut streams = table.or("stream", "[]", streams, doc);
    if streams.iter().all(|stream| *stream.name != *stream::LAST) {
        streams.push(stream::last());
    }
    let (webhooks, redis_sources) = section(table, "source", sources(&redis), "where events enter");
    let most = limits.gate.connections_per_ip;
    let endpoints = tables("[[endpoint]]", move |table| endpoint::endpoint(table, most));
    let endpoints = table.or("endpoint", "[]", endpoints, "a public path where subscribers connect");
    check_addresses(table.reader(), &server, &admin);
    Some(Config { server, admin, limits, store, redis, streams, webhooks, redis_sources, endpoints })
}

type Sources = (Vec<(PathPattern, crate::source::webhook::Settings)>, Vec<crate::source::redis::Settings>);

fn sources(redis: &Redis) -> Kind<Sources> {
    let ours = redis.server.clone();
    self::table("[source]", move |table| {
        let webhooks = tables("[[source.webhook]]", source::webhook);
        let ours = ours.clone();
        let redis = tables("[[source.redis]]", move |table| redis::source(table, &ours));
        Some((
            table.or("webhook", "[]", webhooks, "events that are POSTed"),
            table.or("redis", "[]", redis, "events that are published to Redis channels, or kept in Redis Streams"),
        ))
    })
}

/// A table that need not be there: all its keys have defaults.
fn section<T: 'static>(table: &mut Table<'_>, key: &'static str, kind: Kind<T>, doc: &'static str) -> T {
    table.or(key, "{}", kind, doc)
}

/// One address cannot be bound twice (port 0 is another one each time).
fn check_addresses(reader: &Reader, server: &Server, admin: &Admin) {
    let all: Vec<&Address> = server.listen.iter().chain(&admin.listen).collect();
    let same = |a: &Address, b: &Address| match (a, b) {
        (Address::Tcp(a), Address::Tcp(b)) => a == b && a.port() != 0,
        (Address::Unix { path: a, .. }, Address::Unix { path: b, .. }) => a == b,
        (a, b) => a == b,
    };
    for (index, address) in all.iter().enumerate() {
        if all[..index].iter().any(|earlier| same(earlier, address)) {
            // One of the two may be a default, and so have no place.
            let in_admin = index >= server.listen.len() && reader.says("admin.listen");
            let key = if in_admin || !reader.says("server.listen") { "admin.listen" } else { "server.listen" };
            let help =
                "each address once, in [server] or in [admin], which listens on 127.0.0.1:9090 unless it says where";
            reader.wrong_at(key, Wrong::new(format!("`{address}` is listened on twice"), help));
        }
    }
}
