use super::*;
use crate::source::redis::ear::Said;
use crate::source::redis::name::{Run, named, owing};

const SECOND: Duration = Duration::from_secs(1);

fn run() -> Run {
    Run::new("one")
}

/// Begun at marker 100, with so many messages.
fn ear(messages: usize) -> Ear {
    let mut ear = Ear::new(usize::MAX);
    ear.connected(run());
    ear.hear(Said::Marker(100), Instant::now());
    (0..messages).for_each(|_| say(&mut ear));
    ear
}

fn say(ear: &mut Ear) {
    ear.hear(Said::Message { by: None, channel: "c".into(), payload: "p".into() }, Instant::now());
}

fn at(count: u32) -> Name {
    named(100, run(), count)
}

fn held(fence: u64, done: Option<Name>) -> Lease {
    Lease { mine: false, fence, before: fence, done, free_for: None, known: true }
}

fn free(fence: u64, done: Option<Name>) -> Lease {
    Lease { free_for: Some(Duration::ZERO), ..held(fence, done) }
}

fn mine(fence: u64, done: Option<Name>, known: bool) -> Lease {
    Lease { mine: true, known, before: fence.saturating_sub(1), ..held(fence, done) }
}

const UNKNOWN: Lease =
    Lease { mine: false, fence: 0, before: 0, done: None, free_for: Some(Duration::ZERO), known: false };

/// [`Work`], with the first and the last count that it would append.
#[derive(Debug, PartialEq, Eq)]
enum Doing {
    Append(u32, u32),
    TellGap(Name),
    TellIfKnown(Name),
    Ask,
    Rest,
}

fn work(duty: &mut Duty, ear: &Ear, now: Instant) -> Doing {
    let count = |heard: &crate::source::redis::ring::Heard| heard.name.1 as u32;
    match duty.work(ear, now, (usize::MAX, usize::MAX)) {
        Work::Append(these) => Doing::Append(count(&these[0]), count(&these[these.len() - 1])),
        Work::TellGap { at, if_known: false } => Doing::TellGap(at),
        Work::TellGap { at, if_known: true } => Doing::TellIfKnown(at),
        Work::Ask => Doing::Ask,
        Work::Rest => Doing::Rest,
    }
}

/// The very first holder, with the fence 1, of which the store knows where it began.
fn begin(duty: &mut Duty, ear: &mut Ear) {
    let now = Instant::now();
    assert_eq!(ask(duty, ear, now, true, mine(1, None, false)), Turn::Took(Start::Afresh { gap: false }));
    assert_eq!(ask(duty, ear, now, true, mine(1, Some(owing(at(0))), true)), Turn::Stays);
    assert_eq!(work(duty, ear, now), Doing::TellIfKnown(at(0)));
    duty.appended(at(0));
}

/// A gap: the store learns that it is owed before it is told, so that a successor tells it if we cannot.
#[track_caller]
fn owe(duty: &mut Duty, ear: &mut Ear, now: Instant, fence: u64, at: Name) {
    assert_eq!(work(duty, ear, now), Doing::Ask);
    assert_eq!(duty.wish(now, true, |_| false).done, Some((fence, owing(at))));
    assert_eq!(work(duty, ear, now), Doing::Ask, "not before the store knows");
    ask(duty, ear, now, true, mine(fence, Some(owing(at)), true));
    assert_eq!(work(duty, ear, now), Doing::TellGap(at));
    duty.appended(at);
}

/// One question and its answer.
#[track_caller]
fn ask(duty: &mut Duty, ear: &mut Ear, now: Instant, may_take: bool, lease: Lease) -> Turn {
    let wish = duty.wish(now, ear.is_hearing(), |name| ear.proves(name));
    assert_eq!(wish.may_take, may_take, "{wish:?} of {duty:?}");
    let turn = duty.answered(wish, &lease, now);
    if let Turn::Took(start) = turn {
        duty.start(start, ear);
    }
    turn
}

