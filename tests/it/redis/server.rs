//! One redis-server process in a folder of its own, which can be paused, killed and started again.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::tls::Tls;
use super::{Talk, ports};
use crate::client::soon;
use crate::harness::{fresh_folder, until};

/// Tests get in as this user whatever else the server is told about users.
const OURS: (&str, &str) = ("the-test", "lets-the-test-in");

/// How a server is to be; [`Setup::start`] starts it. Without more it keeps nothing on disk.
#[derive(Clone, Default)]
pub struct Setup {
    lines: Vec<String>,
    tls: bool,
    in_cluster: bool,
    sentinel: bool,
}

pub struct Redis {
    setup: Setup,
    folder: PathBuf,
    ports: Ports,
    tls: Option<Tls>,
    child: Mutex<Option<Child>>,
    paused: AtomicBool,
}

#[derive(Clone, Copy)]
struct Ports {
    plain: u16,
    tls: u16,
    bus: u16,
}

impl Setup {
    pub fn new() -> Setup {
        Setup::default()
    }

    /// Any line of `redis.conf`.
    pub fn line(mut self, line: impl Into<String>) -> Setup {
        self.lines.push(line.into());
        self
    }

    /// What was acknowledged is on disk.
    pub fn durable(self) -> Setup {
        self.line("appendonly yes").line("appendfsync always")
    }

    /// What was acknowledged is on disk within about a second.
    pub fn durable_within_a_second(self) -> Setup {
        self.line("appendonly yes").line("appendfsync everysec")
    }

    /// A TLS port beside the plain one, with a certificate by an authority of its own.
    pub fn tls(mut self) -> Setup {
        self.tls = true;
        self
    }

    /// The default user needs this password.
    pub fn password(self, password: &str) -> Setup {
        self.line(format!("requirepass {password}"))
    }

    /// An ACL user; `rules` such as `~relay:* &* +@all`.
    pub fn user(self, name: &str, password: &str, rules: &str) -> Setup {
        self.line(format!("user {name} on >{password} {rules}"))
    }

    pub(super) fn in_cluster(mut self) -> Setup {
        self.in_cluster = true;
        self
    }

    pub(super) fn sentinel(mut self) -> Setup {
        self.sentinel = true;
        self
    }

    /// Starts it and waits until it is ready.
    #[track_caller]
    pub fn start(self) -> Redis {
        let folder = fresh_folder();
        let tls = self.tls.then(|| Tls::make(&folder));
        let ports = Ports { plain: 0, tls: 0, bus: 0 };
        let mut redis =
            Redis { setup: self, folder, ports, tls, child: Mutex::default(), paused: AtomicBool::default() };
        // Another test run may take a port in the moment before the server does.
        for _ in 0..5 {
            redis.ports = Ports { plain: ports::free(), tls: ports::free(), bus: ports::free() };
            redis.write_config();
            redis.spawn(&[]);
            if redis.becomes_ready() {
                return redis;
            }
        }
        panic!("redis-server does not start:\n{}", redis.log());
    }

    fn config(&self, folder: &Path, ports: Ports, tls: Option<&Tls>) -> String {
        let at = |name: &str| folder.join(name).display().to_string();
        let mut lines = vec![
            format!("port {}", ports.plain),
            "bind 127.0.0.1".into(),
            "protected-mode no".into(),
            "daemonize no".into(),
            format!("dir {}", at("data")),
        ];
        if !self.sentinel {
            lines.push(format!("unixsocket {}", at("redis.sock")));
            lines.extend(["save \"\"".into(), "repl-diskless-sync-delay 0".into()]);
            lines.push(format!("user {} on >{} ~* &* +@all", OURS.0, OURS.1));
        }
        if self.in_cluster {
            lines.push("cluster-enabled yes".into());
            lines.push(format!("cluster-port {}", ports.bus));
            // Not among the data, so that a node that comes back empty still is that node.
            lines.push(format!("cluster-config-file {}", at("nodes.conf")));
        }
        if let Some(tls) = tls {
            lines.push(format!("tls-port {}", ports.tls));
            lines.push(format!("tls-ca-cert-file {}", tls.ca.display()));
            lines.push(format!("tls-cert-file {}\ntls-key-file {}", tls.cert.display(), tls.key.display()));
            lines.push("tls-auth-clients no".into());
        }
        lines.extend(self.lines.iter().cloned());
        lines.join("\n") + "\n"
    }
}

impl Redis {
    /// One that keeps nothing on disk.
    #[track_caller]
    pub fn start() -> Redis {
        Setup::new().start()
    }

    pub fn port(&self) -> u16 {
        self.ports.plain
    }

