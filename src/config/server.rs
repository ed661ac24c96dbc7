//! `[server]`, `[admin]`, `[limits]`, `[store]`.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::mistake::Wrong;
use super::reader::Table;
use super::value::{Kind, choice, duration, integer, list, parsed, rate, size};
use super::{Admin, Engine, Limits, Server, Store};
use crate::gate::{limits, peer::Network};
use crate::http::listen::Address;

/// `[server]`.
pub fn server(table: &mut Table<'_>) -> Option<Server> {
    table.keep_places("server", &["listen"]);
    Some(Server {
        listen: table.or(
            "listen",
            r#"["127.0.0.1:8080"]"#,
            list(address()).filled("address"),
            "for subscribers and webhooks: \"IP:PORT\", \"unix:/PATH?mode=0660\", \"systemd\" (passed sockets)",
        ),
        trusted_proxies: table.or(
            "trusted_proxies",
            r#"["127.0.0.1/32", "::1/128"]"#,
            list(network()),
            "whose Forwarded or X-Forwarded-For counts, besides Unix sockets; read from the right",
        ),
        drain: table.or("drain", r#""20s""#, duration("0s", "1h"), "SIGTERM: sessions leave evenly over this time"),
        session_age: table.optional(
            "session_age",
            duration("100ms", "365d"),
            "sessions are asked to reconnect after 80-100 % of it, which spreads them over the instances",
        ),
    })
}

/// `[admin]`.
pub fn admin(table: &mut Table<'_>) -> Option<Admin> {
    table.keep_places("admin", &["listen"]);
    let doc = "health, metrics, stats; off loopback only /healthz, /readyz and /metrics. [] for none";
    Some(Admin { listen: table.or("listen", r#"["127.0.0.1:9090"]"#, list(address()), doc) })
}

/// `[limits]`.
pub fn limits(table: &mut Table<'_>) -> Option<Limits> {
    let gate = gate(table);
    let limits = Limits {
        gate,
        topics_per_session: table.or("topics_per_session", "128", integer(1..=100_000), "patterns a session may hear"),
        frame: table.or("frame", r#""64KiB""#, size("1B", "16MiB"), "the largest text or binary from a session"),
        queue: table.or(
            "queue",
            r#""256KiB""#,
            size("1KiB", "1GiB"),
            "waiting to be written to one session; an event counts its bytes + 64",
        ),
        queues: table.or(
            "queues",
            r#""512MiB""#,
            size("1KiB", "1024GiB"),
            "all queues together; above it the longest is treated as slow",
        ),
        replay: table.or(
            "replay",
            "10_000",
            integer(1..=100_000_000),
            "events that one resume may read, not send; more is a gap",
        ),
    };
    if limits.queue > limits.queues {
        table
            .wrong("queue", Wrong::new("one queue is larger than all of them together", "lower it, or raise `queues`"));
    }
    Some(limits)
}

fn gate(table: &mut Table<'_>) -> limits::Settings {
    limits::Settings {
        connections: table.or(
            "connections",
            "100_000",
            integer(1..=10_000_000),
            "of this instance; lowered, with a warning, to the file limit",
        ),
        connections_per_ip: table.or(
            "connections_per_ip",
            "64",
            integer(1..=10_000_000),
            "from one address (IPv6: one /64), over all instances in one Redis; an endpoint may set its own, lower",
        ),
        connects_per_ip: table.or("connects_per_ip", r#""20/s burst 64""#, rate(), "new connections from one address"),
        requests_per_ip: table.or("requests_per_ip", r#""100/s burst 200""#, rate(), "webhooks and polls"),
        commands_per_session: table.or(
            "commands_per_session",
            r#""10/s burst 30""#,
            rate(),
            "what one session may say",
        ),
        exempt: table.or("exempt", "[]", list(network()), "networks without limits per address"),
    }
}

/// `[store]`.
pub fn store(table: &mut Table<'_>) -> Option<Store> {
    table.keep_places("store", &["engine"]);
    let engine = choice(&[("memory", Engine::Memory), ("redis", Engine::Redis)]);
    let engine = table.or(
        "engine",
        r#""memory""#,
        engine,
        "where events are kept; \"redis\" is needed as soon as there are two instances",
    );
    let doc = "events and last values kept in process, the oldest event out first";
    Some(Store { engine, memory: table.or("memory", r#""64MiB""#, size("1KiB", "1024GiB"), doc) })
}

fn network() -> Kind<Network> {
    parsed("10.0.0.0/8", Network::parse)
}

fn address() -> Kind<Address> {
    parsed("127.0.0.1:8080", parse_address)
}

fn parse_address(text: &str) -> Result<Address, Wrong> {
    if text == "systemd" {
        return Ok(Address::Systemd);
    }
    if let Some(unix) = text.strip_prefix("unix:") {
        return parse_unix(unix);
    }
    text.parse::<SocketAddr>().map(Address::Tcp).map_err(|_| {
        Wrong::new(
            format!("{text:?} is no address"),
            "write IP and port (\"127.0.0.1:80\", \"[::]:80\"), \"unix:/run/relay.sock?mode=0660\" or \"systemd\"",
        )
    })
}

fn parse_unix(text: &str) -> Result<Address, Wrong> {
    let (path, query) = match text.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (text, None),
    };
    if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
        return Err(Wrong::new(
            format!("{path:?} is no path of a socket"),
            "write the whole path of a file: \"unix:/run/relay.sock\"",
        ));
    }
    let octal = |query: &str| {
        let digits =
            query.strip_prefix("mode=").filter(|mode| mode.bytes().all(|digit| (b'0'..=b'7').contains(&digit)))?;
        u32::from_str_radix(digits, 8).ok().filter(|mode| *mode <= 0o777)
    };
    let bad = |query| Wrong::new(format!("{query:?} is no mode of a socket"), "write it in octal: \"?mode=0660\"");
    let mode = query.map(|query| octal(query).ok_or_else(|| bad(query))).transpose()?;
    Ok(Address::Unix { path: PathBuf::from(path), mode })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let check = |text, expected: Option<Address>| assert_eq!(parse_address(text).ok(), expected, "{text}");
        let tcp = |text: &str| Some(Address::Tcp(text.parse().unwrap()));
        let unix = |path: &str, mode| Some(Address::Unix { path: path.into(), mode });
        check("127.0.0.1:8080", tcp("127.0.0.1:8080"));
        check("[::]:0", tcp("[::]:0"));
        check("systemd", Some(Address::Systemd));
        check("unix:/run/relay.sock", unix("/run/relay.sock", None));
        check("unix:/run/relay.sock?mode=0660", unix("/run/relay.sock", Some(0o660)));
        for text in
            ["", "8080", ":8080", "localhost:8080", "127.0.0.1", "::1:8080:", "unix:", "unix:relay.sock", "unix:/run/"]
        {
            check(text, None);
        }
        for text in ["unix:/a?mode=", "unix:/a?mode=+7", "unix:/a?mode=0888", "unix:/a?mode=1777", "unix:/a?user=www"] {
            check(text, None);
        }
    }
}