#[test]
fn the_very_first_begins_without_a_gap() {
    let (mut duty, mut ear, now) = (Duty::new(false), ear(2), Instant::now());
    assert_eq!(ask(&mut duty, &mut ear, now, true, mine(1, None, false)), Turn::Took(Start::Afresh { gap: false }));
    assert_eq!(work(&mut duty, &ear, now), Doing::Ask, "where it began");
    assert_eq!(ask(&mut duty, &mut ear, now, true, mine(1, Some(owing(at(0))), true)), Turn::Stays);
    assert_eq!(
        work(&mut duty, &ear, now),
        Doing::TellIfKnown(at(0)),
        "a store that was emptied may hold more than it knows"
    );
    duty.appended(at(0));
    assert_eq!(work(&mut duty, &ear, now), Doing::Append(1, 2));
    duty.appended(at(2));
    assert_eq!(work(&mut duty, &ear, now), Doing::Rest);
    assert_eq!(duty.wish(now, true, |_| true), Wish { may_take: true, resign: false, done: Some((1, at(2))) });
}

#[test]
fn one_that_takes_the_place_of_another_begins_with_a_gap() {
    let (mut duty, mut ear, now) = (Duty::new(true), ear(2), Instant::now());
    ask(&mut duty, &mut ear, now, true, mine(1, None, false));
    owe(&mut duty, &mut ear, now, 1, at(0));
    assert_eq!(work(&mut duty, &ear, now), Doing::Append(1, 2));
}

#[test]
fn nobody_takes_what_it_cannot_hear() {
    let (mut duty, mut ear, now) = (Duty::new(false), Ear::new(9), Instant::now());
    assert_eq!(ask(&mut duty, &mut ear, now, false, UNKNOWN), Turn::Stays);
}

#[test]
fn who_can_prove_takes_a_free_lease_at_once() {
    let (mut duty, mut ear, now) = (Duty::new(false), ear(3), Instant::now());
    ask(&mut duty, &mut ear, now, true, held(1, Some(at(1))));
    assert_eq!(ask(&mut duty, &mut ear, now, true, mine(2, Some(at(2)), true)), Turn::Took(Start::After(at(2))));
    assert_eq!(work(&mut duty, &ear, now), Doing::Append(3, 3));
}

#[test]
fn who_cannot_waits_until_it_was_free_for_a_while_and_tells_a_gap() {
    let (mut duty, mut ear, now) = (Duty::new(false), ear(3), Instant::now());
    let last = named(50, run(), 7);
    let old = Some(last);
    ask(&mut duty, &mut ear, now, true, held(1, old));
    ask(&mut duty, &mut ear, now, false, free(1, old));
    ask(&mut duty, &mut ear, now + SECOND, false, free(1, old));
    duty.unanswered();
    ask(&mut duty, &mut ear, now + SECOND * 2, false, free(1, old));
    ask(&mut duty, &mut ear, now + SECOND * 3, false, free(1, old));
    assert_eq!(ask(&mut duty, &mut ear, now + SECOND * 4, true, mine(2, old, true)), Turn::Took(Start::After(last)));
    owe(&mut duty, &mut ear, now + SECOND * 4, 2, at(0));
    assert_eq!(work(&mut duty, &ear, now), Doing::Append(1, 3));
}

