//! A fresh relay for each test: the real binary, from a text of TOML, on ports of its own.
//!
//! When a test is over (and its clients are gone) the harness asks that nothing is left of them and that the process
//! leaves with 0.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

pub use rustix::process::Signal;
use serde_json::Value;

use crate::client::{PATIENCE, http, soon};

/// A webhook that publishes to any topic, without a secret.
pub const PUBLISH: &str = r#"
[[source.webhook]]
path   = "/publish/{topic...}"
topic  = "{path.topic}"
verify = "none"
"#;

/// An endpoint where everything can be heard, in envelopes.
pub const EVENTS: &str = r#"
[[endpoint]]
path   = "/events"
topics = ["**"]
"#;

/// Tests come from one address; those that are not about limits per address say so.
pub const EXEMPT: &str = r#"
[limits]
exempt = ["127.0.0.0/8"]
"#;

/// Both addresses on free ports, with more keys of `[server]`, then the rest of the file.
pub fn with_server(keys: &str, rest: &str) -> String {
    format!("[server]\nlisten = [\"127.0.0.1:0\"]\n{keys}\n[admin]\nlisten = [\"127.0.0.1:0\"]\n{rest}")
}

/// Both addresses on free ports, then the rest of the file.
pub fn config(rest: &str) -> String {
    with_server("", rest)
}

/// The ordinary one: publish anything, hear everything, no limits per address.
pub fn plain() -> String {
    config(&[EXEMPT, PUBLISH, EVENTS].concat())
}

/// A relay that publishes anything and has one endpoint, `/e`, with these keys; it hears everything.
#[track_caller]
pub fn relay_with_endpoint(keys: &str) -> Relay {
    relay_with_endpoint_on("[\"**\"]", keys)
}

/// The same, where a session hears these topics.
#[track_caller]
pub fn relay_with_endpoint_on(topics: &str, keys: &str) -> Relay {
    let endpoint = format!("[[endpoint]]\npath = \"/e\"\ntopics = {topics}\n{keys}\n");
    Relay::start(&config(&[EXEMPT, PUBLISH, &endpoint].concat()))
}

/// What gets a command that starts a relay ready: its environment, another program around it.
type Prepare<'a> = &'a dyn Fn(&Path) -> Command;

pub struct Relay {
    child: Child,
    folder: PathBuf,
    /// Each line it said before `ready`: what (an address, something to try), and the rest.
    said: Vec<(String, String)>,
    log: Arc<Mutex<String>>,
    ended: Option<ExitStatus>,
}

