//! Benches of the pure parts: `cargo bench --bench pure`. One function for each part; a new one joins the group below.

use std::fmt::Write;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use http::HeaderMap;
use relay::config;
use relay::cursor::{self, Mark};
use relay::event::{Epoch, Event, Kind, Payload, Place, Time};
use relay::gate::limits::{CommandRate, Limits};
use relay::gate::peer::Peer;
use relay::hub::index::Index;
use relay::source::webhook::{self, Request};
use relay::template::{Json, Roots, Scope, Text};
use relay::topic::{Pattern, Topic};
use relay::wire::form::{Form, Format, Transport};
use serde_json::json;

criterion_group!(pure, index, select, encode, template, cursors, ids, drafts, limiter, file);
criterion_main!(pure);

/// An endpoint, to which keys can be added.
const ENDPOINT: &str = "[[endpoint]]\npath = \"/e\"\ntopics = [\"**\"]\n";

/// What one event costs to match, with so many other topics and patterns present: it must not grow with them.
fn index(c: &mut Criterion) {
    let mut group = c.benchmark_group("index");
    for others in [1, 1_000, 100_000] {
        let mut index = Index::default();
        for id in 0..others {
            index.insert(&other_pattern(id), id);
        }
        for (id, text) in (others..).zip(["orders/eu/created", "orders/*/created", "orders/**"]) {
            index.insert(&pattern(text), id);
        }
        let mut out = Vec::new();
        group.bench_with_input(BenchmarkId::new("matching", others), &index, |b, index| {
            b.iter(|| {
                out.clear();
                index.matching(black_box("orders/eu/created"), &mut out);
                assert_eq!(out.len(), 3);
            });
        });
    }
    group.finish();
}

/// A third each of exact topics, rests and stars, some of them beside those that match.
fn other_pattern(id: u32) -> Pattern {
    match id % 3 {
        0 => pattern(&format!("user/{id}/inbox")),
        1 => pattern(&format!("tenant/{id}/**")),
        _ => pattern(&format!("orders/{id}/*")),
    }
}

fn pattern(text: &str) -> Pattern {
    Pattern::new(text).expect("the bench's patterns are patterns")
}

fn event(payload: &str) -> Event {
    Event {
        place: Place::new("alerts".into(), 0, false).into(),
        epoch: Epoch(937_557),
        position: 1_042_000,
        topic: Topic::new("alerts/critical").expect("a topic"),
        time: Time(1_763_669_700_123),
        payload: Payload { kind: Kind::Json, bytes: Bytes::copy_from_slice(payload.as_bytes()) },
    }
}

/// Once for each event and audience: whether it is one that they want.
fn select(c: &mut Criterion) {
    let file =
        format!("{ENDPOINT}where = {{ any = [\".severity\", \".labels.severity\"], in = [\"high\", \"critical\"] }}");
    let settings = config::load(&file, "bench").expect("a good file").config.endpoints.remove(0);
    let rule = settings.select.expect("it has a where");
    let wanted = relay::session::terms::select(&rule, &Scope::default()).expect("it needs no request");
    for severity in ["critical", "none"] {
        let alert = json!({"labels": {"alertname": "DiskFull", "severity": severity}, "values": [1, 2, 3]});
        let passes = severity == "critical";
        c.bench_function(&format!("where/{severity}"), |b| {
            b.iter(|| assert_eq!(black_box(&wanted).passes(black_box(Some(&alert))), passes));
        });
    }
}

/// Once for each event and form, however many sessions share it.
fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode");
    let event = event(&json!({"text": "x".repeat(189)}).to_string());
    let cursor = b"1.k3f9.4tQ2x1";
    group.throughput(Throughput::Bytes(event.payload.bytes.len() as u64));
    for transport in [Transport::WebSocket, Transport::Sse, Transport::Ndjson, Transport::Poll] {
        for format in [Format::Raw, Format::Envelope] {
            let chunked = matches!(transport, Transport::Sse | Transport::Ndjson);
            let form = Form { transport, format, chunked };
            let mut out = Vec::new();
            group.bench_function(format!("{transport:?} {format:?}").to_lowercase(), |b| {
                b.iter(|| {
                    out.clear();
                    form.event(black_box(&event), Some(cursor), &mut out);
                });
            });
        }
    }
    group.finish();
}

/// An alert's topic, and a payload around it.
fn template(c: &mut Criterion) {
    let alert = json!({
        "status": "firing", "fingerprint": "c4f8a1d2e3b40596",
        "labels": {"alertname": "DiskFull", "severity": "critical", "instance": "db-1:9100"},
    });
    let raw = Payload { kind: Kind::Json, bytes: Bytes::from(alert.to_string()) };
    let scope = Scope { payload: Some(&alert), raw: Some(&raw), now: Time(1_763_669_700_123), ..Scope::default() };
    let roots = Roots::PAYLOAD | Roots::NOW;
    let topic = Text::parse("alerts/{.labels.severity|none}/{.fingerprint}", roots).expect("a template");
    let body = Json::parse(&json!({"type": "alert", "at": "{now}", "alert": "{.}"}), roots).expect("a template");
    c.bench_function("template/topic", |b| b.iter(|| topic.topic(black_box(&scope))));
    c.bench_function("template/body", |b| b.iter(|| body.payload(black_box(&scope))));
}

