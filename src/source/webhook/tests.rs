use http::HeaderName;
use serde_json::json;

use super::*;

const FIRING: &str = include_str!("../../../tests/data/alertmanager-0.25.json");
const NOW: Time = Time(1_795_000_000_123);

/// A request as a table's line says it; headers as `name: value`.
struct Given<'a> {
    settings: Settings,
    headers: &'a [&'a str],
    body: &'a [u8],
}

fn text(template: &str) -> Text {
    Text::parse(template, Roots::PAYLOAD | Roots::PATH | Roots::QUERY | Roots::HEADER | Roots::NOW).unwrap()
}

fn settings(format: BodyFormat, topic: &str) -> Settings {
    Settings {
        format,
        topic: text(topic),
        verify: Verify::None,
        dedupe: None,
        dedupe_window: Duration::from_secs(600),
        body: None,
        max_body: 1 << 20,
    }
}

fn header_map(lines: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    headers
}

impl Given<'_> {
    fn drafts(&self) -> Result<Vec<Draft>, Rejected> {
        let pair = |name: &str, value: &str| vec![(name.to_string(), value.to_string())];
        let request = Request {
            path: &pair("topic", "rooms/eu"),
            query: &pair("q", "one"),
            headers: &header_map(self.headers),
            body: Bytes::copy_from_slice(self.body),
        };
        drafts(&self.settings, &request, NOW)
    }

    fn one(&self) -> Draft {
        let mut drafts = self.drafts().unwrap();
        assert_eq!(drafts.len(), 1);
        drafts.remove(0)
    }
}

fn json_webhook<'a>(topic: &str, body: &'a str) -> Given<'a> {
    Given { settings: settings(BodyFormat::Json, topic), headers: &[], body: body.as_bytes() }
}

fn keys(drafts: &[Draft]) -> Vec<&str> {
    drafts.iter().map(|draft| draft.dedupe.as_ref().map_or("", |dedupe| dedupe.key.as_str())).collect()
}

#[test]
fn json_stays_byte_for_byte() {
    for body in ["{\"b\": 1.0,\n \"a\":\"\\u00e9\"} ", "\n[]", "12345678901234567890.10"] {
        for topic in ["fixed", "rooms/{.b|none}"] {
            let draft = json_webhook(topic, body).one();
            assert_eq!(draft.payload, Payload { kind: Kind::Json, bytes: Bytes::copy_from_slice(body.as_bytes()) });
            assert_eq!(draft.dedupe, None);
        }
    }
}

