use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::session::endpoint::OnSlow;

const LABELS: [&str; 6] = ["endpoint", "source", "stream", "transport", "reason", "le"];

/// One sample: its name, its labels, unescaped.
type Series = (String, Vec<(String, String)>);

fn observed(streams: &[StreamStats]) -> Observed<'_> {
    let limits = Counts { sockets: 5, sessions: 4, addresses: 3, remembered: 2 };
    let shares = Some(Counted { instances: 3, admitted: 20, refused: 4, unasked: 2 });
    Observed { now: Time(1_700_000_093_999), ready: true, limits, shares, streams }
}

fn stream(name: &str) -> StreamStats {
    StreamStats {
        name: name.into(),
        partitions: 2,
        events: 10,
        bytes: 2000,
        head: 12,
        oldest: None,
        retained: 1,
        appended_total: 12,
        duplicates_total: 3,
        evicted_by_memory_total: 2,
    }
}

fn metrics() -> Arc<Metrics> {
    Metrics::new(2, Time(1_700_000_000_500))
}

fn is_name(text: &str) -> bool {
    let first = |b: u8| b.is_ascii_alphabetic() || b == b'_';
    text.bytes().next().is_some_and(first) && text.bytes().all(|b| first(b) || b.is_ascii_digit())
}

/// Reads `{a="b",c="d"}` and what follows.
fn labels(mut text: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut labels = Vec::new();
    let Some(inside) = text.strip_prefix('{') else { return Some((labels, text)) };
    text = inside;
    loop {
        let (name, after) = text.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next()? {
                (i, '"') => break i,
                (_, '\\') => value.push(match chars.next()?.1 {
                    'n' => '\n',
                    c @ ('\\' | '"') => c,
                    _ => return None,
                }),
                (_, c) => value.push(c),
            }
        };
        labels.push((name.to_owned(), value));
        text = &after[end + 1..];
        match (text.strip_prefix(','), text.strip_prefix('}')) {
            (Some(more), _) => text = more,
            (_, rest) => return rest.map(|rest| (labels, rest)),
        }
    }
}

/// Holds a text against the format, and gives what it says.
fn parse(text: &str) -> Result<BTreeMap<Series, f64>, String> {
    let mut all = BTreeMap::new();
    let mut families = BTreeSet::new();
    let (mut family, mut kind, mut helped) = (String::new(), "", String::new());
    let body = text.strip_suffix('\n').ok_or("no line break at the end")?;
    for line in body.split('\n') {
        let bad = |why: &str| Err(format!("{why}: {line}"));
        if let Some(help) = line.strip_prefix("# HELP ") {
            helped = help.split(' ').next().unwrap().to_owned();
        } else if let Some(said) = line.strip_prefix("# TYPE ") {
            let (name, said) = said.split_once(' ').ok_or("no type")?;
            (family, kind) = (name.to_owned(), said);
            if helped != name || !is_name(name) || !families.insert(name.to_owned()) {
                return bad("a family without help, misnamed, or a second time");
            }
            if !["counter", "gauge", "histogram"].contains(&kind) || (kind == "counter") != name.ends_with("_total") {
                return bad("a wrong type");
            }
        } else {
            let end = line.find(['{', ' ']).ok_or("no value")?;
            let (name, after) = line.split_at(end);
            let Some((labels, after)) = labels(after) else { return bad("broken labels") };
            let suffix = name.strip_prefix(&family).filter(|_| !family.is_empty());
            if suffix.is_none_or(|suffix| suffix.is_empty() == (kind == "histogram")) {
                return bad("outside of its family");
            }
            if labels.iter().any(|(name, _)| !LABELS.contains(&name.as_str())) {
                return bad("an unbounded label");
            }
            let value = after.strip_prefix(' ').and_then(|value| value.parse().ok());
            let Some(value) = value.filter(|v: &f64| v.is_finite()) else { return bad("no number") };
            if all.insert((name.to_owned(), labels), value).is_some() {
                return bad("a second time");
            }
        }
    }
    Ok(all)
}

fn value(metrics: &Metrics, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let all = parse(&metrics.render(&observed(&[stream("alerts")]))).unwrap();
    let labels = labels.iter().map(|(name, value)| (String::from(*name), String::from(*value))).collect();
    all.get(&(name.to_owned(), labels)).copied()
}

