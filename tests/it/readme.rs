//! The README says nothing that is not so: its files are read, its commands run, its names looked up. Whoever changes
//! what it speaks of is told here.

mod redis;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Instant;

use relay::close::Close;
use relay::config;
use serde_json::Value;

use crate::client::{http, soon};
use crate::harness::{Relay, config as on_free_ports, fresh_folder, lines, until};
use crate::redis::Redis;

const README: &str = include_str!("../../README.md");

/// Words between back ticks that are no keys: of the wire, a topic, the name of a stream.
const OTHERS: [&str; 9] = ["items", "gap", "expired", "epoch", "slow", "retry_ms", "a", "events", "noeviction"];

/// Stands in for every secret.
pub const SECRET: &str = "open sesame";

/// From one heading to the next.
struct Section {
    title: &'static str,
    blocks: Vec<Block>,
}

/// What stands between fences.
struct Block {
    language: &'static str,
    text: String,
}

fn sections() -> Vec<Section> {
    let part = |part: &'static str| Section { title: part.lines().next().unwrap_or_default(), blocks: blocks(part) };
    README.split("\n## ").map(part).collect()
}

fn blocks(text: &'static str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let inner: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            blocks.push(Block { language, text: inner.join("\n") });
        }
    }
    blocks
}

impl Section {
    fn blocks(&self, language: &str) -> impl Iterator<Item = &str> {
        self.blocks.iter().filter(move |block| block.language == language).map(|block| block.text.as_str())
    }

    /// What its commands speak to: the files it shows, together, or else the quickstart; on free ports.
    fn configuration(&self) -> String {
        let shown: Vec<String> = self.blocks("toml").map(with_secrets).collect();
        match shown.is_empty() {
            true => quickstart(),
            false => on_free_ports(&shown.join("\n")),
        }
    }
}

fn quickstart() -> String {
    config::EMBEDDED.replace("127.0.0.1:8080", "127.0.0.1:0").replace("127.0.0.1:9090", "127.0.0.1:0")
}

/// What stands under this heading.
fn chapter(title: &str) -> &'static str {
    let found = README.split("\n## ").find(|part| part.lines().next() == Some(title));
    found.unwrap_or_else(|| panic!("no chapter `{title}`"))
}

/// What it shows in this language under this heading.
pub fn shown(title: &str, language: &str) -> String {
    let block = blocks(chapter(title)).into_iter().find(|block| block.language == language);
    block.unwrap_or_else(|| panic!("no {language} in `{title}`")).text
}

/// With a text for each secret that is elsewhere on the machine of whoever follows the README.
pub fn with_secrets(text: &str) -> String {
    let is_elsewhere = |part: &str| ["env:", "file:", "credential:"].iter().any(|from| part.starts_with(from));
    let parts = text.split('"').map(|part| if is_elsewhere(part) { SECRET } else { part });
    parts.collect::<Vec<_>>().join("\"")
}

/// Everything between single back ticks, outside of blocks.
fn spans() -> impl Iterator<Item = &'static str> {
    let prose = README.split("```").step_by(2);
    prose.flat_map(|text| text.split('`').skip(1).step_by(2))
}

#[test]
fn every_file_it_shows_is_one() {
    let mut found = 0;
    for section in sections() {
        for text in section.blocks("toml") {
            found += 1;
            let loaded = config::load(&with_secrets(text), section.title);
            loaded.unwrap_or_else(|mistakes| panic!("{mistakes}"));
        }
    }
    assert_eq!(found, 5);
}

#[test]
fn alertmanager_takes_the_file_it_shows_and_posts_to_where_relay_listens() {
    let sections = sections();
    let section = sections.iter().find(|section| section.title.starts_with("Alertmanager")).expect("a section");
    let (yaml, toml) = (section.blocks("yaml").next().expect("yaml"), section.blocks("toml").next().expect("toml"));
    let file = fresh_folder().join("alertmanager.yml");
    std::fs::write(&file, yaml).expect("written");
    let checked = Command::new("amtool").arg("check-config").arg(&file).output().expect("amtool");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let (path, _) = &config::load(&with_secrets(toml), "README.md").expect("a good file").config.webhooks[0];
    assert!(yaml.contains(&format!("url: http://127.0.0.1:8080{}\n", path.as_str())), "{yaml}");
    let token = "/etc/relay/alertmanager.token";
    assert!(yaml.contains(&format!("credentials_file: {token}")) && toml.contains(&format!("\"file:{token}\"")));
}

