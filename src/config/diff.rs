//! What a changed file changes. Pure: what follows from it is for whoever runs the instance.
//!
//! Every struct is taken apart without `..`, so that a new key does not compile until somebody said here what a change
//! of it means.

use std::fmt;

use super::{Admin, Config, Engine, Limits, Loaded, Mistake, Mistakes, Redis, Server, Store};
use crate::http::listen::Address;
use crate::{link, session::endpoint, stream};

/// What to do, if the change as a whole is possible without a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Public addresses.
    pub public: Listening,
    /// Admin addresses.
    pub admin: Listening,
    /// `trusted_proxies`, `drain`, `session_age`: in place.
    pub server: bool,
    /// In place.
    pub limits: bool,
    /// `memory`, in place.
    pub store: bool,
    /// The whole list, known by name.
    pub streams: bool,
    /// The whole list.
    pub webhooks: bool,
    /// The whole list, known by what they read and from where.
    pub redis_sources: bool,
    /// Known by their first path.
    pub endpoints: Endpoints,
}

/// Addresses that come and go. One whose mode changed goes and comes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Listening {
    pub added: Vec<Address>,
    pub removed: Vec<Address>,
}

/// Endpoints, by their first path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// New.
    pub added: Vec<String>,
    /// Their sessions are closed for good (1001).
    pub removed: Vec<String>,
    /// Changed in what a session may have: their sessions are closed and come back (1012).
    pub closed: Vec<String>,
    /// Changed otherwise: their sessions stay.
    pub changed: Vec<String>,
}

/// What leads from `old` to `new`, or every reason why only a restart does.
pub fn diff(old: &Loaded, new: &Loaded) -> Result<Changes, Mistakes> {
    let mut refused = Vec::new();
    let mut refuse = |key: String, message: &str| {
        let place = new.places.of(&key);
        let help = "change it back, or restart; until then the old file applies, whole".to_owned();
        refused.push(Mistake { key, place, message: message.to_owned(), help });
    };
    let Config { server, admin, limits, store, redis: _, streams, webhooks, redis_sources, endpoints } = &old.config;
    let (public, server) = diff_server(server, &new.config.server);
    let Admin { listen } = admin;
    let admin = diff_addresses(listen, &new.config.admin.listen);
    for (key, listening) in [("server.listen", &public), ("admin.listen", &admin)] {
        if listening.added.iter().chain(&listening.removed).any(|address| *address == Address::Systemd) {
            refuse(key.to_owned(), "passed sockets come and go with the process only");
        }
    }
    if store.engine != new.config.store.engine {
        refuse("store.engine".to_owned(), "cannot change while events are kept there");
    }
    for key in moved(&old.config, &new.config) {
        refuse(key.to_owned(), "cannot change while Redis is in use");
    }
    for (name, key, why) in cut_anew(streams, &new.config.streams) {
        refuse(format!("stream.{name}.{key}"), why);
    }
    let changes = Changes {
        public,
        admin,
        server,
        limits: limits_differ(limits, &new.config.limits),
        store: store_differs(store, &new.config.store),
        streams: *streams != new.config.streams,
        webhooks: *webhooks != new.config.webhooks,
        redis_sources: *redis_sources != new.config.redis_sources,
        endpoints: diff_endpoints(endpoints, &new.config.endpoints),
    };
    match refused.is_empty() {
        true => Ok(changes),
        false => Err(Mistakes { file: new.places.file.clone(), all: refused }),
    }
}

fn diff_server(old: &Server, new: &Server) -> (Listening, bool) {
    let Server { listen, trusted_proxies, drain, session_age } = old;
    let in_place = *trusted_proxies != new.trusted_proxies || *drain != new.drain || *session_age != new.session_age;
    (diff_addresses(listen, &new.listen), in_place)
}

fn diff_addresses(old: &[Address], new: &[Address]) -> Listening {
    let without =
        |all: &[Address], others: &[Address]| all.iter().filter(|address| !others.contains(address)).cloned().collect();
    Listening { added: without(new, old), removed: without(old, new) }
}

fn limits_differ(old: &Limits, new: &Limits) -> bool {
    let Limits { gate, topics_per_session, frame, queue, queues, replay } = old;
    *gate != new.gate
        || *topics_per_session != new.topics_per_session
        || (*frame, *queue, *queues) != (new.frame, new.queue, new.queues)
        || *replay != new.replay
}

fn store_differs(old: &Store, new: &Store) -> bool {
    let Store { engine: _, memory } = old;
    *memory != new.memory
}

