//! What stands between two processes: a proxy that fails on demand, and a balancer for several relays.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use super::ports;
use crate::client::PATIENCE;

/// Threads here only copy; there may be very many.
const STACK: usize = 64 * 1024;

/// A TCP proxy in front of one address.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<thread::JoinHandle<()>>,
}

/// A TCP proxy in front of several addresses, each connection to the next one that takes it.
pub struct Balancer(Proxy);

struct Shared {
    state: Mutex<State>,
    /// Rings when what somebody may wait for has changed: `listens`, `stalled`, the end of a connection.
    changed: Condvar,
}

struct State {
    targets: Vec<SocketAddr>,
    refuses: bool,
    listens: bool,
    stalled: bool,
    /// Nothing goes through those that came up to this one.
    deaf: u64,
    ended: bool,
    swallow: Swallow,
    /// Both ends of each connection that stands.
    connections: BTreeMap<u64, [TcpStream; 2]>,
    /// How many there were.
    accepted: u64,
}

/// What happens to replies.
#[derive(Default)]
struct Swallow {
    /// To requests that contain this.
    text: Vec<u8>,
    left: usize,
    done: usize,
}

impl Proxy {
    /// One in front of this address.
    #[track_caller]
    pub fn before(target: SocketAddr) -> Proxy {
        Proxy::start(vec![target])
    }

    fn start(targets: Vec<SocketAddr>) -> Proxy {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free()));
        let state = State {
            targets,
            refuses: false,
            listens: true,
            stalled: false,
            deaf: 0,
            ended: false,
            swallow: Swallow::default(),
            connections: BTreeMap::new(),
            accepted: 0,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        // Bound here, so that whoever has the proxy can connect to it.
        let listener = listen(address);
        let accept = {
            let shared = shared.clone();
            move || shared.accept(address, listener)
        };
        let accepting = Some(thread::Builder::new().stack_size(STACK).spawn(accept).expect("a thread"));
        Proxy { address, shared, accepting }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// From now on new connections go there.
    pub fn set_target(&self, target: SocketAddr) {
        self.shared.lock().targets = vec![target];
    }

    /// Closes all connections; new ones are taken.
    pub fn cut(&self) {
        self.shared.cut();
    }

    /// Closes all connections, and nobody listens any more.
    pub fn refuse(&self) {
        self.shared.lock().refuses = true;
        self.shared.cut();
        self.shared.wait_while(|state| state.listens);
    }

    /// Listens again.
    pub fn accept(&self) {
        self.shared.lock().refuses = false;
        self.shared.wait_while(|state| !state.listens);
    }

    /// Nothing goes through in either direction; connections stay.
    pub fn stall(&self) {
        self.shared.lock().stalled = true;
    }

    /// Nothing goes through the connections that stand now, ever again; they stay, and new ones work.
    pub fn deafen(&self) {
        let mut state = self.shared.lock();
        state.deaf = state.accepted;
    }

    /// What waited goes through, and everything after it.
    pub fn flow(&self) {
        self.shared.lock().stalled = false;
        self.shared.changed.notify_all();
    }

    /// The next so many replies are lost: the request reached the server, its reply does not come, the connection ends.
    pub fn swallow_replies(&self, count: usize) {
        self.swallow_replies_to("", count);
    }

    /// The same for replies to requests that contain this text, such as `EVALSHA`.
    pub fn swallow_replies_to(&self, text: &str, count: usize) {
        self.shared.lock().swallow = Swallow { text: text.into(), left: count, done: 0 };
    }

    /// How many replies were lost since that was asked.
    pub fn swallowed(&self) -> usize {
        self.shared.lock().swallow.done
    }

    /// How many connections there ever were.
    pub fn accepted(&self) -> u64 {
        self.shared.lock().accepted
    }
}

impl Balancer {
    #[track_caller]
    pub fn over(targets: Vec<SocketAddr>) -> Balancer {
        Balancer(Proxy::start(targets))
    }

    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// From now on new connections go to these; those that stand stay.
    pub fn set(&self, targets: Vec<SocketAddr>) {
        self.0.shared.lock().targets = targets;
    }

    /// Closes all connections.
    pub fn cut(&self) {
        self.0.cut();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.cut();
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }

    fn cut(&self) {
        for (_, ends) in std::mem::take(&mut self.lock().connections) {
            close(&ends);
        }
        self.changed.notify_all();
    }

    fn wait_while(&self, condition: impl Fn(&State) -> bool) {
        let (_state, timeout) =
            self.changed.wait_timeout_while(self.lock(), PATIENCE, |state| condition(state)).expect("not poisoned");
        assert!(!timeout.timed_out(), "after {PATIENCE:?} the proxy still is what it was");
    }