impl Relay {
    #[track_caller]
    pub fn start(toml: &str) -> Relay {
        Relay::start_with(toml, &|file| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_relay"));
            command.arg("-c").arg(file);
            command
        })
    }

    /// Starts it by a command of the test's own, which is given the file.
    #[track_caller]
    pub fn start_with(toml: &str, prepare: Prepare<'_>) -> Relay {
        let folder = fresh_folder();
        let file = folder.join("relay.toml");
        std::fs::write(&file, toml).expect("a file can be written");
        let mut command = prepare(&file);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let log = Arc::new(Mutex::new(String::new()));
        collect(child.stderr.take().expect("piped"), log.clone());
        let lines = lines(child.stdout.take().expect("piped"));
        let mut relay = Relay { child, folder, said: Vec::new(), log, ended: None };
        relay.read_until_ready(&lines);
        relay
    }

    #[track_caller]
    fn read_until_ready(&mut self, lines: &mpsc::Receiver<String>) {
        let deadline = soon();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = lines.recv_timeout(left).unwrap_or_else(|e| panic!("not ready ({e}):\n{}", self.log()));
            match line.split_once(' ') {
                None if line == "ready" => return,
                Some((name, place)) => self.said.push((name.to_owned(), place.trim().to_owned())),
                None => panic!("an unexpected line on stdout: {line:?}"),
            }
        }
    }

    /// The first public TCP address.
    #[track_caller]
    pub fn public(&self) -> SocketAddr {
        self.tcp("public")
    }

    #[track_caller]
    pub fn admin(&self) -> SocketAddr {
        self.tcp("admin")
    }

    #[track_caller]
    fn tcp(&self, name: &str) -> SocketAddr {
        let mut places = self.said.iter().filter(|(said, _)| said == name);
        let address = places.find_map(|(_, place)| place.strip_prefix("http://")?.parse().ok());
        address.unwrap_or_else(|| panic!("no {name} address among {:?}", self.said))
    }

    /// All it said before `ready`.
    pub fn said(&self) -> &[(String, String)] {
        &self.said
    }

    /// A folder that lives as long as the test, with `relay.toml` in it.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn log(&self) -> String {
        self.log.lock().expect("not poisoned").clone()
    }

    /// Waits until the log has this text.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str) {
        until(|| self.log().contains(text), || format!("{text:?} is not in the log:\n{}", self.log()));
    }

    /// Replaces the file in place. The relay sees it; [`Self::reloaded`] says when.
    pub fn write_config(&self, toml: &str) {
        std::fs::write(self.folder.join("relay.toml"), toml).expect("a file can be written");
    }

    /// Does what replaces the file and waits until it is in force. A refused file panics.
    #[track_caller]
    pub fn reload(&self, replace: impl FnOnce()) {
        let (before, refused) = (self.metric("relay_reloads_total{reason=\"applied\"}"), self.refused_reloads());
        replace();
        until(
            || {
                assert_eq!(self.refused_reloads(), refused, "the file was refused:\n{}", self.log());
                self.metric("relay_reloads_total{reason=\"applied\"}") > before
            },
            || format!("no reload was seen:\n{}", self.log()),
        );
    }

    pub fn refused_reloads(&self) -> f64 {
        self.metric("relay_reloads_total{reason=\"refused\"}")
    }

    pub fn signal(&self, signal: Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("our own process");
    }

    #[track_caller]
    pub fn stats(&self) -> Value {
        http::get(self.admin(), "/stats").expect(200).json()
    }

    #[track_caller]
    pub fn metrics(&self) -> String {
        http::get(self.admin(), "/metrics").expect(200).text()
    }

    /// One sample, by its name with its labels as written; 0 if it is not there yet.
    #[track_caller]
    pub fn metric(&self, sample: &str) -> f64 {
        let text = self.metrics();
        let value = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.trim().parse().ok());
        value.unwrap_or(0.0)
    }

    /// Publishes JSON over the webhook [`PUBLISH`]: the ids of what is now in the stream.
    #[track_caller]
    pub fn publish(&self, topic: &str, json: &str) -> Vec<String> {
        let answer = http::post_json(self.public(), &format!("/publish/{topic}"), json.as_bytes()).expect(200);
        crate::checker::ids(&answer.json())
    }

    /// Waits until the statistics are so.
    #[track_caller]
    pub fn wait_for(&self, condition: impl Fn(&Value) -> bool) {
        until(|| condition(&self.stats()), || format!("it never came to be: {}\n{}", self.stats(), self.log()));
    }

    #[track_caller]
    pub fn wait_for_sessions(&self, count: u64) {
        self.wait_for(|stats| stats["sessions"] == count);
    }

    /// Waits until the process ends by itself.
    #[track_caller]
    pub fn wait_for_exit(&mut self) -> ExitStatus {
        let deadline = soon();
        loop {
            if let Some(status) = self.child.try_wait().expect("our own child") {
                self.ended = Some(status);
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end:\n{}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Nothing is left of sessions that are gone.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        const MUST_BE_ZERO: [&str; 5] = ["sessions", "permits", "audiences", "patterns", "queued_bytes"];
        self.wait_for(|stats| {
            MUST_BE_ZERO.iter().all(|key| {
                assert!(stats[key].is_number(), "no {key} in {stats}");
                stats[key] == 0
            })
        });
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the relay's log:\n{}", self.log());
        } else if self.ended.is_none() {
            self.assert_nothing_left();
            self.signal(Signal::TERM);
            let status = self.wait_for_exit();
            assert!(status.success(), "{status} after SIGTERM:\n{}", self.log());
        }
        if self.ended.is_none() {
            // By its handle, so by its own pid.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Polls until it is so; after patience has ended, panics with what `why` says.
#[track_caller]
pub fn until(mut so: impl FnMut() -> bool, why: impl FnOnce() -> String) {
    let deadline = soon();
    while !so() {
        assert!(Instant::now() < deadline, "after {PATIENCE:?}: {}", why());
        thread::sleep(Duration::from_millis(10));
    }
}

/// A new folder of this test run's own.
pub fn fresh_folder() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("relay-test-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    folder
}

/// As many sockets as the machine allows: a storm needs more than the usual soft limit.
pub fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("up to the hard limit it is allowed");
}

/// What random tests begin with: printed, and taken from `RELAY_TEST_SEED` to see a failure again.
pub fn seed() -> u64 {
    let given = std::env::var("RELAY_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    println!("RELAY_TEST_SEED={seed}");
    seed
}

/// What a process says, line by line.
pub fn lines(stdout: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        // Reads on when nobody listens any more, so that the process never meets a closed or full pipe.
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    receiver
}

fn collect(stderr: impl Read + Send + 'static, log: Arc<Mutex<String>>) {
    thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let mut log = log.lock().expect("not poisoned");
            log.push_str(&line);
            log.push('\n');
        }
    });
}