#[test]
fn the_checker_finds_what_is_wrong() {
    let good = "# HELP a_total x\n# TYPE a_total counter\na_total{reason=\"\\\\\\\"\\n\"} 1\n";
    assert_eq!(parse(good).unwrap().len(), 1);
    let bad = [
        good.strip_suffix('\n').unwrap().to_owned(),
        good.replace("# HELP a_total x\n", ""),
        good.replace("# TYPE a_total counter\n", ""),
        good.replace("counter", "gauge"),
        good.replace("a_total", "a-_total"),
        good.replace("reason", "topic"),
        good.replace("} 1", "} x"),
        good.replace("} 1", "} NaN"),
        good.replace("\\n\"", "\\x\""),
        good.replace("\"} 1", "} 1"),
        format!("{good}{good}"),
        format!("{good}a_total{{reason=\"\\\\\\\"\\n\"}} 2\n"),
        format!("{good}b_total 2\n"),
    ];
    for text in bad {
        assert!(parse(&text).is_err(), "{text}");
    }
}

#[test]
fn counts_arrive_under_their_names() {
    let metrics = metrics();
    let (one, two) = (metrics.shard(0), metrics.shard(1));
    one.deliveries.add(3);
    two.deliveries.add(4);
    one.events.add(10);
    two.events.add(9);
    two.queued_bytes.set(100);
    one.sessions[Transport::Ndjson as usize].add(2);
    one.slow[OnSlow::DropOldest as usize].add(5);
    two.gaps[GapReason::Source as usize].add(6);
    two.closes[Close::Slow as usize].add(7);
    metrics.reloaded(true);
    metrics.reloaded(false);
    metrics.set_file_limit(1024);
    let check = |name: &str, labels: &[(&str, &str)], expected| {
        assert_eq!(value(&metrics, name, labels), Some(expected), "{name} {labels:?}");
    };
    check("relay_deliveries_total", &[], 7.0);
    check("relay_events_total", &[], 10.0);
    check("relay_queued_bytes", &[], 100.0);
    check("relay_hub_sessions", &[("transport", "ndjson")], 2.0);
    check("relay_hub_sessions", &[("transport", "sse")], 0.0);
    check("relay_slow_total", &[("reason", "drop_oldest")], 5.0);
    check("relay_gaps_total", &[("reason", "source")], 6.0);
    check("relay_closes_total", &[("reason", Close::Slow.label())], 7.0);
    check("relay_reloads_total", &[("reason", "applied")], 1.0);
    check("relay_reloads_total", &[("reason", "refused")], 1.0);
    check("relay_config_version", &[], 2.0);
    check("relay_connections", &[], 5.0);
    check("relay_addresses_remembered", &[], 2.0);
    check("relay_shares_instances", &[], 3.0);
    check("relay_shares_sessions_total", &[("reason", "admitted")], 20.0);
    check("relay_shares_sessions_total", &[("reason", "refused")], 4.0);
    check("relay_shares_sessions_total", &[("reason", "unasked")], 2.0);
    check("relay_stream_appended_total", &[("stream", "alerts")], 12.0);
    check("process_start_time_seconds", &[], 1_700_000_000.5);
    check("process_max_fds", &[], 1024.0);
}

#[test]
fn latency_is_a_histogram_in_seconds() {
    let metrics = metrics();
    metrics.shard(0).latency.observe(200, 3);
    metrics.shard(1).latency.observe(2_400, 2);
    metrics.shard(1).latency.observe(11_000_000, 1);
    let bucket = |le| value(&metrics, "relay_delivery_seconds_bucket", &[("le", le)]);
    let buckets = ["0.00025", "0.0005", "0.001", "0.0025", "10", "+Inf"].map(bucket);
    assert_eq!(buckets, [3.0, 3.0, 3.0, 5.0, 5.0, 6.0].map(Some));
    assert_eq!(value(&metrics, "relay_delivery_seconds_count", &[]), Some(6.0));
    assert_eq!(value(&metrics, "relay_delivery_seconds_sum", &[]), Some(11.0054));
}