    pub fn bus_port(&self) -> u16 {
        self.ports.bus
    }

    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports.plain).into()
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    pub fn url_as(&self, user: &str, password: &str) -> String {
        format!("redis://{user}:{password}@{}", self.address())
    }

    pub fn unix_url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.join("redis.sock")
    }

    #[track_caller]
    pub fn tls_url(&self) -> String {
        assert!(self.tls.is_some(), "it was set up without TLS");
        format!("rediss://127.0.0.1:{}", self.ports.tls)
    }

    /// The certificate of the authority that signed this server's.
    #[track_caller]
    pub fn ca(&self) -> &Path {
        &self.tls.as_ref().expect("it was set up with TLS").ca
    }

    /// What the process said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("redis.log")).unwrap_or_default()
    }

    /// A new connection that may do everything.
    #[track_caller]
    pub fn talk(&self) -> Talk {
        self.try_talk(crate::client::PATIENCE).unwrap_or_else(|e| panic!("{}: {e}\n{}", self.address(), self.log()))
    }

    /// The same, where the server may be away; it waits at most so long for each reply.
    pub fn try_talk(&self, patience: Duration) -> io::Result<Talk> {
        let mut talk = Talk::connect(self.address())?.patient(patience);
        if !self.setup.sentinel {
            talk.try_call(&["AUTH", OURS.0, OURS.1])?;
        }
        Ok(talk)
    }

    /// One command on a connection of its own.
    #[track_caller]
    pub fn call<A: AsRef<[u8]>>(&self, words: &[A]) -> super::Reply {
        self.talk().call(words).ok()
    }

    #[track_caller]
    pub fn config_set(&self, key: &str, value: &str) {
        self.call(&["CONFIG", "SET", key, value]);
    }

    /// The fields of a section of INFO.
    #[track_caller]
    pub fn info(&self, section: &str) -> BTreeMap<String, String> {
        fields(&self.call(&["INFO", section]).text())
    }

    /// It runs and is not paused.
    pub fn is_up(&self) -> bool {
        !self.paused.load(Ordering::Acquire) && self.child.lock().expect("not poisoned").is_some()
    }

    /// Stops it where it stands (SIGSTOP): connections stay, nothing is answered.
    #[track_caller]
    pub fn pause(&self) {
        let pid = self.signal(Signal::STOP);
        let stopped = || std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") T "));
        until(stopped, || "it does not stop".into());
        self.paused.store(true, Ordering::Release);
    }

    #[track_caller]
    pub fn resume(&self) {
        self.signal(Signal::CONT);
        self.paused.store(false, Ordering::Release);
    }

    /// Ends it at once (SIGKILL).
    pub fn kill(&self) {
        if let Some(mut child) = self.child.lock().expect("not poisoned").take() {
            child.kill().expect("our own child");
            child.wait().expect("our own child");
        }
        self.paused.store(false, Ordering::Release);
    }

    /// After [`Self::kill`]: on the same port, with the data that is on disk.
    #[track_caller]
    pub fn start_again(&self) {
        self.start_again_with(&[]);
    }

    /// The same, without any data.
    #[track_caller]
    pub fn start_again_empty(&self) {
        std::fs::remove_dir_all(self.folder.join("data")).expect("it has a folder for its data");
        self.start_again();
    }

    /// The same, with more options on the command line.
    #[track_caller]
    pub fn start_again_with(&self, options: &[&str]) {
        assert!(self.child.lock().expect("not poisoned").is_none(), "it runs");
        self.spawn(options);
        self.wait_ready();
    }

    /// Waits until it answers and has its data.
    #[track_caller]
    pub fn wait_ready(&self) {
        assert!(self.becomes_ready(), "redis-server is not ready:\n{}", self.log());
    }

    fn write_config(&self) {
        let config = self.setup.config(&self.folder, self.ports, self.tls.as_ref());
        std::fs::write(self.folder.join("redis.conf"), config).expect("a file can be written");
    }

    fn spawn(&self, options: &[&str]) {
        std::fs::create_dir_all(self.folder.join("data")).expect("a folder for its data");
        let log = File::options().create(true).append(true).open(self.folder.join("redis.log")).expect("a log");
        let program = if self.setup.sentinel { "redis-sentinel" } else { "redis-server" };
        let child = Command::new(program)
            .arg(self.folder.join("redis.conf"))
            .args(options)
            .stdin(Stdio::null())
            .stderr(log.try_clone().expect("a log"))
            .stdout(log)
            .spawn()
            .unwrap_or_else(|e| panic!("{program} is installed (.ci/install)? {e}"));
        *self.child.lock().expect("not poisoned") = Some(child);
    }

    /// Whether it did before patience ended; a process that ended is none.
    fn becomes_ready(&self) -> bool {
        let deadline = soon();
        while Instant::now() < deadline {
            if self.ended() {
                return false;
            }
            if self.is_ready().unwrap_or(false) {
                return true;
            }
            thread::sleep(Duration::from_millis(5));
        }
        false
    }

    fn ended(&self) -> bool {
        let mut child = self.child.lock().expect("not poisoned");
        let ended = child.as_mut().is_none_or(|child| child.try_wait().expect("our own child").is_some());
        if ended {
            *child = None;
        }
        ended
    }

    fn is_ready(&self) -> io::Result<bool> {
        let mut talk = self.try_talk(Duration::from_secs(2))?;
        let super::Reply::Bytes(info) = talk.try_call(&["INFO"])? else { return Ok(false) };
        let info = fields(&String::from_utf8_lossy(&info));
        // Not another's that took the port.
        let is_ours = info.get("process_id").and_then(|id| id.parse().ok()) == self.pid();
        Ok(is_ours && info.get("loading").is_none_or(|loading| loading == "0"))
    }

    fn pid(&self) -> Option<u32> {
        self.child.lock().expect("not poisoned").as_ref().map(Child::id)
    }

    #[track_caller]
    fn signal(&self, signal: Signal) -> u32 {
        let child = self.child.lock().expect("not poisoned");
        let child = child.as_ref().expect("it runs");
        kill_process(Pid::from_child(child), signal).expect("our own child");
        child.id()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // SIGKILL ends it also while it is paused.
        self.kill();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn fields(info: &str) -> BTreeMap<String, String> {
    let pairs = info.lines().filter_map(|line| line.trim_end().split_once(':'));
    pairs.map(|(field, value)| (field.to_owned(), value.to_owned())).collect()
}
