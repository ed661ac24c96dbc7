use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

const EVENT_1: &str = r#"{"id":"s-1-1","topic":"t","time":"2026-11-20T20:15:00.123Z","data":1,"cursor":"c1"}"#;
const EVENT_2: &str = r#"{"id":"s-1-2","topic":"t","time":"2026-11-20T20:15:00.124Z","data":"é","cursor":"c2"}"#;
const OPEN: &str = r#"{"type":"relay.open","session":"x","cursor":"c0"}"#;
const GONE: &str = r#"{"type":"relay.close","code":1001,"reason":"removed","retry_ms":null}"#;

fn stream(lines: &[&str]) -> String {
    format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{}\n", lines.join("\n"))
}

/// Plays these answers, one per connection, to one subscription. Gives its requests' first lines, its output and its end.
fn play(answers: &[String]) -> (Vec<String>, String, String) {
    server::block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let server = Server::Tcp(listener.local_addr()?.to_string());
        let mut subscription = Subscription::new(server, "/events".into(), "t/**", None, USUAL_PING);
        subscription.wait = Duration::ZERO;
        let mut out = Vec::new();
        let (asked, end) = tokio::join!(serve(listener, answers), subscription.run(&mut out));
        let end = end.map_or_else(|error| error.to_string(), |()| "unheard".to_string());
        Ok((asked, String::from_utf8(out)?, end))
    })
    .unwrap()
}

async fn serve(listener: TcpListener, answers: &[String]) -> Vec<String> {
    let mut asked = Vec::new();
    for answer in answers {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut head).await.unwrap(), 0);
        }
        asked.push(String::from_utf8(head).unwrap().lines().next().unwrap().to_string());
        for byte in answer.as_bytes().chunks(7) {
            stream.write_all(byte).await.unwrap();
        }
    }
    asked
}

#[test]
fn events_are_lines_and_all_else_is_not() {
    let hello = r#"{"type":"connection","cursor":"no"}"#;
    let ping = r#"{"type":"relay.ping","cursor":"c9"}"#;
    let gap = r#"{"type":"relay.gap","reason":"expired","topics":["**"],"from":null,"to":"c1","missed":3}"#;
    let (asked, out, end) = play(&[stream(&[hello, gap, EVENT_1, OPEN, "nonsense", EVENT_2, ping, GONE])]);
    assert_eq!(asked, ["GET /events?transport=ndjson&format=envelope&topic=t%2F%2A%2A HTTP/1.1"]);
    assert_eq!(out, format!("{EVENT_1}\n{EVENT_2}\n"));
    assert_eq!(end, "closed, 1001 removed");
}

#[test]
fn a_lost_connection_is_resumed_after_what_was_heard() {
    let back = r#"{"type":"relay.close","code":1012,"reason":"drain","retry_ms":0}"#;
    let busy = "HTTP/1.1 503 Service Unavailable\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n".to_string();
    let cut = format!("{}{{\"id\":\"cut", stream(&[OPEN, EVENT_1]));
    let (asked, out, end) = play(&[cut, busy, stream(&[EVENT_2, back]), stream(&[GONE])]);
    let after: Vec<_> = asked.iter().map(|line| line.split_once("&after=").map_or("", |(_, rest)| rest)).collect();
    assert_eq!(after, ["", "c1 HTTP/1.1", "c1 HTTP/1.1", "c2 HTTP/1.1"]);
    assert_eq!(out, format!("{EVENT_1}\n{EVENT_2}\n"));
    assert_eq!(end, "closed, 1001 removed");
}

#[test]
fn a_refusal_is_final_and_so_is_a_first_failure() {
    let refusal = |status: &str| vec![format!("HTTP/1.1 {status}\r\ncontent-length: 4\r\n\r\nwhy\n")];
    for status in ["403 Forbidden", "404 Not Found", "503 Service Unavailable"] {
        let (_, _, end) = play(&refusal(status));
        assert!(end.contains(status) && end.ends_with(": why"), "{end}");
    }
}

#[test]
fn a_reader_that_is_gone_ends_it_in_peace() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let server = Server::Tcp(String::new());
    let mut subscription = Subscription::new(server, "/".into(), "t", None, USUAL_PING);
    let mut rest = format!("{EVENT_1}\n").into_bytes();
    assert!(matches!(subscription.hear(&mut rest, &mut Closed), Some(End::Unheard)));
}

#[test]
fn waits_grow_to_a_bound() {
    let mut subscription = Subscription::new(Server::Tcp(String::new()), "/".into(), "t", None, USUAL_PING);
    let waits: Vec<_> = (0..20).map(|_| subscription.next_wait()).collect();
    assert!(waits[0] >= FIRST_WAIT / 2 && waits[0] <= FIRST_WAIT);
    assert!(waits[19] >= LAST_WAIT / 2 && waits[19] <= LAST_WAIT);
}

#[test]
fn the_first_endpoint_that_allows_it() {
    let text = r#"
[[endpoint]]
path = "/ws/only"
topics = ["**"]
transports = ["websocket"]

[[endpoint]]
path = ["/rooms/{topic...}", "/rooms"]
topics = ["rooms/eu"]
allow = ["rooms/**", "user/{query.id}"]
ping = "10s"

[[endpoint]]
path = "/events"
topics = ["**"]
"#;
    let config = relay::config::load(text, "test").unwrap().config;
    let check =
        |pattern: &str, expected: &str| assert_eq!(allowing(&config, pattern).unwrap().1, expected, "{pattern}");
    check("rooms/eu", "/rooms");
    check("rooms/**", "/rooms");
    check("user/7", "/events");
    check("**", "/events");
    assert!(allowing(&config, "a**").is_err());
}

#[test]
fn the_quickstart_can_be_heard() {
    let quickstart = crate::cli::load(None).unwrap().config;
    assert!(allowing(&quickstart, "**").is_ok());
}
