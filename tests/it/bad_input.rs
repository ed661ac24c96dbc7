//! What strangers send: each gets a clear answer, is counted, and disturbs nobody else.

use std::io::ErrorKind;
use std::process::Command;

use crate::client::feed::{Feed, Item, Transport};
use crate::client::http::{Answer, Http, get, request};
use crate::client::websocket::{BINARY, TEXT, WebSocket, masked};
use crate::client::{PATIENCE, http, soon};
use crate::harness::{EVENTS, EXEMPT, PUBLISH, Relay, config, fresh_folder, plain, until};

/// Somebody who listens all the while, and must not notice.
struct Witness<'a> {
    relay: &'a Relay,
    feeds: Vec<Feed>,
}

impl<'a> Witness<'a> {
    fn of(relay: &'a Relay) -> Witness<'a> {
        let open = |transport: &Transport| {
            let mut feed = Feed::open(relay.public(), "/events", *transport, "topic=witness", None);
            feed.until_open();
            feed
        };
        Witness { relay, feeds: Transport::ALL.iter().map(open).collect() }
    }

    #[track_caller]
    fn noticed_nothing(&mut self) {
        let id = self.relay.publish("witness", "true").remove(0);
        for feed in &mut self.feeds {
            assert_eq!(feed.events(1)[0].id(), &id);
        }
    }
}

fn refused(relay: &Relay, reason: &str) -> f64 {
    relay.metric(&format!("relay_refused_total{{reason=\"{reason}\"}}"))
}

fn closed(relay: &Relay, reason: &str) -> f64 {
    relay.metric(&format!("relay_closes_total{{reason=\"{reason}\"}}"))
}

const HOOKS: &str = r#"
[[source.webhook]]
path     = "/small"
topic    = "small/{.kind}"
verify   = { bearer = "secret" }
max_body = "1KiB"

[[source.webhook]]
path   = "/basic"
topic  = "basic"
verify = { basic = { user = "me", password = ["old", "new"] } }

[[source.webhook]]
path   = "/header"
topic  = "header"
verify = { header = { name = "X-Token", value = "secret" } }
"#;

/// A body, its headers, the status it gets, and the reason it is counted under.
type Case<'a> = (&'a [u8], (&'a str, &'a str), u16, &'a str);

#[test]
fn a_webhook_says_what_is_wrong_with_a_body_and_counts_it() {
    let relay = Relay::start(&config(&[EXEMPT, PUBLISH, EVENTS, HOOKS].concat()));
    let mut witness = Witness::of(&relay);
    let json = ("Content-Type", "application/json");
    let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
    let large = format!("\"{}\"", "x".repeat(2_000));
    let separators = format!("{{\"kind\":\"{}\"}}", "k".repeat(300));
    let cases: [Case<'_>; 10] = [
        (large.as_bytes(), json, 413, "too_large"),
        (b"{\"kind\":", json, 400, "bad_json"),
        (b"{\"kind\":1} {}", json, 400, "bad_json"),
        (b"", json, 400, "bad_json"),
        (b"{\"kind\":\"\xff\"}", json, 400, "bad_utf8"),
        (deep.as_bytes(), json, 400, "too_deep"),
        (b"{\"kind\":\"a\"}", ("Content-Type", "image/png"), 415, "media_type"),
        (b"{\"other\":1}", json, 422, "unfilled"),
        (b"{\"kind\":\"\"}", json, 422, "unfilled"),
        (separators.as_bytes(), json, 422, "unfilled"),
    ];
    for (body, kind, status, reason) in cases {
        let sample = format!("relay_webhook_requests_total{{source=\"/small\",reason=\"{reason}\"}}");
        let before = relay.metric(&sample);
        let answer = request(relay.public(), "POST", "/small", &[kind, ("Authorization", "Bearer secret")], body);
        assert_eq!(answer.status(), status, "{reason}: {}{}", answer.head.raw, answer.text());
        assert!(answer.body.len() > 10, "{reason}: a clear answer, not {:?}", answer.text());
        assert_eq!(relay.metric(&sample), before + 1.0, "{reason} is counted");
    }
    witness.noticed_nothing();
}

#[test]
fn a_chunked_body_without_end_is_cut_at_its_limit() {
    let relay = Relay::start(&config(&[EXEMPT, PUBLISH, EVENTS, HOOKS].concat()));
    let mut http = Http::connect(relay.public()).expect("connects");
    let head = "POST /small HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer secret\r\nContent-Type: application/json\r\n\
                Transfer-Encoding: chunked\r\n\r\n";
    http.socket.write(head.as_bytes()).expect("sent");
    let chunk = format!("400\r\n{}\r\n", "1".repeat(1024));
    // It may hang up while we still send: that is an answer too, but one that was sent comes first.
    for _ in 0..10_000 {
        if http.socket.write(chunk.as_bytes()).is_err() {
            break;
        }
    }
    let status = http.answer(soon()).map(|answer| answer.status());
    assert!(matches!(status, Ok(413)) || status.is_err(), "{status:?}");
    let sample = "relay_webhook_requests_total{source=\"/small\",reason=\"too_large\"}";
    until(|| relay.metric(sample) == 1.0, || relay.metrics());
}

#[test]
fn a_bad_or_missing_credential_is_401_without_saying_why() {
    let relay = Relay::start(&config(&[EXEMPT, PUBLISH, EVENTS, HOOKS].concat()));
    let json = ("Content-Type", "application/json");
    let post =
        |path: &str, header: (&str, &str)| request(relay.public(), "POST", path, &[json, header], b"{\"kind\":\"a\"}");
    let wrong: [(&str, (&str, &str)); 9] = [
        ("/small", ("X-Nothing", "1")),
        ("/small", ("Authorization", "Bearer secre")),
        ("/small", ("Authorization", "Bearer secrett")),
        ("/small", ("Authorization", "Basic c2VjcmV0")),
        ("/small", ("Authorization", "secret")),
        ("/basic", ("Authorization", "Basic bWU6d3Jvbmc=")),
        ("/basic", ("Authorization", "Basic !")),
        ("/header", ("X-Token", "")),
        ("/header", ("X-Token", "Secret")),
    ];
    let answers: Vec<Answer> = wrong.iter().map(|(path, header)| post(path, *header).expect(401)).collect();
    assert!(answers.windows(2).all(|pair| pair[0].body == pair[1].body), "one text for all");
    let right = [
        ("/small", ("Authorization", "Bearer secret")),
        ("/basic", ("Authorization", "Basic bWU6b2xk")),
        ("/basic", ("Authorization", "Basic bWU6bmV3")),
        ("/header", ("X-Token", "secret")),
    ];
    for (path, header) in right {
        post(path, header).expect(200);
    }
    let counted = relay.metrics();
    let lines = counted.lines().filter(|line| line.starts_with("relay_webhook_requests_total{source=\"/small\""));
    let total: f64 = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
    assert_eq!(total, 6.0, "{counted}");
    assert!(!relay.log().contains("secret"), "a credential is never logged:\n{}", relay.log());
}

#[test]
fn topics_cannot_be_too_long_odd_or_smuggled() {
    let relay = Relay::start(&config(&[EXEMPT, PUBLISH, EVENTS, HOOKS].concat()));
    let mut witness = Witness::of(&relay);
    let long = "x".repeat(10_000);
    for (topic, status) in [(long.as_str(), 422), ("a%00b", 422), ("a%0Ab", 422), ("a%7Fb", 422), ("%FF", 404)] {
        let answer = http::post_json(relay.public(), &format!("/publish/{topic}"), b"1");
        let shown = &topic[..topic.len().min(9)];
        let passes = answer.status() == status || (topic == "%FF" && (400..500).contains(&answer.status()));
        assert!(passes, "{shown}: {}{}", answer.head.raw, answer.text());
        let answer = get(relay.public(), &format!("/events?transport=poll&topic={topic}"));
        assert!((400..500).contains(&answer.status()) || topic == "%FF", "{shown}: {}", answer.text());
    }
    let mut feed = Feed::open(relay.public(), "/events", Transport::Sse, "topic=small/**&topic=star/*", None);
    feed.until_open();
    let smuggled = [r#"{"kind":"a/b"}"#, r#"{"kind":"*"}"#, r#"{"kind":"a.b:c"}"#];
    for body in smuggled {
        let headers = [("Content-Type", "application/json"), ("Authorization", "Bearer secret")];
        request(relay.public(), "POST", "/small", &headers, body.as_bytes()).expect(200);
    }
    http::post_json(relay.public(), "/publish/star/a*b", b"1").expect(200);
    let topics: Vec<String> = feed.events(4).into_iter().map(topic).collect();
    assert_eq!(topics, ["small/a_b", "small/_", "small/a_b_c", "star/a_b"]);
    witness.noticed_nothing();
}

fn topic(item: Item) -> String {
    match item {
        Item::Event { topic, .. } => topic,
        other => panic!("no event: {other:?}"),
    }
}

#[test]
fn floods_in_the_query_are_bounded() {
    let relay = Relay::start(&plain());
    let mut witness = Witness::of(&relay);
    let many: String = (0..1_000).map(|n| format!("&topic=t{n}")).collect();
    let allowed: String = (0..128).map(|n| format!("&topic=t{n}")).collect();
    let same = "&topic=t".repeat(200);
    let page = |params: &str| get(relay.public(), &format!("/events?transport=poll&{params}")).status();
    assert!((400..500).contains(&page(&many)), "{}", page(&many));
    assert_eq!(page(&allowed), 200);
    assert!([200, 400, 403].contains(&page(&same)));
    relay.publish("t", "1");
    for replay in ["18446744073709551615", "99999999999999999999999", "-1", "x", "", "1e9"] {
        let status = page(&format!("replay={replay}"));
        assert!([200, 400].contains(&status), "{replay}: {status}");
    }
    assert_eq!(page("replay=x"), 400);
    assert_eq!(page("replay=retained"), 200);
    let long = format!("after={}", "A".repeat(12_000));
    assert!([200, 400, 414].contains(&page(&long)));
    witness.noticed_nothing();
}

#[test]
fn a_head_that_stalls_is_ended_and_counted() {
    let relay = Relay::start(&plain());
    let mut witness = Witness::of(&relay);
    let mut silent = Http::connect(relay.public()).expect("connects");
    let mut half = Http::connect(relay.public()).expect("connects");
    half.socket.write(b"GET /events HTTP/1.1\r\nHost: a\r\nAcc").expect("sent");
    witness.noticed_nothing();
    // One that never spoke may have been opened ahead of need: it is given longer.
    for http in [&mut silent, &mut half] {
        let rest = http.socket.rest(soon() + PATIENCE).expect("it is ended within patience");
        assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&rest));
    }
    assert!(refused(&relay, "head_timeout") >= 1.0, "{}", relay.metrics());
}

