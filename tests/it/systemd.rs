//! The units, held against systemd itself; and the daemon, as systemd would start it.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;

use crate::client::http::Http;
use crate::client::{PATIENCE, soon};
use crate::harness::{PUBLISH, Relay, Signal, config, fresh_folder, plain, until};

/// What `systemd-analyze security` may say at most, in tenths: it must have the host's network, which alone costs 5.
const EXPOSURE: &str = "15";

fn unit(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(name);
    std::fs::read_to_string(path).expect("the unit is there")
}

/// Both units in a folder of their own, with the binary that was built.
fn installed(service: &str) -> PathBuf {
    let folder = fresh_folder();
    let service = service.replace("/usr/local/bin/relay", env!("CARGO_BIN_EXE_relay"));
    std::fs::write(folder.join("relay.service"), service).expect("written");
    std::fs::write(folder.join("relay.socket"), unit("relay.socket")).expect("written");
    folder
}

fn analyze(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new("systemd-analyze");
    command.current_dir(folder).args(arguments);
    command.output().expect("systemd is installed (.ci/install)")
}

/// Only of our units: a machine may have others that systemd finds fault with.
fn complaints(folder: &Path) -> Vec<String> {
    let output = analyze(folder, &["verify", "./relay.service", "./relay.socket"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    text.lines().filter(|line| line.contains("relay.")).map(str::to_owned).collect()
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let good = installed(&unit("relay.service"));
    assert_eq!(complaints(&good), Vec::<String>::new());
    let bad = installed(&unit("relay.service").replace("TimeoutStopSec=", "TimeoutStopSecs="));
    assert_ne!(complaints(&bad), Vec::<String>::new(), "it would have found a mistake");
}

#[test]
fn the_service_is_hardened() {
    let arguments = ["security", "--offline=yes", "--no-pager", "--threshold", EXPOSURE, "./relay.service"];
    let good = analyze(&installed(&unit("relay.service")), &arguments);
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stdout));
    let bad = installed(&unit("relay.service").replace("SystemCallFilter=", "# "));
    assert!(!analyze(&bad, &arguments).status.success(), "it would have found a hole");
}

#[test]
fn each_hardening_line_has_its_reason_before_it() {
    let text = unit("relay.service");
    let (mut reason, mut checked) = (false, 0);
    for line in text.lines().skip_while(|line| *line != "[Service]").skip(1) {
        reason = match line {
            _ if line.starts_with('#') => true,
            "" | "[Install]" => false,
            "WantedBy=multi-user.target" => reason,
            _ => {
                checked += 1;
                let plain = ["ExecStart=", "Restart"].iter().any(|start| line.starts_with(start));
                assert!(reason || plain, "{line} stands without a reason");
                reason
            }
        };
    }
    assert!(checked > 30, "only {checked} lines were looked at");
}

#[test]
fn stopping_takes_longer_than_draining() {
    let seconds = |text: &str, key: &str| -> u64 {
        let value = text.lines().find_map(|line| line.trim_start_matches(['#', ' ']).strip_prefix(key));
        let value = value.unwrap_or_else(|| panic!("no {key}")).trim_start_matches([' ', '=', '"']);
        let digits = value.split(|c: char| !c.is_ascii_digit()).next().expect("a number");
        digits.parse().expect("a number of seconds")
    };
    let stop = seconds(&unit("relay.service"), "TimeoutStopSec");
    let drain = seconds(relay::config::EMBEDDED, "drain");
    assert!(stop > drain, "{stop} s to stop, {drain} s to drain");
}

/// A port that was free a moment ago.
fn free_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address")
}

#[test]
fn a_passed_socket_is_used_and_the_connection_that_started_it_is_answered() {
    let address = free_port();
    let first = thread::spawn(move || {
        let mut http = None;
        until(
            || {
                http = Http::connect(address).ok();
                http.is_some()
            },
            || "systemd-socket-activate does not listen".into(),
        );
        let mut http = http.expect("connected");
        let headers = [("Content-Type", "application/json")];
        http.request("POST", "/publish/first", &headers, b"1").expect("an answer").expect(200)
    });
    let toml = config(PUBLISH).replacen("\"127.0.0.1:0\"", "\"systemd\"", 1);
    let relay = Relay::start_with(&toml, &|file| {
        let mut command = Command::new("systemd-socket-activate");
        command.arg("-l").arg(address.to_string()).arg(env!("CARGO_BIN_EXE_relay")).arg("-c").arg(file);
        command
    });
    assert_eq!(relay.public(), address);
    let answer = first.join().expect("the first connection is answered");
    assert_eq!(crate::checker::ids(&answer.json()).len(), 1);
    relay.publish("second", "2");
}

/// A relay with a notify socket of ours.
struct Notified {
    // Dropped before the socket, so that it can still say that it stops.
    relay: Relay,
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Notified {
    fn start(watchdog: &str) -> Notified {
        let path = fresh_folder().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a notify socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let relay = Relay::start_with(&plain(), &|file| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_relay"));
            command.arg("-c").arg(file).env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", watchdog);
            command
        });
        Notified { relay, socket, heard: Vec::new() }
    }

    /// Listens until this is said; what was said before it.
    #[track_caller]
    fn until(&mut self, wanted: &str) -> Vec<String> {
        let deadline = soon();
        loop {
            if let Some(at) = self.heard.iter().position(|line| line == wanted) {
                return self.heard.drain(..=at).collect();
            }
            let mut buffer = [0; 4096];
            let length = self.socket.recv(&mut buffer);
            let length = length.unwrap_or_else(|e| panic!("{wanted} was never said ({e}); heard {:?}", self.heard));
            let text = String::from_utf8_lossy(&buffer[..length]);
            self.heard.extend(text.lines().map(str::to_owned));
            assert!(std::time::Instant::now() < deadline, "{wanted} was never said; heard {:?}", self.heard);
        }
    }
}

#[test]
fn systemd_is_told_of_ready_reload_watchdog_and_stop() {
    let mut notified = Notified::start("200000");
    let before = notified.until("READY=1");
    assert!(!before.iter().any(|line| line == "STOPPING=1"), "{before:?}");
    notified.until("WATCHDOG=1");
    notified.until("WATCHDOG=1");
    notified.relay.signal(Signal::HUP);
    notified.until("RELOADING=1");
    let since = notified.until("READY=1");
    let stamped =
        since.iter().any(|line| line.strip_prefix("MONOTONIC_USEC=").is_some_and(|v| v.parse::<u64>().is_ok()));
    assert!(stamped, "a reload carries its time: {since:?}");
    notified.relay.signal(Signal::TERM);
    notified.until("STOPPING=1");
    assert!(notified.relay.wait_for_exit().success());
}

#[test]
fn a_refused_reload_is_over_too() {
    let mut notified = Notified::start("0");
    notified.until("READY=1");
    std::fs::write(notified.relay.folder().join("relay.toml"), "nonsense = 1\n").expect("written");
    notified.relay.signal(Signal::HUP);
    notified.until("RELOADING=1");
    notified.until("READY=1");
    until(|| notified.relay.refused_reloads() >= 1.0, || notified.relay.log());
    notified.relay.publish("still", "1");
}
