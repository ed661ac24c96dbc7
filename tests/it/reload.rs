//! A changed file under load: whichever way it is replaced, what changed is in force, and those it does not concern
//! never notice.

use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::checker::{check_items, ids, position_of_cursor};
use crate::client::feed::{Feed, Item, Transport};
use crate::client::http::{Http, get, post_json};
use crate::client::soon;
use crate::harness::{EVENTS, EXEMPT, PUBLISH, Relay, Signal, config, plain, until};

/// The ordinary file, and one endpoint more.
fn with_endpoint(path: &str) -> String {
    format!("{}[[endpoint]]\npath = \"{path}\"\ntopics = [\"**\"]\n", plain())
}

/// A relay whose file is seen through two symlinks, as in a mounted ConfigMap: `relay.toml` → `..data/relay.toml`,
/// `..data` → a folder.
fn start_mounted(toml: &str) -> Relay {
    Relay::start_with(toml, &|file| {
        let folder = file.parent().expect("it lies in a folder");
        std::fs::create_dir(folder.join("..v1")).expect("created");
        std::fs::rename(file, folder.join("..v1/relay.toml")).expect("moved");
        symlink("..v1", folder.join("..data")).expect("linked");
        symlink("..data/relay.toml", file).expect("linked");
        let mut command = Command::new(env!("CARGO_BIN_EXE_relay"));
        command.arg("-c").arg(file);
        command
    })
}

fn rename_over(folder: &Path, toml: &str) {
    std::fs::write(folder.join(".relay.toml.new"), toml).expect("written");
    std::fs::rename(folder.join(".relay.toml.new"), folder.join("relay.toml")).expect("renamed");
}

fn swap_symlink(folder: &Path, toml: &str) {
    std::fs::create_dir(folder.join("..v2")).expect("created");
    std::fs::write(folder.join("..v2/relay.toml"), toml).expect("written");
    symlink("..v2", folder.join("..data.new")).expect("linked");
    std::fs::rename(folder.join("..data.new"), folder.join("..data")).expect("swapped");
    std::fs::remove_dir_all(folder.join("..v1")).expect("removed");
}

fn delete_and_create(folder: &Path, toml: &str) {
    std::fs::remove_file(folder.join("relay.toml")).expect("removed");
    std::fs::write(folder.join("relay.toml"), toml).expect("written");
}

#[test]
fn each_way_of_replacing_the_file_is_seen() {
    let relay = Relay::start(&plain());
    let folder = relay.folder();
    relay.reload(|| relay.write_config(&with_endpoint("/in-place")));
    assert_eq!(get(relay.public(), "/in-place?transport=poll").status(), 200);
    relay.reload(|| rename_over(folder, &with_endpoint("/renamed")));
    assert_eq!(get(relay.public(), "/renamed?transport=poll").status(), 200);
    assert_eq!(get(relay.public(), "/in-place?transport=poll").status(), 404);
    relay.reload(|| delete_and_create(folder, &with_endpoint("/created")));
    assert_eq!(get(relay.public(), "/created?transport=poll").status(), 200);
    relay.reload(|| {
        rename_over(folder, &with_endpoint("/signalled"));
        relay.signal(Signal::HUP);
    });
    assert_eq!(get(relay.public(), "/signalled?transport=poll").status(), 200);
    // And again in place, after all that: what is watched is still the right file.
    relay.reload(|| relay.write_config(&with_endpoint("/again")));
    assert_eq!(get(relay.public(), "/again?transport=poll").status(), 200);
}

#[test]
fn a_swapped_symlink_is_seen() {
    let relay = start_mounted(&plain());
    relay.reload(|| swap_symlink(relay.folder(), &with_endpoint("/swapped")));
    assert_eq!(get(relay.public(), "/swapped?transport=poll").status(), 200);
}

#[test]
fn a_signal_reads_the_file_even_where_nothing_seems_changed() {
    let relay = Relay::start(&plain());
    relay.signal(Signal::HUP);
    until(
        || relay.log().to_lowercase().contains("reload") || relay.metric("relay_config_version") > 1.0,
        || relay.log(),
    );
    assert_eq!(relay.refused_reloads(), 0.0);
    relay.publish("t", "1");
}

/// What the last event of a load says.
const LAST: u64 = 2;

