use bytes::Bytes;

use super::*;
use crate::select::{Field, Fields};
use crate::session::endpoint::{Publish, Settings, WhereRule};
use crate::session::terms::tests::{endpoint, text};
use crate::template::{Json, Roots};

fn pattern(name: &str) -> Pattern {
    Pattern::new(name).unwrap()
}

/// What a session that hears `b` is understood to want, as text.
fn said(endpoint: &Endpoint, kind: Kind, input: &str) -> String {
    let (allow, patterns) = ([pattern("a/**"), pattern("b")], [pattern("b")]);
    let speaker = Speaker { endpoint, allow: &allow, patterns: &patterns, topics: 3, replay: 50 };
    let input = Payload { kind, bytes: Bytes::copy_from_slice(input.as_bytes()) };
    match understand(&speaker, &input, &Scope { session: Some("me"), ..Scope::default() }) {
        Understood::Ignored => "ignored".into(),
        Understood::Wrong(why) => format!("wrong: {why}"),
        Understood::Deeds(deeds) => deeds.iter().map(deed).collect::<Vec<_>>().join("; "),
    }
}

fn deed(deed: &Deed) -> String {
    let names = |patterns: &[Pattern]| patterns.iter().map(Pattern::as_str).collect::<Vec<_>>().join(",");
    match deed {
        Deed::Subscribe(patterns, None) => format!("subscribe {}", names(patterns)),
        Deed::Subscribe(patterns, Some(after)) => {
            format!("subscribe {} after {:?}", names(patterns), after.as_ref().map(|marks| marks[0].position))
        }
        Deed::Unsubscribe(patterns) => format!("unsubscribe {}", names(patterns)),
        Deed::Where(select) => format!("where {}", select.passes(Some(&json!({"s": "x"})))),
        Deed::Pace(pace) => format!("pace {:?}", pace.as_ref().map(|paces| paces[0].every.as_secs())),
        Deed::Replay(replay) => format!("replay {replay:?}"),
        Deed::Publish(draft) => {
            let payload = &draft.payload;
            format!("publish {} {:?} {}", draft.topic, payload.kind, String::from_utf8_lossy(&payload.bytes))
        }
        Deed::Say(text) => format!("say {}", String::from_utf8_lossy(text)),
    }
}

