use super::*;
use crate::source::redis::ear::Said;
use crate::source::redis::name::{Run, named};

const SECOND: Duration = Duration::from_secs(1);

fn run() -> Run {
    Run::new("one")
}

/// Begun at marker 100, with so many messages.
fn ear(messages: usize) -> Ear {
    let mut ear = Ear::new(usize::MAX);
    ear.connected(run(), None);
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
    Lease { mine: false, fence, done, free_for: None, known: true }
}

fn free(fence: u64, done: Option<Name>) -> Lease {
    Lease { free_for: Some(Duration::ZERO), ..held(fence, done) }
}

fn mine(fence: u64, done: Option<Name>, known: bool) -> Lease {
    Lease { mine: true, known, ..held(fence, done) }
}

const UNKNOWN: Lease = Lease { mine: false, fence: 0, done: None, free_for: Some(Duration::ZERO), known: false };

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
    assert_eq!(duty.work(&ear), Work::Append(0..2));
    duty.appended(at(2));
    assert_eq!(duty.work(&ear), Work::Rest);
    assert_eq!(duty.wish(now, true, |_| true), Wish { may_take: true, resign: false, done: Some(at(2)) });
}

#[test]
fn one_that_takes_the_place_of_another_begins_with_a_gap() {
    let (mut duty, mut ear, now) = (Duty::new(true), ear(2), Instant::now());
    ask(&mut duty, &mut ear, now, true, mine(1, None, false));
    assert_eq!(duty.work(&ear), Work::TellGap(at(0)));
    duty.told(at(0));
    assert_eq!(duty.work(&ear), Work::Append(0..2));
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
    assert_eq!(duty.work(&ear), Work::Append(2..3));
}

#[test]
fn who_cannot_waits_until_it_was_free_for_a_while_and_tells_a_gap() {
    let (mut duty, mut ear, now) = (Duty::new(false), ear(3), Instant::now());
    let old = Some(named(50, run(), 7));
    ask(&mut duty, &mut ear, now, true, held(1, old));
    ask(&mut duty, &mut ear, now, false, free(1, old));
    ask(&mut duty, &mut ear, now + SECOND, false, free(1, old));
    duty.unanswered();
    ask(&mut duty, &mut ear, now + SECOND * 2, false, free(1, old));
    ask(&mut duty, &mut ear, now + SECOND * 3, false, free(1, old));
    assert_eq!(ask(&mut duty, &mut ear, now + SECOND * 4, true, mine(2, old, true)), Turn::Took(Start::After(old.unwrap())));
    assert_eq!(duty.work(&ear), Work::TellGap(at(0)));
    duty.told(at(0));
    assert_eq!(duty.work(&ear), Work::Append(0..3));
}

#[test]
fn a_holder_that_hears_no_more_appends_what_it_heard_and_resigns() {
    let (mut duty, mut ear, now) = (Duty::new(false), ear(2), Instant::now());
    ask(&mut duty, &mut ear, now, true, mine(1, None, false));
    ear.disconnected();
    assert_eq!(duty.work(&ear), Work::Append(0..2));
    assert!(!duty.wish(now, false, |_| true).resign, "not before that is appended");
    // Connected again before it could: somebody else may have heard what it missed.
    ear.connected(run(), duty.done());
    ear.hear(Said::Marker(200), now);
    duty.appended(at(2));
    assert_eq!(duty.work(&ear), Work::Resign);
    let wish = duty.wish(now, true, |_| true);
    assert_eq!(wish, Wish { may_take: false, resign: true, done: Some(at(2)) });
    assert_eq!(duty.answered(wish, &free(1, Some(at(2))), now), Turn::Lost);
    assert_eq!(duty.work(&ear), Work::Rest);
    // Nobody could; after the grace it goes on itself.
    ask(&mut duty, &mut ear, now + SECOND, false, free(1, Some(at(2))));
    let later = now + SECOND * 2;
    assert_eq!(ask(&mut duty, &mut ear, later, true, mine(2, Some(at(2)), true)), Turn::Took(Start::After(at(2))));
    assert_eq!(duty.work(&ear), Work::TellGap(named(200, run(), 0)));
}

#[test]
fn alone_it_needs_no_grace() {
    let (mut duty, mut ear, now) = (Duty::new(false), ear(1), Instant::now());
    ask(&mut duty, &mut ear, now, true, mine(0, None, false));
    duty.appended(at(1));
    ear.disconnected();
    assert_eq!(duty.work(&ear), Work::Resign);
    assert_eq!(ask(&mut duty, &mut ear, now, false, mine(0, None, false)), Turn::Lost);
    assert_eq!(ask(&mut duty, &mut ear, now, false, mine(0, None, false)), Turn::Stays);
    ear.connected(run(), duty.done());
    ear.hear(Said::Marker(200), now);
    assert_eq!(ask(&mut duty, &mut ear, now, true, mine(0, None, false)), Turn::Took(Start::After(at(1))));
    assert_eq!(duty.work(&ear), Work::TellGap(named(200, run(), 0)));
}

#[test]
fn a_store_that_forgot_makes_nobody_append_twice() {
    // The holder knows what it appended.
    let (mut duty, mut ear, now) = (Duty::new(false), ear(3), Instant::now());
    ask(&mut duty, &mut ear, now, true, mine(1, None, false));
    duty.appended(at(2));
    assert_eq!(ask(&mut duty, &mut ear, now, true, mine(1, Some(at(2)), true)), Turn::Stays);
    assert_eq!(ask(&mut duty, &mut ear, now, true, UNKNOWN), Turn::Lost);
    ask(&mut duty, &mut ear, now + SECOND, false, UNKNOWN);
    let later = now + SECOND * 2;
    assert_eq!(ask(&mut duty, &mut ear, later, true, mine(1, None, false)), Turn::Took(Start::After(at(2))));
    assert_eq!(duty.work(&ear), Work::Append(2..3));
    // Who only watched does not.
    for forgotten in [UNKNOWN, free(1, Some(at(0)))] {
        let mut duty = Duty::new(false);
        ask(&mut duty, &mut ear, now, true, held(1, Some(at(2))));
        ask(&mut duty, &mut ear, now, true, forgotten.clone());
        ask(&mut duty, &mut ear, now + SECOND, false, forgotten.clone());
        let later = now + SECOND * 2;
        let lease = Lease { mine: true, free_for: None, fence: 2, ..forgotten };
        assert_eq!(ask(&mut duty, &mut ear, later, true, lease), Turn::Took(Start::Beyond));
        assert_eq!(duty.work(&ear), Work::TellGap(at(3)));
    }
}

#[test]
fn a_fenced_holder_gives_back_what_the_store_thinks_it_has() {
    let (mut duty, mut ear, now) = (Duty::new(false), ear(1), Instant::now());
    ask(&mut duty, &mut ear, now, true, mine(1, None, false));
    duty.fenced();
    assert_eq!(duty.work(&ear), Work::Rest);
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
fn another_process_is_heard_above_what_is_done_before_it_is_appended() {
    let (mut duty, mut ear, now) = (Duty::new(false), ear(1), Instant::now());
    let foreign = named(101, Run::new("two"), 0);
    ask(&mut duty, &mut ear, now, true, free(1, Some(foreign)));
    ask(&mut duty, &mut ear, now + SECOND * 2, true, mine(2, Some(foreign), true));
    assert!(!ear.is_hearing());
    assert_eq!(duty.work(&ear), Work::Resign);
}
