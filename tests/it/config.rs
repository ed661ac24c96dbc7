//! The configuration: the reference holds what it says, and mistakes stand where they were made.

mod changes;
mod redis;

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use relay::config::{EMBEDDED, Loaded, Mistakes, diff, load, schema};
use relay::http::listen::Address;
use relay::session::endpoint::{OnSlow, Replay, When};
use relay::source::verify::Verify;
use serde_json::Value;

/// Secrets of the reference, which are not on the machine that tests it.
const SECRETS: [&str; 4] =
    ["env:ALERTMANAGER_TOKEN_BEFORE", "env:ALERTMANAGER_TOKEN", "file:/etc/relay/billing", "credential:tenants"];

fn read(text: &str) -> Result<Loaded, Mistakes> {
    load(&SECRETS.iter().fold(text.to_owned(), |text, secret| text.replace(secret, "secret")), "relay.toml")
}

fn good(text: &str) -> Loaded {
    read(text).unwrap_or_else(|mistakes| panic!("{mistakes}\n\n{text}"))
}

/// Places and messages of all mistakes.
fn mistakes(text: &str) -> Vec<(usize, usize, String)> {
    let mistakes = read(text).expect_err(text).all;
    mistakes.into_iter().map(|mistake| (mistake.place.line, mistake.place.column, mistake.message)).collect()
}

// The reference

/// The lines of the reference that are commented out but would be read: single keys and whole blocks.
struct Reference {
    lines: Vec<&'static str>,
    /// Indices of keys in tables that are there.
    keys: Vec<usize>,
    /// Blocks, head and keys.
    blocks: Vec<std::ops::Range<usize>>,
}

fn key_of(line: &str) -> Option<&str> {
    let (key, _) = line.split_once('=')?;
    let key = key.trim_end();
    (!key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')).then_some(key)
}

fn uncommented(line: &str) -> Option<&str> {
    let line = line.strip_prefix("# ")?;
    (line.starts_with('[') || key_of(line).is_some()).then_some(line)
}

impl Reference {
    fn new() -> Reference {
        let lines: Vec<&str> = EMBEDDED.lines().collect();
        let (mut keys, mut blocks) = (Vec::new(), Vec::new());
        let mut at = 0;
        while at < lines.len() {
            let end = at + lines[at..].iter().take_while(|line| uncommented(line).is_some()).count();
            match uncommented(lines[at]) {
                Some(line) if line.starts_with('[') => blocks.push(at..end),
                _ => keys.extend(at..end),
            }
            at = end.max(at + 1);
        }
        Reference { lines, keys, blocks }
    }

    /// The text with these lines in force.
    fn with(&self, wanted: impl Fn(usize) -> bool) -> String {
        let line = |(at, line): (usize, &&'static str)| match uncommented(line) {
            Some(line) if wanted(at) => line,
            _ => line,
        };
        self.lines.iter().enumerate().map(line).collect::<Vec<_>>().join("\n")
    }
}

#[test]
fn the_reference_says_the_defaults() {
    let reference = Reference::new();
    let base = good(EMBEDDED).config;
    let mut defaults = 0;
    for &at in &reference.keys {
        let line = reference.lines[at];
        let config = good(&reference.with(|other| other == at)).config;
        if line.contains("default: ") {
            assert_ne!(config, base, "an example that changes nothing: {line}");
        } else {
            assert_eq!(config, base, "not the default: {line}");
            defaults += 1;
        }
    }
    assert!(reference.keys.len() >= 30 && defaults >= 20, "{} keys, {defaults} defaults", reference.keys.len());
}

#[test]
fn the_blocks_of_the_reference_work() {
    let reference = Reference::new();
    let base = good(EMBEDDED).config;
    let mut required = 0;
    for block in &reference.blocks {
        let config = good(&reference.with(|at| block.contains(&at))).config;
        assert_ne!(config, base, "{}", reference.lines[block.start]);
        for key in block.start + 1..block.end {
            let line = reference.lines[key];
            let without = reference.with(|at| block.contains(&at) && at != key);
            if line.contains("# required") {
                assert!(read(&without).is_err(), "not required: {line}");
                required += 1;
            } else if !line.contains("default: ") {
                assert_eq!(good(&without).config, config, "not the default: {line}");
            }
        }
    }
    assert!(reference.blocks.len() >= 8 && required >= 13, "{} blocks, {required} required", reference.blocks.len());
    let all = good(&reference.with(|at| reference.blocks.iter().any(|block| block.contains(&at)))).config;
    assert_eq!((all.streams.len(), all.webhooks.len(), all.endpoints[0].commands.len()), (2, 4, 2));
    assert_eq!(all.redis_sources.len(), 2);
}

/// The dotted names of all keys under a schema.
fn keys_of_schema(schema: &Value, name: &str, keys: &mut BTreeSet<String>) {
    for (key, schema) in schema["properties"].as_object().into_iter().flatten() {
        let name = format!("{name}.{key}");
        keys_of_schema(schema, &name, keys);
        keys.insert(name);
    }
    let inner = schema["anyOf"].as_array().into_iter().flatten();
    inner.chain(schema.get("items")).for_each(|schema| keys_of_schema(schema, name, keys));
}

/// The same of a file. What is below a free-form table is not in the schema, and so not a key.
fn keys_of_file(value: &toml::Value, name: &str, known: &BTreeSet<String>, keys: &mut BTreeSet<String>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                let inner = format!("{name}.{key}");
                if known.contains(&inner) || known.iter().any(|known| known.starts_with(&format!("{name}."))) {
                    keys.insert(inner.clone());
                    keys_of_file(value, &inner, known, keys);
                }
            }
        }
        toml::Value::Array(values) => values.iter().for_each(|value| keys_of_file(value, name, known, keys)),
        _ => {}
    }
}

