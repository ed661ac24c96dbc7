use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::event::{Epoch, Place, Time};
use crate::topic::Topic;

const TRANSPORTS: [Transport; 4] = [Transport::WebSocket, Transport::Sse, Transport::Ndjson, Transport::Poll];
const FORMATS: [Format; 2] = [Format::Raw, Format::Envelope];

fn form(transport: Transport, format: Format) -> Form {
    Form { transport, format, chunked: false }
}

fn chunked(transport: Transport) -> Form {
    Form { transport, format: Format::Raw, chunked: true }
}

fn an_event(kind: Kind, bytes: &[u8]) -> Event {
    Event {
        place: Arc::new(Place { stream: "alerts".into(), partition: 0, hash: 7, live: false }),
        epoch: Epoch(35),
        position: 1042,
        topic: Topic::new("a/\"b\"").unwrap(),
        time: Time(0),
        payload: Payload { kind, bytes: Bytes::copy_from_slice(bytes) },
    }
}

/// Each byte as one character, so that frames can be compared and shown.
fn latin(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    write(&mut out);
    latin(&out)
}

fn event(form: Form, kind: Kind, payload: &str, cursor: Option<&str>) -> String {
    written(|out| form.event(&an_event(kind, payload.as_bytes()), cursor.map(str::as_bytes), out))
}

/// A text frame of ours with a payload below 126 bytes.
fn text_frame(payload: &str) -> String {
    let mut out = Vec::new();
    websocket::frame(Opcode::Text, payload.as_bytes(), &mut out);
    latin(&out)
}