#[test]
fn a_holder_that_hears_no_more_appends_what_it_heard_and_resigns() {
    let (mut duty, mut ear, now) = (Duty::new(false), ear(2), Instant::now());
    begin(&mut duty, &mut ear);
    ear.disconnected();
    assert_eq!(work(&mut duty, &ear, now), Doing::Append(1, 2));
    assert!(!duty.wish(now, false, |_| true).resign, "not before that is appended");
    // Connected again before it could: somebody else may have heard what it missed.
    ear.settle(duty.done(), now);
    ear.connected(run());
    ear.hear(Said::Marker(200), now);
    duty.appended(at(2));
    assert_eq!(work(&mut duty, &ear, now), Doing::Ask);
    let wish = duty.wish(now, true, |_| true);
    assert_eq!(wish, Wish { may_take: false, resign: true, done: Some((1, at(2))) });
    assert_eq!(duty.answered(wish, &free(1, Some(at(2))), now), Turn::Lost);
    assert_eq!(work(&mut duty, &ear, now), Doing::Rest);
    // Nobody could; after the grace it goes on itself.
    ask(&mut duty, &mut ear, now + SECOND, false, free(1, Some(at(2))));
    let later = now + SECOND * 2;
    assert_eq!(ask(&mut duty, &mut ear, later, true, mine(2, Some(at(2)), true)), Turn::Took(Start::After(at(2))));
    owe(&mut duty, &mut ear, later, 2, named(200, run(), 0));
}

#[test]
fn alone_it_needs_no_grace() {
    let (mut duty, mut ear, now) = (Duty::new(false), ear(1), Instant::now());
    ask(&mut duty, &mut ear, now, true, mine(0, None, false));
    ask(&mut duty, &mut ear, now, true, mine(0, None, false));
    duty.appended(at(1));
    ear.disconnected();
    assert_eq!(work(&mut duty, &ear, now), Doing::Ask);
    assert_eq!(ask(&mut duty, &mut ear, now, false, mine(0, None, false)), Turn::Lost);
    assert_eq!(ask(&mut duty, &mut ear, now, false, mine(0, None, false)), Turn::Stays);
    ear.settle(duty.done(), now);
    ear.connected(run());
    ear.hear(Said::Marker(200), now);
    assert_eq!(ask(&mut duty, &mut ear, now, true, mine(0, None, false)), Turn::Took(Start::After(at(1))));
    owe(&mut duty, &mut ear, now, 0, named(200, run(), 0));
}

#[test]
fn alone_it_begins_as_soon_as_it_hears() {
    let (mut duty, mut deaf, mut ear, now) = (Duty::new(false), Ear::new(9), ear(0), Instant::now());
    assert_eq!(ask(&mut duty, &mut deaf, now, false, mine(0, None, false)), Turn::Stays);
    assert_eq!(ask(&mut duty, &mut ear, now, true, mine(0, None, false)), Turn::Took(Start::Afresh { gap: false }));
}

#[test]
fn a_store_that_forgot_makes_nobody_append_twice() {
    // The holder knows what it appended.
    let (mut duty, mut ear, now) = (Duty::new(false), ear(3), Instant::now());
    begin(&mut duty, &mut ear);
    duty.appended(at(2));
    assert_eq!(ask(&mut duty, &mut ear, now, true, mine(1, Some(at(2)), true)), Turn::Stays);
    assert_eq!(ask(&mut duty, &mut ear, now, true, UNKNOWN), Turn::Lost);
    ask(&mut duty, &mut ear, now + SECOND, false, UNKNOWN);
    let later = now + SECOND * 2;
    assert_eq!(ask(&mut duty, &mut ear, later, true, mine(1, None, false)), Turn::Took(Start::After(at(2))));
    assert_eq!(work(&mut duty, &ear, now), Doing::Ask);
    ask(&mut duty, &mut ear, later, true, mine(1, Some(owing(at(2))), true));
    assert_eq!(
        work(&mut duty, &ear, now),
        Doing::TellIfKnown(at(2)),
        "the new store must know the fence before anything else"
    );
    duty.appended(at(2));
    assert_eq!(work(&mut duty, &ear, now), Doing::Append(3, 3));
    // Who only watched does not.
    for forgotten in [UNKNOWN, free(1, Some(at(0)))] {
        let mut duty = Duty::new(false);
        ask(&mut duty, &mut ear, now, true, held(1, Some(at(2))));
        ask(&mut duty, &mut ear, now, true, forgotten.clone());
        ask(&mut duty, &mut ear, now + SECOND, false, forgotten.clone());
        let later = now + SECOND * 2;
        let lease = Lease { mine: true, free_for: None, fence: 2, ..forgotten };
        assert_eq!(ask(&mut duty, &mut ear, later, true, lease), Turn::Took(Start::Beyond));
        owe(&mut duty, &mut ear, later, 2, at(3));
    }
}

