//! The command line, from outside; and what the relay itself says one should try.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::harness::{EVENTS, EXEMPT, PUBLISH, Relay, config, fresh_folder, plain};

fn relay() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relay"));
    command.stdin(Stdio::null());
    command
}

fn output(command: &mut Command) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = command.output().expect("it runs");
    (status.code(), String::from_utf8([stdout, stderr].concat()).expect("UTF-8"))
}

/// Something that prints and has no end, ended with the test.
struct Listening {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Listening {
    fn start(command: &mut Command) -> Listening {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it runs");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Listening { child, lines }
    }

    /// The next line with this text. (A process that says nothing for ever is ended by the test's own time limit.)
    fn line(&mut self, text: &str) -> String {
        let found = self.lines.by_ref().map_while(Result::ok).find(|line| line.contains(text));
        found.unwrap_or_else(|| panic!("it ended before it said {text:?}"))
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // By its handle, so by its own pid.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn help_and_version_say_what_it_is() {
    let (code, text) = output(relay().arg("--help"));
    assert_eq!(code, Some(0));
    for word in ["check", "schema", "pub", "sub", "--config"] {
        assert!(text.contains(word), "{word} in {text}");
    }
    let (code, text) = output(relay().arg("--version"));
    assert_eq!((code, text.trim()), (Some(0), concat!("relay ", env!("CARGO_PKG_VERSION"))));
    let (code, _) = output(relay().arg("--nonsense"));
    assert_ne!(code, Some(0));
}

#[test]
fn check_finds_a_good_file_good_and_schema_is_json() {
    let file = fresh_folder().join("good.toml");
    std::fs::write(&file, plain()).expect("written");
    let (code, text) = output(relay().arg("check").arg(&file));
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = output(relay().arg("schema"));
    assert_eq!(code, Some(0));
    let schema: Value = serde_json::from_str(&text).expect("JSON");
    assert!(schema["properties"]["server"].is_object(), "{schema}");
}

#[test]
fn check_never_prints_a_password() {
    let file = fresh_folder().join("relay.toml");
    let check = |url: &str, expected: Option<i32>| {
        let source = format!("[[source.redis]]\nstreams = \"a\"\nurl = \"{url}\"\n");
        std::fs::write(&file, format!("[redis]\nurl = \"{url}\"\n{source}")).expect("written");
        let (code, text) = output(relay().arg("check").arg(&file));
        assert_eq!(code, expected, "{text}");
        assert!(!text.is_empty() && !text.contains("hunter2"), "{text}");
    };
    check("redis://user:hunter2@localhost/1", Some(0));
    check("redis://user:hunter2", Some(64));
    check("redis://user:hunter2/?@localhost", Some(64));
}

#[test]
fn pub_and_sub_read_the_same_file() {
    let hook = PUBLISH.replace("\"none\"", "{ bearer = \"open sesame\" }");
    let server = Relay::start(&config(&[EXEMPT, &hook, EVENTS].concat()));
    let url = format!("http://{}", server.public());
    let file = server.folder().join("relay.toml");
    let mut sub = Listening::start(relay().arg("-c").arg(&file).args(["sub", "greetings/*", "--url", &url]));
    server.wait_for_sessions(1);
    let publish = || {
        let mut command = relay();
        command.arg("-c").arg(&file).args(["pub", "greetings/one", "--url", &url]);
        command
    };
    let (code, id) = output(publish().arg("{\"hello\":\"world\"}"));
    assert_eq!(code, Some(0), "{id}");
    let line: Value = serde_json::from_str(&sub.line("hello")).expect("an envelope");
    assert_eq!((&line["id"], &line["data"]["hello"]), (&id.trim().into(), &"world".into()));

    let mut child = publish().stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it runs");
    child.stdin.take().expect("piped").write_all(b"[\"from\",\"stdin\"]").expect("written");
    assert!(child.wait().expect("it ends").success());
    sub.line("stdin");

    let (code, text) = output(publish().args(["1", "--token", "wrong"]));
    assert_eq!(code, Some(1), "{text}");
    let (code, text) = output(publish().arg("not json"));
    assert_eq!(code, Some(1), "{text}");
    drop(sub);
}

#[test]
fn sub_comes_again_and_misses_nothing() {
    let server = Relay::start(&plain().replacen("[admin]", "drain = \"1s\"\n[admin]", 1));
    let url = format!("http://{}/events", server.public());
    let mut sub = Listening::start(relay().args(["sub", "**", "--url", &url]));
    server.wait_for_sessions(1);
    server.publish("t", "\"first\"");
    sub.line("first");
    // A changed endpoint sends its sessions away.
    let changed = plain().replace("topics = [\"**\"]", "topics = [\"**\"]\norigins = \"*\"");
    let changed = changed.replacen("[admin]", "drain = \"1s\"\n[admin]", 1);
    server.reload(|| server.write_config(&changed));
    server.publish("t", "\"second\"");
    sub.line("second");
    drop(sub);
}

#[test]
fn the_two_lines_to_try_work_as_they_are_printed() {
    // The quickstart as it is, but on free ports.
    let quickstart =
        relay::config::EMBEDDED.replace("127.0.0.1:8080", "127.0.0.1:0").replace("127.0.0.1:9090", "127.0.0.1:0");
    let server = Relay::start(&quickstart);
    let tries: Vec<&String> = server.said().iter().filter(|(name, _)| name == "try").map(|(_, line)| line).collect();
    let [one, other] = tries[..] else { panic!("two lines to try, not {tries:?}") };
    let (listen, publish) = if one.contains("curl -N") { (one, other) } else { (other, one) };
    // `exec`, so that what is ended in the end is curl itself.
    let mut listening =
        Listening::start(Command::new("sh").arg("-c").arg(format!("exec {listen}")).stderr(Stdio::null()));
    server.wait_for_sessions(1);
    let (code, text) = output(Command::new("sh").arg("-c").arg(publish));
    assert_eq!(code, Some(0), "{text}");
    listening.line("data");
    drop(listening);
}

#[test]
fn a_port_that_is_taken_is_said_and_is_1() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let file = fresh_folder().join("relay.toml");
    std::fs::write(&file, plain().replacen("127.0.0.1:0", &address, 1)).expect("written");
    let (code, text) = output(relay().arg("-c").arg(&file));
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains(&address), "it names the address: {text}");
}
