//! nginx or HAProxy, as the README shows it, with the ports of a test: a process of the test's own in a folder of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::client::http::Http;
use crate::harness::{Relay, fresh_folder, until};
use crate::readme::shown;
use crate::redis::ports;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    Nginx,
    Haproxy,
}

/// What stands in front of the instances.
pub struct Front {
    child: Child,
    folder: PathBuf,
    pub address: SocketAddr,
}

impl Program {
    /// The README's snippet: it listens here, and leads to these instances.
    fn snippet(self, port: u16, instances: &[(SocketAddr, SocketAddr)]) -> String {
        let (language, everywhere) = match self {
            Program::Nginx => ("nginx", "listen 80;"),
            Program::Haproxy => ("haproxy", "bind :80"),
        };
        let here = everywhere.replace(":80", " 80").replace(" 80", &format!(" 127.0.0.1:{port}"));
        let mut text = swap(&shown("Several instances", language), everywhere, &here);
        for (number, (public, admin)) in instances.iter().enumerate() {
            let theirs = format!(" 10.0.0.{}:8080", number + 2);
            assert!(text.contains(&theirs), "{theirs} in\n{text}");
            let line = |line: &str| match line.contains(&theirs) {
                true => line
                    .replace(&theirs, &format!(" {public}"))
                    .replace("check port 9090", &format!("check port {}", admin.port())),
                false => line.to_owned(),
            };
            text = text.lines().map(line).collect::<Vec<_>>().join("\n");
        }
        text
    }

    /// The whole file: the snippet, and what keeps the process to itself.
    fn file(self, folder: &Path, snippet: &str) -> String {
        let here = folder.display();
        match self {
            Program::Nginx => {
                let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
                let folders = kinds.map(|kind| format!("{kind}_temp_path {here}/{kind};\n")).concat();
                // One process, so that nobody is left when it is ended.
                format!(
                    "daemon off;\nmaster_process off;\npid {here}/pid;\nerror_log {here}/log;\n\
                     events {{}}\nhttp {{\naccess_log off;\n{folders}{snippet}\n}}\n"
                )
            }
            Program::Haproxy => format!("{snippet}\n"),
        }
    }

    fn command(self, folder: &Path, file: &Path) -> Command {
        let (program, arguments) = match self {
            Program::Nginx => {
                ("nginx", ["-p", &folder.display().to_string(), "-e", "log", "-c"].map(str::to_owned).to_vec())
            }
            // In the foreground, and one process.
            Program::Haproxy => ("haproxy", vec!["-db".to_owned(), "-f".to_owned()]),
        };
        let mut command = Command::new(program);
        command.args(arguments).arg(file);
        command
    }
}

#[track_caller]
fn swap(text: &str, this: &str, that: &str) -> String {
    assert_eq!(text.matches(this).count(), 1, "`{this}` once in\n{text}");
    text.replace(this, that)
}

impl Front {
    /// Starts it before these instances and waits until somebody answers.
    #[track_caller]
    pub fn start(program: Program, instances: &[&Relay]) -> Front {
        let folder = fresh_folder();
        let addresses: Vec<_> = instances.iter().map(|relay| (relay.public(), relay.admin())).collect();
        let (file, port) = (folder.join("file"), ports::free());
        let snippet = program.snippet(port, &addresses);
        std::fs::write(&file, program.file(&folder, &snippet)).expect("a file can be written");
        let said = std::fs::File::create(folder.join("said")).expect("a file can be written");
        let mut command = program.command(&folder, &file);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said);
        let child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}; is the Debian package installed?"));
        let mut front = Front { child, folder, address: (Ipv4Addr::LOCALHOST, port).into() };
        until(|| front.answers(), || format!("nobody answers behind {program:?}"));
        front
    }

    fn answers(&mut self) -> bool {
        let ended = self.child.try_wait().expect("our own child");
        assert!(ended.is_none(), "{}", self.said());
        let answer = Http::connect(self.address).and_then(|mut http| http.request("GET", "/events", &[], b""));
        answer.is_ok_and(|answer| answer.status() == 200)
    }

    /// What the process said.
    pub fn said(&self) -> String {
        let read = |name: &str| std::fs::read_to_string(self.folder.join(name)).unwrap_or_default();
        read("said") + &read("log")
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("what stood in front said:\n{}", self.said());
        }
        // By its handle, so by its own pid.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
