//! Benches of the pure parts: `cargo bench --bench pure`. One function for each part; a new one joins the group below.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use relay::cursor::{self, Mark};
use relay::event::{Epoch, Event, Kind, Payload, Place, Time};
use relay::hub::index::Index;
use relay::template::{Json, Roots, Scope, Text};
use relay::topic::{Pattern, Topic};
use serde_json::json;

criterion_group!(pure, index, template, cursors, ids);
criterion_main!(pure);

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
    let event = Event {
        place: Place::new("alerts".into(), 0).into(),
        epoch: Epoch(937_557),
        position: 1_042_000,
        topic: Topic::new("alerts/critical").expect("a topic"),
        time: Time(1_763_669_700_123),
        payload: Payload { kind: Kind::Text, bytes: Bytes::new() },
    };
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
