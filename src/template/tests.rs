use bytes::Bytes;
use http::HeaderMap;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::event::Kind;
use crate::topic::Pattern;

const EVERY: Roots = Roots((1 << 11) - 1);

fn payload() -> Value {
    json!({
        "labels": {"severity": "high", "empty": "", "path": "a/b.c:d*", "list": ["x", "y/z", 7, true]},
        "n": 12, "exact": 1.50, "yes": true, "none": null, "items": [{"id": 7}], "topics": ["a/**", "b"]
    })
}

/// Fills with a scope in which everything is there.
fn with_scope<T>(fill: impl Fn(&Scope<'_>) -> T) -> T {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let (payload, claims) = (payload(), json!({"sub": "u1", "tenant": {"id": 7}}));
    let mut headers = HeaderMap::new();
    headers.insert("x-user", "ünal".parse().unwrap());
    fill(&Scope {
        payload: Some(&payload),
        path: &[pair("tenant", "t/1"), pair("topic", "a/b*")],
        query: &[pair("limit", "20"), pair("word", "many"), pair("limit", "30"), pair("nothing", "")],
        headers: Some(&headers),
        claims: Some(&claims),
        session: Some("s-1"),
        topic: Some("orders.eu/new"),
        id: Some("alerts-k3f9-1042"),
        channel: Some("chat:7"),
        now: Time(1_763_669_700_123),
        stats: Some(&|name| (name == "connections").then(|| json!(42))),
        ..Scope::default()
    })
}

fn text(template: &str) -> Text {
    let mut text = Text::parse(template, EVERY).unwrap();
    text.bind_path(&[("tenant".into(), false), ("topic".into(), true)]).unwrap();
    text
}

fn shown<T: ToString>(result: Result<T, Unfilled>) -> String {
    result.map_or_else(|e| format!("! {e}"), |filled| filled.to_string())
}

#[test]
fn texts() {
    for (template, expected) in [
        ("", ""),
        ("plain", "plain"),
        ("{{{.n}}} }}{{", "{12} }{"),
        ("{.labels.severity}", "high"),
        ("{.labels.severity|none}-{.labels.job|none}", "high-none"),
        ("{.labels.job|}", ""),
        ("{.none|null counts as absent}", "null counts as absent"),
        ("{.labels.empty|kept}", ""),
        ("{.items.0.id} {.yes} {.exact}", "7 true 1.5"),
        ("{path.tenant} {path.topic}", "t/1 a/b*"),
        ("{query.limit} {query.word}", "20 many"),
        ("{query.interval|10}s", "10s"),
        ("{header.X-User}", "ünal"),
        ("{claims.sub} {claims.tenant.id}", "u1 7"),
        ("{session.id} {topic} {id} {channel}", "s-1 orders.eu/new alerts-k3f9-1042 chat:7"),
        ("{now}", "2025-11-20T20:15:00.123Z"),
        ("{stats.connections}", "42"),
        ("{query.limit as number}", "20"),
        ("{query.missing|5 as number}", "5"),
        ("{.labels.job}", "! `{.labels.job}` is absent"),
        ("{.none}", "! `{.none}` is absent"),
        ("{stats.other}", "! `{stats.other}` is absent"),
        ("{.labels}", "! `{.labels}` is an object, not a text"),
        ("{.items|x}", "! `{.items}` is a list, not a text"),
        ("{query.word as number}", "! `{query.word}` is not a number"),
        ("{query.word|5 as number}", "! `{query.word}` is not a number"),
        ("{.yes as number}", "! `{.yes}` is not a number"),
    ] {
        assert_eq!(shown(with_scope(|scope| text(template).text(scope))), expected, "{template}");
    }
}

#[test]
fn topics() {
    for (template, expected) in [
        ("alerts/{.labels.severity|none}", "alerts/high"),
        ("alerts/{.labels.job|none}", "alerts/none"),
        ("alerts/{.labels.job|a/b}", "alerts/a/b"),
        ("alerts/{.labels.path}", "alerts/a_b_c_d_"),
        ("t/{path.tenant}", "t/t_1"),
        ("{path.topic}", "a/b_"),
        ("{topic}:{channel}", "orders.eu/new:chat:7"),
        ("x/{id}", "x/alerts-k3f9-1042"),
        ("x/{.labels.empty|none}", "x/none"),
        ("x/{.labels.empty}", "! `{.labels.empty}` is empty"),
        ("x/{query.nothing}/y", "! `{query.nothing}` is empty"),
        ("x/{.labels.job}", "! `{.labels.job}` is absent"),
        ("x/*", "! a topic has no `*`, which is for patterns: \"x/*\""),
    ] {
        assert_eq!(shown(with_scope(|scope| text(template).topic(scope))), expected, "{template}");
    }
    let mut unbound = Text::parse("{path.topic}", Roots::PATH).unwrap();
    assert_eq!(shown(with_scope(|scope| unbound.topic(scope))), "a_b_", "one segment as long as nobody says otherwise");
    assert!(unbound.bind_path(&[("other".into(), true)]).unwrap_err().contains("`{path.topic}`"));
}

#[test]
fn a_value_that_is_no_name_cannot_be_filled() {
    let (long, control) = (json!({"x": "y".repeat(300)}), json!({"x": "a\nb"}));
    for (payload, why) in [(&long, "at most 255 bytes"), (&control, "control characters")] {
        let scope = Scope { payload: Some(payload), ..Scope::default() };
        let error = text("t/{.x}").topic(&scope).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

fn check_patterns(template: &str, verbatim: bool, expected: &[&str]) {
    let patterns = with_scope(|scope| text(template).patterns(scope, verbatim));
    let patterns = patterns.map_or_else(|e| vec![format!("! {e}")], |all| all.iter().map(Pattern::to_string).collect());
    assert_eq!(patterns, expected, "{template} {verbatim}");
}

#[test]
fn patterns() {
    for verbatim in [false, true] {
        check_patterns("user/{claims.sub}/**", verbatim, &["user/u1/**"]);
        check_patterns("x/{.labels.path}/*", verbatim, &["x/a_b_c_d_/*"]);
        check_patterns("**", verbatim, &["**"]);
        check_patterns("{.missing|a/**}", verbatim, &["a/**"]);
        check_patterns("{.missing}", verbatim, &["! `{.missing}` is absent"]);
        check_patterns("x{.missing|*}", verbatim, &["! `*` is a whole segment, not part of one (\"x*\" in \"x*\")"]);
        check_patterns("{.items}", verbatim, &["! `{.items}` is an object, not a text"]);
    }
    check_patterns("{.labels.list}", false, &["x", "y_z", "7", "true"]);
    check_patterns("{.labels.list}", true, &["x", "y/z", "7", "true"]);
    check_patterns("{.topics}", true, &["a/**", "b"]);
    check_patterns("{.topics}", false, &["a___", "b"]);
    check_patterns("{.labels.path}", true, &["! `*` is a whole segment, not part of one (\"d*\" in \"a/b.c:d*\")"]);
    check_patterns("{.labels.empty}", true, &["! a pattern cannot be empty"]);
    check_patterns("{.labels.empty|x}", false, &["x"]);
    check_patterns("p/{.labels.list}", true, &["! `{.labels.list}` is a list, not a text"]);
}

#[test]
fn shapes() {
    for (template, expected) in [
        ("alerts/{.labels.severity|none}/{.fingerprint}", "alerts/*/*"),
        ("alerts", "alerts"),
        ("x-{.a}.y", "*.y"),
        ("{path.topic}", "**"),
        ("a/{path.topic}/b", "a/**"),
        ("a/{path.tenant}/b", "a/*/b"),
        ("a:{channel}", "a:**"),
        ("a/x{topic}", "a/**"),
        ("a/{.b|x/y}/c", "a/**"),
        ("user/{claims.sub}/**", "user/*/**"),
        ("{.a}/{.b}/{.c}/{.d}/{.e}/{.f}/{.g}/{.h}/{.i}", "**"),
    ] {
        assert_eq!(text(template).shape().as_str(), expected, "{template}");
    }
}

#[test]
fn names_are_checked_before_there_are_values() {
    assert!(text("alerts/{.a}").check_topic().is_ok());
    assert!(text("alerts/*").check_topic().is_err());
    assert!(text("alerts/{.a}/*").check_pattern().is_ok());
    assert!(text("alerts/{.a}*").check_pattern().is_err());
}

#[test]
fn what_a_template_is_made_of() {
    for (template, constant, lone, roots) in [
        ("a {{b}}", true, false, Roots::NONE),
        ("{.a}", false, true, Roots::PAYLOAD),
        ("{.a}{query.b}", false, false, Roots::PAYLOAD | Roots::QUERY),
        (" {claims.a}", false, false, Roots::CLAIMS),
    ] {
        let text = text(template);
        assert_eq!((text.is_constant(), text.is_lone(), text.roots()), (constant, lone, roots), "{template}");
    }
}

#[test]
fn mistakes_are_told_when_the_file_is_read() {
    for (template, roots, why) in [
        (
            "{claims.sub}",
            Roots::PAYLOAD | Roots::PATH,
            "`{claims.sub}` means nothing here; here are: `{.…}`, `{path.…}`",
        ),
        ("{x}", Roots::NONE, "no placeholder does"),
        ("{}", EVERY, "`{}` means nothing here"),
        ("{session.name}", EVERY, "means nothing here"),
        ("{query.}", EVERY, "means nothing here"),
        ("{query}", EVERY, "means nothing here"),
        ("{topic.x}", EVERY, "means nothing here"),
        ("{ .a }", EVERY, "means nothing here"),
        ("{\"type\":\"pong\"}", EVERY, "a brace itself is written `{{`"),
        ("{.a..b}", EVERY, "empty segment"),
        ("{header.a b}", EVERY, "no name of a header"),
        ("{path.topic...}", EVERY, "write `{path.topic}`"),
        ("{.a|x as number}", EVERY, "\"x\", which is no number"),
        ("{.a", EVERY, "a single `{`"),
        ("a}", EVERY, "a single `}`"),
        ("{{.a}", EVERY, "a single `}`"),
    ] {
        let error = Text::parse(template, roots).unwrap_err();
        assert!(error.contains(why), "{template}: {error}");
        assert!(Json::parse(&json!({"deep": [template]}), roots).unwrap_err().contains(why));
        assert!(Json::parse(&json!({template: 1}), roots).is_err());
    }
}

fn json_template(template: &Value) -> Json {
    let mut json = Json::parse(template, EVERY).unwrap();
    json.bind_path(&[("tenant".into(), false), ("topic".into(), true)]).unwrap();
    json
}

fn check_json(template: Value, expected: &str) {
    let filled = with_scope(|scope| json_template(&template).payload(scope));
    let filled = filled.map(|payload| {
        assert_eq!(payload.kind, Kind::Json);
        String::from_utf8(payload.bytes.to_vec()).unwrap()
    });
    assert_eq!(shown(filled), expected, "{template}");
}

#[test]
fn json_templates_keep_types() {
    check_json(
        json!({"type": "pong", "timestamp": "{now}"}),
        r#"{"type":"pong","timestamp":"2025-11-20T20:15:00.123Z"}"#,
    );
    check_json(json!(["{.n}", "{.yes}", "{.items}", "{.none}", "{.missing}"]), r#"[12,true,[{"id":7}],null,null]"#);
    check_json(json!(["{query.limit}", "{query.limit as number}", "{query.x|5 as number}"]), r#"["20",20,5]"#);
    check_json(json!(["{query.x|5}", "{stats.connections}", "{query.x as number}"]), r#"["5",42,null]"#);
    check_json(
        json!({"a": [], "b": {}, "c": [1, 2.50, null, true], "d\"": "\n"}),
        r#"{"a":[],"b":{},"c":[1,2.5,null,true],"d\"":"\n"}"#,
    );
    check_json(json!({"{claims.sub}": "is {.labels.severity}"}), r#"{"u1":"is high"}"#);
    check_json(json!({"{claims.tenant.id}": 1}), r#"{"7":1}"#);
    check_json(json!("{{}} {.n}"), r#""{} 12""#);
    check_json(json!({"x": "a {.missing}"}), "! `{.missing}` is absent");
    check_json(json!({"{.missing}": 1}), "! `{.missing}` is absent");
    check_json(json!({"x": "{query.word as number}"}), "! `{query.word}` is not a number");
}

fn raw(kind: Kind, bytes: &[u8]) -> Payload {
    Payload { kind, bytes: Bytes::copy_from_slice(bytes) }
}

fn check_raw(template: Value, raw: &Payload, payload: (Kind, &[u8]), reply: &[u8]) {
    let parsed = serde_json::from_slice::<Value>(&raw.bytes).ok().filter(|_| raw.kind == Kind::Json);
    for parsed in [parsed.as_ref(), None] {
        let scope = Scope { payload: parsed, raw: Some(raw), ..Scope::default() };
        let filled = json_template(&template).payload(&scope).unwrap();
        assert_eq!((filled.kind, &filled.bytes[..]), payload, "{template} {raw:?}");
        assert_eq!(json_template(&template).reply(&scope).unwrap(), reply, "{template} {raw:?}");
    }
}

#[test]
fn the_raw_payload_goes_through_byte_for_byte() {
    let object = raw(Kind::Json, b"{ \"a\": 1.0,\n\"a\":2 }");
    check_raw(json!("{.}"), &object, (Kind::Json, &object.bytes), &object.bytes);
    let alert = b"{\"alert\":{ \"a\": 1.0,\n\"a\":2 }}";
    check_raw(json!({"alert": "{.}"}), &object, (Kind::Json, alert), alert);

    let word = raw(Kind::Text, "ping \"ü\"".as_bytes());
    check_raw(json!("{.}"), &word, (Kind::Text, &word.bytes), &word.bytes);
    check_raw(
        json!(["{.}"]),
        &word,
        (Kind::Json, "[\"ping \\\"ü\\\"\"]".as_bytes()),
        "[\"ping \\\"ü\\\"\"]".as_bytes(),
    );
    check_raw(json!(["{.a}"]), &word, (Kind::Json, b"[null]"), b"[null]");

    let digits = raw(Kind::Text, b"12");
    check_raw(json!("{. as number}"), &digits, (Kind::Json, b"12"), b"12");

    let binary = raw(Kind::Binary, &[0xff, 0]);
    check_raw(json!("{.}"), &binary, (Kind::Binary, &[0xff, 0]), b"/wA=");
    check_raw(json!(["{.}"]), &binary, (Kind::Json, b"[\"/wA=\"]"), b"[\"/wA=\"]");
}

#[test]
fn replies_that_are_strings_are_text() {
    for (template, expected) in [
        (json!("pong"), "pong"),
        (json!("hello {claims.sub}"), "hello u1"),
        (json!("{claims.sub}"), "u1"),
        (json!("{.items}"), r#"[{"id":7}]"#),
        (json!("{.n}"), "12"),
        (json!({"type": "pong"}), r#"{"type":"pong"}"#),
        (json!(["pong"]), r#"["pong"]"#),
        (json!("{.missing}"), "! `{.missing}` is absent"),
        (json!("x {.missing}"), "! `{.missing}` is absent"),
    ] {
        let reply = with_scope(|scope| json_template(&template).reply(scope));
        assert_eq!(shown(reply.map(|bytes| String::from_utf8(bytes).unwrap())), expected, "{template}");
    }
}

#[test]
fn numbers_are_passed_on_as_written() {
    let payload: Value = serde_json::from_str("{\"n\":1.10,\"big\":123456789012345678901234567890}").unwrap();
    let scope = Scope { payload: Some(&payload), ..Scope::default() };
    assert_eq!(text("{.n} {.big}").text(&scope).unwrap(), "1.10 123456789012345678901234567890");
    let filled = json_template(&json!(["{.n}", "{.big}"])).payload(&scope).unwrap();
    assert_eq!(&filled.bytes[..], b"[1.10,123456789012345678901234567890]");
}

#[test]
fn the_roots_of_a_json_template_are_those_of_its_strings_and_keys() {
    let template = json!({"{query.a}": ["{now}", {"x": "b {.c}"}]});
    assert_eq!(json_template(&template).roots(), Roots::QUERY | Roots::NOW | Roots::PAYLOAD);
    assert_eq!(json_template(&json!({"a": 1})).roots(), Roots::NONE);
    let mut unknown = Json::parse(&json!(["{path.x}"]), EVERY).unwrap();
    assert!(unknown.bind_path(&[]).is_err());
}

proptest! {
    #[test]
    fn no_value_climbs_into_another_topic(value in ".{0,20}") {
        let payload = json!({ "v": value });
        let scope = Scope { payload: Some(&payload), ..Scope::default() };
        let template = text("tenant/{.v}/x");
        if let Ok(topic) = template.topic(&scope) {
            prop_assert!(template.shape().matches(topic.as_str()));
            let pattern = &template.patterns(&scope, false).unwrap()[0];
            prop_assert!(pattern.is_exact() && template.shape().covers(pattern));
        }
    }

    #[test]
    fn templates_never_panic_and_constants_are_themselves(input in "[{}.|a* ]{0,16}", plain in "[^{}]{0,16}") {
        if let Ok(text) = Text::parse(&input, EVERY) {
            text.shape();
            let _ = with_scope(|scope| (text.text(scope), text.topic(scope), text.patterns(scope, true)));
        }
        let escaped = plain.replace('a', "{{a}}");
        prop_assert_eq!(text(&escaped).text(&Scope::default()).unwrap(), plain.replace('a', "{a}"));
    }

    #[test]
    fn filled_json_is_json(value in ".{0,20}", key in "[^{}]{0,8}") {
        let payload = json!({ "v": value });
        let scope = Scope { payload: Some(&payload), ..Scope::default() };
        let mut template = serde_json::Map::new();
        template.insert(format!("k{key}"), json!(["{.v}", "<{.v}>", key]));
        let filled = json_template(&Value::Object(template)).payload(&scope).unwrap();
        let read: Value = serde_json::from_slice(&filled.bytes).unwrap();
        prop_assert_eq!(read, json!({ format!("k{key}"): [value, format!("<{value}>"), key] }));
    }
}