/// A publisher that never rests, and sessions on all transports, while `change` happens; then everything is checked.
fn under_load(relay: &Relay, change: impl FnOnce()) {
    let over = AtomicBool::new(false);
    let address = relay.public();
    let mut feeds: Vec<(Feed, u64)> = (0..40)
        .map(|n| {
            let mut feed = Feed::open(address, "/events", Transport::ALL[n % 4], "", None);
            let (_, cursor) = feed.until_open();
            (feed, position_of_cursor(&cursor))
        })
        .collect();
    thread::scope(|scope| {
        let publisher = scope.spawn(|| {
            let mut http = Http::connect(address).expect("connects");
            let mut publish = |body: &[u8]| {
                let headers = [("Content-Type", "application/json")];
                let answer = http.request("POST", "/publish/load", &headers, body).expect("an answer").expect(200);
                (ids(&answer.json()).remove(0), "load".to_owned())
            };
            let mut published = Vec::new();
            while !over.load(Ordering::Acquire) {
                published.push(publish(b"1"));
            }
            published.push(publish(LAST.to_string().as_bytes()));
            published
        });
        let read = |feed: &mut Feed| {
            let mut items = Vec::new();
            while !matches!(items.last(), Some(Item::Event { data, .. }) if *data == LAST) {
                items.push(feed.next(soon()).expect("nobody is sent away"));
            }
            items
        };
        let readers: Vec<_> =
            feeds.iter_mut().map(|(feed, began_after)| (scope.spawn(move || read(feed)), *began_after)).collect();
        change();
        over.store(true, Ordering::Release);
        let published = publisher.join().expect("every event was taken");
        for (reader, began_after) in readers {
            let items = reader.join().expect("nobody is sent away");
            check_items(&published, |_| true, began_after, &items);
        }
    });
}

#[test]
fn reload_under_load_loses_nothing_and_nobody() {
    let relay = Relay::start(&plain());
    under_load(&relay, || {
        for n in 0..10 {
            relay.reload(|| relay.write_config(&with_endpoint(&format!("/number/{n}"))));
            assert_eq!(get(relay.public(), &format!("/number/{n}?transport=poll")).status(), 200);
        }
    });
}

/// The keys of an endpoint that can be followed in place, one after the other.
const IN_PLACE: [&str; 8] = [
    "replay = 5",
    "replay = \"retained\"",
    "on_slow = \"latest\"",
    "ping = \"7s\"",
    "connections_per_ip = 3",
    "alias = { all = \"**\" }",
    "hello = { type = \"hello\" }",
    "transports = [\"websocket\", \"sse\", \"ndjson\", \"poll\"]",
];

#[test]
fn what_an_endpoint_can_follow_in_place_disturbs_none_of_its_sessions() {
    let relay = Relay::start(&plain());
    under_load(&relay, || {
        for keys in IN_PLACE {
            let toml = format!("{}{keys}\n", plain());
            relay.reload(|| relay.write_config(&toml));
        }
    });
}

#[test]
fn a_changed_endpoint_asks_its_sessions_to_come_again_and_leaves_the_others() {
    let endpoint = |path: &str, keys: &str| format!("[[endpoint]]\npath = \"{path}\"\n{keys}\n");
    let all = "topics = [\"**\"]";
    let toml = |changed: &str| {
        let parts = [EXEMPT, PUBLISH, &endpoint("/kept", all), &endpoint("/changed", changed)];
        config(&parts.concat()).replacen("[admin]", "drain = \"1s\"\n[admin]", 1)
    };
    let changes = [
        "topics = [\"a/**\"]",
        "topics = [\"**\"]\nallow = [\"a/**\", \"**\"]",
        "topics = [\"**\"]\norigins = \"*\"",
        "topics = [\"**\"]\nformat = \"raw\"",
    ];
    for change in changes {
        let relay = Relay::start(&toml(all));
        for transport in Transport::STREAMING {
            let mut kept = Feed::open(relay.public(), "/kept", transport, "", None);
            kept.until_open();
            let mut changed = Feed::open(relay.public(), "/changed", transport, "", None);
            changed.until_open();
            relay.reload(|| relay.write_config(&toml(change)));
            let told = changed.until_end();
            let last = told.last();
            assert!(matches!(last, Some(Item::Close { code: 1012, retry_ms: Some(_), .. })), "{change}: {told:?}");
            relay.publish("a/b", "1");
            kept.events(1);
            relay.reload(|| relay.write_config(&toml(all)));
        }
    }
}

#[test]
fn a_removed_endpoint_says_that_it_will_not_be_back() {
    let relay = Relay::start(&with_endpoint("/gone"));
    let mut feeds: Vec<Feed> =
        Transport::STREAMING.iter().map(|t| Feed::open(relay.public(), "/gone", *t, "", None)).collect();
    feeds.iter_mut().for_each(|feed| drop(feed.until_open()));
    relay.reload(|| relay.write_config(&plain()));
    for feed in &mut feeds {
        let told = feed.until_end();
        assert!(matches!(told.last(), Some(Item::Close { code: 1001, retry_ms: None, .. })), "{told:?}");
    }
    assert_eq!(get(relay.public(), "/gone?transport=poll").status(), 404);
}

#[test]
fn webhooks_come_change_and_go() {
    let relay = Relay::start(&plain());
    let hook = |topic: &str| {
        format!("{}[[source.webhook]]\npath = \"/hook\"\ntopic = \"{topic}\"\nverify = \"none\"\n", plain())
    };
    let mut feed = Feed::open(relay.public(), "/events", Transport::Ndjson, "", None);
    feed.until_open();
    assert_eq!(post_json(relay.public(), "/hook", b"1").status(), 404);
    for topic in ["first", "second"] {
        relay.reload(|| relay.write_config(&hook(topic)));
        post_json(relay.public(), "/hook", b"1").expect(200);
        let event = feed.events(1).remove(0);
        assert!(matches!(&event, Item::Event { topic: told, .. } if told == topic), "{event:?}");
    }
    relay.reload(|| relay.write_config(&plain()));
    assert_eq!(post_json(relay.public(), "/hook", b"1").status(), 404);
}