#[test]
fn every_command_does_what_it_shows() {
    let mut commands = 0;
    for section in sections() {
        if section.blocks("console").next().is_some() {
            let mut stage = Stage::new(&section);
            for block in section.blocks("console") {
                for (command, shown) in commands_of(block) {
                    stage.run(command, &shown);
                    commands += 1;
                }
            }
        }
    }
    assert_eq!(commands, 15);
}

/// Commands, each with the lines shown under it.
fn commands_of(block: &str) -> Vec<(&str, Vec<&str>)> {
    let mut commands: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in block.lines() {
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(command), _) => commands.push((command, Vec::new())),
            (None, Some((_, shown))) => shown.push(line),
            (None, None) => panic!("a console begins with a command, not with {line:?}"),
        }
    }
    commands
}

/// A relay, and those who listen to it.
struct Stage {
    listening: Vec<Listening>,
    relay: Relay,
    /// Where the file says that it is.
    redis: Option<Redis>,
}

/// Where Redis is on the machine of whoever follows the README.
const REDIS: &str = "redis://127.0.0.1:6379";

/// A command that has no end, and what it says.
struct Listening {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        // By its handle, so by its own pid.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Stage {
    fn new(section: &Section) -> Stage {
        let file = section.configuration();
        let redis = file.contains(REDIS).then(Redis::start);
        let file = redis.iter().fold(file, |file, redis| file.replace(REDIS, &redis.url()));
        Stage { listening: Vec::new(), relay: Relay::start(&file), redis }
    }

