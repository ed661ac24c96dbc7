//! What operators see: health, readiness, metrics, statistics; on an address of its own.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use crate::client::feed::{Feed, Transport};
use crate::client::http::{Http, get};
use crate::client::soon;
use crate::harness::{EVENTS, EXEMPT, PUBLISH, Relay, fresh_folder, plain};

#[test]
fn health_readiness_and_statistics_are_there_and_nowhere_else() {
    let relay = Relay::start(&plain());
    assert_eq!(get(relay.admin(), "/healthz").status(), 200);
    let ready = get(relay.admin(), "/readyz").expect(200);
    assert!(ready.header("content-type").is_some_and(|kind| kind.starts_with("application/json")));
    assert!(ready.json().is_object(), "{}", ready.text());
    for key in ["sessions", "sockets", "audiences", "patterns", "queued_bytes", "addresses"] {
        assert!(relay.stats()[key].is_u64(), "{key} in {}", relay.stats());
    }
    for path in ["/metrics", "/stats", "/healthz", "/readyz"] {
        assert_eq!(get(relay.public(), path).status(), 404, "{path} is not for the public");
    }
    for path in ["/events", "/publish/t", "/nowhere"] {
        assert_eq!(get(relay.admin(), path).status(), 404, "{path} is not for operators");
    }
}

#[test]
fn the_admin_address_checks_the_host() {
    let relay = Relay::start(&plain());
    let with_host = |host: &str| {
        let mut http = Http::connect(relay.admin()).expect("connects");
        http.socket.write(format!("GET /stats HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).expect("sent");
        http.answer(soon()).expect("an answer").status()
    };
    assert_eq!(with_host(&relay.admin().to_string()), 200);
    assert_eq!(with_host(&format!("localhost:{}", relay.admin().port())), 200);
    let foreign = with_host("evil.example");
    assert!([400, 403, 421].contains(&foreign), "a page that rebinds its name gets nothing: {foreign}");
}

#[test]
fn metrics_are_well_formed_and_their_labels_bounded() {
    let relay = Relay::start(&plain());
    let mut feed = Feed::open(relay.public(), "/events", Transport::WebSocket, "topic=secret/topic", None);
    feed.until_open();
    relay.publish("secret/topic", "1");
    feed.events(1);
    let answer = get(relay.admin(), "/metrics").expect(200);
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = answer.text();
    let (mut families, mut samples) = (BTreeSet::new(), BTreeSet::new());
    for line in text.lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            assert!(families.insert(family.split(' ').next().expect("a name")), "twice: {line}");
            continue;
        }
        if line.starts_with("# HELP ") {
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line:?}"));
        assert!(value.parse::<f64>().is_ok(), "{line}");
        assert!(samples.insert(sample), "twice: {line}");
        let name = sample.split('{').next().expect("a name");
        let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        assert!(families.contains(name) || of_histogram.is_some_and(|name| families.contains(name)), "{line}");
    }
    assert!(families.len() > 20, "{text}");
    assert!(!text.contains("secret/topic") && !text.contains("127.0.0.1"), "neither topics nor addresses:\n{text}");
    // Counted right after the write, which the client may see first.
    relay.wait_for(|stats| stats["deliveries"] == 1);
    assert_eq!(relay.metric("relay_sessions{endpoint=\"/events\",transport=\"websocket\"}"), 1.0);
    assert_eq!(relay.metric("relay_events_total"), 1.0);
    assert_eq!(relay.metric("relay_deliveries_total"), 1.0);
}

#[test]
fn unix_sockets_are_addresses_like_others() {
    let folder = fresh_folder();
    let (public, admin) = (folder.join("public.sock"), folder.join("admin.sock"));
    // Left by a process that was killed: nobody listens there any more.
    drop(std::os::unix::net::UnixListener::bind(&public).expect("bound"));
    let listen = |path: &std::path::Path| format!("listen = [\"127.0.0.1:0\", \"unix:{}\"]", path.display());
    let toml = format!("[server]\n{}\n[admin]\n{}\n{EXEMPT}{PUBLISH}{EVENTS}", listen(&public), listen(&admin));
    let relay = Relay::start(&toml);
    let said = |name: &str, path: &std::path::Path| {
        relay.said().contains(&(name.to_owned(), format!("unix:{}", path.display())))
    };
    assert!(said("public", &public) && said("admin", &admin), "{:?}", relay.said());
    for (path, target) in [(&public, "/events?transport=poll"), (&admin, "/stats")] {
        let mut stream = UnixStream::connect(path).expect("it listens");
        let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let mut stream = UnixStream::connect(&public).expect("it listens");
    stream.write_all(b"GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n").expect("sent");
    relay.wait_for_sessions(1);
    relay.publish("t", "\"over a file\"");
    let mut text = String::new();
    while !text.contains("over a file") {
        let mut chunk = [0; 4096];
        let length = stream.read(&mut chunk).expect("something comes");
        assert_ne!(length, 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&chunk[..length]));
    }
}