/// Once for each event and wire format; parsing once for each resume.
fn cursors(c: &mut Criterion) {
    let marks =
        [1, 2, 3].map(|n: u32| Mark { partition: n << 28, epoch: Epoch(937_557), position: 1_042_000 * u64::from(n) });
    let mut out = Vec::new();
    for count in [1, 3] {
        c.bench_function(&format!("cursor/write {count}"), |b| {
            b.iter(|| {
                out.clear();
                cursor::write(black_box(&marks[..count]), &mut out);
            });
        });
    }
    let token = String::from_utf8(out.clone()).expect("a cursor is text");
    c.bench_function("cursor/parse 3", |b| b.iter(|| cursor::parse(black_box(&token))));
}

/// What an envelope says of an event beside its topic and payload.
fn ids(c: &mut Criterion) {
    let event = event("");
    let mut out = Vec::new();
    c.bench_function("event/id", |b| {
        b.iter(|| {
            out.clear();
            black_box(&event).write_id(&mut out);
        });
    });
    c.bench_function("event/time", |b| {
        b.iter(|| {
            out.clear();
            black_box(event.time).write(&mut out);
        });
    });
}

/// What a webhook's request costs before its event is appended: passed on unread, looked into, an Alertmanager's group.
fn drafts(c: &mut Criterion) {
    let alert =
        r#"{"status":"firing","labels":{"alertname":"DiskFull","severity":"critical"},"fingerprint":"c4f8a1d2"}"#;
    let group = include_str!("../tests/data/alertmanager-0.34.json");
    let cases = [
        ("as sent", "topic = \"alerts\"", alert),
        ("looked into", "topic = \"alerts/{.labels.severity}\"\nbody = { alert = \"{.}\" }", alert),
        ("alertmanager", "format = \"alertmanager\"\ntopic = \"alerts/{.fingerprint}\"", group),
    ];
    for (name, keys, body) in cases {
        let file = format!("[[source.webhook]]\npath = \"/hook\"\nverify = \"none\"\n{keys}");
        let (_, settings) = config::load(&file, "bench").expect("a good file").config.webhooks.remove(0);
        let mut headers = HeaderMap::new();
        headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
        let request = Request { path: &[], query: &[], headers: &headers, body: Bytes::from_static(body.as_bytes()) };
        c.bench_function(&format!("drafts/{name}"), |b| {
            b.iter(|| webhook::drafts(&settings, black_box(&request), Time(0)).expect("a good body"));
        });
    }
}

/// What a request, a session, a command cost at the gate, with so many addresses known.
fn limiter(c: &mut Criterion) {
    let mut group = c.benchmark_group("limiter");
    let settings = config::load("[limits]\nconnects_per_ip = \"1000000/s burst 4000000000\"", "bench");
    let settings = settings.expect("a good file").config.limits.gate;
    let peer = |n: u32| Peer(Some(IpAddr::V4(Ipv4Addr::from(n))));
    for known in [1, 100_000] {
        let limits = Limits::new(settings.clone());
        for n in 0..known {
            assert!(limits.request(peer(n)).is_ok());
        }
        // Another address each time, so that no rate is used up.
        let mut next = 0;
        group.bench_function(BenchmarkId::new("request", known), |b| {
            b.iter(|| {
                next = (next + 1) % known;
                black_box(limits.request(peer(next))).is_ok()
            });
        });
        group.bench_function(BenchmarkId::new("session", known), |b| {
            b.iter(|| {
                next = (next + 1) % known;
                drop(limits.session(peer(next), 0, Some(5)).expect("a free slot"));
            });
        });
    }
    let rate = CommandRate::new(settings.commands_per_session);
    group.bench_function("command", |b| b.iter(|| black_box(&rate).allows()));
    group.finish();
}

/// A file of a thousand streams, webhooks and endpoints, as a reload reads it.
fn file(c: &mut Criterion) {
    let mut text = String::new();
    for n in 0..1_000 {
        writeln!(text, "[[stream]]\nname = \"s{n}\"\ntopics = [\"team{n}/**\"]\nretain = 10").expect("a String");
        writeln!(text, "[[source.webhook]]\npath = \"/hooks/{n}\"\ntopic = \"team{n}/{{.kind|none}}\"")
            .expect("a String");
        writeln!(text, "verify = {{ bearer = \"secret {n}\" }}").expect("a String");
        writeln!(text, "[[endpoint]]\npath = \"/events/{n}\"\ntopics = [\"team{n}/**\"]\nreplay = 20")
            .expect("a String");
    }
    let mut group = c.benchmark_group("config");
    group.sample_size(20).throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("3,000 tables", |b| b.iter(|| config::load(black_box(&text), "bench").expect("a good file")));
    group.bench_function("quickstart", |b| b.iter(|| config::load(config::EMBEDDED, "bench").expect("a good file")));
    group.finish();
}