    fn run(&mut self, command: &str, shown: &[&str]) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        match command.split(' ').collect::<Vec<_>>()[..] {
            ["cargo", "run", "--release"] => self.says_at_start(shown),
            ["cargo", "bench", "--bench", name] => {
                assert!(include_str!("../../Cargo.toml").contains(&format!("[[bench]]\nname = \"{name}\"")), "{name}");
            }
            [script] if script.starts_with(".ci/") => {
                let mode = std::fs::metadata(root.join(script)).expect("it is there").permissions().mode();
                assert_eq!(mode & 0o111, 0o111, "{script} can be run");
            }
            ["relay", ..] => {
                let arguments = command.split(' ').skip(1);
                let mut relay = Command::new(env!("CARGO_BIN_EXE_relay"));
                succeed(relay.args(arguments).current_dir(root));
            }
            ["redis-cli", ..] => self.tell(command, shown),
            ["curl", "-N", ..] => self.listen(command),
            ["curl", ..] => self.ask(command, shown),
            _ => panic!("nobody knows how to try `{command}`"),
        }
    }

    /// `cargo run` with these words runs the binary that Cargo.toml names, and that is this one.
    fn says_at_start(&self, shown: &[&str]) {
        assert!(include_str!("../../Cargo.toml").contains("default-run = \"relay\""));
        let said = self.relay.said().iter().map(|(name, place)| format!("{name:<7} {place}"));
        let said: Vec<String> = said.chain(["ready".to_owned()]).collect();
        let shown: Vec<String> = shown.iter().map(|line| self.here(line)).collect();
        assert_eq!(said, shown);
    }

    /// The same on the ports of this test.
    fn here(&self, text: &str) -> String {
        let (public, admin) = (self.relay.public().to_string(), self.relay.admin().to_string());
        text.replace("127.0.0.1:8080", &public).replace("127.0.0.1:9090", &admin)
    }

    fn listen(&mut self, command: &str) {
        // `exec`, so that what is ended in the end is curl itself.
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("exec {}", self.here(command))).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = shell.spawn().expect("sh");
        let lines = lines(child.stdout.take().expect("piped"));
        self.listening.push(Listening { child, lines });
        let sessions = self.listening.len();
        until(|| self.relay.stats()["sessions"] == sessions, || format!("`{command}` opened no session"));
    }

    /// What is published, everybody who listens must hear.
    fn ask(&mut self, command: &str, shown: &[&str]) {
        let answer = succeed(Command::new("sh").arg("-c").arg(self.here(command)));
        assert!(!answer.is_empty(), "{command}");
        assert!(!answer.starts_with("{\"error\""), "{command}: {answer}");
        if let [shown] = shown {
            assert_eq!(without_epochs(&answer), without_epochs(shown), "{command}");
        }
        if command.contains(" -d '") {
            self.hear(command);
        }
    }

    /// What is published in Redis as well. The tool says `(integer)` only to people.
    fn tell(&mut self, command: &str, shown: &[&str]) {
        let ready = || http::get(self.relay.admin(), "/readyz");
        until(|| ready().status() == 200, || format!("{}\n{}", ready().text(), self.relay.log()));
        let redis = self.redis.as_ref().expect("the file names one");
        let here = command.replace("redis-cli ", &format!("redis-cli -p {} ", redis.port()));
        let answer = succeed(Command::new("sh").arg("-c").arg(here));
        if let [shown] = shown {
            assert_eq!(answer.trim(), shown.trim_start_matches("(integer) "), "{command}");
        }
        self.hear(command);
    }

    /// Everybody who listens hears what stands last between quotes.
    fn hear(&mut self, command: &str) {
        let data = command.rsplit('\'').nth(1).filter(|data| data.contains('{'));
        let data = data.unwrap_or_else(|| panic!("no payload in `{command}`"));
        assert!(!self.listening.is_empty(), "somebody listens to `{command}`");
        for listening in &mut self.listening {
            let deadline = soon();
            let left = || deadline.saturating_duration_since(Instant::now());
            let next = || listening.lines.recv_timeout(left()).unwrap_or_else(|e| panic!("{data} never came: {e}"));
            while !next().contains(data) {}
        }
    }
}

/// An id has the epoch of its process in it.
fn without_epochs(answer: &str) -> Value {
    let mut answer: Value = serde_json::from_str(answer).unwrap_or_else(|e| panic!("{e}: {answer}"));
    for id in answer["ids"].as_array_mut().expect("ids") {
        let parts: Vec<&str> = id.as_str().expect("text").split('-').collect();
        *id = format!("{} {}", parts[0], parts[2]).into();
    }
    answer
}

fn succeed(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().expect("it runs");
    assert!(status.success(), "{command:?}: {status}\n{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).expect("UTF-8")
}

#[test]
fn pages_connect_to_where_the_quickstart_listens() {
    let quickstart = config::load(config::EMBEDDED, "relay.toml").expect("a good file").config;
    let mut found = 0;
    for section in sections() {
        for script in section.blocks("js") {
            let (_, after) = script.split_once("://127.0.0.1:8080").expect("an address");
            let path = after.split(['?', '"']).next().expect("a path");
            let is_there = |endpoint: &relay::session::endpoint::Settings| endpoint.paths[0].as_str() == path;
            assert!(quickstart.endpoints.iter().any(is_there), "{path}");
            found += 1;
        }
    }
    assert_eq!(found, 2);
}

#[test]
fn metrics_it_names_are_there() {
    let relay = Relay::start(&quickstart());
    let metrics = relay.metrics();
    let named: BTreeSet<&str> = spans().filter(|span| span.starts_with("relay_")).collect();
    for name in &named {
        let there = match name.contains('{') {
            true => metrics.lines().any(|line| line.starts_with(&format!("{name} "))),
            false => metrics.contains(&format!("# TYPE {name} ")),
        };
        assert!(there, "{name} in\n{metrics}");
    }
    assert_eq!(named.len(), 12);
}

/// All keys of the file, and all words that a key can have as its value.
fn keys_and_words(schema: &Value, found: &mut BTreeSet<String>) {
    for key in schema["properties"].as_object().into_iter().flatten().map(|(key, _)| key) {
        found.insert(key.clone());
    }
    let words = schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str);
    found.extend(words.map(str::to_owned));
    let inner: Vec<&Value> = match schema {
        Value::Object(object) => object.values().collect(),
        Value::Array(list) => list.iter().collect(),
        _ => return,
    };
    inner.into_iter().for_each(|schema| keys_and_words(schema, found));
}

