//! What a changed file changes, and what it may not.

use super::*;

const BEFORE: &str = r#"
server = { listen = ["127.0.0.1:1", "127.0.0.1:2"] }
[[stream]]
name = "a"
topics = "a"
[[source.webhook]]
path = "/h"
topic = "a"
verify = "none"
[[endpoint]]
path = "/one"
topics = "**"
[[endpoint]]
path = "/two"
topics = "**"
"#;

#[test]
fn what_changed_is_told() {
    let check = |from: &str, to: &str, expected: &str| {
        assert!(BEFORE.contains(from), "{from}");
        let changes = diff::diff(&good(BEFORE), &good(&BEFORE.replacen(from, to, 1))).unwrap();
        assert_eq!(changes.to_string(), expected, "{from} {to}");
        assert_eq!(changes == diff::Changes::default(), expected == "nothing changed");
    };
    check("\"127.0.0.1:2\"", "\"127.0.0.1:2\", ", "nothing changed");
    check("127.0.0.1:2", "127.0.0.1:3", "listening on 127.0.0.1:3; no longer on 127.0.0.1:2");
    check("server = {", "admin.listen = []\nserver = {", "admin no longer on 127.0.0.1:9090");
    check("server = {", "server = { drain = \"1s\", ", "server changed");
    check("server = {", "limits.frame = \"1KiB\"\nserver = {", "limits changed");
    check("server = {", "store.memory = \"1MiB\"\nserver = {", "store changed");
    check("topics = \"a\"", "topics = \"a\"\nmax_events = 5", "streams changed");
    check("name = \"a\"", "name = \"b\"\npartitions = 4", "streams changed");
    check("verify = \"none\"", "verify = \"none\"\nmax_body = \"1KiB\"", "webhooks changed");
    check("[[endpoint]]", "[[source.redis]]\nchannels = \"a\"\n[[endpoint]]", "Redis sources changed");
    // Nobody uses it.
    check(
        "server = {",
        "redis = { url = \"redis://h\", prefix = \"p\", timeout = \"1s\" }\nserver = {",
        "nothing changed",
    );
    check("name = \"a\"", "name = \"b\"\nlive = true", "streams changed");
    check("/two", "/three", "endpoints added: /three; endpoints removed: /two");
    check("\"/two\"", "[\"/two\", \"/three\"]", "endpoints changed in place: /two");
    check("path = \"/two\"", "path = \"/two\"\nping = \"5s\"", "endpoints changed in place: /two");
    for key in ["format = \"raw\"", "origins = \"*\"", "allow = [\"**\", \"a\"]"] {
        check("path = \"/two\"", &format!("path = \"/two\"\n{key}"), "endpoints whose sessions reconnect: /two");
    }
}

#[test]
fn what_needs_a_restart_is_refused_whole() {
    let check = |from: &str, to: &str, key: &str, line: usize| {
        let refused = diff::diff(&good(BEFORE), &good(&BEFORE.replacen(from, to, 1))).unwrap_err();
        let keys: Vec<_> = refused.all.iter().map(|mistake| (mistake.key.as_str(), mistake.place.line)).collect();
        assert_eq!(keys, [(key, line)]);
    };
    check("topics = \"a\"", "topics = \"a\"\npartitions = 2", "stream.a.partitions", 6);
    check("topics = \"a\"", "topics = \"a\"\nlive = true", "stream.a.live", 6);
    check("\"127.0.0.1:2\"", "\"systemd\"", "server.listen", 2);
    check(
        "server = {",
        "[store]\nengine = \"redis\"\n[server]\nlisten = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\n#",
        "store.engine",
        3,
    );
    let (two, one) = (BEFORE.replace("name = \"a\"", "name = \"a\"\npartitions = 2"), good(BEFORE));
    let refused = diff::diff(&good(&two), &one).unwrap_err();
    assert_eq!((refused.all[0].place.line, refused.all[0].place.text.as_str()), (3, "[[stream]]"));
}

const SOURCES: &str = r#"
[redis]
url = "redis://:hunter2@h/1"
ca = "/a"
[[source.redis]]
channels = ["a", "b"]
[[source.redis]]
streams = "a"
url = "redis://:hunter2@other"
"#;

#[test]
fn sources_of_redis_come_and_go() {
    let check = |from: &str, to: &str, changed: bool| {
        assert!(SOURCES.contains(from), "{from}");
        let changes = diff::diff(&good(SOURCES), &good(&SOURCES.replacen(from, to, 1))).unwrap();
        assert_eq!(changes, diff::Changes { redis_sources: changed, ..diff::Changes::default() }, "{from} {to}");
    };
    check("[\"a\", \"b\"]", "[\"b\", \"a\"]", false);
    check("[\"a\", \"b\"]", "[\"a\", \"c\"]", true);
    check("[\"a\", \"b\"]", "[\"a\", \"b\"]\nshard = true", true);
    check("[\"a\", \"b\"]", "[\"a\", \"b\"]\ntopic = \"x\"", true);
    check("@other", "@another", true);
    let none = SOURCES.split("[[source").next().unwrap();
    let changes = diff::diff(&good(SOURCES), &good(none)).unwrap();
    assert_eq!(changes.to_string(), "Redis sources changed");
}

#[test]
fn a_redis_in_use_needs_a_restart() {
    let check = |before: &str, from: &str, to: &str, key: &str, line: usize| {
        assert!(before.contains(from), "{from}");
        let refused = diff::diff(&good(before), &good(&before.replacen(from, to, 1))).unwrap_err();
        let keys: Vec<_> = refused.all.iter().map(|mistake| (mistake.key.as_str(), mistake.place.line)).collect();
        assert_eq!(keys, [(key, line)], "{from} {to}");
        assert!(!format!("{refused} {refused:?}").contains("hunter"), "{refused}");
    };
    let of_the_store = "\n[redis]\nurl = \"redis://:hunter2@h/1\"\nca = \"/a\"\n[store]\nengine = \"redis\"";
    for before in [SOURCES, of_the_store] {
        check(before, "hunter2", "hunter3", "redis.url", 3);
        check(before, "@h/1", "@h/2", "redis.url", 3);
        check(before, "redis://", "rediss://", "redis.url", 3);
        check(before, "url = \"redis://:hunter2@h/1\"\n", "", "redis.url", 2);
        check(before, "/a", "/b", "redis.ca", 4);
        check(before, "[redis]", "[redis]\ntimeout = \"3s\"", "redis.timeout", 3);
        check(before, "[redis]", "[redis]\nprefix = \"other\"", "redis.prefix", 3);
    }
}