#[test]
fn a_body_that_stalls_is_ended_and_counted() {
    let relay = Relay::start(&plain());
    let mut witness = Witness::of(&relay);
    let mut http = Http::connect(relay.public()).expect("connects");
    let head =
        "POST /publish/t HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n[1,";
    http.socket.write(head.as_bytes()).expect("sent");
    witness.noticed_nothing();
    let rest = http.socket.rest(soon()).expect("it is ended within patience");
    assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&rest));
    assert_eq!(refused(&relay, "body_timeout"), 1.0, "{}", relay.metrics());
}

#[test]
fn a_head_of_a_mebibyte_is_refused() {
    let relay = Relay::start(&plain());
    let mut witness = Witness::of(&relay);
    let mut http = Http::connect(relay.public()).expect("connects");
    let head = format!("GET /events HTTP/1.1\r\nHost: a\r\nX-Long: {}\r\n\r\n", "x".repeat(1 << 20));
    // It may hang up before it has read all.
    let _ = http.socket.write(head.as_bytes());
    let answer = http.answer(soon());
    assert!(answer.as_ref().map_or(true, |answer| answer.status() == 431), "{answer:?}");
    until(|| refused(&relay, "head_too_large") == 1.0, || relay.metrics());
    let many: String = (0..1_000).map(|n| format!("X-{n}: 1\r\n")).collect();
    let mut http = Http::connect(relay.public()).expect("connects");
    http.socket.write(format!("GET /events HTTP/1.1\r\nHost: a\r\n{many}\r\n").as_bytes()).expect("sent");
    let answer = http.answer(soon());
    assert!(answer.as_ref().map_or(true, |answer| answer.status() == 431), "{answer:?}");
    witness.noticed_nothing();
}