#[test]
fn the_reference_and_the_schema_have_the_same_keys() {
    let (mut in_schema, mut in_file) = (BTreeSet::new(), BTreeSet::new());
    keys_of_schema(&schema(), "", &mut in_schema);
    let reference = Reference::new();
    let blocks = |at: usize| reference.blocks.iter().any(|block| block.contains(&at));
    let texts = reference.keys.iter().map(|&key| reference.with(|at| at == key));
    for text in texts.chain([reference.with(blocks)]) {
        let file: toml::Value = toml::from_str(&text).unwrap();
        keys_of_file(&file, "", &in_schema, &mut in_file);
    }
    assert_eq!(in_schema, in_file);
    assert!(in_schema.len() >= 70, "{}", in_schema.len());
}

#[test]
fn the_schema_is_closed_and_documented() {
    fn walk(schema: &Value, name: &str, tables: &mut usize) {
        if let Some(properties) = schema["properties"].as_object() {
            *tables += 1;
            assert_eq!(schema["additionalProperties"], Value::Bool(false), "{name}");
            for (key, schema) in properties {
                assert!(schema["description"].as_str().is_some_and(|doc| doc.len() > 3), "{name}.{key}");
                walk(schema, &format!("{name}.{key}"), tables);
            }
        }
        let inner = schema["anyOf"].as_array().into_iter().flatten();
        inner.chain(schema.get("items")).for_each(|schema| walk(schema, name, tables));
    }
    let schema = schema();
    let mut tables = 0;
    walk(&schema, "", &mut tables);
    assert!(tables >= 14, "{tables}");
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["properties"]["server"]["properties"]["drain"]["default"], "20s");
    assert_eq!(schema["properties"]["stream"]["items"]["required"], serde_json::json!(["name", "topics"]));
    assert_eq!(schema["properties"]["limits"]["properties"]["replay"]["default"], 10_000);
}

// What is read

#[test]
fn an_empty_file_is_all_defaults() {
    let config = good("").config;
    assert_eq!(config.server.listen, [Address::Tcp("127.0.0.1:8080".parse().unwrap())]);
    assert_eq!(config.server.drain, Duration::from_secs(20));
    assert_eq!(config.streams.len(), 1);
    assert_eq!((&*config.streams[0].name, config.streams[0].topics[0].as_str()), ("events", "**"));
    assert!(config.endpoints.is_empty() && config.webhooks.is_empty());
}

