//! The heads with which a subscriber's response begins, whoever writes them: hyper on the ordinary path, or we on a
//! socket that was taken over. One function makes them, so that both are the same.

use std::time::SystemTime;

use http::header::{self, HeaderMap, HeaderValue};

use super::answer::header;
use crate::wire::form::Transport;
use crate::wire::websocket;

/// The subprotocol a browser may ask for, and is then given.
const SUBPROTOCOL: &str = "relay";

/// Headers of a stream that has no end.
pub fn stream_headers(transport: Transport) -> HeaderMap {
    let content_type = match transport {
        Transport::Sse => "text/event-stream",
        _ => "application/x-ndjson",
    };
    HeaderMap::from_iter([
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform")),
        (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ])
}

/// The same as hyper writes it on HTTP/1.1: chunked, with a date.
pub fn stream_head(transport: Transport) -> Vec<u8> {
    let mut head = b"HTTP/1.1 200 OK\r\n".to_vec();
    for (name, value) in &stream_headers(transport) {
        line(&mut head, name.as_str().as_bytes(), value.as_bytes());
    }
    line(&mut head, b"transfer-encoding", b"chunked");
    line(&mut head, b"date", date(SystemTime::now()).as_bytes());
    head.extend(b"\r\n");
    head
}

fn line(head: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for part in [name, b": ", value, b"\r\n"] {
        head.extend(part);
    }
}

/// `Fri, 20 Nov 2026 20:15:00 GMT`.
fn date(now: SystemTime) -> String {
    httpdate::fmt_http_date(now)
}

/// The head that makes a connection a WebSocket, or what the client must change.
pub fn websocket_head(headers: &HeaderMap) -> Result<Vec<u8>, (u16, &'static str)> {
    let has = |name: &str, word: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|v| v.to_str().ok())
            .flat_map(|v| v.split(','))
            .any(|v| v.trim().eq_ignore_ascii_case(word))
    };
    if !has("connection", "upgrade") {
        return Err((400, "`Connection: Upgrade` is missing"));
    }
    if header(headers, "sec-websocket-version") != Some("13") {
        return Err((426, "WebSocket version 13 is spoken here"));
    }
    let key = headers.get("sec-websocket-key").map(HeaderValue::as_bytes).unwrap_or_default();
    if !data_encoding::BASE64.decode(key).is_ok_and(|key| key.len() == 16) {
        return Err((400, "`Sec-WebSocket-Key` is not 16 bytes in base64"));
    }
    let mut head = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n".to_vec();
    line(&mut head, b"sec-websocket-accept", websocket::accept(key).as_bytes());
    if has("sec-websocket-protocol", SUBPROTOCOL) {
        line(&mut head, b"sec-websocket-protocol", SUBPROTOCOL.as_bytes());
    }
    head.extend(b"\r\n");
    Ok(head)
}

/// Whether a request wants to become a WebSocket.
pub fn wants_websocket(headers: &HeaderMap) -> bool {
    header(headers, "upgrade").is_some_and(|v| v.split(',').any(|v| v.trim().eq_ignore_ascii_case("websocket")))
}
