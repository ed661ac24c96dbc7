//! What `[[endpoint]]` says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::gate::origin::Origins;
use crate::http::path::PathPattern;
use crate::metrics::EndpointCounters;
use crate::select::{Field, Fields};
use crate::template::{Json, Text};
use crate::topic::Pattern;
use crate::wire::form::{Format, Transport};

/// An endpoint: one public place where subscribers connect.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct Settings {
    /// The first is its name.
    pub paths: Vec<PathPattern>,
    /// What a session gets if it asks for nothing.
    pub topics: Vec<Text>,
    /// What it may ask for.
    pub allow: Vec<Text>,
    pub transports: Vec<Transport>,
    pub origins: Origins,
    pub format: Format,
    /// For a new session.
    pub replay: Replay,
    pub pace: Vec<PaceRule>,
    pub select: Option<WhereRule>,
    pub on_slow: OnSlow,
    pub ping: Duration,
    pub connections_per_ip: Option<u32>,
    /// Names a session may use for patterns.
    pub alias: BTreeMap<String, Pattern>,
    pub hello: Option<Json>,
    /// With none, the built-in protocol applies.
    pub commands: Vec<Arc<Command>>,
}

/// What a session is sent of the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replay {
    /// Nothing.
    None,
    /// The newest so many.
    Newest(u64),
    /// The last value of each topic.
    Retained,
}

/// What happens to a session whose queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum OnSlow {
    Disconnect,
    DropOldest,
    Latest,
}

/// At most one event per topic in a while, the newest.
#[derive(Debug, Clone, PartialEq)]
pub struct PaceRule {
    /// For these topics; `**` for all.
    pub topics: Vec<Pattern>,
    /// A duration as a template: `10s`, `{query.update_interval|10}s`.
    pub every: Text,
    /// Bounds; a value outside of them is an error (400).
    pub min: Option<Duration>,
    /// The other bound.
    pub max: Option<Duration>,
}

/// `where`, with values that may be templates (a lone placeholder that is a list expands).
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct WhereRule {
    pub any: Vec<Field>,
    pub values: Vec<Json>,
    pub absent_passes: bool,
}

/// When a command applies.
#[derive(Debug, Clone, PartialEq)]
pub enum When {
    /// Anything (also binary).
    Always,
    /// This bare text.
    Text(String),
    /// A JSON object with these fields.
    Fields(Fields),
}

/// What a session may say, and what happens then; verbs in this order.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct Command {
    pub when: When,
    pub subscribe: Vec<Text>,
    pub unsubscribe: Vec<Text>,
    pub select: Option<WhereRule>,
    pub replay: Option<Replay>,
    pub publish: Option<Publish>,
    pub reply: Option<Json>,
}

/// `publish = { topic = "acks/{session.id}", body = "{.}" }`.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct Publish {
    pub topic: Text,
    pub body: Json,
}

/// An endpoint as it runs: its settings and what follows from them and from the streams.
#[derive(Debug)]
pub struct Endpoint {
    /// A number for as long as the process runs; a changed file keeps it.
    pub id: u32,
    /// What the file says.
    pub settings: Settings,
    /// The partitions its `allow` can touch, by hash, sorted.
    pub reach: Arc<[u32]>,
    /// `allow`, where no placeholder makes it differ between sessions.
    pub allow: Option<Arc<[Pattern]>>,
    /// What is counted for it.
    pub counters: Arc<EndpointCounters>,
}

impl Settings {
    /// Its first path, which is its name.
    pub fn name(&self) -> &str {
        self.paths[0].as_str()
    }

    /// Whether this changed what open sessions were promised, so that they cannot go on.
    pub fn breaks(&self, new: &Settings) -> bool {
        (&self.topics, &self.allow, &self.origins, self.format) != (&new.topics, &new.allow, &new.origins, new.format)
    }

    /// Whether its sessions need their request (path, query, headers) again after they were opened.
    pub fn needs_request(&self) -> bool {
        !self.commands.is_empty() || !self.pace.is_empty() || self.select.is_some()
    }
}
