use super::*;

fn heard(count: u64, at: Instant) -> Heard {
    Heard { name: Name(1, count), channel: "c".into(), payload: "p".into(), at }
}

/// A ring that began at `begins`, and has heard these.
fn ring(begins: u64, counts: &[u64]) -> Ring {
    let mut ring = Ring::new(usize::MAX);
    ring.begin(Name(1, begins));
    let now = Instant::now();
    for count in counts {
        ring.push(heard(*count, now));
    }
    ring
}

fn check(ring: &Ring, after: Option<u64>, expected: Result<&[u64], Next>) {
    let after = after.map(|count| Name(1, count));
    let found = match ring.next(after, usize::MAX, usize::MAX) {
        Next::These(these) => Ok(these.iter().map(|heard| heard.name.1).collect::<Vec<_>>()),
        // Which stretch it is has a test of its own.
        Next::Gap { at, .. } => Err(Next::Gap { at, stretch: 0 }),
        other => Err(other),
    };
    assert_eq!(found, expected.map(<[u64]>::to_vec), "after {after:?} of {ring:?}");
}

fn gap(count: u64) -> Result<&'static [u64], Next> {
    Err(Next::Gap { at: Name(1, count), stretch: 0 })
}

fn nothing(count: u64) -> Result<&'static [u64], Next> {
    Err(Next::Nothing(Name(1, count)))
}

#[test]
fn what_follows_a_name_is_proven_or_a_gap() {
    let ring = ring(10, &[11, 12, 15]);
    check(&ring, None, gap(10));
    check(&ring, Some(9), gap(10));
    check(&ring, Some(10), Ok(&[11, 12, 15]));
    check(&ring, Some(11), Ok(&[12, 15]));
    check(&ring, Some(13), Ok(&[15]));
    check(&ring, Some(15), nothing(15));
    check(&ring, Some(99), nothing(99));
    for (after, expected) in [(9, false), (10, true), (99, true)] {
        assert_eq!(ring.is_complete_after(Name(1, after)), expected, "{after}");
    }
}

#[test]
fn nothing_was_heard_by_who_never_began() {
    let ring = Ring::new(usize::MAX);
    assert_eq!(ring.next(None, 9, 9), Next::Unknown);
    assert_eq!(ring.next(Some(Name(1, 1)), 9, 9), Next::Unknown);
    assert!(!ring.is_complete_after(Name(9, 9)));
}

#[test]
fn what_was_heard_before_a_break_comes_before_the_gap() {
    let mut ring = ring(10, &[11, 12]);
    ring.reach(Name(1, 13));
    ring.begin(Name(1, 20));
    ring.push(heard(21, Instant::now()));
    check(&ring, Some(11), Ok(&[12]));
    check(&ring, Some(12), gap(20));
    check(&ring, Some(13), gap(20));
    check(&ring, Some(20), Ok(&[21]));
    assert!(!ring.is_complete_after(Name(1, 12)));
    assert!(ring.is_complete_after(Name(1, 20)));
}

#[test]
fn two_breaks_with_nothing_between_them_are_one() {
    let mut ring = ring(10, &[]);
    ring.begin(Name(1, 20));
    ring.begin(Name(1, 30));
    check(&ring, Some(15), gap(30));
    check(&ring, Some(25), gap(30));
    check(&ring, Some(30), nothing(30));
}

#[test]
fn names_of_another_process_prove_nothing() {
    let mut ring = ring(10, &[11, 12]);
    let foreign = |count: u64| Name(1, 1 << 40 | count);
    assert_eq!(ring.next(Some(foreign(11)), 9, 9), Next::Gap { at: Name(1, 10), stretch: 1 });
    assert!(!ring.is_complete_after(foreign(11)));
    // It may well count less.
    ring.begin(Name(0, 1 << 40));
    check(&ring, Some(11), Ok(&[12]));
    assert_eq!(ring.next(Some(Name(1, 12)), 9, 9), Next::Gap { at: Name(0, 1 << 40), stretch: 2 });
    assert_eq!(ring.next(Some(foreign(11)), 9, 9), Next::Nothing(foreign(11)));
}

#[test]
fn a_batch_has_a_size() {
    let ring = ring(10, &[11, 12, 13]);
    let size = |most, bytes| match ring.next(Some(Name(1, 10)), most, bytes) {
        Next::These(these) => these.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!((size(2, 99), size(9, 1), size(9, 2), size(9, 99)), (2, 1, 2, 3));
}

#[test]
fn what_is_appended_stays_for_a_while_and_what_is_not_for_longer() {
    let mut ring = ring(10, &[11, 12, 13]);
    let soon = Instant::now() + KEPT / 2;
    ring.push(heard(14, soon));
    ring.settle(Some(Name(1, 14)), soon);
    check(&ring, Some(10), Ok(&[11, 12, 13, 14]));
    ring.settle(None, soon + KEPT);
    check(&ring, Some(10), Ok(&[11, 12, 13, 14]));
    ring.settle(Some(Name(1, 12)), soon + KEPT * 2 / 3);
    check(&ring, Some(10), gap(12));
    check(&ring, Some(12), Ok(&[13, 14]));
    ring.settle(Some(Name(1, 14)), soon + KEPT * 2 / 3);
    check(&ring, Some(12), gap(13));
    check(&ring, Some(13), Ok(&[14]));
}

#[test]
fn too_many_bytes_push_the_oldest_out() {
    let now = Instant::now();
    let mut ring = Ring::new(3 * cost(&heard(0, now)));
    ring.begin(Name(1, 10));
    let full: Vec<bool> = (11..=15).map(|count| ring.push(heard(count, now))).collect();
    assert_eq!(full, [false, false, false, true, true]);
    check(&ring, Some(10), gap(12));
    check(&ring, Some(12), Ok(&[13, 14, 15]));
    ring.push(Heard { payload: vec![0; 9999].into(), ..heard(16, now) });
    check(&ring, Some(12), gap(16));
    check(&ring, Some(16), nothing(16));
    assert_eq!(ring.bytes, 0);
}
