//! Getting in: passwords that are wrong, asked for later, put right. And none is ever printed.

use std::process::{Command, Stdio};

use super::{Crowd, instance, ready, refused, sharing, store, stored, unready_because};
use crate::client::http::get;
use crate::harness::{Relay, fresh_folder};
use crate::redis::{Redis, Setup};

/// Found in anything that is shown, this is a fault.
const SECRET: &str = "hunter2-hunter2";

/// Everything that a relay says to anybody.
#[track_caller]
fn shows_no_secret(relay: &Relay) {
    let pages = ["/readyz", "/healthz", "/stats", "/metrics"].map(|page| get(relay.admin(), page).text());
    for shown in pages.into_iter().chain([relay.log(), format!("{:?}", relay.said())]) {
        assert!(!shown.contains(SECRET), "{shown}");
    }
}

#[test]
fn with_a_wrong_password_it_starts_says_why_and_waits_until_it_is_right() {
    let redis = Setup::new().password("another").start();
    let url = format!("redis://:{SECRET}@{}", redis.address());
    let relay = instance(&url);
    unready_because(&relay, "WRONGPASS");
    unready_because(&relay, &redis.address().to_string());
    refused(&relay, "refused");
    relay.wait_for_log("WRONGPASS");
    shows_no_secret(&relay);
    redis.config_set("requirepass", SECRET);
    ready(&relay);
    let (_, was_there) = stored(&relay, "t", "refused");
    assert!(!was_there);
    let mut crowd = Crowd::on(&relay);
    let ids = store(&relay, "after", 2);
    crowd.hear(&ids);
    shows_no_secret(&relay);
}

#[test]
fn a_password_that_is_asked_for_at_run_time_is_missed_and_no_longer() {
    let redis = Redis::start();
    let relay = instance(&redis.url());
    let mut crowd = Crowd::on(&relay);
    let before = store(&relay, "before", 2);
    redis.config_set("requirepass", SECRET);
    redis.call(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    unready_because(&relay, "NOAUTH");
    refused(&relay, "refused");
    redis.config_set("requirepass", "");
    ready(&relay);
    let (id, was_there) = stored(&relay, "t", "refused");
    assert!(!was_there);
    crowd.hear(&[before, vec![id]].concat());
    shows_no_secret(&relay);
}

#[test]
fn no_mistake_in_the_file_shows_it() {
    let urls = [
        format!("redis://:{SECRET}@127.0.0.1"),
        format!("redis://:{SECRET}@"),
        format!("redis://{SECRET}@127.0.0.1"),
        format!("redis://:{SECRET}/@127.0.0.1"),
        format!("redis://u:{SECRET}@a:b:c"),
        format!("redi://:{SECRET}@127.0.0.1"),
        format!("unix:///s?password={SECRET}&passwort={SECRET}"),
    ];
    let folder = fresh_folder();
    let file = folder.join("relay.toml");
    for url in urls {
        std::fs::write(&file, sharing(&url, "", "")).expect("a file can be written");
        let mut check = Command::new(env!("CARGO_BIN_EXE_relay"));
        let output = check.arg("check").arg(&file).stdin(Stdio::null()).output().expect("it runs");
        let said = String::from_utf8([output.stdout, output.stderr].concat()).expect("UTF-8");
        assert!(!said.is_empty() && !said.contains(SECRET), "{said}");
    }
    let _ = std::fs::remove_dir_all(folder);
}