#[test]
fn streams_come_change_and_go_while_sessions_listen() {
    let relay = Relay::start(&plain());
    let stream =
        |max: u64| format!("{}[[stream]]\nname = \"fresh\"\ntopics = [\"fresh/**\"]\nmax_events = {max}\n", plain());
    let mut feed = Feed::open(relay.public(), "/events", Transport::WebSocket, "", None);
    feed.until_open();
    let mut deliver = |number: u64| {
        let id = relay.publish("fresh/x", &number.to_string()).remove(0);
        let event = feed.events(1).remove(0);
        assert_eq!((event.id(), event.data()), (&id, &number.into()));
        id
    };
    assert!(deliver(1).starts_with("events-"));
    relay.reload(|| relay.write_config(&stream(5)));
    let before = deliver(2);
    assert!(before.starts_with("fresh-"), "{before}");
    relay.reload(|| relay.write_config(&stream(2)));
    let after = deliver(3);
    let epoch = |id: &str| id.rsplit_once('-').map(|(front, _)| front.to_owned());
    assert_eq!(epoch(&before), epoch(&after), "a stream that is only resized keeps its events");
    let page = get(relay.public(), "/events?transport=poll&topic=fresh/x&replay=10").expect(200).json();
    assert_eq!(page["items"].as_array().map(|items| items.len().min(3)), Some(3), "{page}");
    relay.reload(|| relay.write_config(&plain()));
    assert!(deliver(4).starts_with("events-"));
}

/// One request over a Unix socket.
fn unix(path: &Path) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(path)?;
    stream.write_all(b"GET /events?transport=poll HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

#[test]
fn listeners_come_and_go() {
    let relay = Relay::start(&plain());
    let path = relay.folder().join("relay.sock");
    let more = format!("\"127.0.0.1:0\", \"unix:{}?mode=0660\"", path.display());
    let mut feed = Feed::open(relay.public(), "/events", Transport::Sse, "", None);
    feed.until_open();
    relay.reload(|| relay.write_config(&plain().replacen("\"127.0.0.1:0\"", &more, 1)));
    let answer = unix(&path).expect("it listens there");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path).expect("it is there")) & 0o777;
    assert_eq!(mode, 0o660);
    relay.publish("t", "1");
    feed.events(1);
    relay.reload(|| relay.write_config(&plain()));
    until(|| unix(&path).is_err(), || "it still listens".into());
    relay.publish("t", "2");
    feed.events(1);
}

#[test]
fn a_bad_file_is_refused_whole_by_key_and_line() {
    let relay = Relay::start(&plain());
    let restart =
        |partitions: u32| format!("[[stream]]\nname = \"s\"\ntopics = [\"s/**\"]\npartitions = {partitions}\n");
    relay.reload(|| relay.write_config(&format!("{}{}", plain(), restart(1))));
    let mut feed = Feed::open(relay.public(), "/events", Transport::Ndjson, "", None);
    feed.until_open();
    let bad = [
        (format!("{}nonsense = 1\n", with_endpoint("/new")), "nonsense"),
        (format!("{}[[", with_endpoint("/new")), "relay.toml"),
        (format!("{}{}", with_endpoint("/new"), restart(2)), "partitions"),
        (String::from("\u{0}"), "relay.toml"),
    ];
    for (number, (toml, named)) in bad.into_iter().enumerate() {
        let logged = relay.log().len();
        relay.write_config(&toml);
        until(|| relay.refused_reloads() > number as f64, || format!("{named} was not refused:\n{}", relay.log()));
        until(|| relay.log()[logged..].contains(named), || relay.log());
        assert!(relay.log()[logged..].contains("relay.toml:"), "with its line:\n{}", relay.log());
        assert_eq!(get(relay.public(), "/new?transport=poll").status(), 404, "nothing of it is in force");
        relay.publish("t", "1");
        feed.events(1);
    }
    relay.reload(|| relay.write_config(&format!("{}{}", with_endpoint("/new"), restart(1))));
    assert_eq!(get(relay.public(), "/new?transport=poll").status(), 200);
    feed = Feed::open(relay.public(), "/new", Transport::Ndjson, "", None);
    feed.until_open();
}

#[test]
fn the_file_may_be_away_for_a_while() {
    let relay = Relay::start(&[plain(), EVENTS.replace("/events", "/old")].concat());
    std::fs::remove_file(relay.folder().join("relay.toml")).expect("removed");
    relay.publish("t", "1");
    relay.signal(Signal::HUP);
    until(|| relay.refused_reloads() >= 1.0, || relay.log());
    assert_eq!(get(relay.public(), "/old?transport=poll").status(), 200, "the last good one holds");
    relay.reload(|| relay.write_config(&plain()));
    assert_eq!(get(relay.public(), "/old?transport=poll").status(), 404);
}