#[test]
fn what_is_no_http_is_refused() {
    let relay = Relay::start(&plain());
    let mut witness = Witness::of(&relay);
    let noise: [&[u8]; 5] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\r\n\r\n\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /events HTTP/9.9\r\n\r\n",
        b"GET /events HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ];
    for bytes in noise {
        let mut http = Http::connect(relay.public()).expect("connects");
        http.socket.write(bytes).expect("sent");
        match http.answer(soon()) {
            Ok(answer) => assert!((200..506).contains(&answer.status()), "{}", answer.head.raw),
            Err(e) => assert_eq!(e.kind(), ErrorKind::UnexpectedEof, "{bytes:?}"),
        }
    }
    for (method, target, status) in [("GET", "/publish/t", 405), ("POST", "/events", 405), ("GET", "/", 404)] {
        let answer = request(relay.public(), method, target, &[("Content-Type", "application/json")], b"");
        assert_eq!(answer.status(), status, "{method} {target}");
    }
    witness.noticed_nothing();
}

#[track_caller]
fn socket(relay: &Relay) -> WebSocket {
    let mut socket =
        WebSocket::connect(relay.public(), "/events?topic=none", &[]).expect("connects").expect("accepted");
    assert!(socket.text().contains("relay.open"));
    socket
}

#[test]
fn frames_that_lie_end_their_session_alone() {
    let relay = Relay::start(&plain());
    let mut witness = Witness::of(&relay);
    let huge = [&[0x82, 0xff][..], &u64::MAX.to_be_bytes(), &[1, 2, 3, 4, 5]].concat();
    let large = [&[0x82, 0xff][..], &(1u64 << 40).to_be_bytes(), &[1, 2, 3, 4, 5]].concat();
    let mut unmasked = masked(0x81, b"hello");
    unmasked[1] &= 0x7f;
    let cases: [(&[u8], &[u16], &str); 6] = [
        (&huge, &[1002, 1009], ""),
        (&large, &[1009], "too_big"),
        (&masked(0x82, &vec![0; 70_000]), &[1009], "too_big"),
        (&unmasked, &[1002], "protocol"),
        (&masked(0xc1, b"reserved"), &[1002], "protocol"),
        (&masked(0x81, b"\xff\xfe"), &[1007], "bad_text"),
    ];
    for (bytes, codes, reason) in cases {
        let before = closed(&relay, reason);
        let mut liar = socket(&relay);
        liar.socket.write(bytes).expect("sent");
        let (code, _) = liar.until_close();
        assert!(code.is_some_and(|code| codes.contains(&code)), "{code:?} for {:?}", &bytes[..bytes.len().min(12)]);
        until(|| reason.is_empty() || closed(&relay, reason) > before, || relay.metrics());
    }
    // It says that more will come, and it never does.
    let mut waiting = socket(&relay);
    waiting.socket.write(&masked(0x81, &[b'x'; 1_000])[..100]).expect("sent");
    witness.noticed_nothing();
}

