//! The server under test: started on a core of its own, read from `/proc`, killed at the end.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::way::Way;
use crate::{SERVE_FLOOR, config, frames};

/// How long a server may take to be ready for everything.
const GETTING_READY: Duration = Duration::from_secs(10);

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Relay,
    Floor,
}

/// Where a relay keeps events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    Memory,
    Redis,
}

/// What a row wants of its server.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    /// Bytes of a payload; the floor has its frame ready.
    pub payload: usize,
    /// Floor: each event to one session in turn.
    pub in_turn: bool,
    /// Relay: the endpoint's `ping`.
    pub ping: &'static str,
    /// Relay: how events reach it. The floor has a way of its own.
    pub way: Way,
    /// Relay: where it keeps them.
    pub engine: Engine,
    /// Where the Redis is that way or engine need; a scene sees to it.
    pub redis: Option<SocketAddr>,
}

/// A running server.
pub struct Server {
    child: Child,
    /// Kept open: a daemon that prints must not find a broken pipe.
    _stdout: BufReader<ChildStdout>,
    _config: Option<config::File>,
    /// Where subscribers connect.
    pub public: SocketAddr,
    /// Where events go: the same for the relay, a port of its own for the floor.
    pub publish: SocketAddr,
    /// Relay: where its operators look.
    admin: Option<SocketAddr>,
    /// From the start of the process to `ready`.
    pub ready_after: Duration,
}

/// CPU time so far.
pub struct Usage {
    nanos: BTreeMap<u64, u64>,
    user_ticks: u64,
    system_ticks: u64,
}

/// CPU time of a while.
#[derive(Debug, Clone, Copy)]
pub struct Used {
    pub micros: f64,
    /// How much of it outside the kernel, 0-1.
    pub user_share: f64,
}

impl Default for Setup {
    fn default() -> Setup {
        let (way, engine) = (Way::Http, Engine::Memory);
        Setup { payload: 200, in_turn: false, ping: "25s", way, engine, redis: None }
    }
}

impl Setup {
    pub fn needs_redis(&self) -> bool {
        self.way.is_redis() || self.engine == Engine::Redis
    }

    /// How events are published to a server of this kind.
    pub fn way(&self, kind: Kind) -> Way {
        if kind == Kind::Floor { Way::Trigger } else { self.way }
    }
}

impl Server {
    pub fn start(kind: Kind, setup: &Setup) -> Result<Server> {
        let (mut command, config) = match kind {
            Kind::Floor => (floor(setup)?, None),
            Kind::Relay => {
                let file = config::write(setup)?;
                (relay(&file.0)?, Some(file))
            }
        };
        let started = Instant::now();
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("setpriv (util-linux)")?;
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let addresses = read_addresses(&mut stdout)?;
        let ready_after = started.elapsed();
        let address = |name: &str| addresses.get(name).copied();
        let public = address("public").context("the server printed no public address")?;
        let publish = address("trigger").unwrap_or(public);
        let admin = address("admin");
        Ok(Server { child, _stdout: stdout, _config: config, public, publish, admin, ready_after })
    }

