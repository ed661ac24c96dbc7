//! What is said on a channel becomes a draft. Pure.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::Value;

use super::{Reads, is_glob};
use crate::event::{Kind, Payload, Time};
use crate::metrics::Dropped;
use crate::source::body;
use crate::stream::{Draft, Name};
use crate::template::{Roots, Scope, Text};
use crate::topic::Pattern;

/// A message above this becomes no event. (Redis takes up to 512 MiB, and a source's ring has 16.)
pub const LARGEST: usize = 4 * 1024 * 1024;

/// Why there is no draft, for the counter and for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoDraft(pub Dropped, pub String);

/// JSON if it is, else text if it is, else binary.
pub fn payload(bytes: Bytes) -> Payload {
    let kind = match simdutf8::basic::from_utf8(&bytes) {
        Ok(text) if begins_json(text) && body::check_json(text).is_ok() => Kind::Json,
        Ok(_) => Kind::Text,
        Err(_) => Kind::Binary,
    };
    Payload { kind, bytes }
}

/// A look at the first byte spares most texts the parser and its message.
fn begins_json(text: &str) -> bool {
    let first = text.bytes().find(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n'));
    first.is_some_and(|byte| matches!(byte, b'{' | b'[' | b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n'))
}

/// The draft of one message.
pub fn draft(topic: &Text, channel: &[u8], payload: Payload, name: Option<Name>, now: Time) -> Result<Draft, NoDraft> {
    if payload.bytes.len() > LARGEST {
        let what = format!("{} bytes are more than {LARGEST}", payload.bytes.len());
        return Err(NoDraft(Dropped::TooLarge, what));
    }
    let value = topic.roots().contains(Roots::PAYLOAD).then(|| value(&payload)).flatten();
    let scope = Scope {
        payload: value.as_ref(),
        raw: Some(&payload),
        channel: std::str::from_utf8(channel).ok(),
        now,
        ..Scope::default()
    };
    let topic = topic.topic(&scope).map_err(|error| NoDraft(Dropped::Unfilled, format!("topic: {error}")))?;
    Ok(Draft { topic, payload, dedupe: None, name })
}

fn value(payload: &Payload) -> Option<Value> {
    let text = std::str::from_utf8(&payload.bytes).ok()?;
    match payload.kind {
        Kind::Json => body::parse_json(text).ok(),
        Kind::Text => Some(Value::from(text)),
        Kind::Binary | Kind::Gap => None,
    }
}

/// Under which patterns all topics of a source lie: where a gap of it must be told.
pub fn reach(reads: &Reads, topic: &Text) -> Vec<Pattern> {
    let (Reads::Channels(names) | Reads::Sharded(names) | Reads::Streams(names)) = reads;
    let mut patterns: Vec<Pattern> = names.iter().map(|name| reached(reads, name, topic)).collect();
    patterns.sort_unstable();
    patterns.dedup();
    let all = patterns.clone();
    patterns.retain(|one| !all.iter().any(|other| other != one && other.covers(one)));
    patterns
}

/// The topics of one channel, or of those that a glob takes.
fn reached(reads: &Reads, channel: &str, topic: &Text) -> Pattern {
    let glob = matches!(reads, Reads::Channels(_)) && is_glob(channel);
    let constant = Roots::CHANNEL.contains(topic.roots());
    let at = |channel: &str| {
        let scope = Scope { channel: Some(channel), ..Scope::default() };
        topic.topic(&scope).ok().and_then(|topic| Pattern::new(topic.as_str()).ok())
    };
    let known = match (glob, constant) {
        (false, true) => at(channel),
        // What lies before the segment with the first wildcard is known.
        (true, true) if topic.is_lone() => {
            let literal = &channel[..channel.find(['*', '?', '[', '\\']).unwrap_or(channel.len())];
            let whole = literal.rfind(['/', '.', ':']).map_or("", |end| &literal[..=end]);
            Pattern::new(&format!("{whole}**")).ok()
        }
        _ => None,
    };
    known.unwrap_or_else(|| topic.shape())
}

/// A channel, as people read it.
pub fn shown(channel: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(&channel[..channel.len().min(256)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(topic: &str) -> Text {
        Text::parse(topic, Roots::CHANNEL | Roots::PAYLOAD | Roots::NOW).unwrap()
    }

    #[test]
    fn a_payload_is_json_or_else_text_or_else_binary() {
        let check = |bytes: &[u8], kind| assert_eq!(payload(Bytes::copy_from_slice(bytes)).kind, kind, "{bytes:?}");
        for json in ["{}", " [1]\n", "\"a\"", "-1.5e3", "0", "true", "null"] {
            check(json.as_bytes(), Kind::Json);
        }
        for text in ["", " ", "a", "{", "{}x", "truth", "nul", "01", "\u{e9}", "\"\\ud800\""] {
            check(text.as_bytes(), Kind::Text);
        }
        check(&[b'['].repeat(10_000), Kind::Text);
        check(&b"\xff{}"[..], Kind::Binary);
    }

    #[test]
    fn topics_are_made_of_channel_and_payload() {
        let check = |template: &str, channel: &[u8], said: &str, expected: Result<&str, Dropped>| {
            let payload = payload(Bytes::copy_from_slice(said.as_bytes()));
            let draft = draft(&text(template), channel, payload, Some(Name(1, 2)), Time(0));
            assert_eq!(
                draft.as_ref().map(|draft| draft.topic.as_str()).map_err(|none| none.0),
                expected,
                "{template} {channel:?} {said}"
            );
        };
        check("{channel}", b"orders.eu", "x", Ok("orders.eu"));
        check("{channel}", b"a*b", "x", Ok("a_b"));
        check("{channel}", b"\xff", "x", Err(Dropped::Unfilled));
        check("{channel}", "x".repeat(300).as_bytes(), "x", Err(Dropped::Unfilled));
        check("o/{.id}", b"c", r#"{"id":7}"#, Ok("o/7"));
        check("o/{.id}", b"c", r#"{"id":"a/b"}"#, Ok("o/a_b"));
        check("o/{.id}", b"c", "{}", Err(Dropped::Unfilled));
        check("o/{.id|none}", b"c", "no JSON", Ok("o/none"));
        check("o/{.}", b"c", "text", Ok("o/text"));
    }

    #[test]
    fn what_is_too_large_is_no_event() {
        let check = |size, expected: Option<Dropped>| {
            let none = draft(&text("t"), b"c", payload(vec![b'x'; size].into()), None, Time(0)).err();
            assert_eq!(none.map(|none| none.0), expected, "{size}");
        };
        check(LARGEST, None);
        check(LARGEST + 1, Some(Dropped::TooLarge));
    }

    #[test]
    fn a_gap_is_told_where_its_events_would_have_been() {
        let check = |channels: &[&str], template: &str, expected: &[&str]| {
            let reads = Reads::Channels(channels.iter().map(|name| name.to_string()).collect());
            let found = reach(&reads, &text(template));
            assert_eq!(found.iter().map(Pattern::as_str).collect::<Vec<_>>(), expected, "{channels:?} {template}");
        };
        check(&["b", "a"], "{channel}", &["a", "b"]);
        check(&["orders.*", "orders.eu"], "{channel}", &["orders.**"]);
        check(&["orders.eu.*", "jobs/[ab]"], "{channel}", &["jobs/**", "orders.eu.**"]);
        check(&["app:*:x"], "{channel}", &["app:**"]);
        check(&["news*"], "{channel}", &["**"]);
        check(&["a", "b"], "all", &["all"]);
        check(&["a.b", "c"], "r/{channel}", &["r/a.b", "r/c"]);
        check(&["a.*"], "r/{channel}", &["r/**"]);
        check(&["a"], "o/{.id}/x", &["o/*/x"]);
        // A star in a channel's own name is no wildcard of ours.
        let sharded = Reads::Sharded(vec!["a.*b".into()]);
        assert_eq!(reach(&sharded, &text("{channel}"))[0].as_str(), "a._b");
    }
}