#[test]
fn a_text_in_fragments_without_end_is_too_big() {
    let relay = Relay::start(&plain());
    let mut endless = socket(&relay);
    endless.socket.write(&masked(TEXT, &[b'x'; 1_000])).expect("sent");
    let more = masked(0, &[b'x'; 1_000]);
    for _ in 0..200 {
        if endless.socket.write(&more).is_err() {
            break;
        }
    }
    assert_eq!(endless.until_close().0, Some(1009));
}

#[test]
fn who_sends_without_end_is_closed() {
    let relay = Relay::start(&plain());
    let mut witness = Witness::of(&relay);
    for (opcode, payload) in [(TEXT, &b"{\"type\":\"ping\"}"[..]), (TEXT, b"nonsense"), (BINARY, b"\x00")] {
        let before = closed(&relay, "too_many_commands");
        let mut flood = socket(&relay);
        for _ in 0..10_000 {
            if flood.send(opcode, payload).is_err() {
                break;
            }
        }
        match flood.message(soon()) {
            Ok(_) => assert_eq!(flood.until_close().0, Some(1008)),
            Err(e) => assert_eq!(e.kind(), ErrorKind::UnexpectedEof),
        }
        until(|| closed(&relay, "too_many_commands") == before + 1.0, || relay.metrics());
        witness.noticed_nothing();
    }
}

#[test]
fn a_handshake_that_is_none_is_refused() {
    let relay = Relay::start(&plain());
    let key = ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    let upgrade = [("Connection", "Upgrade"), ("Upgrade", "websocket")];
    let version = ("Sec-WebSocket-Version", "13");
    let cases: [&[(&str, &str)]; 5] = [
        &[upgrade[0], upgrade[1], version],
        &[upgrade[0], upgrade[1], key],
        &[upgrade[0], upgrade[1], key, ("Sec-WebSocket-Version", "8")],
        &[upgrade[0], upgrade[1], version, ("Sec-WebSocket-Key", "short")],
        &[upgrade[0], upgrade[1], version, ("Sec-WebSocket-Key", "")],
    ];
    for headers in cases {
        let answer = request(relay.public(), "GET", "/events", headers, b"");
        assert!([400, 426].contains(&answer.status()), "{headers:?}: {}", answer.head.raw);
        if headers.iter().any(|(_, value)| *value == "8") {
            assert_eq!(answer.header("sec-websocket-version"), Some("13"));
        }
    }
}

#[test]
fn a_configuration_with_ten_mistakes_shows_them_all_and_does_not_start() {
    let wrong = r#"
[server]
listen = ["127.0.0.1:99999"]
drian = "20s"
[limits]
connections = "many"
queue = "12 parsecs"
connects_per_ip = "often"
[[stream]]
name = "with-dash"
topics = ["a/**/b"]
[[source.webhook]]
path = "/a"
topic = "{claims.sub}"
[[endpoint]]
path = "no-slash"
topics = ["**"]
transports = ["carrier pigeon"]
"#;
    let file = fresh_folder().join("relay.toml");
    std::fs::write(&file, wrong).expect("written");
    for arguments in [&["check"][..], &["-c"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_relay")).args(arguments).arg(&file).output().expect("runs");
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8(text).expect("UTF-8");
        assert_eq!(output.status.code(), Some(64), "{text}");
        for place in [3, 4, 6, 7, 8, 10, 11, 12, 14, 16, 18] {
            assert!(text.contains(&format!("relay.toml:{place}:")), "line {place} is not named:\n{text}");
        }
        assert!(text.contains("`drain`"), "the nearest key:\n{text}");
    }
}
