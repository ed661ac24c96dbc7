//! `[store] engine`, `[redis]`, `[[source.redis]]`, and streams that are live.

use relay::config::Engine;
use relay::event::{Payload, Time};
use relay::link::server::{Address, Topology};
use relay::source::redis::Reads;
use relay::template::Scope;

use super::*;

/// The key, its place, what is said and what to do.
fn check(text: &str, (key, line, column): (&str, usize, usize), message: &str, help: &str) {
    let mistakes = read(text).expect_err(text);
    let [one] = &mistakes.all[..] else { panic!("{text}\n{mistakes}") };
    assert_eq!((one.key.as_str(), one.place.line, one.place.column), (key, line, column), "{text}\n{mistakes}");
    assert!(one.message.contains(message), "{message}\n{mistakes}");
    assert!(one.help.contains(help) && (help.is_empty() == one.help.is_empty()), "{help}\n{mistakes}");
    never_shown(&mistakes);
}

fn never_shown(mistakes: &Mistakes) {
    let shown = format!("{mistakes}\n{mistakes:?}");
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn redis_has_defaults() {
    let config = good("").config;
    assert_eq!((config.store.engine, config.redis.prefix.as_str()), (Engine::Memory, "relay"));
    assert_eq!(config.redis.server.to_string(), "redis://127.0.0.1:6379");
    assert_eq!((config.redis.server.timeout, config.redis.server.ca), (Duration::from_secs(2), None));
    assert!(config.redis_sources.is_empty() && !config.streams[0].live);
    let config = good("store.engine = \"redis\"").config;
    assert_eq!(
        (config.store.engine, config.redis.server.to_string().as_str()),
        (Engine::Redis, "redis://127.0.0.1:6379")
    );
}

#[test]
fn a_server_and_its_sources_come_through() {
    let loaded = good(
        r#"
        store = { engine = "redis", memory = "1MiB" }
        [redis]
        url = "rediss+sentinel://app:hunter2@a,b:5/main"
        prefix = "Shop_1.eu-west"
        timeout = "500ms"
        ca = "/etc/ca.pem"
        [[stream]]
        name = "now"
        topics = "now/**"
        live = true
        partitions = 64
        [[source.redis]]
        channels = "orders.[a-c]?\\*"
        topic = "{.kind|none}/{channel}"
        [[source.redis]]
        channels = ["{b}.x", "a"]
        shard = true
        url = "unix:///run/app.sock?password=hunter2"
        [[source.redis]]
        streams = ["billing", "audit{1"]
        shard = false
        "#,
    );
    assert!(!format!("{loaded:?}").contains("hunter2"));
    let config = loaded.config;
    let server = &config.redis.server;
    assert_eq!(server.topology, Topology::Sentinel { name: "main".into(), password: None });
    assert_eq!((server.tls, server.user.as_deref(), server.addresses.len()), (true, Some("app"), 2));
    assert_eq!(server.password.as_ref().map(|password| password.reveal()), Some("hunter2"));
    assert_eq!((config.redis.prefix.as_str(), server.timeout.as_millis()), ("Shop_1.eu-west", 500));
    assert_eq!((config.streams[0].live, config.streams[0].partitions, config.streams[1].live), (true, 64, false));
    let [globs, sharded, streams] = &config.redis_sources[..] else { panic!() };
    assert_eq!((&globs.reads, &globs.server), (&Reads::Channels(vec!["orders.[a-c]?\\*".into()]), &None));
    assert_eq!(sharded.reads, Reads::Sharded(vec!["a".into(), "{b}.x".into()]));
    assert_eq!(streams.reads, Reads::Streams(vec!["audit{1".into(), "billing".into()]));
    // What is said of all servers is said once.
    let app = sharded.server.as_ref().unwrap();
    assert_eq!(app.addresses, [Address::Unix("/run/app.sock".into())]);
    assert_eq!((app.timeout, &app.ca), (server.timeout, &Some("/etc/ca.pem".into())));
}

#[test]
fn a_channel_becomes_a_topic() {
    let topic = |template: &str, channel: &str| {
        let config = good(&format!("[[source.redis]]\nchannels = \"*\"\n{template}")).config;
        let payload = Payload { kind: relay::event::Kind::Text, bytes: "x".into() };
        let scope = Scope { channel: Some(channel), raw: Some(&payload), now: Time(0), ..Scope::default() };
        config.redis_sources[0].topic.topic(&scope).map(|topic| topic.as_str().to_owned()).unwrap_or_else(|e| e.0)
    };
    assert_eq!(topic("", "orders.eu/a:b*"), "orders.eu/a:b_");
    assert_eq!(topic("topic = \"app/{channel}/{.}\"", "a.b"), "app/a.b/x");
    assert_eq!(topic("topic = \"{.kind}\"", "a"), "`{.kind}` is absent");
    assert_eq!(topic("topic = \"{now}\"", "a"), "1970-01-01T00_00_00_000Z");
}

#[test]
fn mistakes_about_redis_are_found() {
    let redis = |key: &str| format!("[redis]\n{key}");
    check(&redis("prefix = \"\""), ("redis.prefix", 2, 10), "is no prefix", "1-64 letters");
    check(&redis("prefix = \"a{b}\""), ("redis.prefix", 2, 10), "\"a{b}\" is no prefix", "1-64 letters");
    check(&redis(&format!("prefix = \"{}\"", "a".repeat(65))), ("redis.prefix", 2, 10), "is no prefix", "1-64 letters");
    check(&redis("timeout = \"99ms\""), ("redis.timeout", 2, 11), "at least 100ms and at most 1m", "");
    check(&redis("ca = \"\""), ("redis.ca", 2, 6), "the string is empty", "");
    check(&redis("ca = \"file:/a\""), ("redis.ca", 2, 6), "a path alone stands here", "leave out");
    check(&redis("url = \"localhost:6379\""), ("redis.url", 2, 7), "begins with none of redis://", "");
    check(&redis("url = \"redis://h/x\""), ("redis.url", 2, 7), "the database is no number", "");
    check(&redis("url = \"\""), ("redis.url", 2, 7), "begins with none of redis://", "");
    check(&redis("url = \"env:NOT_THERE_AT_ALL\""), ("redis.url", 2, 7), "no variable `NOT_THERE_AT_ALL`", "");
    check(&redis("urls = \"redis://h\""), ("redis", 2, 1), "unknown key `urls`", "did you mean `url`?");
}

#[test]
fn mistakes_of_sources_are_found() {
    let source = |keys: &str| format!("[[source.redis]]\n{keys}");
    let channels = |keys: &str| source(&format!("channels = [\"a\", \"{{b}}:c\"]\n{keys}"));
    let shard = |list: &str| source(&format!("shard = true\nchannels = {list}"));
    let check = |text: &str, (name, line, column): (&str, usize, usize), message, help| {
        check(text, (format!("source.redis.{name}").trim_end_matches('.'), line, column), message, help);
    };
    check(&source(""), ("", 1, 1), "nothing to read", "channels = ");
    check(&source("url = \"redis://h\""), ("", 1, 1), "nothing to read", "streams = ");
    check(&channels("streams = \"x\""), ("streams", 3, 11), "`streams` and `channels`", "make two sources");
    check(&source("channels = []"), ("channels", 2, 12), "the list is empty", "at least one");
    check(&source("streams = []"), ("streams", 2, 11), "the list is empty", "at least one");
    check(&source("channels = [\"a\", \"\"]"), ("channels", 2, 18), "the string is empty", "");
    check(&source("channels = [\"a\", \"b\", \"a\"]"), ("channels", 2, 12), "\"a\" is there twice", "");
    check(&source("streams = [\"a\", \"b*\"]"), ("streams", 2, 17), "\"b*\" is no key", "name each");
    check(&source("streams = \"a\"\nshard = true"), ("shard", 3, 9), "`shard` and `streams`", "leave out `shard`");
    for glob in ["b*", "b?", "[b]", "b\\\\"] {
        check(&shard(&format!("[\"a\", \"{glob}\"]")), ("channels", 3, 18), "is a glob", "leave out `shard`");
    }
    for name in ["{}", "a{}b", "{a", "a}", "}a{", "{a}{b}", "{{a}}", "{a}}", "{a}b{"] {
        check(&shard(&format!("\"{name}\"")), ("channels", 3, 12), "braces that are no hash tag", "{orders}.new");
    }
    check(
        &channels("topic = \"{path.x}\""),
        ("topic", 3, 9),
        "means nothing here; here are: `{.…}`, `{now}`, `{channel}`",
        "",
    );
    check(&channels("topic = \"a/*\""), ("topic", 3, 9), "*", "");
    check(&channels("url = \"redis://\""), ("url", 3, 7), "a host is missing", "");
    check(&channels("chanels = \"x\""), ("", 3, 1), "unknown key `chanels`", "did you mean `channels`?");
}

#[test]
fn one_source_is_one_source() {
    let sources = |redis: &str, one: &str, other: &str| {
        let text = format!("redis.url = \"{redis}\"\n[[source.redis]]\n{one}\n[[source.redis]]\n{other}\n");
        read(&text).map_err(|mistakes| {
            never_shown(&mistakes);
            assert!(mistakes.to_string().contains("another source reads the same"), "{mistakes}");
            mistakes.all.iter().map(|mistake| (mistake.key.clone(), mistake.place.line)).collect::<Vec<_>>()
        })
    };
    let twice = |redis: &str, one: &str, other: &str, key: &str| {
        // Under the head of the second table, at the list.
        let line = 4 + one.lines().count() + other.lines().take_while(|line| !line.starts_with(key)).count();
        assert_eq!(sources(redis, one, other).unwrap_err(), [(format!("source.redis.{key}"), line)], "{one} {other}");
    };
    let h = "redis://h";
    twice(h, "channels = [\"a\", \"b\"]", "channels = [\"b\", \"a\"]", "channels");
    twice(h, "channels = \"a\"\nurl = \"redis://:hunter2@h:6379\"", "channels = \"a\"", "channels");
    twice("redis://h/1", "channels = \"a\"\nurl = \"redis://h/2\"", "channels = \"a\"", "channels");
    twice(h, "streams = \"a\"", "streams = \"a\"\nurl = \"redis://h\"", "streams");
    twice(h, "channels = \"a\"\nshard = true", "channels = \"a\"\nshard = true", "channels");
    let fine = |one: &str, other: &str| assert!(sources(h, one, other).is_ok(), "{one} {other}");
    fine("channels = \"a\"", "channels = [\"a\", \"b\"]");
    fine("channels = \"a\"", "streams = \"a\"");
    fine("channels = \"a\"", "channels = \"a\"\nshard = true");
    fine("channels = \"a\"", "channels = \"a\"\nurl = \"redis://other\"");
    fine("streams = \"a\"", "streams = \"a\"\nurl = \"redis://h/1\"");
}

#[test]
fn a_live_stream_keeps_nothing() {
    let stream = |keys: &str| format!("[[stream]]\nname = \"a\"\ntopics = \"a\"\nlive = true\n{keys}");
    for (key, value) in [("max_events", "5"), ("max_age", "\"1h\""), ("retain", "0"), ("clear", "{ \".a\" = 1 }")] {
        let help = format!("leave out `{key}`, or `live`");
        let (name, message) = (format!("stream.{key}"), format!("`{key}` and `live`"));
        check(&stream(&format!("{key} = {value}")), (&name, 5, key.len() + 4), &message, &help);
        good(
            &stream(&format!("{key} = {value}")).replace("live = true", if key == "clear" { "retain = 1" } else { "" }),
        );
    }
}

#[test]
fn a_password_in_a_url_is_never_shown() {
    let check = |text: &str| never_shown(&read(text).expect_err(text));
    // As a URL is written, and as it is miswritten.
    for url in [
        "redis://:hunter2@",
        "redis://u:hunter2@h:x",
        "redis://hunter2@h",
        "redis://:hunter2/x@h",
        "redis://u:hunter2",
        "redis:/:hunter2@h",
        "http://u:hunter2@h",
        "hunter2",
        "unix:///r?pass=hunter2",
        "redis://:hunter2%@h",
        "redis+sentinel://h?sentinel_password=hunter2",
    ] {
        check(&format!("redis.url = \"{url}\""));
        check(&format!("[[source.redis]]\nstreams = \"a\"\nurl = \"{url} \""));
        check(&format!("[redis]\nurl = [\"{url}\"]"));
        check(&format!("[redis]\nurl = {{ x = [\"{url}\"] }}"));
    }
    // Elsewhere, and beside other mistakes.
    check("redis = { ulr = \"redis://:hunter2@h\" }");
    check("redis = { url = \"redis://:hunter2@h\", prefx = \"a\" }");
    check("[redis]\nurI = [\"unix:///r?password=hunter2\"]");
    check("redsi = { url = \"rediss://u:hunter2@h\" }");
    check("[server]\nlisten = \"redis://:hunter2@h\"");
    check("[redis]\nprefix = \"redis://:hunter2@h\"");
    check("[[source.redis]]\nshard = true\nchannels = ['redis://:hunter2@h/*']");
    check("[[source.redis]]\nstream = \"rediss://u:hunter2@h\"\nurl = \"redis://:hunter2@h\"");
    // What is not even TOML.
    check("[redis]\nurl = redis://:hunter2@h");
    check("[redis]\nurl = redis://:hunter2@h # \"a\"");
    check("[redis]\nurl = \"redis://:hunter2@h");
    check("[redis]\nurl = 'redis://:hunter2@h\"");
    check("[redis]\nurl =\nredis://:hunter2@h");
    check("[redis]\nuri = \"redis://:hunter2@h\" \"");
    check("redis = { url = \"redis://:hunter2@h\"");
}