#[test]
fn topics_are_filled_from_all_a_request_has() {
    let check = |topic: &str, expected: &str| {
        let given = Given { headers: &["x-kind: new"], ..json_webhook(topic, r#"{"a":{"b":"c/d"},"n":7}"#) };
        assert_eq!(given.one().topic.as_str(), expected, "{topic}");
    };
    check("fixed", "fixed");
    check("a/{.a.b}/{.n}", "a/c_d/7");
    check("{query.q}/{header.x-kind}", "one/new");
    check("{path.topic}", "rooms_eu");
}

#[test]
fn text_and_its_place_in_templates() {
    let mut given = Given { settings: settings(BodyFormat::Text, "words/{.}"), headers: &[], body: b"hi\n" };
    let draft = Given { settings: settings(BodyFormat::Text, "fixed"), ..given }.one();
    assert_eq!(draft.payload, Payload { kind: Kind::Text, bytes: Bytes::from("hi\n") });
    given = Given { settings: settings(BodyFormat::Text, "words/{.}"), headers: &[], body: b"hi" };
    assert_eq!(given.one().topic.as_str(), "words/hi");
    given.body = b"";
    given.settings = settings(BodyFormat::Text, "fixed");
    assert_eq!(given.one().payload.bytes, Bytes::new());
}

#[test]
fn a_body_template_reshapes() {
    let mut given = json_webhook("t", r#"{"n": 1.0}"#);
    let template = json!({ "type": "x", "all": "{.}", "topic": "{topic}", "at": "{now}" });
    let roots = Roots::PAYLOAD | Roots::TOPIC | Roots::NOW;
    given.settings.body = Some(Json::parse(&template, roots).unwrap());
    let mut at = Vec::new();
    NOW.write(&mut at);
    let at = String::from_utf8(at).unwrap();
    let payload = given.one().payload;
    assert_eq!(payload.kind, Kind::Json);
    assert_eq!(payload.bytes, format!(r#"{{"type":"x","all":{{"n": 1.0}},"topic":"t","at":"{at}"}}"#));
}

#[test]
fn alerts_are_events() {
    let given = Given {
        settings: settings(BodyFormat::Alertmanager, "alerts/{.labels.severity|none}/{.fingerprint}"),
        headers: &["content-type: application/json"],
        body: FIRING.as_bytes(),
    };
    let drafts = given.drafts().unwrap();
    let topics: Vec<_> = drafts.iter().map(|draft| draft.topic.as_str()).collect();
    assert_eq!(topics, ["alerts/critical/373557f13ed44f5e", "alerts/warning/753d57c968988f9a"]);
    let payload: Value = serde_json::from_slice(&drafts[0].payload.bytes).unwrap();
    assert_eq!(payload["group"]["receiver"], "team.relay");
    assert_eq!(drafts[0].dedupe.as_ref().unwrap().window, Duration::from_secs(600));
}

#[test]
fn an_alert_sent_again_has_the_same_key() {
    let keys_of = |body: &str| {
        let given = Given { settings: settings(BodyFormat::Alertmanager, "t"), headers: &[], body: body.as_bytes() };
        keys(&given.drafts().unwrap()).into_iter().map(String::from).collect::<Vec<_>>()
    };
    let first = keys_of(FIRING);
    assert_eq!(first, keys_of(&FIRING.replace("http://vm:19872", "http://other:9093")));
    assert_ne!(first[0], first[1]);
    for (from, to) in [("Disk 97", "Disk 98"), ("53.98145423Z", "54Z"), ("{}:{", "{}/x:{")] {
        assert_ne!(first[0], keys_of(&FIRING.replace(from, to))[0], "{from}");
    }
}

#[test]
fn a_senders_mark_is_the_key() {
    let key = |topic: &str, headers: &[&str]| {
        let draft = Given { headers, ..json_webhook(topic, "{}") }.one();
        draft.dedupe.map(|dedupe| dedupe.key)
    };
    let first = key("t", &["Idempotency-Key: 7"]);
    assert!(first.is_some());
    assert_eq!(first, key("t", &["webhook-id: 7"]));
    assert_eq!(first, key("t", &["x-github-delivery: 7"]));
    assert_eq!(first, key("t", &["x-github-delivery: 8", "idempotency-key: 7"]));
    assert_ne!(first, key("t", &["Idempotency-Key: 8"]));
    assert_ne!(first, key("other", &["Idempotency-Key: 7"]), "another topic's event is another event");
    assert_eq!(key("t", &["Idempotency-Key: "]), None);
    assert_eq!(key("t", &[]), None);
    assert!(key("t", &[&format!("idempotency-key: {}", "x".repeat(8_000))]).unwrap().len() < 64);
}

#[test]
fn a_dedupe_template_replaces_the_defaults() {
    let with = |format, dedupe: &str, body: &str| {
        let mut settings = settings(format, "t");
        settings.dedupe = Some(text(dedupe));
        let drafts = Given { settings, headers: &["idempotency-key: 7"], body: body.as_bytes() }.drafts().unwrap();
        keys(&drafts).into_iter().map(String::from).collect::<Vec<_>>()
    };
    use BodyFormat::{Alertmanager, Json};
    assert_eq!(with(Json, "{.id}", r#"{"id":1,"x":1}"#), with(Json, "{.id}", r#"{"id":1,"x":2}"#));
    assert_ne!(with(Json, "{.id}", r#"{"id":1}"#), with(Json, "{.id}", r#"{"id":2}"#));
    assert_eq!(with(Json, "{.id|}", "{}"), [""]);
    let by_request = with(Alertmanager, "{header.idempotency-key}", FIRING);
    assert_ne!(by_request[0], by_request[1], "each event of a request has a key of its own");
    let by_alert = with(Alertmanager, "{.labels.alertname}", FIRING);
    assert_eq!(by_alert[0], by_alert[1], "unless the operator says so");
}

#[test]
fn refusals() {
    let check = |given: Given<'_>, status: u16, reason: &str, message: &str| {
        let rejected = given.drafts().unwrap_err();
        assert_eq!((rejected.status, rejected.reason), (status, reason), "{rejected:?}");
        assert!(rejected.message.contains(message), "{}", rejected.message);
        assert!(REASONS.contains(&rejected.reason));
    };
    check(json_webhook("t", "{"), 400, "bad_json", "line 1 column 1");
    check(json_webhook("t/{.a}", "{"), 400, "bad_json", "line 1 column 1");
    check(json_webhook("t", &"[".repeat(200)), 400, "too_deep", "127");
    check(Given { body: b"\xff", ..json_webhook("t", "") }, 400, "bad_utf8", "byte 0");
    check(Given { headers: &["content-type: image/png"], ..json_webhook("t", "{}") }, 415, "media_type", "image/png");
    check(json_webhook("t/{.a}", "{}"), 422, "unfilled", "topic: ");
    check(json_webhook("t/{.a}", r#"{"a":""}"#), 422, "unfilled", "topic: ");
    check(json_webhook("t/{.a}", &json!({ "a": "x".repeat(300) }).to_string()), 422, "unfilled", "topic: ");
    let mut given = json_webhook("t", "{}");
    given.settings.dedupe = Some(text("k{.id}"));
    check(given, 422, "unfilled", "dedupe: ");
    let mut given = json_webhook("t", "{}");
    given.settings.body = Some(Json::parse(&json!({ "a": "x {.a}" }), Roots::PAYLOAD).unwrap());
    check(given, 422, "unfilled", "body: ");
    assert_eq!(Rejected::too_large(9).status, 413);
}

#[test]
fn one_alert_that_cannot_be_filled_refuses_all() {
    let body = r#"{"version":"4","alerts":[{"labels":{"a":"1"}},{"labels":{}}]}"#;
    let given =
        Given { settings: settings(BodyFormat::Alertmanager, "t/{.labels.a}"), headers: &[], body: body.as_bytes() };
    assert_eq!(given.drafts().unwrap_err().reason, "unfilled");
}

#[test]
fn labels_are_distinct() {
    let mut labels = REASONS.to_vec();
    labels.sort_unstable();
    labels.dedup();
    assert_eq!(labels.len(), REASONS.len());
}
