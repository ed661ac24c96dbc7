use super::*;

const MAX_BODY: usize = 1 << 20;
const FIRING: &str = include_str!("../../../tests/data/alertmanager-0.25.json");
const RESOLVED: &str = include_str!("../../../tests/data/alertmanager-0.25-resolved.json");
const TRUNCATED: &str = include_str!("../../../tests/data/alertmanager-0.25-truncated.json");
const CURRENT: &str = include_str!("../../../tests/data/alertmanager-0.34.json");

fn events(text: &str) -> Vec<Value> {
    Notification::read(text, MAX_BODY).unwrap().events().collect()
}

fn check_refused(text: &str, status: u16, reason: &str, message: &str) {
    let rejected = Notification::read(text, MAX_BODY).unwrap_err();
    assert_eq!((rejected.status, rejected.reason), (status, reason), "{text}");
    assert!(rejected.message.contains(message), "{}", rejected.message);
}

#[test]
fn a_recorded_notification_becomes_an_event_per_alert() {
    let events = events(FIRING);
    assert_eq!(events.len(), 2);
    let (first, second) = (&events[0], &events[1]);
    assert_eq!(first["labels"]["severity"], "critical");
    assert_eq!(first["annotations"]["description"], "\"/var\" on db-1 has 1.2 GiB left – grünes Licht fehlt");
    assert_eq!(first["fingerprint"], "373557f13ed44f5e");
    assert_eq!(second["labels"]["severity"], "warning");
    for event in &events {
        assert_eq!(event["status"], "firing");
        assert!(event.get("endsAt").is_none(), "an alert that fires has not ended");
        assert_eq!(event["group"]["receiver"], "team.relay");
        assert_eq!(event["group"]["groupKey"], "{}:{alertname=\"DiskFull\"}");
        assert_eq!(event["group"]["truncatedAlerts"], 0);
        assert!(event["group"].get("alerts").is_none());
    }
}

#[test]
fn firing_and_resolved_may_be_mixed() {
    let events = events(RESOLVED);
    let seen: Vec<_> = events.iter().map(|e| (e["status"].as_str().unwrap(), e.get("endsAt").is_some())).collect();
    assert_eq!(seen, [("resolved", true), ("firing", false)]);
    assert_eq!(events[0]["endsAt"], "2026-11-20T20:51:56Z");
}

#[test]
fn truncation_is_told_in_every_event() {
    let events = events(TRUNCATED);
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["group"]["truncatedAlerts"], 2);
}

#[test]
fn fields_of_newer_versions_pass_through() {
    for event in events(CURRENT) {
        assert_eq!(event["group"]["notification_reason"], "some alerts resolved");
        assert_eq!(event["group"]["routeLabels"]["team"], "on-call");
        assert_eq!(event["group"]["receiver"], "on-call.eu");
    }
    let odd = r#"{"version":"4","new":[1.50],"alerts":[{"status":"firing","newer":{"a":null}}]}"#;
    let expected = r#"{"status":"firing","newer":{"a":null},"group":{"version":"4","new":[1.50]}}"#;
    assert_eq!(events(odd)[0].to_string(), expected);
}

#[test]
fn what_is_no_notification_is_refused() {
    check_refused("nonsense", 400, "bad_json", "not JSON");
    check_refused("[]", 422, "bad_notification", "no object");
    check_refused("{}", 422, "bad_version", "no `version`");
    check_refused(r#"{"version":"5","alerts":[]}"#, 422, "bad_version", r#"version "5""#);
    check_refused(r#"{"version":4,"alerts":[]}"#, 422, "bad_version", "version 4 ");
    check_refused(r#"{"version":"4"}"#, 422, "bad_notification", "`alerts` is no list");
    check_refused(r#"{"version":"4","alerts":{}}"#, 422, "bad_notification", "`alerts` is no list");
    check_refused(r#"{"version":"4","alerts":[{},1]}"#, 422, "bad_notification", "an element");
}

#[test]
fn many_alerts_with_a_large_group_do_not_multiply() {
    let many = |alerts: usize| {
        let alerts = vec!["{}"; alerts].join(",");
        format!(r#"{{"version":"4","x":"{}","alerts":[{alerts}]}}"#, "x".repeat(10_000))
    };
    check_refused(&many(2_000), 413, "too_large", "max_alerts");
    assert_eq!(events(&many(1_000)).len(), 1_000);
}

#[test]
fn unquoting() {
    let check = |quoted: &str, expected: &str| assert_eq!(unquote(quoted), expected, "{quoted}");
    check("plain-name", "plain-name");
    check(r"a\.b", "a.b");
    check(r"\\\.", r"\.");
    check(r"\(\[\{\^\$\|\?\*\+\}\]\)", "([{^$|?*+}])");
    check(r"a\b\", r"a\b\");
    check(r"", "");
}

#[test]
fn what_the_dedupe_key_is_made_of() {
    let first = dedupe_parts(&events(FIRING)[0]);
    assert_eq!(
        &first[..4],
        ["{}:{alertname=\"DiskFull\"}", "373557f13ed44f5e", "firing", "2026-11-20T20:51:53.98145423Z"]
    );
    assert!(first[4].contains("Disk 97 % full"));
    let by_hand =
        |labels: &str| dedupe_parts(&events(&format!(r#"{{"version":"4","alerts":[{{"labels":{labels}}}]}}"#))[0]);
    assert_ne!(by_hand(r#"{"a":"1"}"#), by_hand(r#"{"a":"2"}"#));
    assert_eq!(by_hand(r#"{"a":"1"}"#), by_hand(r#"{"a":"1"}"#));
}
