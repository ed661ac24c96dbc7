//! Links: supervised connections to Redis servers.
//!
//! A link connects when it is asked for, and again for ever. It finds the node: the one there is, the master that the
//! Sentinels know, the owner of a key's slot in a Cluster. A [`Wire`] is one connection to one Redis process, so what it
//! has read and written is of one life. Whoever meets an error says so ([`Link::failed`]), and the next asks a new one.

mod connect;
mod node;
mod script;
pub mod server;
mod slots;
mod trouble;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use connect::Push;
use node::Node;
use redis::{Cmd, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};
pub use script::Script;
use server::{Address, Server, Topology};
use slots::Slots;
use trouble::Trouble;

/// Between two attempts to connect: short enough that a Redis that is back is found at once, long enough not to hammer.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(1000));
/// A command is sent to another node, or again while keys move, so many times before somebody else is to decide.
const REDIRECTIONS: usize = 16;

/// A supervised way to a Redis server. Clones are the same link.
#[derive(Clone)]
pub struct Link(Arc<Inner>);

struct Inner {
    server: Server,
    /// For the log: what it is for.
    name: &'static str,
    nodes: Mutex<HashMap<Address, Arc<Node>>>,
    slots: tokio::sync::Mutex<Slots>,
    trouble: Mutex<Trouble>,
    /// Somebody asks again and again whether it can be used, and only that one may say that it can.
    probed: AtomicBool,
    /// Whom the Sentinels called the master last.
    master: Mutex<Option<Address>>,
}

/// One connection to one Redis process.
#[derive(Clone)]
pub struct Wire {
    /// For commands. Replies come within the server's `timeout`, or as long as was asked for.
    pub connection: redis::aio::MultiplexedConnection,
    /// The process at the other end.
    pub run_id: Arc<str>,
    /// Where it was asked for, and where it leads: these are different behind Sentinels.
    address: Address,
    found: Address,
    number: u64,
    closed: Arc<AtomicBool>,
}

/// Why a server cannot be used now, for people. It never has a password in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Down(pub String);

/// What is to be done about a failed command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It certainly was not done, and the link knows by now where to send it instead.
    Again,
    /// Somebody else must decide.
    Failed,
}

/// Adds the arguments of a script.
pub type Fill<'a> = &'a (dyn Fn(&Wire, &mut Cmd) + Sync);

/// What is sent to one node.
enum Order<'a> {
    Script(&'a Script, &'a [Vec<u8>], Fill<'a>),
    Command(&'a Cmd),
}

impl Order<'_> {
    async fn send(&self, wire: &mut Wire, asking: bool) -> RedisResult<Value> {
        match self {
            Order::Script(script, keys, fill) => script.run(wire, keys, *fill, asking).await,
            Order::Command(command) => wire.send(command, asking).await,
        }
    }
}

impl Wire {
    /// Whether the other side is known to have closed it.
    fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    /// One command. `asking`: for a key that is on its way to this node.
    async fn send(&mut self, command: &Cmd, asking: bool) -> RedisResult<Value> {
        if !asking {
            return command.query_async(&mut self.connection).await;
        }
        let both = redis::pipe().cmd("ASKING").ignore().add_command(command.clone()).to_owned();
        let (value,) = both.query_async::<(Value,)>(&mut self.connection).await?;
        Ok(value)
    }
}

/// Pauses that grow between attempts, with jitter: for whoever holds a connection of its own.
pub struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff(PAUSE.0)
    }
}

impl Backoff {
    /// Waits before the next attempt.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.next()).await;
    }

    /// From the beginning.
    pub fn reset(&mut self) {
        self.0 = PAUSE.0;
    }

    fn next(&mut self) -> Duration {
        let pause = self.0.mul_f64(0.75 + 0.5 * fastrand::f64());
        self.0 = (self.0 * 2).min(PAUSE.1);
        pause
    }
}