#[test]
fn an_endpoint_is_counted_while_it_or_a_session_lives() {
    let metrics = metrics();
    let at = |name: &str, path| value(&metrics, name, &[("endpoint", path), ("transport", "sse")]);
    let (endpoint, other) = (metrics.endpoint("/a"), metrics.endpoint("/\"b\"\\\n"));
    endpoint.opened(Transport::Sse);
    endpoint.opened(Transport::Sse);
    endpoint.closed(Transport::Sse);
    other.opened(Transport::Sse);
    assert_eq!((at("relay_sessions", "/a"), at("relay_sessions_opened_total", "/a")), (Some(1.0), Some(2.0)));
    assert_eq!(at("relay_sessions", "/\"b\"\\\n"), Some(1.0));
    // A reload finds the counters of before.
    let again = metrics.endpoint("/a");
    drop(endpoint);
    assert_eq!(at("relay_sessions_opened_total", "/a"), Some(2.0));
    drop(again);
    assert_eq!(at("relay_sessions_opened_total", "/a"), None);
    drop(metrics.endpoint("/a"));
    assert_eq!(locked(&metrics.endpoints).len(), 2, "what is gone is cleared when the next comes");
    drop(metrics.endpoint("/a"));
    assert_eq!(locked(&metrics.endpoints).len(), 2);
}

#[test]
fn only_configured_sources_are_counted() {
    let metrics = metrics();
    let at =
        |source, reason| value(&metrics, "relay_webhook_requests_total", &[("source", source), ("reason", reason)]);
    metrics.set_sources(["/a", "/b/{x}"]);
    metrics.webhook("/a", "stored");
    metrics.webhook("/a", "stored");
    metrics.webhook("/a", "not_json");
    metrics.webhook("/b/{x}", "stored");
    metrics.webhook("/c", "stored");
    assert_eq!((at("/a", "stored"), at("/a", "not_json"), at("/c", "stored")), (Some(2.0), Some(1.0), None));
    metrics.set_sources(["/a", "/c"]);
    assert_eq!((at("/a", "stored"), at("/b/{x}", "stored")), (Some(2.0), None));
}

#[test]
fn every_refusal_is_a_series_from_the_start() {
    let metrics = metrics();
    let at = |refused: Refused| value(&metrics, "relay_refused_total", &[("reason", refused.label())]);
    assert!(Refused::ALL.into_iter().all(|refused| at(refused) == Some(0.0)));
    let labels: BTreeSet<_> = Refused::ALL.into_iter().map(Refused::label).collect();
    assert_eq!(labels.len(), Refused::ALL.len());
    assert!(Refusal::ALL.into_iter().all(|refusal| Refused::ALL.contains(&refusal.into())));
    metrics.refused(Refusal::RequestsPerIp);
    metrics.refused(Refused::Draining);
    assert_eq!((at(Refusal::RequestsPerIp.into()), at(Refused::Draining)), (Some(1.0), Some(1.0)));
}

#[test]
fn arrays_are_in_the_order_of_their_lists() {
    let named = |transport| match transport {
        Transport::WebSocket => "websocket",
        Transport::Sse => "sse",
        Transport::Ndjson => "ndjson",
        Transport::Poll => "poll",
    };
    for transport in [Transport::WebSocket, Transport::Sse, Transport::Ndjson, Transport::Poll] {
        assert_eq!(TRANSPORTS[transport as usize], named(transport));
    }
    let named = |policy| match policy {
        OnSlow::Disconnect => "disconnect",
        OnSlow::DropOldest => "drop_oldest",
        OnSlow::Latest => "latest",
    };
    for policy in [OnSlow::Disconnect, OnSlow::DropOldest, OnSlow::Latest] {
        assert_eq!(POLICIES[policy as usize], named(policy));
    }
    assert!(GAPS.into_iter().enumerate().all(|(i, gap)| gap as usize == i));
    assert!(Close::ALL.iter().enumerate().all(|(i, close)| *close as usize == i));
}

#[test]
fn the_snapshot_has_its_names() {
    let metrics = metrics();
    metrics.shard(0).sessions[Transport::Sse as usize].add(2);
    metrics.shard(1).sessions[Transport::WebSocket as usize].add(1);
    metrics.shard(1).patterns.set(4);
    metrics.shard(0).events.add(9);
    let snapshot = metrics.snapshot(&observed(&[stream("alerts")]));
    let expected = json!({
        "uptime_s": 93, "config_version": 1, "connections": 3, "sessions": 3,
        "sessions_by_transport": {"websocket": 1, "sse": 2, "ndjson": 0, "poll": 0},
        "permits": 4, "sockets": 5, "addresses": 3, "audiences": 0, "patterns": 4, "queued_bytes": 0, "events": 9,
        "deliveries": 0, "delivered_bytes": 0,
        "streams": {"alerts": {
            "partitions": 2, "events": 10, "bytes": 2000, "retained": 1, "appended": 12, "duplicates": 3, "evicted": 2,
        }},
    });
    assert_eq!(snapshot, expected);
}
