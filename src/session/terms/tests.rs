use super::*;
use crate::gate::origin::Origins;
use crate::http::path::PathPattern;
use crate::select::Field;
use crate::session::endpoint::OnSlow;
use crate::template::{Json, Roots};
use crate::wire::form::Transport;

/// A template that may name anything a request has.
pub fn text(text: &str) -> Text {
    Text::parse(text, Roots(u16::MAX)).unwrap()
}

/// An endpoint that hears and allows `a/**` and `b`, changed as a test wants it.
pub fn endpoint(change: impl FnOnce(&mut Settings)) -> Endpoint {
    let mut settings = Settings {
        paths: vec![PathPattern::parse("/e").unwrap()],
        topics: vec![text("b")],
        allow: vec![text("a/**"), text("b")],
        transports: vec![Transport::WebSocket],
        origins: Origins::Same,
        format: Format::Envelope,
        replay: Replay::Newest(7),
        pace: Vec::new(),
        select: None,
        on_slow: OnSlow::Disconnect,
        ping: Duration::from_secs(25),
        connections_per_ip: None,
        alias: [("all".to_owned(), Pattern::new("a/**").unwrap())].into(),
        hello: None,
        commands: Vec::new(),
    };
    change(&mut settings);
    Endpoint { id: 1, settings, reach: [].into(), allow: None, counters: Default::default() }
}

fn names(patterns: &[Pattern]) -> Vec<&str> {
    patterns.iter().map(Pattern::as_str).collect()
}

fn agree(endpoint: &Endpoint, asked: &Asked) -> Result<Terms, Denied> {
    let query = [("n".to_owned(), "3".to_owned()), ("who".to_owned(), "x/y".to_owned())];
    terms(endpoint, asked, &Scope { query: &query, ..Scope::default() }, 3, 100)
}

fn topics(names: &[&str]) -> Asked {
    Asked { topics: names.iter().map(|name| (*name).to_owned()).collect(), ..Asked::default() }
}

#[test]
fn topics_are_held_against_allow() {
    let check = |asked: &[&str], expected: Result<&[&str], u16>| {
        let got = agree(&endpoint(|_| {}), &topics(asked));
        let got = got.as_ref().map(|terms| names(&terms.patterns)).map_err(|denied| denied.status);
        assert_eq!(got, expected.map(<[&str]>::to_vec), "{asked:?}");
    };
    check(&[], Ok(&["b"]));
    check(&["b", "a/1", "b"], Ok(&["a/1", "b"]));
    check(&["all"], Ok(&["a/**"]));
    check(&["a/*"], Ok(&["a/*"]));
    check(&["a"], Ok(&["a"]));
    for not_allowed in ["**", "c", "a.b", "b/**", "*"] {
        check(&["b", not_allowed], Err(403));
    }
    for no_pattern in ["", "a/**/b", "a\n", "x*y"] {
        check(&[no_pattern], Err(400));
    }
    check(&["a/1", "a/2", "a/3"], Ok(&["a/1", "a/2", "a/3"]));
    check(&["a/1", "a/2", "a/3", "a/4"], Err(400));
}

#[test]
fn a_value_cannot_climb_out_of_its_segment() {
    let own = endpoint(|settings| settings.topics = vec![text("a/{query.who}")]);
    assert_eq!(names(&agree(&own, &Asked::default()).unwrap().patterns), ["a/x_y"]);
    let absent = endpoint(|settings| settings.topics = vec![text("a/{query.nobody}")]);
    assert_eq!(agree(&absent, &Asked::default()).unwrap_err().status, 400);
}