    /// The listener is the accepting thread's own; others wait for what it did.
    fn set_listens(&self, listens: bool) {
        self.lock().listens = listens;
        self.changed.notify_all();
    }

    /// Runs until the end: takes connections as long as it should.
    fn accept(self: &Arc<Self>, address: SocketAddr, listener: TcpListener) {
        let mut listener = Some(listener);
        loop {
            let (refuses, ended) = {
                let state = self.lock();
                (state.refuses, state.ended)
            };
            match (ended, refuses, &listener) {
                (true, _, _) => return,
                (false, true, Some(_)) => {
                    listener = None;
                    self.set_listens(false);
                }
                (false, true, None) => {}
                (false, false, None) => {
                    listener = Some(listen(address));
                    self.set_listens(true);
                }
                (false, false, Some(open)) => match open.accept() {
                    Ok((near, _)) => {
                        self.join(near);
                        continue;
                    }
                    Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                    Err(e) => panic!("{address}: {e}"),
                },
            }
            thread::sleep(Duration::from_millis(3));
        }
    }

    /// Joins a connection with one to the next target that takes it; if none does, it is closed.
    fn join(self: &Arc<Self>, near: TcpStream) {
        let targets = {
            let mut state = self.lock();
            state.accepted += 1;
            let (count, turn) = (state.targets.len().max(1), state.accepted as usize);
            let mut targets = state.targets.clone();
            targets.rotate_left(turn % count);
            targets
        };
        let Some(far) = targets.iter().find_map(|target| TcpStream::connect(target).ok()) else { return };
        // What was accepted from a listener that does not wait may inherit that.
        let set = |end: &TcpStream| end.set_nonblocking(false).and_then(|()| end.set_nodelay(true));
        if set(&near).and(set(&far)).is_err() {
            return;
        }
        let both = |end: &TcpStream| end.try_clone().expect("a socket can be had twice");
        let number = {
            let mut state = self.lock();
            let number = state.accepted;
            state.connections.insert(number, [both(&near), both(&far)]);
            number
        };
        let requests = Pump { shared: self.clone(), number, is_reply: false, from: both(&near), to: both(&far) };
        let replies = Pump { shared: self.clone(), number, is_reply: true, from: far, to: near };
        let swallows = Arc::new(Mutex::new(false));
        for pump in [requests, replies] {
            let swallows = swallows.clone();
            let run = move || pump.run(&swallows);
            thread::Builder::new().stack_size(STACK).spawn(run).expect("a thread");
        }
    }
}

/// Copies one direction of one connection.
struct Pump {
    shared: Arc<Shared>,
    number: u64,
    is_reply: bool,
    from: TcpStream,
    to: TcpStream,
}

impl Pump {
    /// `swallows`: the reply that comes next on this connection is to be lost.
    fn run(mut self, swallows: &Mutex<bool>) {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            match self.from.read(&mut buffer) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) | Ok(0) => break,
                Ok(length) => {
                    if !self.passes(&buffer[..length], swallows) || self.to.write_all(&buffer[..length]).is_err() {
                        break;
                    }
                }
            }
        }
        // One end closed is both closed, when what came before it has gone through.
        if let Some(ends) = self.shared.lock().connections.remove(&self.number) {
            close(&ends);
        }
    }

    /// Waits as long as nothing may pass; false if these bytes never do.
    fn passes(&self, bytes: &[u8], swallows: &Mutex<bool>) -> bool {
        let stands = |state: &State| state.connections.contains_key(&self.number);
        let state = self.shared.lock();
        let stalled = |state: &State| state.stalled || self.number <= state.deaf;
        let mut state =
            self.shared.changed.wait_while(state, |state| stalled(state) && stands(state)).expect("not poisoned");
        if !stands(&state) {
            return false;
        }
        let mut swallows = swallows.lock().expect("not poisoned");
        if self.is_reply {
            return !*swallows;
        }
        let swallow = &mut state.swallow;
        if !*swallows && swallow.left > 0 && memchr::memmem::find(bytes, &swallow.text).is_some() {
            (swallow.left, swallow.done, *swallows) = (swallow.left - 1, swallow.done + 1, true);
        }
        true
    }
}

fn close(ends: &[TcpStream; 2]) {
    for end in ends {
        let _ = end.shutdown(Shutdown::Both);
    }
}

fn listen(address: SocketAddr) -> TcpListener {
    let listener = TcpListener::bind(address).unwrap_or_else(|e| panic!("{address}: {e}"));
    listener.set_nonblocking(true).expect("a socket");
    listener
}
