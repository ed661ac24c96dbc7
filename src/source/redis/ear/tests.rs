use super::*;
use crate::source::redis::ring::Next;

fn run() -> Run {
    Run::new("one")
}

fn message(by: Option<&str>, channel: &str, payload: &str) -> Said {
    let by = by.map(|by| Bytes::copy_from_slice(by.as_bytes()));
    Said::Message { by, channel: channel.to_owned().into(), payload: payload.to_owned().into() }
}

/// An ear that hears, after marker 100.
fn hearing() -> Ear {
    let mut ear = Ear::new(usize::MAX);
    ear.connected(run());
    assert_eq!(ear.hear(Said::Marker(100), Instant::now()), News::Begun);
    ear
}

fn hear(ear: &mut Ear, said: Said) -> News {
    ear.hear(said, Instant::now())
}

/// Of all that is kept: marker, count since, payload.
fn kept(ear: &Ear) -> Vec<(u64, u64, String)> {
    let Next::These(all) = ear.ring.next(ear.ring.begun(), usize::MAX, usize::MAX) else { return Vec::new() };
    let count = |name: Name| name.1 & u64::from(Count::MAX);
    all.into_iter().map(|h| (h.name.0, count(h.name), String::from_utf8_lossy(&h.payload).into_owned())).collect()
}

#[test]
fn a_name_is_the_marker_and_the_count_since() {
    let mut ear = Ear::new(usize::MAX);
    assert_eq!(hear(&mut ear, message(None, "c", "deaf")), News::Nothing);
    ear.connected(run());
    assert_eq!(hear(&mut ear, message(None, "c", "nameless")), News::Nothing);
    assert_eq!(hear(&mut ear, Said::Marker(7)), News::Begun);
    for payload in ["a", "b"] {
        assert_eq!(hear(&mut ear, message(None, "c", payload)), News::Message);
    }
    assert_eq!(hear(&mut ear, Said::Marker(9)), News::Marked);
    assert_eq!(hear(&mut ear, message(None, "d", "c")), News::Message);
    assert_eq!(kept(&ear), [(7, 1, "a".into()), (7, 2, "b".into()), (9, 1, "c".into())]);
    assert!(ear.is_hearing() && ear.proves(named(7, run(), 0)) && !ear.proves(named(6, run(), 99)));
    assert!(!ear.proves(named(8, Run::new("two"), 0)), "another process counted that");
    ear.disconnected();
    assert!(!ear.is_hearing() && !ear.proves(named(9, run(), 1)));
}

#[test]
fn a_publish_counts_once_however_many_subscriptions_it_falls_under() {
    let mut ear = hearing();
    let news =
        |ear: &mut Ear, by: Option<&str>, channel: &str| hear(ear, message(by, channel, "same")) == News::Message;
    // (by, channel), and whether it is another PUBLISH.
    let row = [
        (None, "a.b", true),
        (Some("a.*"), "a.b", false),
        (Some("*.b"), "a.b", false),
        (Some("*.b"), "a.b", true), // the same payload again, and the server's patterns in another order
        (None, "a.b", false),
        (Some("a.*"), "a.b", false),
        (Some("a.*"), "a.c", true),
        (Some("a.*"), "a.c", true),
        (None, "a.b", true),
        (Some("a.*"), "a.c", true),
    ];
    for (index, (by, channel, expected)) in row.into_iter().enumerate() {
        assert_eq!(news(&mut ear, by, channel), expected, "{index}: {by:?} {channel}");
    }
    assert_eq!(kept(&ear).len(), 6);
}

#[test]
fn a_marker_between_them_ends_a_publish() {
    let mut ear = hearing();
    assert_eq!(hear(&mut ear, message(None, "a", "x")), News::Message);
    assert_eq!(hear(&mut ear, Said::Marker(101)), News::Marked);
    assert_eq!(hear(&mut ear, message(Some("*"), "a", "x")), News::Message);
}

#[test]
fn markers_that_do_not_rise_prove_nothing() {
    for lower in [100, 99] {
        assert_eq!(hear(&mut hearing(), Said::Marker(lower)), News::Astray);
    }
}

#[test]
fn a_new_connection_begins_above_what_was_heard() {
    let mut ear = hearing();
    hear(&mut ear, message(None, "c", "a"));
    ear.disconnected();
    ear.done = Some(named(100, run(), 1));
    ear.connected(run());
    assert_eq!(ear.marker_floor(), 100);
    assert_eq!(hear(&mut ear, Said::Marker(100)), News::Nothing);
    assert_eq!(hear(&mut ear, Said::Marker(101)), News::Begun);
    assert!(!ear.proves(named(100, run(), 1)) && ear.proves(named(101, run(), 0)));
}

#[test]
fn another_process_begins_anew() {
    let mut ear = hearing();
    let other = Run::new("two");
    ear.disconnected();
    ear.done = Some(named(100, run(), 1));
    ear.connected(other);
    assert_eq!(hear(&mut ear, Said::Marker(3)), News::Begun);
    assert!(ear.proves(named(3, other, 0)) && !ear.proves(named(100, run(), 1)));
}
