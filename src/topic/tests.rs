use proptest::prelude::*;
use proptest::sample::select;

use super::*;

fn pattern(text: &str) -> Pattern {
    Pattern::new(text).unwrap()
}

fn check_matches(text: &str, yes: &[&str], no: &[&str]) {
    for topic in yes {
        assert!(pattern(text).matches(topic), "{text} matches {topic}");
    }
    for topic in no {
        assert!(!pattern(text).matches(topic), "{text} does not match {topic}");
    }
}

#[test]
fn the_table_of_design_section_1() {
    check_matches("a/*", &["a/b", "a/", "a/ü"], &["a.b", "a", "a/b/c", "a/b.c", "ab", "b/a"]);
    check_matches("a/**", &["a", "a/", "a/b", "a/b.c", "a/b/c:d"], &["a.b", "ab", "ab/c", "b"]);
    check_matches("**", &["a", "/", "a.b:c/d", ":"], &[]);
    check_matches("*", &["a", "alerts"], &["a/b", "a.", ":"]);
    check_matches("*/**", &["a", "a/b", "/a", "a/b.c"], &["a.b", "a:b/c"]);
    check_matches("a.*.c", &["a.b.c", "a..c"], &["a.b", "a.b.c.d", "a/b.c", "a.b:c"]);
    check_matches("app:*:42", &["app:notifications:42"], &["app:notifications:43", "app:42"]);
    check_matches("/a", &["/a"], &["a", "//a"]);
    check_matches("alerts/critical", &["alerts/critical"], &["alerts/Critical", "alerts", "alerts.critical"]);
    check_matches("*.*/**", &["orders.eu", "orders.eu/x"], &["orders", "orders.eu.x"]);
}

#[test]
fn names_that_are_topics() {
    let longest = "ü".repeat(127) + "x";
    for name in ["a", "alerts/critical", "app:notifications:42", "/", "..", " ", longest.as_str()] {
        assert_eq!(Topic::new(name).unwrap().as_str(), name);
        assert!(pattern(name).is_exact(), "{name} is a pattern too");
        assert!(pattern(name).matches(name), "{name} matches itself");
    }
}

#[test]
fn names_that_are_none() {
    let long = "x".repeat(256);
    for (name, why) in [
        ("", "cannot be empty"),
        (long.as_str(), "at most 255 bytes"),
        ("a\nb", "control characters"),
        ("a\u{85}b", "control characters"),
        ("a\0", "control characters"),
        ("a/*", "for patterns"),
    ] {
        let error = Topic::new(name).unwrap_err().to_string();
        assert!(error.contains(why), "{name:?}: {error}");
    }
}

#[test]
fn patterns_that_are_none() {
    let stars = ["*"; 9].join("/");
    let long = "x".repeat(254) + "/*";
    for (text, why) in [
        ("", "cannot be empty"),
        (long.as_str(), "at most 255 bytes"),
        ("a\t/*", "control characters"),
        ("a*", "whole segment"),
        ("a/*b/c", "whole segment"),
        ("***", "whole segment"),
        ("a/**/b", "only at the end"),
        ("**/", "only at the end"),
        (stars.as_str(), "at most 8"),
    ] {
        let error = Pattern::new(text).unwrap_err().to_string();
        assert!(error.contains(why), "{text:?}: {error}");
    }
    assert!(Pattern::new(&(["*"; 8].join("/") + "/**")).is_ok());
}

#[test]
fn covering_and_overlapping() {
    for (a, b, covers, overlaps) in [
        ("**", "a/*", true, true),
        ("a/**", "a", true, true),
        ("a/**", "a/*", true, true),
        ("a/**", "a/b/**", true, true),
        ("a/**", "a.**", false, true),
        ("a/*", "a/**", false, true),
        ("a/*", "*/b", false, true),
        ("a/*", "a.*", false, false),
        ("a/**", "b/**", false, false),
        ("a", "a/**", false, true),
        ("*", "**", false, true),
        ("*/**", "**", false, true),
        ("tenant/7/**", "tenant/*/x", false, true),
    ] {
        assert_eq!(pattern(a).covers(&pattern(b)), covers, "{a} covers {b}");
        assert_eq!(pattern(a).overlaps(&pattern(b)), overlaps, "{a} overlaps {b}");
        assert_eq!(pattern(b).overlaps(&pattern(a)), overlaps, "{b} overlaps {a}");
    }
}

/// Every name of up to four segments out of three; the patterns below have up to three, so what a wildcard can be is
/// always among these. The empty name is no topic, but `overlaps` may say yes for it (`/**` and `*`).
fn universe() -> Vec<String> {
    let mut topics: Vec<String> = vec!["".into(), "a".into(), "b".into()];
    let mut last = topics.clone();
    for _ in 0..3 {
        let longer = |name: &String| {
            let name = name.clone();
            ["/", ".", ":"]
                .into_iter()
                .flat_map(move |separator| ["", "a", "b"].map(|segment| format!("{name}{separator}{segment}")))
        };
        last = last.iter().flat_map(longer).collect();
        topics.extend_from_slice(&last);
    }
    topics
}

fn any_pattern() -> impl Strategy<Value = Pattern> {
    let more = proptest::collection::vec((select(vec!["/", "."]), select(vec!["", "a", "b", "*", "**"])), 0..3);
    (select(vec!["", "a", "b", "*", "**"]), more).prop_filter_map("`**` only at the end", |(first, more)| {
        let text = more.iter().fold(first.to_owned(), |text, (separator, segment)| text + separator + segment);
        Pattern::new(&text).ok()
    })
}

/// The definition, the slow way: by trying every length for every `*`.
fn matches_slowly(pattern: &str, topic: &str) -> bool {
    let ends_segment = |text: &str| text.is_empty() || text.starts_with(['/', '.', ':']);
    if pattern == "**" {
        return true;
    }
    if topic.is_empty() && matches!(pattern, "/**" | ".**" | ":**") {
        return true;
    }
    if let Some(pattern) = pattern.strip_prefix('*') {
        let mut ends = topic.char_indices().map(|(at, _)| at).chain([topic.len()]);
        return ends.any(|end| {
            !topic[..end].contains(['/', '.', ':'])
                && ends_segment(&topic[end..])
                && matches_slowly(pattern, &topic[end..])
        });
    }
    match (pattern.chars().next(), topic.chars().next()) {
        (None, None) => true,
        (Some(a), Some(b)) if a == b => matches_slowly(&pattern[a.len_utf8()..], &topic[b.len_utf8()..]),
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn relations_agree_with_trying_every_topic(a in any_pattern(), b in any_pattern()) {
        let topics = universe();
        let both = |topic: &String| a.matches(topic) && b.matches(topic);
        prop_assert_eq!(a.covers(&b), topics.iter().all(|topic| !b.matches(topic) || a.matches(topic)));
        prop_assert_eq!(a.overlaps(&b), topics.iter().any(both));
    }

    #[test]
    fn matching_agrees_with_the_definition(pattern in any_pattern(), topic in "[ab]{0,1}([/.:][ab]{0,1}){0,3}") {
        prop_assert_eq!(pattern.matches(&topic), matches_slowly(pattern.as_str(), &topic), "{} {}", pattern, topic);
    }

    #[test]
    fn parts_put_together_are_the_name(name in "[a/.:ü]{1,12}") {
        let whole: String = parts(&name).map(|part| part.text).collect();
        prop_assert_eq!(whole, &name[..]);
        prop_assert_eq!(parts(&name).count(), 1 + name.matches(['/', '.', ':']).count());
        prop_assert!(parts(&name).all(|part| !part.segment().contains(['/', '.', ':'])));
    }
}