impl Link {
    /// Not connected yet. `name` says in the log what it is for.
    pub fn new(server: Server, name: &'static str) -> Link {
        let slots = tokio::sync::Mutex::new(Slots::new(&server));
        Link(Arc::new(Inner {
            server,
            name,
            nodes: Mutex::default(),
            slots,
            trouble: Mutex::default(),
            probed: AtomicBool::new(false),
            master: Mutex::default(),
        }))
    }

    /// Where it leads.
    pub fn server(&self) -> &Server {
        &self.0.server
    }

    /// Why it cannot be used, as far as anybody knows.
    pub fn is_up(&self) -> Result<(), Down> {
        locked(&self.0.trouble).now.clone().map_or(Ok(()), Err)
    }

    /// The connection to the node that owns a key, which all share. Waits for one if it must be made; at once an error
    /// while it is known that there is none.
    pub async fn at(&self, key: &[u8]) -> Result<Wire, Down> {
        let node = self.node(self.locate(key).await?);
        let up = node.shared(self).await;
        if up.is_err() && self.0.server.topology == Topology::Cluster {
            self.0.slots.lock().await.doubt(); // a node that is gone may have an heir
        }
        up
    }

    /// A connection of its own to the node that owns a key: for reads that block, and for subscriptions, whose pushes go
    /// to `push`. Replies may take as long as `patience`.
    pub async fn own(&self, key: &[u8], push: Option<Push>, patience: Duration) -> Result<Wire, Down> {
        let located = self.locate(key).await;
        let made = match located {
            Ok(address) => connect::connect(&self.0.server, &address, push, patience).await,
            Err(down) => Err(down),
        };
        if made.is_err() && self.0.server.topology == Topology::Cluster {
            self.0.slots.lock().await.doubt();
        }
        self.tried(&made);
        made
    }

    /// Runs a script whose keys share a slot, where they are. `fill` adds the arguments, which may depend on the process
    /// that is asked.
    pub async fn run(&self, script: &Script, keys: &[Vec<u8>], fill: Fill<'_>) -> Result<Value, Down> {
        let slot = keys.first().map_or(&b""[..], |key| key);
        self.within(slot, self.send(slot, &Order::Script(script, keys, fill))).await
    }

    /// Runs one command on the node that owns `key`.
    pub async fn call(&self, key: &[u8], command: &Cmd) -> Result<Value, Down> {
        self.within(key, self.send(key, &Order::Command(command))).await
    }

    /// The same with a command that fails whenever a write would: the link can be used exactly if it succeeds. Asked again
    /// and again it finds what nobody else would; and who is the master, if Sentinels know.
    pub async fn probe(&self, key: &[u8], command: &Cmd) -> Result<Value, Down> {
        self.0.probed.store(true, Relaxed);
        if let Some(master) = connect::master_now(&self.0.server).await {
            *locked(&self.0.master) = Some(master);
        }
        let answer = self.call(key, command).await?;
        self.note(None);
        Ok(answer)
    }

    /// Sends it to the owner of a key, or where that one says.
    async fn send(&self, key: &[u8], order: &Order<'_>) -> Result<Value, Down> {
        let mut last = Down("no node answered".to_owned());
        let mut asked = None;
        for _ in 0..REDIRECTIONS {
            let asking = asked.is_some();
            let mut wire = match asked.take() {
                Some(address) => self.node(address).shared(self).await?,
                None => self.at(key).await?,
            };
            match order.send(&mut wire, asking).await {
                Ok(value) => {
                    if !self.0.probed.load(Relaxed) {
                        self.note(None);
                    }
                    return Ok(value);
                }
                Err(error) => {
                    let verdict = self.failed(&wire, &error).await;
                    last = self.down(&error);
                    if verdict == Verdict::Failed {
                        break;
                    }
                    if error.kind() == ErrorKind::Server(ServerErrorKind::Ask) {
                        asked = elsewhere(&error);
                    }
                }
            }
        }
        self.note(Some(&last));
        Err(last)
    }