#[test]
fn a_fenced_holder_gives_back_what_the_store_thinks_it_has() {
    let (mut duty, mut ear, now) = (Duty::new(false), ear(1), Instant::now());
    ask(&mut duty, &mut ear, now, true, mine(1, None, false));
    duty.fenced();
    assert_eq!(work(&mut duty, &ear, now), Doing::Rest);
    let wish = duty.wish(now, true, |_| true);
    assert!(wish.resign && !wish.may_take);
    duty.answered(wish, &free(1, None), now);
    assert!(!duty.wish(now, true, |_| true).resign);
}

#[test]
fn a_grant_whose_answer_was_lost_is_given_back_by_who_no_longer_wants_it() {
    let (mut duty, mut ear, now) = (Duty::new(false), ear(0), Instant::now());
    ask(&mut duty, &mut ear, now, true, held(1, Some(at(0))));
    ear.disconnected();
    assert_eq!(ask(&mut duty, &mut ear, now, false, mine(2, Some(at(0)), true)), Turn::Stays);
    assert!(duty.wish(now, false, |_| false).resign);
}

#[test]
fn what_another_process_said_is_another_beginning() {
    let (mut duty, mut ear, now) = (Duty::new(false), ear(1), Instant::now());
    let foreign = named(900, Run::new("two"), 0);
    ask(&mut duty, &mut ear, now, true, free(1, Some(foreign)));
    let later = now + SECOND * 2;
    assert_eq!(ask(&mut duty, &mut ear, later, true, mine(2, Some(foreign), true)), Turn::Took(Start::After(foreign)));
    owe(&mut duty, &mut ear, later, 2, at(0));
    assert_eq!(work(&mut duty, &ear, now), Doing::Append(1, 1));
}

#[test]
fn what_a_holder_could_not_keep_it_tells_itself() {
    let (mut duty, now) = (Duty::new(false), Instant::now());
    let mut ear = Ear::new(400);
    ear.connected(run());
    ear.hear(Said::Marker(100), now);
    begin(&mut duty, &mut ear);
    (0..9).for_each(|_| say(&mut ear));
    owe(&mut duty, &mut ear, now, 1, at(6));
    assert_eq!(work(&mut duty, &ear, now), Doing::Append(7, 9));
}

#[test]
fn a_successor_tells_the_gap_that_is_owed() {
    let (mut duty, mut ear, now) = (Duty::new(false), ear(3), Instant::now());
    ask(&mut duty, &mut ear, now, true, held(1, Some(owing(at(1)))));
    assert_eq!(
        ask(&mut duty, &mut ear, now, true, mine(2, Some(owing(at(1))), true)),
        Turn::Took(Start::After(owing(at(1))))
    );
    assert_eq!(work(&mut duty, &ear, now), Doing::TellGap(at(1)));
    duty.appended(at(1));
    assert_eq!(work(&mut duty, &ear, now), Doing::Append(2, 3));
}

#[test]
fn who_slept_says_only_what_was_done_under_its_own_fence() {
    let (mut duty, mut ear, now) = (Duty::new(false), ear(3), Instant::now());
    begin(&mut duty, &mut ear);
    assert_eq!(duty.wish(now, true, |_| true).done, Some((1, at(0))));
    // Meanwhile another one was, and is gone again.
    assert_eq!(ask(&mut duty, &mut ear, now, true, mine(3, Some(at(2)), true)), Turn::Took(Start::After(at(2))));
    assert_eq!(work(&mut duty, &ear, now), Doing::Append(3, 3));
}