#[test]
fn values_come_through() {
    let config = good(
        r#"
        server = { listen = ["[::1]:0", "unix:/run/relay.sock?mode=0660", "systemd"], session_age = "12h" }
        limits = { frame = "16MiB", connects_per_ip = "90/m burst 5", exempt = "10.0.0.0/8" }
        stream = [
            { name = "alerts", topics = ["a", "a/*/b"], retain = 5, clear = { ".x" = 1 }, partitions = 64 },
            { name = "events", topics = ["news/**", "**"], max_age = "90ms" },
        ]
        [[source.webhook]]
        path = "/hooks/{tenant}"
        topic = "t/{path.tenant}/{.kind|none}"
        verify = { header = { name = "X-Token", value = ["a", "b"] } }
        [[endpoint]]
        path = ["/a/{x}", "/b/{x...}"]
        topics = "user/{path.x}"
        allow = ["user/{path.x}", "jobs/**"]
        transports = "websocket"
        origins = ["https://a.example:8443", "same"]
        replay = 20
        pace = "10s"
        on_slow = "latest"
        command = [
            { when = "ping", reply = "pong" },
            { when = { data.kind = "x" }, replay = "retained" },
            { publish = { topic = "echo/{session.id}", body = "{.}" } },
        ]
        [endpoint.hello]
        type = "hello"
        "ping" = "{now}"
        "#,
    )
    .config;
    assert_eq!(config.server.listen[1].to_string(), "unix:/run/relay.sock");
    assert_eq!((config.limits.frame, config.limits.gate.connects_per_ip.per_second), (16 << 20, 1.5));
    assert_eq!(config.streams.len(), 2);
    assert_eq!((config.streams[0].partitions, config.streams[0].retain), (64, 5));
    assert_eq!(config.streams[1].max_age, Some(Duration::from_millis(90)));
    let Verify::Header { name, value } = &config.webhooks[0].1.verify else { panic!() };
    assert_eq!((name.as_str(), value.len(), value[1].reveal()), ("x-token", 2, "b"));
    let endpoint = &config.endpoints[0];
    assert_eq!((endpoint.paths.len(), endpoint.topics.len(), endpoint.allow.len()), (2, 1, 2));
    assert_eq!((endpoint.replay, endpoint.on_slow), (Replay::Newest(20), OnSlow::Latest));
    assert_eq!(endpoint.pace[0].topics[0].as_str(), "**");
    assert_eq!(endpoint.commands.len(), 3);
    assert_eq!(endpoint.commands[0].when, When::Text("ping".into()));
    assert_eq!(endpoint.commands[1].replay, Some(Replay::Retained));
    assert_eq!(endpoint.commands[2].when, When::Always);
    assert!(endpoint.hello.is_some());
}

// Mistakes

