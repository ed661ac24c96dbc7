//! # Relay, the way an event goes
//!
//! ```text
//!   webhook ─┐                                        ┌─ websocket
//!   command ─┴─► source ─► stream ─► hub ─► session ──┼─ sse
//!              (verify,   (append,  (match,  (pace,   ├─ ndjson
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
//! ## Absences
//! Sources never see a session. Transports never see the hub. A webhook never calls the hub: an event enters it only by
//! being read back from its stream. Nothing below `app` and `config` reads the configuration file: each module declares
//! the settings it needs. `topic`, `template`, `select`, `cursor`, `wire`, `hub::index` do no I/O and read no clock.
//!
//! ## Words
//! **Event**: one immutable thing that happened. **Topic**: the name it is published under. **Pattern**: a topic with
//! wildcards. **Source**: where events enter. **Stream**: an ordered, bounded log; **partition**: the part of it that
//! has one order. **Endpoint**: a public path for subscribers. **Session**: one subscriber, accept to close.
//! **Cursor**: how far a session has read. **Gap**: events a session can no longer get, always told. **Peer**: the
//! client's address behind trusted proxies. **Close**: why a session ended. **Instance**: one running process.
//! **Reach**: the partitions that an endpoint's `allow` can touch. **Audience**: the sessions of one shard that hear the
//! same events in the same form, so that matching and encoding happen once for all of them. **Backlog**: what a session
//! still has to be sent before it is live. **Link**: a supervised connection to a Redis server. **Share**: the sessions
//! of one address that one instance has, of all that count together.
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