    /// Ends it without a word.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// The status of `/readyz`.
    pub fn readiness(&self) -> Result<u16> {
        let admin = self.admin.context("the server printed no admin address")?;
        let mut stream = TcpStream::connect(admin)?;
        stream.set_read_timeout(Some(GETTING_READY))?;
        stream.write_all(format!("GET /readyz HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n").as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(frames::head(&answer).context("/readyz has no head")?.0)
    }

    /// Waits until it says that everything it needs is there.
    pub fn wait_ready(&self) -> Result<()> {
        let started = Instant::now();
        while self.readiness()? != 200 {
            ensure!(started.elapsed() < GETTING_READY, "a relay did not become ready: {}", log());
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    fn proc(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.child.id()))
    }

    pub fn usage(&self) -> Result<Usage> {
        Usage::of(self.child.id())
    }

    /// Proportional set size: what this process costs, its share of shared pages included.
    pub fn pss_kib(&self) -> Result<f64> {
        let rollup = fs::read_to_string(self.proc("smaps_rollup"))?;
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).context("smaps_rollup without Pss")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    pub fn open_files(&self) -> Result<usize> {
        Ok(fs::read_dir(self.proc("fd"))?.count())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Usage {
    /// Of this or another process. Nanoseconds per thread where the kernel keeps them; ticks only tell user from system.
    pub fn of(pid: u32) -> Result<Usage> {
        let mut nanos = BTreeMap::new();
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let task = task?;
            let Ok(schedstat) = fs::read_to_string(task.path().join("schedstat")) else { continue };
            let on_cpu = schedstat.split(' ').next().unwrap_or_default().parse()?;
            nanos.insert(task.file_name().to_string_lossy().parse()?, on_cpu);
        }
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let after_name = stat.rsplit_once(')').context("/proc/PID/stat")?.1;
        let field = |number: usize| -> Result<u64> {
            let text = after_name.split_whitespace().nth(number - 3).context("/proc/PID/stat")?;
            Ok(text.parse()?)
        };
        Ok(Usage { nanos, user_ticks: field(14)?, system_ticks: field(15)? })
    }

    /// What was used since `earlier`. A thread that ended in between is not seen; none does in a measurement.
    pub fn since(&self, earlier: &Usage) -> Used {
        let before = |thread: &u64| earlier.nanos.get(thread).copied().unwrap_or(0);
        let nanos: u64 = self.nanos.iter().map(|(thread, nanos)| nanos.saturating_sub(before(thread))).sum();
        let user = self.user_ticks.saturating_sub(earlier.user_ticks);
        let ticks = user + self.system_ticks.saturating_sub(earlier.system_ticks);
        Used { micros: nanos as f64 / 1e3, user_share: user as f64 / ticks.max(1) as f64 }
    }
}

/// What the kernel holds for everybody: socket buffers, and the slabs that sockets, files and epoll entries lie in.
/// Both ends of a connection are on this machine, so half of a growth is the server's.
pub fn kernel_kib() -> Result<f64> {
    let sockstat = fs::read_to_string("/proc/net/sockstat")?;
    let tcp = sockstat.lines().find(|line| line.starts_with("TCP:")).context("/proc/net/sockstat")?;
    let pages: f64 = tcp.rsplit(' ').next().unwrap_or_default().parse()?;
    let meminfo = fs::read_to_string("/proc/meminfo")?;
    let slab = meminfo.lines().find_map(|line| line.strip_prefix("Slab:")).context("/proc/meminfo")?;
    let slab: f64 = slab.trim().trim_end_matches(" kB").parse()?;
    Ok(pages * 4.0 + slab)
}

/// On the first core, and gone when this process is, however it ends.
fn pinned(binary: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "taskset", "-c", "0", binary]);
    command
}

fn floor(setup: &Setup) -> Result<Command> {
    let this = std::env::current_exe()?;
    let mut command = pinned(this.to_str().context("a path in UTF-8")?);
    let fan = if setup.in_turn { "in-turn" } else { "all" };
    command.args([SERVE_FLOOR, &setup.payload.to_string(), fan]);
    Ok(command)
}

fn relay(config: &std::path::Path) -> Result<Command> {
    let binary = std::env::var("RELAY_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_relay").to_owned());
    let mut command = pinned(&binary);
    command.arg("-c").arg(config);
    // Ten thousand cut sessions are no news, and a terminal would be measured. Instances write to the same file.
    command.stderr(fs::File::options().create(true).append(true).open(log_file())?);
    Ok(command)
}

/// Lines like `public  http://127.0.0.1:41234`, until `ready`.
fn read_addresses(stdout: &mut BufReader<ChildStdout>) -> Result<BTreeMap<String, SocketAddr>> {
    let mut addresses = BTreeMap::new();
    loop {
        let mut line = String::new();
        if stdout.read_line(&mut line)? == 0 {
            bail!("the server ended before it was ready: {}", log());
        }
        let mut words = line.split_whitespace();
        let Some(name) = words.next() else { continue };
        if name == "ready" {
            return Ok(addresses);
        }
        let address = words.next().and_then(|url| url.trim_start_matches("http://").parse().ok());
        addresses.extend(address.map(|address| (name.to_owned(), address)));
    }
}

fn log_file() -> PathBuf {
    std::env::temp_dir().join("relay-fanout.log")
}

/// What relays said last.
fn log() -> String {
    let text = fs::read_to_string(log_file()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// Forgets what relays of earlier runs said.
pub fn forget_log() -> Result<()> {
    fs::File::create(log_file())?;
    Ok(())
}