#[test]
fn the_built_in_protocol() {
    let endpoint = endpoint(|_| {});
    let check = |input: &str, expected: &str| assert_eq!(said(&endpoint, Kind::Text, input), expected, "{input}");
    check(r#"{"type":"ping"}"#, r#"say {"type":"pong"}"#);
    check(
        r#"{"type":"subscribe","topics":["a/1","all"]}"#,
        r#"say {"type":"subscribed","topics":["a/1","all"]}; subscribe a/1,a/**"#,
    );
    check(
        r#"{"type":"subscribe","topics":["b"],"after":"AQECAwQAAAAFrAI"}"#,
        r#"say {"type":"subscribed","topics":["b"]}; subscribe b after Some(300)"#,
    );
    check(
        r#"{"type":"subscribe","topics":["b"],"after":17}"#,
        r#"say {"type":"subscribed","topics":["b"]}; subscribe b after None"#,
    );
    check(r#"{"type":"unsubscribe","topics":["b"]}"#, r#"unsubscribe b; say {"type":"unsubscribed","topics":["b"]}"#);
    check(r#"{"type":"pace","every":"5s"}"#, r#"pace Some(5); say {"type":"paced","every":"5s"}"#);
    check(r#"{"type":"pace"}"#, r#"pace None; say {"type":"paced","every":null}"#);
}

#[test]
fn nonsense_is_answered_with_what_is_wrong() {
    let endpoint = endpoint(|_| {});
    let check = |input: &str, expected: &str| {
        let said = said(&endpoint, Kind::Text, input);
        assert!(said.starts_with("wrong: ") && said.contains(expected), "{input}: {said}");
    };
    for nonsense in ["", "ping", "[]", "null", "{}", r#"{"type":7}"#, r#"{"type":"dance"}"#, "{"] {
        check(nonsense, "expected");
    }
    check(r#"{"type":"subscribe"}"#, "`topics` is a list");
    check(r#"{"type":"subscribe","topics":"b"}"#, "`topics` is a list");
    check(r#"{"type":"subscribe","topics":["b",1]}"#, "`topics` is a list");
    check(r#"{"type":"subscribe","topics":["c"]}"#, "`c` is not allowed");
    check(r#"{"type":"subscribe","topics":["**"]}"#, "`**` is not allowed");
    check(r#"{"type":"subscribe","topics":["a/1","a/2","a/3"]}"#, "more than 3 topics");
    check(r#"{"type":"unsubscribe","topics":["1","2","3","4"]}"#, "more than 3 topics");
    check(r#"{"type":"pace","every":"1ms"}"#, "pace");
    assert!(said(&endpoint, Kind::Binary, r#"{"type":"ping"}"#).starts_with("wrong: "), "binary is no command");
}

fn json_template(value: Value) -> Json {
    Json::parse(&value, Roots(u16::MAX)).unwrap()
}

fn command(when: When) -> Command {
    Command { when, subscribe: vec![], unsubscribe: vec![], select: None, replay: None, publish: None, reply: None }
}

fn with_type(wanted: &str) -> When {
    When::Fields(Fields::new(vec![(Field::parse("type", true).unwrap(), wanted.into())]))
}

fn own(settings: &mut Settings) {
    let publish = |topic: &str, body: Value| Some(Publish { topic: text(topic), body: json_template(body) });
    let select = WhereRule {
        any: vec![Field::parse(".s", false).unwrap()],
        values: vec![json_template("{.only}".into())],
        absent_passes: false,
    };
    settings.commands = [
        Command { reply: Some(json_template("pong".into())), ..command(When::Text("ping".into())) },
        Command {
            subscribe: vec![text("{.topics}")],
            unsubscribe: vec![text("b")],
            select: Some(select),
            replay: Some(Replay::Newest(1000)),
            publish: publish("log/{session.id}", json!({"did": "{.type}"})),
            reply: Some(json_template(json!({"heard": "{.topics}"}))),
            ..command(with_type("all"))
        },
        Command { publish: publish("x/{.who}", "{.}".into()), ..command(with_type("say")) },
    ]
    .map(Arc::new)
    .to_vec();
}

#[test]
fn own_commands_do_their_verbs_in_order() {
    let endpoint = endpoint(own);
    let check = |input: &str, expected: &str| assert_eq!(said(&endpoint, Kind::Text, input), expected, "{input}");
    check("ping", "say pong");
    check(
        r#"{"type":"all","topics":["all","b"],"only":["x"]}"#,
        concat!(
            r#"subscribe a/**,b; unsubscribe b; where true; replay Newest(50); "#,
            r#"publish log/me Json {"did":"all"}; say {"heard":["all","b"]}"#
        ),
    );
    check(r#"{"type":"say","who":"a/b*"}"#, r#"publish x/a_b_ Json {"type":"say","who":"a/b*"}"#);
    for unmatched in ["pong", "{}", r#"{"type":"ping"}"#, r#"["all"]"#, ""] {
        check(unmatched, "ignored");
    }
    assert_eq!(said(&endpoint, Kind::Binary, "ping"), "ignored");
}

#[test]
fn a_command_that_cannot_be_done_is_not_done_in_part() {
    let endpoint = endpoint(own);
    for (input, why) in [
        (r#"{"type":"all","topics":["c"],"only":[]}"#, "not allowed"),
        (r#"{"type":"all","topics":["a/1","a/2","a/3"],"only":[]}"#, "more than 3"),
        (r#"{"type":"all","topics":["b"]}"#, "`where` has no values"),
        (r#"{"type":"say"}"#, "absent"),
    ] {
        let said = said(&endpoint, Kind::Text, input);
        assert!(said.starts_with("wrong: ") && said.contains(why), "{input}: {said}");
    }
}

#[test]
fn an_echo_is_exact() {
    let endpoint = endpoint(|settings| {
        let publish = Publish { topic: text("echo/{session.id}"), body: json_template("{.}".into()) };
        settings.commands = vec![Arc::new(Command { publish: Some(publish), ..command(When::Always) })];
    });
    for (kind, input, expected) in [
        (Kind::Text, "hi", "publish echo/me Text hi"),
        (Kind::Text, r#"{ "a" : 1.0 }"#, r#"publish echo/me Json { "a" : 1.0 }"#),
        (Kind::Binary, r#"{"a":1}"#, r#"publish echo/me Binary {"a":1}"#),
        (Kind::Text, "", "publish echo/me Text "),
    ] {
        assert_eq!(said(&endpoint, kind, input), expected);
    }
}