#[test]
fn a_session_begins_where_it_asks() {
    let cursor = "AQECAwQAAAAFrAI";
    let check = |after: Option<&str>, replay: Option<&str>, expected: Result<Begin, u16>| {
        let asked = Asked { after: after.map(str::to_owned), replay: replay.map(str::to_owned), ..Asked::default() };
        let begin = agree(&endpoint(|_| {}), &asked).map(|terms| terms.begin).map_err(|denied| denied.status);
        assert_eq!(begin, expected, "{after:?} {replay:?}");
    };
    check(None, None, Ok(Begin::Fresh(Replay::Newest(7))));
    check(None, Some("20"), Ok(Begin::Fresh(Replay::Newest(20))));
    check(None, Some("0"), Ok(Begin::Fresh(Replay::None)));
    check(None, Some("9999999"), Ok(Begin::Fresh(Replay::Newest(100))));
    check(None, Some("retained"), Ok(Begin::Fresh(Replay::Retained)));
    for nonsense in ["", "-1", "all", "1e3"] {
        check(None, Some(nonsense), Err(400));
    }
    check(Some(cursor), Some("20"), Ok(Begin::After(cursor::parse(cursor))));
    check(Some("nonsense"), None, Ok(Begin::After(None)));
    assert!(cursor::parse(cursor).is_some());
}

#[test]
fn a_pace_is_bounded_and_never_faster_than_the_endpoint_s() {
    let rule = PaceRule {
        topics: vec![Pattern::all()],
        every: text("{query.n|10}s"),
        min: Some(Duration::from_secs(2)),
        max: Some(Duration::from_secs(60)),
    };
    let check = |every: Option<&str>, asked: Option<&str>, expected: Result<Option<u64>, u16>| {
        let mut rule = rule.clone();
        rule.every = every.map_or(rule.every, text);
        let own = endpoint(|settings| settings.pace = vec![rule]);
        let got = agree(&own, &Asked { pace: asked.map(str::to_owned), ..Asked::default() });
        let got = got.map(|terms| terms.pace.map(|paces| paces[0].every.as_millis() as u64));
        assert_eq!(got.map_err(|denied| denied.status), expected, "{every:?} {asked:?}");
    };
    check(None, None, Ok(Some(3000)));
    check(None, Some("5s"), Ok(Some(5000)));
    check(None, Some("100ms"), Ok(Some(3000)));
    check(Some("1s"), None, Err(400));
    check(Some("61s"), None, Err(400));
    for nonsense in ["", "soon", "1d", "99ms", "2h", "18446744073709551615h"] {
        check(None, Some(nonsense), Err(400));
    }
    let none = agree(&endpoint(|_| {}), &Asked { pace: Some("7".into()), ..Asked::default() }).unwrap();
    assert_eq!((none.pace.unwrap()[0].every.as_secs(), none.own_pace), (7, true));
}

#[test]
fn the_values_of_where_may_come_from_the_request_and_are_bounded() {
    let filled = |value: serde_json::Value, payload: serde_json::Value| {
        let values = vec![Json::parse(&value, Roots(u16::MAX)).unwrap()];
        let rule = WhereRule { any: vec![Field::parse(".s", false).unwrap()], values, absent_passes: false };
        let filled = select(&rule, &Scope { payload: Some(&payload), ..Scope::default() })?;
        Ok::<_, String>(filled.passes(Some(&serde_json::json!({"s": "high"}))))
    };
    assert_eq!(filled("high".into(), ().into()), Ok(true));
    assert_eq!(filled("{.wanted}".into(), serde_json::json!({"wanted": ["low", "high"]})), Ok(true));
    assert_eq!(filled("{.wanted}".into(), serde_json::json!({"wanted": []})), Ok(false));
    assert!(filled("{.wanted}".into(), serde_json::json!({})).is_err());
    assert!(filled("{.wanted}".into(), serde_json::json!({"wanted": vec![0; 1001]})).is_err());
}

#[test]
fn a_format_is_one_of_two() {
    for (asked, expected) in [(None, Ok(Format::Envelope)), (Some("raw"), Ok(Format::Raw)), (Some("xml"), Err(400))] {
        let asked = Asked { format: asked.map(str::to_owned), ..Asked::default() };
        let got = agree(&endpoint(|_| {}), &asked).map(|terms| terms.format);
        assert_eq!(got.map_err(|denied| denied.status), expected);
    }
}
