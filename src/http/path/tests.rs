use proptest::prelude::*;

use super::*;

fn pattern(text: &str) -> PathPattern {
    PathPattern::parse(text).unwrap()
}

fn check(text: &str, path: &str, expected: Option<&[(&str, &str)]>) {
    let expected = expected
        .map(|pairs| pairs.iter().map(|(name, value)| (String::from(*name), String::from(*value))).collect::<Vec<_>>());
    assert_eq!(pattern(text).captures(path), expected, "{text} on {path}");
}

#[test]
fn captures_what_matches() {
    check("/", "/", Some(&[]));
    check("/ws/remediation", "/ws/remediation", Some(&[]));
    check("/ws/remediation", "/ws/re%6Dediation", Some(&[]));
    check("/ws/", "/ws/", Some(&[]));
    check("/hooks/{tenant}", "/hooks/acme", Some(&[("tenant", "acme")]));
    check("/hooks/{tenant}/x", "/hooks/a%2Fb/x", Some(&[("tenant", "a/b")]));
    check("/{a}/{b}", "/1/%C3%A9", Some(&[("a", "1"), ("b", "é")]));
    check("/events/{topic...}", "/events/a/b.c", Some(&[("topic", "a/b.c")]));
    check("/events/{topic...}", "/events/a//b/", Some(&[("topic", "a//b/")]));
    check("/{all...}", "/x%2fy/z", Some(&[("all", "x/y/z")]));
    check("/{x}", "/a+b", Some(&[("x", "a+b")]));
}

#[test]
fn matches_nothing_else() {
    let cases = [
        ("/", ""),
        ("/", "/a"),
        ("/", "//"),
        ("/ws", "/ws/"),
        ("/ws/", "/ws"),
        ("/ws", "/WS"),
        ("/ws", "ws"),
        ("/ws", "/ws/a"),
        ("/ws/a", "/ws"),
        ("/hooks/{tenant}", "/hooks/"),
        ("/hooks/{tenant}", "/hooks/a/"),
        ("/hooks/{tenant}", "/hooks/a/b"),
        ("/hooks/{tenant}", "/hooks/%FF"),
        ("/hooks/{tenant}", "/hooks/%zz"),
        ("/hooks/{tenant}", "/hooks/%4"),
        ("/hooks/{tenant}", "/hooks/%"),
        ("/events/{topic...}", "/events/"),
        ("/events/{topic...}", "/events"),
    ];
    for (text, path) in cases {
        check(text, path, None);
    }
}

#[test]
fn tells_what_is_wrong_with_a_pattern() {
    let cases = [
        ("", "must begin with `/`"),
        ("ws", "must begin with `/`"),
        ("/a//b", "an empty segment"),
        ("/a/../b", "the segment `..`"),
        ("/a?b", "contains '?'"),
        ("/a b", "contains ' '"),
        ("/a%20b", "write it decoded"),
        ("/a/*", "contains '*'"),
        ("/a\u{7}", "contains '\\u{7}'"),
        ("/a/x{y}", "a capture is a whole segment"),
        ("/a/{y", "a capture is a whole segment"),
        ("/a/{}", "a name is letters"),
        ("/a/{...}", "a name is letters"),
        ("/a/{x y}", "a name is letters"),
        ("/{x...}/b", "can only come last"),
        ("/{x}/{x}", "captures `x` twice"),
        ("/{x}/{x...}", "captures `x` twice"),
    ];
    for (text, part) in cases {
        let error = PathPattern::parse(text).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn names_are_in_order() {
    let p = pattern("/{a}/b/{c...}");
    assert_eq!(p.as_str(), "/{a}/b/{c...}");
    assert_eq!(p.names(), [("a".to_owned(), false), ("c".to_owned(), true)]);
}

#[test]
fn reads_queries() {
    let check = |raw: &str, expected: &[(&str, &str)]| {
        let pairs = query(raw);
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(pairs, expected, "{raw}");
    };
    check("", &[]);
    check("a=1&b=2", &[("a", "1"), ("b", "2")]);
    check("topic=a%2F*&topic=b", &[("topic", "a/*"), ("topic", "b")]);
    check("a=b=c&d&=e&&", &[("a", "b=c"), ("d", ""), ("", "e")]);
    check("a+b=c%2Bd+e", &[("a b", "c+d e")]);
    check(
        "a=%C3%A9&b=%ff&c=100%&d=%4&e=%zz",
        &[("a", "é"), ("b", "\u{fffd}"), ("c", "100%"), ("d", "%4"), ("e", "%zz")],
    );
}

#[test]
fn looks_at_no_more_than_256_pairs() {
    assert_eq!(query(&"a=1&".repeat(100_000)).len(), MAX_PAIRS);
}

proptest! {
    #[test]
    fn any_segment_comes_back_as_it_went(values in prop::collection::vec("[^/]{1,8}", 1..4)) {
        let encoded = |text: &String| text.bytes().map(|b| format!("%{b:02x}")).collect::<String>();
        let path: String = values.iter().map(|v| format!("/{}", encoded(v))).collect();
        let names: String = (0..values.len()).map(|i| format!("/{{n{i}}}")).collect();
        let captured = pattern(&names).captures(&path).unwrap();
        prop_assert_eq!(captured.into_iter().map(|(_, value)| value).collect::<Vec<_>>(), values);
    }

    #[test]
    fn no_input_is_too_strange(text in ".{0,40}", path in ".{0,40}") {
        let _ = query(&path);
        let rest = pattern("/{x...}").captures(&path);
        prop_assert!(rest.is_none() || path.len() > 1);
        if let Ok(p) = PathPattern::parse(&text) {
            prop_assert_eq!(p.captures(&path).map(|c| c.len()).unwrap_or(p.names().len()), p.names().len());
        }
    }
}