#[test]
fn keys_it_names_are_keys() {
    let mut known = BTreeSet::new();
    keys_and_words(&config::schema(), &mut known);
    let is_word =
        |span: &&str| span.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') && !span.starts_with("relay_");
    let named: BTreeSet<&str> = spans().filter(is_word).collect();
    let unknown: Vec<_> = named.iter().filter(|name| !known.contains(**name) && !OTHERS.contains(name)).collect();
    assert!(unknown.is_empty(), "neither a key nor a value of one: {unknown:?}");
    assert!(named.len() >= 40, "{named:?}");
    let idle: Vec<_> = OTHERS.iter().filter(|word| !named.contains(**word)).collect();
    assert!(idle.is_empty(), "no longer named: {idle:?}");
}

#[test]
fn tests_it_names_are_there() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let rows = README.lines().filter(|line| line.starts_with("| ") && line.contains("::"));
    let mut found = 0;
    for row in rows {
        let (module, name) = row.rsplit('`').nth(1).and_then(|span| span.rsplit_once("::")).expect("a test");
        let text =
            std::fs::read_to_string(folder.join(format!("{}.rs", module.replace("::", "/")))).expect("a file of tests");
        assert!(text.contains(&format!("#[test]\nfn {name}()")), "{module}::{name}");
        found += 1;
    }
    assert_eq!(found, 29);
}

fn codes(text: &str) -> BTreeSet<u16> {
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).filter(|n| *n >= 1000).collect()
}

#[test]
fn close_codes_mean_what_it_says() {
    // 1000 is the subscriber's own wish, and 1006 is never sent.
    let all = |returns: bool| {
        let closes = Close::ALL.iter().filter(|close| close.retries() == returns).map(|close| close.code());
        closes.filter(|code| *code != 1006).collect::<BTreeSet<u16>>()
    };
    let (_, paragraph) = README.split_once("**Close.**").expect("a paragraph");
    let paragraph = paragraph.split("\n\n").next().expect("it ends");
    let (back, never) = paragraph.split_once("come back").expect("both kinds");
    assert_eq!(codes(back), all(true));
    assert_eq!(codes(never), &all(false) - &BTreeSet::from([1000]));
    let (_, script) = README.split_once("onclose").expect("a script");
    let (list, _) = script.split_once(']').expect("a list");
    assert_eq!(codes(list), all(false));
}

#[test]
fn what_it_refers_to_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let links: Vec<&str> = README.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    for link in &links {
        assert!(root.join(link).exists(), "{link}");
    }
    assert_eq!(links.len(), 4);
    let variables = spans().filter_map(|span| span.strip_prefix("RELAY_")?.split('=').next());
    let read = [include_str!("../../src/app/log.rs"), include_str!("harness.rs")].concat();
    let variables: BTreeSet<&str> = variables.collect();
    for variable in &variables {
        assert!(read.contains(&format!("\"RELAY_{variable}\"")), "RELAY_{variable}");
    }
    assert_eq!(variables.len(), 3);
    let (begin, end) = (README.find("<!-- figures -->"), README.find("<!-- /figures -->"));
    assert!(begin.is_some() && begin < end, "the place where the bench's table stands");
}

#[test]
fn its_picture_is_that_of_the_architecture() {
    let sections = sections();
    let shown = sections[0].blocks("text").next().expect("a picture");
    let page = include_str!("../../src/lib.rs");
    let page: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("//! ")).collect();
    assert!(page.join("\n").contains(shown), "{shown}");
}
