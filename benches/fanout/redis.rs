//! A redis-server of the bench's own: on a free port, on the load generator's core, read from `/proc`, killed at the
//! end; and a connection that asks it one thing after the other.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::resp::{self, Answer};
use crate::server::Usage;

/// How long it may take to start, its data read.
const STARTING: Duration = Duration::from_secs(10);
/// Between two looks whether it is there.
const LOOK: Duration = Duration::from_millis(2);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A running Redis.
pub struct Redis {
    child: Child,
    folder: PathBuf,
    pub address: SocketAddr,
    /// It writes what it is told to a file before it answers.
    keeps: bool,
}

/// A connection to it.
pub struct Talk {
    stream: TcpStream,
    input: Vec<u8>,
}

/// How often each command was called, those inside of scripts too.
pub struct Calls(BTreeMap<String, u64>);

impl Redis {
    /// One that keeps nothing on disk.
    pub fn start() -> Result<Redis> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("relay-fanout-{}-redis-{number}", std::process::id()));
        fs::create_dir_all(&folder)?;
        // Free a moment ago. Whoever takes it in between makes the row fail, not lie.
        let address = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let keeps = false;
        let mut redis = Redis { child: spawn(&folder, address, keeps)?, folder, address, keeps };
        redis.wait()?;
        Ok(redis)
    }

    /// From now on it writes what it is told to a file before it answers: one that is killed comes back whole.
    pub fn keep(&mut self) -> Result<()> {
        let mut talk = self.talk()?;
        talk.ask(&[b"CONFIG", b"SET", b"appendonly", b"yes"])?;
        let started = Instant::now();
        while !talk.ask(&[b"INFO", b"persistence"])?.contains("aof_rewrite_in_progress:0") {
            ensure!(started.elapsed() < STARTING, "Redis does not begin its file");
            std::thread::sleep(LOOK);
        }
        self.keeps = true;
        Ok(())
    }

    /// Ends it without a word.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts it again where it was, with all that it kept, and returns once it answers.
    pub fn start_again(&mut self) -> Result<()> {
        self.child = spawn(&self.folder, self.address, self.keeps)?;
        self.wait()
    }

    fn wait(&mut self) -> Result<()> {
        let started = Instant::now();
        loop {
            // While it reads its data it answers with an error.
            let there = Talk::connect(self.address).and_then(|mut talk| talk.ask(&[b"PING"]));
            let Err(error) = there else { return Ok(()) };
            let log = || fs::read_to_string(self.folder.join("redis.log")).unwrap_or_default();
            ensure!(self.child.try_wait()?.is_none(), "redis-server ended: {}", log());
            ensure!(started.elapsed() < STARTING, "redis-server does not answer ({error:#}): {}", log());
            std::thread::sleep(LOOK);
        }
    }

    pub fn talk(&self) -> Result<Talk> {
        Talk::connect(self.address)
    }

    pub fn usage(&self) -> Result<Usage> {
        Usage::of(self.child.id())
    }

    pub fn calls(&self) -> Result<Calls> {
        let stats = self.talk()?.ask(&[b"INFO", b"commandstats"])?;
        let lines = stats.lines().filter_map(|line| line.strip_prefix("cmdstat_")?.split_once(":calls="));
        let calls =
            lines.filter_map(|(command, rest)| Some((command.to_owned(), rest.split_once(',')?.0.parse().ok()?)));
        Ok(Calls(calls.collect()))
    }
}

/// What is installed, for the table's head.
pub fn version() -> String {
    let said = Command::new("redis-server").arg("--version").output();
    let said = said.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let version = said.split_whitespace().find_map(|word| word.strip_prefix("v="));
    version.map_or("no Redis".to_owned(), |version| format!("Redis {version}"))
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.kill();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// On this process's core, and gone when this process is, however it ends.
fn spawn(folder: &Path, address: SocketAddr, keeps: bool) -> Result<Child> {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "redis-server", "--bind", "127.0.0.1"]);
    command.arg("--port").arg(address.port().to_string());
    command.arg("--dir").arg(folder).arg("--logfile").arg(folder.join("redis.log"));
    command.args(["--save", "", "--appendfsync", "no", "--appendonly", if keeps { "yes" } else { "no" }]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().context("setpriv (util-linux)")
}

impl Talk {
    fn connect(address: SocketAddr) -> Result<Talk> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Talk { stream, input: Vec::new() })
    }

    /// The answer as text, whatever its kind; an error is an error.
    pub fn ask(&mut self, words: &[&[u8]]) -> Result<String> {
        self.stream.write_all(&resp::command(words))?;
        self.input.clear();
        loop {
            if let Some((answer, _)) = resp::answer(&self.input) {
                return match answer {
                    Answer::Text(text) => Ok(String::from_utf8_lossy(text).into_owned()),
                    Answer::Number(number) => Ok(number.to_string()),
                    Answer::Error(error) => bail!("{}", String::from_utf8_lossy(error)),
                };
            }
            let mut part = [0; 16 << 10];
            let length = self.stream.read(&mut part)?;
            ensure!(length > 0, "Redis closed a connection");
            self.input.extend_from_slice(&part[..length]);
        }
    }

    /// Publishes on a channel; says how many heard it.
    pub fn publish(&mut self, channel: &str, payload: &[u8]) -> Result<usize> {
        Ok(self.ask(&[b"PUBLISH", channel.as_bytes(), payload])?.parse()?)
    }
}

impl Calls {
    /// Calls since `earlier` of commands that are or begin with one of these words.
    pub fn since(&self, earlier: &Calls, words: &[&str]) -> f64 {
        let of = |calls: &Calls| -> u64 {
            let wanted = calls.0.iter().filter(|(command, _)| words.iter().any(|word| command.starts_with(word)));
            wanted.map(|(_, calls)| calls).sum()
        };
        (of(self) - of(earlier)) as f64
    }

    /// What was called most since `earlier`, for people.
    pub fn most(&self, earlier: &Calls) -> String {
        let before = |command: &str| earlier.0.get(command).copied().unwrap_or(0);
        let calls = self.0.iter().map(|(command, calls)| (calls - before(command), command));
        let mut calls: Vec<_> = calls.filter(|(calls, _)| *calls > 0).collect();
        calls.sort_unstable_by(|one, other| other.cmp(one));
        let shown = calls.iter().take(6).map(|(calls, command)| format!("{command} {calls}"));
        shown.collect::<Vec<_>>().join(", ")
    }
}