    /// All of it within the server's `timeout`. A connection on which nothing comes back in that time is given up: the
    /// process may be stopped, and those who come next shall hear it at once.
    async fn within<T>(&self, key: &[u8], work: impl Future<Output = Result<T, Down>>) -> Result<T, Down> {
        let timeout = self.0.server.timeout;
        match tokio::time::timeout(timeout, work).await {
            Ok(done) => done,
            Err(_) => {
                if let Ok(Ok(wire)) = tokio::time::timeout(Duration::ZERO, self.at(key)).await {
                    self.give_up(&wire);
                }
                let down = Down(format!("{}: no answer within {timeout:?}", self.0.server));
                self.note(Some(&down));
                Err(down)
            }
        }
    }

    /// What a failed command means: the connection is given up, or the map of the Cluster followed, or neither.
    pub async fn failed(&self, wire: &Wire, error: &RedisError) -> Verdict {
        use ServerErrorKind as Server;
        match error.kind() {
            ErrorKind::Server(Server::Moved) => {
                self.0.slots.lock().await.moved(elsewhere(error));
                Verdict::Again
            }
            ErrorKind::Server(Server::Ask) => Verdict::Again, // this time only
            ErrorKind::Server(Server::TryAgain) => {
                tokio::time::sleep(PAUSE.0 / 4).await; // some of its keys are on their way to another node
                Verdict::Again
            }
            ErrorKind::Server(Server::ReadOnly | Server::BusyLoading | Server::MasterDown | Server::ClusterDown) => {
                self.give_up(wire);
                Verdict::Failed
            }
            ErrorKind::Server(_) if error.code() != Some("NOAUTH") => Verdict::Failed,
            _ => {
                self.give_up(wire);
                Verdict::Failed
            }
        }
    }

    /// An error as people read it.
    pub fn down(&self, error: &RedisError) -> Down {
        connect::down(&self.0.server, error)
    }

    /// This connection is not handed out any more.
    pub fn give_up(&self, wire: &Wire) {
        self.node(wire.address.clone()).give_up(wire);
    }

    async fn locate(&self, key: &[u8]) -> Result<Address, Down> {
        let server = &self.0.server;
        match &server.topology {
            // Of Sentinels the address is only a name here: the master is looked up with each attempt to connect.
            Topology::Single | Topology::Sentinel { .. } => Ok(server.addresses[0].clone()),
            Topology::Cluster => self.0.slots.lock().await.owner(server, key).await.inspect_err(|down| {
                self.note(Some(down));
            }),
        }
    }

    fn node(&self, address: Address) -> Arc<Node> {
        let mut nodes = locked(&self.0.nodes);
        nodes.entry(address.clone()).or_insert_with(|| Arc::new(Node::new(address))).clone()
    }

    /// An attempt to connect ended so.
    fn tried(&self, made: &Result<Wire, Down>) {
        self.note(made.as_ref().err());
        if let (Ok(wire), Topology::Sentinel { .. }) = (made, &self.0.server.topology) {
            *locked(&self.0.master) = Some(wire.found.clone());
        }
    }

    /// Whether the Sentinels call another the master by now. The old one may not know, and go on taking what will be lost.
    pub fn is_stale(&self, wire: &Wire) -> bool {
        locked(&self.0.master).as_ref().is_some_and(|master| *master != wire.found)
    }

    fn note(&self, down: Option<&Down>) {
        locked(&self.0.trouble).note(self.0.name, &self.0.server, down);
    }
}

/// Where a node of a Cluster says that a key is.
fn elsewhere(error: &RedisError) -> Option<Address> {
    let (host, port) = error.redirect_node()?.0.rsplit_once(':')?;
    Some(Address::Tcp { host: host.trim_matches(['[', ']']).to_owned(), port: port.parse().ok()? })
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
