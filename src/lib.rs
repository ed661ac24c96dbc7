//! # Relay, the way an event goes
//!
//! ```text
//!   webhook ─┐                                        ┌─ websocket
//!   redis   ─┼─► source ─► stream ─► hub ─► session ──┼─ sse
//!   command ─┘ (verify,   (append,  (match,  (pace,   ├─ ndjson
//!               map,       id,       encode   queue)  └─ poll
//!               dedupe)    retain)   once)
//! ```
//!
//! * [`source`] makes events of what comes in: it verifies, maps to a topic, finds the dedupe key.
//! * [`stream`] gives each event its place: one order per partition, an id, a retention, last values.
//! * [`hub`] reads the streams, once and in order, on one thread per core. A *shard* owns its sessions and their
//!   sockets, finds who hears an event, encodes it once, writes.
//! * [`session`] is what one subscriber asked for: its backlog, commands, pace.
//! * [`wire`] is bytes: frames in, frames out. It knows no socket.
//! * [`link`] keeps connections to Redis servers, for streams kept there and for sources that read from there.
//! * [`gate`] says who may come in, counting over all instances where they share a Redis; [`http`] speaks HTTP until a
//!   socket is handed to the hub.
//! * [`app`] is the only file that knows all others: build, bind, watch, reload, drain.
//!
//! ## Several instances
//! ```text
//!   source ─► one script ─► Redis Stream ─┬─► tail ─► mirror ─► hub      on every instance,
//!             (per partition)             └─► pages ─► backlog           whoever appended
//! ```
//! With `engine = "redis"` a partition's log is a Redis Stream. What is appended enters an instance by the tail, its
//! own appends too: so all deliver one order. In process a partition is the *mirror* of the newest part; older pages
//! are fetched for backlogs that want them, each once. Where Redis lost something, a *life* ends and the mirror goes
//! back. Of what applications publish to channels, every instance hears all, and the one that holds the *lease* of the
//! source appends; *markers* among the messages give each a name that is the same everywhere.
//!
//! ## Absences
//! Sources never see a session. Transports never see the hub. A webhook never calls the hub: an event enters it only by
//! being read back from its stream. Nothing below `app` and `config` reads the configuration file: each module declares
//! the settings it needs. A link knows nothing of what goes over it. `topic`, `template`, `select`, `cursor`, `wire`,
//! and `hub::index` do no I/O and read no clock.
//!
//! ## Words
//! **Event**: one immutable thing that happened. **Topic**: the name it is published under. **Pattern**: a topic with
//! wildcards. **Source**: where events enter. **Stream**: an ordered, bounded log; **partition**: the part of it that
//! has one order. **Endpoint**: a public path for subscribers. **Session**: one subscriber, accept to close.
//! **Cursor**: how far a session has read. **Gap**: events a session can no longer get, always told. **Peer**: the
//! client's address behind trusted proxies. **Close**: why a session ended. **Instance**: one running process.
//! **Reach**: the partitions that an endpoint's `allow` can touch. **Audience**: the sessions of one shard that hear the
//! same events in the same form, so that matching and encoding happen once for all of them. **Backlog**: what a session
//! still has to be sent before it is live. **Link**: a supervised connection to a Redis server. **Mirror**: the newest
//! part of a partition that is kept in Redis, in process. **Life**: the time of one epoch of a partition, from one
//! Redis process that wrote to the next. **Feed**: one `[[source.redis]]` at work. **Lease**: the right to append what
//! a source says. **Marker**: a numbered word of ours among what applications publish. **Share**: the sessions of one
//! address that one instance has, of all that count together.
#![forbid(unsafe_code)]

pub mod app;
pub mod close;
pub mod config;
pub mod cursor;
pub mod event;
pub mod gate;
pub mod http;
pub mod hub;
pub mod link;
pub mod metrics;
pub mod secret;
pub mod select;
pub mod session;
pub mod source;
pub mod stream;
pub mod template;
pub mod topic;
pub mod wire;