/// Keys of `[redis]`, if something uses it before and after.
fn moved(old: &Config, new: &Config) -> impl Iterator<Item = &'static str> {
    let used = |config: &Config| config.store.engine == Engine::Redis || !config.redis_sources.is_empty();
    let Redis { server, prefix } = &old.redis;
    // All but these two is said by its URL.
    let link::server::Server { ca, timeout, topology: _, addresses: _, tls: _, user: _, password: _, database: _ } =
        server;
    let by_url = link::server::Server { ca: ca.clone(), timeout: *timeout, ..new.redis.server.clone() };
    let keys = [
        ("redis.url", by_url != *server),
        ("redis.prefix", *prefix != new.redis.prefix),
        ("redis.timeout", *timeout != new.redis.server.timeout),
        ("redis.ca", *ca != new.redis.server.ca),
    ];
    let both_use_it = used(old) && used(new);
    keys.into_iter().filter(move |(_, differs)| both_use_it && *differs).map(|(key, _)| key)
}

/// Streams that are in both and would be cut anew: the key that says so, and why not. All else applies in place.
fn cut_anew<'s>(
    old: &'s [stream::Settings],
    new: &'s [stream::Settings],
) -> impl Iterator<Item = (&'s str, &'static str, &'static str)> {
    let both = old.iter().filter_map(|old| Some((old, new.iter().find(|new| new.name == old.name)?)));
    both.flat_map(|(old, new)| {
        let stream::Settings { name, partitions, live, topics: _, max_events: _, max_age: _, retain: _, clear: _ } =
            old;
        let keys = [
            (*partitions != new.partitions, "partitions", "cannot change while the stream has events in their order"),
            (*live != new.live, "live", "a stream cannot win or lose its log while somebody reads it"),
        ];
        keys.into_iter().filter(|(differs, ..)| *differs).map(move |(_, key, why)| (&**name, key, why))
    })
}

fn diff_endpoints(old: &[endpoint::Settings], new: &[endpoint::Settings]) -> Endpoints {
    let name = |endpoint: &endpoint::Settings| endpoint.paths[0].as_str().to_owned();
    let in_list =
        |list: &[endpoint::Settings], one: &endpoint::Settings| list.iter().any(|other| name(other) == name(one));
    let mut endpoints = Endpoints {
        added: new.iter().filter(|one| !in_list(old, one)).map(name).collect(),
        removed: old.iter().filter(|one| !in_list(new, one)).map(name).collect(),
        ..Endpoints::default()
    };
    for (old, new) in old.iter().filter_map(|old| Some((old, new.iter().find(|new| name(new) == name(old))?))) {
        match difference(old, new) {
            Difference::None => {}
            Difference::InPlace => endpoints.changed.push(name(new)),
            Difference::Closes => endpoints.closed.push(name(new)),
        }
    }
    endpoints
}

enum Difference {
    None,
    InPlace,
    Closes,
}

fn difference(old: &endpoint::Settings, new: &endpoint::Settings) -> Difference {
    let endpoint::Settings {
        topics,
        allow,
        origins,
        format,
        paths: _,
        transports: _,
        replay: _,
        pace: _,
        select: _,
        on_slow: _,
        ping: _,
        connections_per_ip: _,
        alias: _,
        hello: _,
        commands: _,
    } = old;
    let reach = *topics != new.topics || *allow != new.allow;
    match reach || *origins != new.origins || *format != new.format {
        true => Difference::Closes,
        false if old == new => Difference::None,
        false => Difference::InPlace,
    }
}

/// One line for the log.
impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Changes { public, admin, server, limits, store, streams, webhooks, redis_sources, endpoints } = self;
        let Endpoints { added, removed, closed, changed } = endpoints;
        let addresses = |list: &[Address]| list.iter().map(Address::to_string).collect::<Vec<_>>().join(", ");
        let named = [
            ("listening on", addresses(&public.added)),
            ("no longer on", addresses(&public.removed)),
            ("admin on", addresses(&admin.added)),
            ("admin no longer on", addresses(&admin.removed)),
            ("endpoints added:", added.join(", ")),
            ("endpoints removed:", removed.join(", ")),
            ("endpoints whose sessions reconnect:", closed.join(", ")),
            ("endpoints changed in place:", changed.join(", ")),
        ];
        let whole = [
            (server, "server"),
            (limits, "limits"),
            (store, "store"),
            (streams, "streams"),
            (webhooks, "webhooks"),
            (redis_sources, "Redis sources"),
        ];
        let named = named.iter().filter(|(_, list)| !list.is_empty()).map(|(what, list)| format!("{what} {list}"));
        let whole = whole.iter().filter(|(changed, _)| **changed).map(|(_, what)| format!("{what} changed"));
        let parts: Vec<String> = named.chain(whole).collect();
        f.write_str(if parts.is_empty() { "nothing changed" } else { "" })?;
        f.write_str(&parts.join("; "))
    }
}