#[test]
fn ten_mistakes_are_ten_mistakes() {
    let text = "\
[server]
listen = [\"127.0.0.1:8080\", \"localhost:80\"]
drian = \"20s\"
[limits]
frame = \"17MiB\"
queue = 5
[auth]
[[stream]]
name = \"a-b\"
topics = \"é/*b\"
[[source.webhook]]
path = \"/x\"
topic = \"{claims.sub}\"
[[endpoint]]
path = \"/x\"
topics = [\"a\"]
allow = [\"b\"]
on_slow = \"drop-oldest\"
";
    let places: Vec<(usize, usize)> = mistakes(text).into_iter().map(|(line, column, _)| (line, column)).collect();
    let expected = [(2, 29), (3, 1), (5, 9), (6, 9), (7, 2), (9, 8), (10, 10), (11, 1), (13, 9), (16, 10), (18, 11)];
    assert_eq!(places, expected);
}

#[test]
fn mistakes_look_like_this() {
    let text = "[server]\n\tdrian = \"20s\"\n[[source.webhook]]\npath = \"/x\"\ntopic = \"x\"\n";
    let shown = read(text).unwrap_err().to_string();
    let expected = "\
error: `server`: unknown key `drian` in [server]
  --> relay.toml:2:2
  |
2 | \tdrian = \"20s\"
  | \t^^^^^
  = help: did you mean `drain`?

error: `source.webhook.verify`: `verify` is missing in [[source.webhook]]
  --> relay.toml:3:1
  |
3 | [[source.webhook]]
  | ^^^^^^^^^^^^^^^^^^
  = help: say how senders prove themselves: { bearer = \"env:TOKEN\" }, basic, header; if they need no secret, \"none\"

2 mistakes in relay.toml";
    assert_eq!(shown, expected);
}

#[test]
fn each_mistake_is_found() {
    let check = |text: &str, column: usize, message: &str| {
        let found = mistakes(text);
        let one = found.len() == 1 && found[0].1 == column && found[0].2.contains(message);
        assert!(one, "{text}\n{column} {message}\n{found:#?}");
    };
    check("server = { drain = 20 }", 20, "expected a string");
    check("server = { drain = \"2h\" }", 20, "at most 1h");
    check("server = { listen = [] }", 21, "the list is empty");
    check("admin = { listen = \"127.0.0.1:8080\" }", 20, "listened on twice");
    check("server = { listen = \"systemd\" }\nadmin = { listen = \"systemd\" }", 20, "listened on twice");
    check("server = { listen = \"127.0.0.1:9090\" }", 21, "listened on twice");
    check("server = { trusted_proxies = [\"10.0.0.0/33\"] }", 31, "");
    check("server = 5", 10, "expected a table");
    check("limits = { connections = 0 }", 26, "at least 1");
    check("limits = { connections = -1 }", 26, "at least 1");
    check("limits = { connections = 1.5 }", 26, "expected a whole number");
    check("limits = { connects_per_ip = \"20/h\" }", 30, "no rate");
    check("limits = { queue = \"2MiB\", queues = \"1MiB\" }", 20, "larger than all");
    check("store = { engine = \"disk\" }", 20, "not known here");
    check("auth = {}", 1, "unknown key `auth`");
    check("source = { fetch = [] }", 12, "unknown key `fetch`");
    check("[stream]\nname = \"a\"", 1, "tables under [[stream]]");

    let stream = |keys: &str| format!("[[stream]]\nname = \"a\"\ntopics = \"a\"\n{keys}");
    check(&stream("partitions = 65"), 14, "at most 64");
    check(&stream("max_events = 0"), 14, "at least 1");
    check(&stream("clear = { \".a\" = 1 }"), 9, "nothing is retained");
    check(&stream("retain = 1\nclear = { a = 1 }"), 11, "begins with a dot");
    check(&stream("retain = 1\nclear = {}"), 9, "no field is named");
    check(&stream("live = 1"), 8, "expected true or false");
    check(&stream("[[stream]]\nname = \"a\"\ntopics = \"b\""), 8, "there twice");
    check(&stream("[[stream]]\nname = \"b\"\ntopics = \"a\""), 10, "streams above take all of it");
    check(&stream("[[stream]]\nname = \"events\"\ntopics = \"b\""), 10, "everything else goes");

    let webhook = |keys: &str| format!("[[source.webhook]]\npath = \"/h/{{x}}\"\ntopic = \"a\"\n{keys}");
    check(&webhook(""), 1, "`verify` is missing");
    check(&webhook("verify = \"hunter2\""), 10, "the only word");
    check(&webhook("verify = {}"), 10, "exactly one way");
    check(&webhook("verify = { bearer = \"a\", basic = { user = \"a\", password = \"b\" } }"), 10, "exactly one way");
    check(&webhook("verify = { bearer = \"\" }"), 21, "the secret is empty");
    check(&webhook("verify = { bearer = \"env:NOT_THERE_AT_ALL\" }"), 21, "no variable `NOT_THERE_AT_ALL`");
    check(&webhook("verify = { header = { name = \"a b\", value = \"x\" } }"), 30, "no name of a header");
    check(&webhook("verify = { github = \"x\" }"), 12, "unknown key `github`");
    check(&webhook("verify = \"none\"\nformat = \"cloudevents\""), 10, "not known here");
    check(&webhook("verify = \"none\"\nbody = { at = 1979-05-27 }"), 15, "JSON has no dates");
    check(&webhook("verify = \"none\"\nbody = { a = [\"{nope}\"] }"), 15, "means nothing here");
    check(&webhook("verify = \"none\"\nbody = { a = inf }"), 14, "JSON has no number");
    check(&webhook("verify = \"none\"\ndedupe = \"{path.y}\""), 10, "the path has no `{y}`");
    check("[[source.webhook]]\npath = \"/h\"\nverify = \"none\"\ntopic = \"a/*/{.x}\"", 9, "*");
    let again = "[[source.webhook]]\npath = \"/h/{y}\"\ntopic = \"a\"\nverify = \"none\"";
    check(&webhook(&format!("verify = \"none\"\n{again}")), 8, "another webhook has the path");
}

#[test]
fn each_mistake_of_an_endpoint_is_found() {
    let check = |keys: &str, column: usize, message: &str| {
        let text = format!("[[endpoint]]\npath = \"/e/{{x}}\"\n{keys}");
        let found = mistakes(&text);
        let one = found.len() == 1 && found[0].1 == column && found[0].2.contains(message);
        assert!(one, "{text}\n{column} {message}\n{found:#?}");
    };
    check("", 1, "`topics` is missing");
    check("topics = []", 10, "could never hear anything");
    check("topics = \"a\"\nallow = []", 9, "could never hear anything");
    check("topics = [\"a\", \"b/c\"]\nallow = [\"{path.x}\", \"b/*/c\"]", 10, "`b/c` is not within `allow`");
    check("topics = \"**/a\"", 10, "**");
    check("topics = \"{path.y}\"", 10, "the path has no `{y}`");
    check("topics = \"{.x}\"", 10, "means nothing here");
    let check = |keys: &str, column, message| check(&format!("topics = \"**\"\n{keys}"), column, message);
    check("transports = [\"websockets\"]", 15, "not known here");
    check("transports = []", 14, "the list is empty");
    check("origins = \"https://a.example/\"", 11, "no origin");
    check("origins = [\"same\", \"app.example.com\"]", 20, "no origin");
    check("format = \"cloudevents\"", 10, "not known here");
    check("replay = \"all\"", 10, "not known here");
    check("replay = -1", 10, "at least 0");
    check("pace = \"10\"", 8, "no duration");
    check("pace = \"0s\"", 8, "longer than nothing");
    check("pace = [{ every = \"1s\", min = \"9s\", max = \"2s\" }]", 1 + 30, "above `max`");
    check("pace = [{ every = \"{query.x|1}s\", min = \"2s\" }]", 19, "not between");
    check("where = { any = \".a\" }", 9, "`in` is missing");
    check("where = { any = [], in = \"a\" }", 17, "the list is empty");
    check("on_slow = \"disconect\"", 11, "not known here");
    check("connections_per_ip = 65", 22, "[limits] allows 64");
    check("alias = { all = \"a*\" }", 17, "*");
    check("hello = { ping = \"x\" }", 11, "`ping` is a key of [[endpoint]]");
    check("[endpoint.hello]\ntype = \"x\"\non_slow = \"latest\"", 1, "`on_slow` is a key of [[endpoint]]");
    check(
        "[[endpoint.command]]\nwhen = { type = \"a\", reply = \"b\" }",
        22,
        "`reply` is a key of [[endpoint.command]]",
    );
    check("[[endpoint.command]]\nwhen = {}", 8, "no field is named");
    check("[[endpoint.command]]\nforward = \"x\"", 1, "unknown key `forward`");
    check("[[endpoint.command]]\npublish = { topic = \"a/*\", body = \"{.}\" }", 21, "*");
    check("[[endpoint.command]]\n[[endpoint.command]]\nwhen = \"a\"", 1, "number 2 never applies");
    check("transports = \"sse\"\n[[endpoint.command]]", 1, "nobody can say anything");
    check("[[endpoint]]\npath = \"/e/{y}\"\ntopics = \"**\"", 8, "another endpoint has the path");
}

#[test]
fn broken_text_is_told_by_line() {
    let found = mistakes("[server]\ndrain = \"20s\n[limits]\nframe = = 5\n");
    assert_eq!(found.iter().map(|(line, ..)| *line).collect::<Vec<_>>(), [2, 4]);
    let found = mistakes("store = {}\nstore = {}\nadmin = 5");
    assert_eq!(found.iter().map(|(line, ..)| *line).collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn a_secret_is_never_shown() {
    let check = |verify: &str| {
        let text = format!("[[source.webhook]]\npath = \"/h\"\ntopic = \"a\"\n{verify}\n");
        let mistakes = read(&text).expect_err(&text);
        let shown = format!("{mistakes}\n{mistakes:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
    };
    check("verify = \"hunter2\"");
    check("verify = { barer = \"hunter2\" }");
    check("verify = { bearer = [\"hunter2\", 5] }");
    check("verify = { bearer = [\n\"hunter2\", 5\n] }");
    check("verify = { bearer = \"hunter2\", basic = {} }");
    check("verify = { bearer = \"hunter2 }");
    check("verify = { bearer = [\n\"hunter2\" \"hunter2\" ] }");
    check("[source.webhook.verify]\nbearer = 'hunter2");
    check("verify = { bearer = hunter2 }");
    check("[source.webhook.verify]\nbearer = [\nhunter2\n]");
    let fine = good("[[source.webhook]]\npath = \"/h\"\ntopic = \"a\"\nverify.bearer = \"hunter2\"\n");
    assert!(!format!("{fine:?}").contains("hunter2"));
}

proptest! {
    #[test]
    fn no_text_is_too_strange(text in any::<String>()) {
        let _ = load(&text, "x").map_err(|mistakes| mistakes.to_string());
    }

    /// Lines of the reference in any order, cut anywhere, are closer to what people save.
    #[test]
    fn no_cut_is_too_strange(order in proptest::collection::vec((0..200_usize, 0..100_usize), 0..40)) {
        let lines: Vec<&str> = EMBEDDED.lines().map(|line| uncommented(line).unwrap_or(line)).collect();
        let cut = |line: &'static str, at: usize| line.char_indices().nth(at).map_or(line, |(at, _)| &line[..at]);
        let text: Vec<&str> = order.into_iter().map(|(line, at)| cut(lines[line % lines.len()], at)).collect();
        if let Err(mistakes) = load(&text.join("\n"), "x") {
            prop_assert!(!mistakes.all.is_empty());
            prop_assert!(mistakes.to_string().contains("error: "));
        }
    }
}

// Reload