#[test]
fn a_raw_payload_is_as_published() {
    use Transport::{Ndjson, Poll, Sse, WebSocket};
    for (transport, kind, payload, expected) in [
        (WebSocket, Kind::Json, "{\"a\":\r\n1}", "\u{81}\u{9}{\"a\":\r\n1}"),
        (WebSocket, Kind::Text, "x\ny", "\u{81}\u{3}x\ny"),
        (WebSocket, Kind::Binary, "\x00\x01", "\u{82}\u{2}\x00\x01"),
        (Sse, Kind::Json, "{}", "id: C\ndata: {}\n\n"),
        (Sse, Kind::Text, "", "id: C\ndata: \n\n"),
        (Sse, Kind::Text, "a\nb\r\nc\rd\n", "id: C\ndata: a\ndata: b\ndata: c\ndata: d\ndata: \n\n"),
        (Sse, Kind::Text, "a\n\r\n\rb", "id: C\ndata: a\ndata: \ndata: \ndata: b\n\n"),
        (Sse, Kind::Text, " id: forged", "id: C\ndata:  id: forged\n\n"),
        (Sse, Kind::Binary, "\x00\x01\n", "id: C\ndata: AAEK\n\n"),
        (Ndjson, Kind::Json, "{\r\n \"a\": 1\n}\n", "{ \"a\": 1}\n"),
        (Ndjson, Kind::Text, "a\nb\r\nc\rd", "abcd\n"),
        (Ndjson, Kind::Binary, "\x00\x01\n", "\"AAEK\"\n"),
        (Poll, Kind::Json, "{\"a\":\n1}", "{\"a\":\n1}"),
        (Poll, Kind::Text, "a\n\"b\"", r#""a\n\"b\"""#),
        (Poll, Kind::Binary, "\x00\x01\n", r#"{"data_base64":"AAEK"}"#),
    ] {
        let got = event(form(transport, Format::Raw), kind, payload, Some("C"));
        assert_eq!(got, expected, "{transport:?} {kind:?} {payload:?}");
    }
}

#[test]
fn an_envelope_holds_payload_and_place() {
    let head = r#"{"id":"alerts-z-1042","topic":"a/\"b\"","time":"1970-01-01T00:00:00.000Z","#;
    for (kind, payload, cursor, tail) in [
        (Kind::Json, r#"{"b" : 1.0}"#, Some("C"), r#""data":{"b" : 1.0},"cursor":"C"}"#),
        (Kind::Json, "1e400", None, r#""data":1e400}"#),
        (Kind::Text, "a\r\n\"\u{1}é", Some("C"), r#""data":"a\r\n\"\u0001é","cursor":"C"}"#),
        (Kind::Binary, "\x00\x01\n", Some("C"), r#""data_base64":"AAEK","cursor":"C"}"#),
    ] {
        let body = latin(format!("{head}{tail}").as_bytes());
        assert_eq!(event(form(Transport::Poll, Format::Envelope), kind, payload, cursor), body);
        assert_eq!(event(form(Transport::Ndjson, Format::Envelope), kind, payload, cursor), format!("{body}\n"));
        let frame = text_frame(&format!("{head}{tail}"));
        assert_eq!(event(form(Transport::WebSocket, Format::Envelope), kind, payload, cursor), frame);
        let id = if cursor.is_some() { "id: C\n" } else { "" };
        let sse = format!("{id}data: {body}\n\n");
        assert_eq!(event(form(Transport::Sse, Format::Envelope), kind, payload, cursor), sse);
    }
}

#[test]
fn line_breaks_between_json_tokens_are_kept_split_or_dropped() {
    let payload = "{\n\"a\":\r\n1}";
    let of = |transport| event(form(transport, Format::Envelope), Kind::Json, payload, None);
    assert!(of(Transport::WebSocket).ends_with("\"data\":{\n\"a\":\r\n1}}"));
    assert!(of(Transport::Poll).ends_with("\"data\":{\n\"a\":\r\n1}}"));
    assert!(of(Transport::Sse).ends_with("\"data\":{\ndata: \"a\":\ndata: 1}}\n\n"));
    assert!(of(Transport::Ndjson).ends_with("\"data\":{\"a\":1}}\n"));
}

#[test]
fn open_tells_session_and_cursor() {
    let open = r#"{"type":"relay.open","session":"s1","cursor":"C"}"#;
    for (transport, format, expected) in [
        (Transport::WebSocket, Format::Envelope, text_frame(open)),
        (Transport::WebSocket, Format::Raw, String::new()),
        (Transport::Ndjson, Format::Envelope, format!("{open}\n")),
        (Transport::Ndjson, Format::Raw, String::new()),
        (Transport::Sse, Format::Envelope, "id: C\n\n".into()),
        (Transport::Sse, Format::Raw, "id: C\n\n".into()),
        (Transport::Poll, Format::Envelope, String::new()),
    ] {
        assert_eq!(written(|out| form(transport, format).open("s1", b"C", out)), expected, "{transport:?} {format:?}");
    }
}

#[test]
fn heartbeats_carry_the_cursor_where_they_can() {
    let ping = r#"{"type":"relay.ping","cursor":"C"}"#;
    let ping_frame = latin(&[0x89, 0]);
    for (transport, format, expected) in [
        (Transport::WebSocket, Format::Raw, ping_frame.clone()),
        (Transport::WebSocket, Format::Envelope, ping_frame + &text_frame(ping)),
        (Transport::Ndjson, Format::Envelope, format!("{ping}\n")),
        (Transport::Ndjson, Format::Raw, "\n".into()),
        (Transport::Sse, Format::Raw, "id: C\n\n".into()),
        (Transport::Sse, Format::Envelope, "id: C\n\n".into()),
        (Transport::Poll, Format::Raw, String::new()),
    ] {
        assert_eq!(written(|out| form(transport, format).heartbeat(b"C", out)), expected, "{transport:?} {format:?}");
    }
}

fn a_gap() -> Gap {
    let topics = vec!["a/**".into(), "b\"".into()];
    Gap { reason: GapReason::Expired, topics, from: Some("F".into()), to: "T".into(), missed: Some(3) }
}

#[test]
fn a_gap_has_its_fields_in_order() {
    let body = r#"{"type":"relay.gap","reason":"expired","topics":["a/**","b\""],"from":"F","to":"T","missed":3}"#;
    assert_eq!(written(|out| a_gap().write(out)), body);
    for format in FORMATS {
        let of = |transport| written(|out| form(transport, format).gap(&a_gap(), out));
        assert_eq!(of(Transport::WebSocket), text_frame(body));
        assert_eq!(of(Transport::Ndjson), format!("{body}\n"));
        assert_eq!(of(Transport::Sse), format!("event: relay.gap\ndata: {body}\n\n"));
        assert_eq!(of(Transport::Poll), "");
    }
}

#[test]
fn a_gap_says_what_is_not_known() {
    for (reason, word) in [
        (GapReason::Epoch, "epoch"),
        (GapReason::Source, "source"),
        (GapReason::Slow, "slow"),
        (GapReason::Expired, "expired"),
    ] {
        let gap = Gap { reason, topics: vec![], from: None, to: "T".into(), missed: None };
        let body =
            format!(r#"{{"type":"relay.gap","reason":"{word}","topics":[],"from":null,"to":"T","missed":null}}"#);
        assert_eq!(written(|out| gap.write(out)), body);
    }
}

/// Code and reason as a Close frame.
fn close_frame(close: Close) -> String {
    let mut out = vec![0x88, 2 + close.reason().len() as u8];
    out.extend_from_slice(&close.code().to_be_bytes());
    out.extend_from_slice(close.reason().as_bytes());
    latin(&out)
}

#[test]
fn a_close_is_told_before_the_end() {
    let body = r#"{"type":"relay.close","code":1012,"reason":"this instance is stopping","retry_ms":250}"#;
    for format in FORMATS {
        let of =
            |transport, chunked| written(|out| Form { transport, format, chunked }.close(Close::Drain, Some(250), out));
        assert_eq!(of(Transport::WebSocket, false), text_frame(body) + &close_frame(Close::Drain));
        assert_eq!(of(Transport::Ndjson, false), format!("{body}\n"));
        assert_eq!(of(Transport::Ndjson, true), format!("{:x}\r\n{body}\n\r\n0\r\n\r\n", body.len() + 1));
        let sse = format!("event: relay.close\nretry: 250\ndata: {body}\n\n");
        assert_eq!(of(Transport::Sse, false), sse);
        assert_eq!(of(Transport::Sse, true), format!("{:x}\r\n{sse}\r\n0\r\n\r\n", sse.len()));
        assert_eq!(of(Transport::Poll, false), "");
    }
}

#[test]
fn every_close_on_a_websocket_ends_in_its_frame() {
    for close in Close::ALL {
        let of = |transport| written(|out| form(transport, Format::Raw).close(*close, None, out));
        let body = format!(
            r#"{{"type":"relay.close","code":{},"reason":"{}","retry_ms":null}}"#,
            close.code(),
            close.reason()
        );
        let expected = match close {
            Close::Gone => String::new(),
            Close::Asked | Close::Protocol | Close::BadText | Close::TooBig => close_frame(*close),
            _ => text_frame(&body) + &close_frame(*close),
        };
        assert_eq!(of(Transport::WebSocket), expected);
        let sse = if *close == Close::Gone { String::new() } else { format!("event: relay.close\ndata: {body}\n\n") };
        assert_eq!(of(Transport::Sse), sse);
    }
}

#[test]
fn what_is_said_to_one_session_moves_no_cursor() {
    for (transport, expected) in [
        (Transport::WebSocket, text_frame("{\n}")),
        (Transport::Sse, "data: {\ndata: }\n\n".into()),
        (Transport::Ndjson, "{}\n".into()),
        (Transport::Poll, String::new()),
    ] {
        assert_eq!(written(|out| form(transport, Format::Raw).say(b"{\n}", out)), expected);
    }
}

#[test]
fn only_sse_has_a_prelude() {
    for transport in TRANSPORTS {
        let expected = if transport == Transport::Sse { "9\r\n: relay\n\n\r\n" } else { "" };
        assert_eq!(written(|out| chunked(transport).prelude(out)), expected);
    }
}

/// Lengths where a head changes its size: below, at and above the four bytes left free for it.
#[test]
fn heads_of_every_size() {
    for len in [0, 1, 13, 14, 15, 16, 125, 126, 127, 254, 255, 256, 4094, 4095, 4096, 65535, 65536, 1 << 20] {
        let text = "x".repeat(len);
        let mut out = b"before".to_vec();
        form(Transport::WebSocket, Format::Envelope).say(text.as_bytes(), &mut out);
        let mut expected = b"before".to_vec();
        websocket::frame(Opcode::Text, text.as_bytes(), &mut expected);
        assert!(out == expected, "frame of {len}");

        let mut out = b"before".to_vec();
        chunked(Transport::Ndjson).say(text.as_bytes(), &mut out);
        let expected = format!("before{:x}\r\n{text}\n\r\n", len + 1);
        assert!(out == expected.as_bytes(), "chunk of {len}");
    }
}

#[test]
fn an_event_needs_one_buffer() {
    let event = an_event(Kind::Json, b"{\"a\":1}");
    for transport in TRANSPORTS {
        for format in FORMATS {
            let mut out = Vec::with_capacity(512);
            let place = out.as_ptr();
            form(transport, format).event(&event, Some(b"C"), &mut out);
            form(transport, format).event(&event, Some(b"C"), &mut out);
            assert_eq!(out.as_ptr(), place, "{transport:?} {format:?}");
        }
    }
}

/// What an EventSource makes of one block: its id and its data.
fn read_sse(block: &str) -> (Option<String>, String) {
    let (mut id, mut data) = (None, String::new());
    for line in block.split(['\n', '\r']) {
        if let Some(value) = line.strip_prefix("id: ") {
            id = Some(value.to_owned());
        } else if let Some(value) = line.strip_prefix("data: ") {
            data += value;
            data.push('\n');
        } else {
            assert!(line.is_empty(), "a forged field: {line:?}");
        }
    }
    data.pop();
    (id, data)
}

proptest! {
    #[test]
    fn any_text_survives_every_transport(text in "(?s)[\\r\\n\"\\\\a:{é]{0,20}|\\PC{0,20}") {
        let payload = text.as_bytes();
        let envelope = |transport| {
            let mut out = Vec::new();
            let form = form(transport, Format::Envelope);
            form.event(&an_event(Kind::Text, payload), Some(b"C"), &mut out);
            String::from_utf8(out).unwrap()
        };
        let poll: Value = serde_json::from_str(&envelope(Transport::Poll)).unwrap();
        prop_assert_eq!(&poll["data"], &json!(text));
        let line = envelope(Transport::Ndjson);
        prop_assert_eq!(line.find(['\n', '\r']), Some(line.len() - 1));
        prop_assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), poll.clone());
        let (id, data) = read_sse(&envelope(Transport::Sse));
        prop_assert_eq!(id.as_deref(), Some("C"));
        prop_assert_eq!(serde_json::from_str::<Value>(&data).unwrap(), poll);

        let mut out = Vec::new();
        form(Transport::Sse, Format::Raw).event(&an_event(Kind::Text, payload), None, &mut out);
        let (id, data) = read_sse(std::str::from_utf8(&out).unwrap());
        prop_assert_eq!(id, None);
        prop_assert_eq!(data, text.replace("\r\n", "\n").replace('\r', "\n"));
    }
}
