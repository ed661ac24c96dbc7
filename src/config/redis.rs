//! `[redis]` and `[[source.redis]]`.

use std::path::PathBuf;

use super::Redis;
use super::mistake::Wrong;
use super::reader::Table;
use super::secret::{is_reference, kept};
use super::template::{Placeholders, topic};
use super::value::{Kind, duration, list, parsed, text, truth};
use crate::link::server::Server;
use crate::source::redis::{Reads, Settings, is_glob};
use crate::template::Roots;

/// `[redis]`.
pub fn redis(table: &mut Table<'_>) -> Option<Redis> {
    table.keep_places("redis", &["url", "prefix", "timeout", "ca"]);
    let server = table.or(
        "url",
        r#""redis://127.0.0.1:6379""#,
        url(),
        "redis://USER:PASSWORD@HOST:PORT/DB, rediss:// (TLS), unix://PATH, redis+cluster://A,B, \
         redis+sentinel://A,B/NAME; or \"env:NAME\", \"file:/path\", \"credential:name\"",
    );
    let prefix = table.or(
        "prefix",
        r#""relay""#,
        prefix(),
        "begins the names of all keys and channels of Relay's own; instances with the same are one Relay",
    );
    let timeout =
        table.or("timeout", r#""2s""#, duration("100ms", "1m"), "how long connecting may take, and an answer");
    let ca =
        table.optional("ca", ca(), "a PEM file with the authorities that rediss:// trusts instead of the system's");
    Some(Redis { server: Server { timeout, ca, ..server }, prefix })
}

/// `[[source.redis]]`; `ours` is the server of `[redis]`.
pub fn source(table: &mut Table<'_>, ours: &Server) -> Option<Settings> {
    let shard =
        table.or("shard", "false", truth(), "SSUBSCRIBE: each channel lives in one shard of a Cluster; no globs");
    let channel = if shard { text("orders").then(in_a_shard) } else { text("orders.*") };
    let channels = table.optional(
        "channels",
        names(channel),
        "Redis channels to subscribe to, and globs of them; what is published counts once, even if several match",
    );
    let streams = table.optional(
        "streams",
        names(text("billing").then(key)),
        "existing Redis Streams by their keys, read on from where the last instance stopped",
    );
    let placeholders = Placeholders::without_path(Roots::PAYLOAD | Roots::CHANNEL | Roots::NOW);
    let topic = table.or(
        "topic",
        r#""{channel}""#,
        topic("orders/{.country}", &placeholders),
        "the topic of its events; {channel} is the channel, or the key of the stream",
    );
    let server = table.optional("url", url(), "the application's Redis, if it is not that of [redis]");
    let server = server.map(|server| Server { timeout: ours.timeout, ca: ours.ca.clone(), ..server });
    check_what_is_read(table, shard);
    let reads = match channels {
        Some(channels) if shard => Reads::Sharded(channels),
        Some(channels) => Reads::Channels(channels),
        None => Reads::Streams(streams?),
    };
    if server.is_some() || !table.has("url") {
        check_once(table, &reads, server.as_ref().unwrap_or(ours));
    }
    Some(Settings { reads, topic, server })
}

fn check_what_is_read(table: &Table<'_>, shard: bool) {
    match (table.has("channels"), table.has("streams")) {
        (true, true) => table.wrong(
            "streams",
            Wrong::new("`streams` and `channels`: a source reads one or the other", "make two sources of it"),
        ),
        (false, false) => table.wrong_whole(Wrong::new(
            "nothing to read",
            "name what is read: channels = [\"orders.*\"], or streams = [\"billing\"]",
        )),
        (false, true) if shard => table
            .wrong("shard", Wrong::new("`shard` and `streams`: only channels are subscribed to", "leave out `shard`")),
        _ => {}
    }
}

/// Two sources that read the same would make two events of each.
fn check_once(table: &Table<'_>, reads: &Reads, from: &Server) {
    // What is published is heard in all databases.
    let (key, database) = match reads {
        Reads::Channels(_) | Reads::Sharded(_) => ("channels", 0),
        Reads::Streams(_) => ("streams", from.database),
    };
    let from = Server { database, ..from.clone() };
    if !table.reader().claim("source of Redis", format!("{from} {reads:?}")) {
        let wrong = "another source reads the same from the same Redis, so that each event would be there twice";
        table.wrong(key, Wrong::new(wrong, "leave out one of them"));
    }
}

/// In one order, so that a source stays the same source however its list is written.
fn names(one: Kind<String>) -> Kind<Vec<String>> {
    list(one).filled("name").then(|mut names| {
        names.sort();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(Wrong::from(format!("{:?} is there twice", pair[0]))),
            None => Ok(names),
        }
    })
}

/// Markers are published on a channel in the same shard, which takes a hash tag that they can have as well.
fn in_a_shard(channel: String) -> Result<String, Wrong> {
    if is_glob(&channel) {
        let help = "name each channel, or leave out `shard`";
        return Err(Wrong::new(format!("{channel:?} is a glob, which no shard can be asked for"), help));
    }
    let tag = channel.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
    let usable = tag.is_some_and(|(tag, rest)| !tag.is_empty() && !tag.contains('{') && !rest.contains(['{', '}']));
    match usable || !channel.contains(['{', '}']) {
        true => Ok(channel),
        false => Err(Wrong::new(
            format!("{channel:?} has braces that are no hash tag"),
            "write one pair of braces with something in it, as in \"{orders}.new\", or none",
        )),
    }
}

fn key(key: String) -> Result<String, Wrong> {
    match key.contains('*') {
        true => Err(Wrong::new(format!("{key:?} is no key: Redis Streams have no globs"), "name each stream")),
        false => Ok(key),
    }
}

fn url() -> Kind<Server> {
    kept(&["redis://127.0.0.1:6379", "env:NAME"]).then(|url| Server::parse(&url).map_err(Wrong::from))
}

fn prefix() -> Kind<String> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let parse = move |text: &str| match (1..=64).contains(&text.len()) && text.bytes().all(good) {
        true => Ok(text.to_owned()),
        false => Err(Wrong::new(format!("{text:?} is no prefix"), "write 1-64 letters, digits, `_`, `.` and `-`")),
    };
    parsed("relay", parse).matching("^[A-Za-z0-9_.-]{1,64}$")
}

fn ca() -> Kind<PathBuf> {
    text("/etc/relay/redis-ca.pem").then(|path| match is_reference(&path) {
        true => Err(Wrong::new("certificates are no secret: a path alone stands here", "leave out what is before `:`")),
        false => Ok(path.into()),
    })
}
