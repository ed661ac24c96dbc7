//! Everything at once, and nothing lost: three relays behind a balancer, publishers, sessions that come and go, while
//! whatever can fail does.
//!
//! `RELAY_TORTURE_SECONDS=600 cargo test --test it torture::` tortures longer; `RELAY_TEST_SEED` begins with the same
//! random numbers, as far as that goes where so many processes race.

#[cfg(test)]
mod bad_histories;
mod faults;
mod lines;
mod lives;
mod publish;
mod record;
mod session;
mod storm;
mod verdict;

use std::io;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use self::faults::{Instances, Settle, Single, torture_sentinel};
use self::publish::Webhooks;
use self::record::{Reason, Record};
use self::session::Session;
use self::storm::{EndsStorm, Storm};
use self::verdict::{Published, Verdict, judge};
use crate::client::soon;
use crate::harness::{PUBLISH, config, raise_file_limit, seed, until};
use crate::redis::{Redis, Sentinel, Talk};

const INSTANCES: usize = 3;
const SESSIONS: usize = 200;
const WEBHOOKS: usize = 6;
/// Of all runs together.
const SECONDS: u64 = 60;
/// Of a run's time, for the beginning and the end.
const AROUND: u64 = 5;
/// They parse, and hold a buffer of a socket.
const STACK: usize = 512 * 1024;

/// What strikes instances.
const INSTANCES_SUFFER: [&str; 5] =
    ["instance killed", "instance paused past its lease", "holder killed", "lease moved", "all cut off"];

/// What differs between the runs.
struct Run<'a> {
    name: &'static str,
    url: String,
    seconds: u64,
    /// What must have struck at least once, beside what strikes instances if they suffer.
    faults: &'static [&'static str],
    /// Why something may be missing.
    excuses: &'static [Reason],
    torture: &'a (dyn Fn(&Storm, fastrand::Rng) + Sync),
    /// If instances suffer: what is waited for before each fault.
    settle: Option<&'a Settle>,
    talk: &'a (dyn Fn() -> io::Result<Talk> + Sync),
}

#[test]
fn whatever_fails_everything_acknowledged_is_heard_once_and_in_order_or_told_to_be_lost() {
    raise_file_limit();
    let mut random = fastrand::Rng::with_seed(seed());
    let given = std::env::var("RELAY_TORTURE_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    let seconds: u64 = given.unwrap_or(SECONDS);
    exact(seconds / 4, random.fork());
    durable(seconds * 9 / 20, random.fork());
    lagging(seconds * 3 / 10, random);
}

/// Only instances suffer, and never all of them: nothing is missing at all, nor told to be.
fn exact(seconds: u64, random: fastrand::Rng) {
    let redis = Redis::start();
    Run {
        name: "exact",
        url: redis.url(),
        seconds,
        faults: &[],
        excuses: &[],
        torture: &|_, _| {},
        settle: Some(&Instances::wait_settled),
        talk: &|| redis.try_talk(crate::client::PATIENCE),
    }
    .run(random);
}

/// Redis loses nothing, so nobody else may.
fn durable(seconds: u64, random: fastrand::Rng) {
    let single = Single::start();
    Run {
        name: "durable",
        url: single.links.url(),
        seconds,
        faults: &["Redis paused", "Redis killed", "links cut", "links stalled", "replies lost"],
        excuses: &[Reason::Source],
        torture: &|storm, random| single.torture(storm, random),
        settle: Some(&|_, _| {}),
        talk: &|| single.redis.try_talk(crate::client::PATIENCE),
    }
    .run(random);
}

/// Redis itself loses what it had acknowledged last: that is told.
fn lagging(seconds: u64, random: fastrand::Rng) {
    let sentinel = Sentinel::start();
    Run {
        name: "lagging",
        url: sentinel.url(),
        seconds,
        faults: &["failover that lost what was acknowledged"],
        excuses: &[Reason::Source, Reason::Epoch],
        torture: &|storm, random| torture_sentinel(&sentinel, storm, random),
        settle: None,
        talk: &|| sentinel.master().try_talk(crate::client::PATIENCE),
    }
    .run(random);
}

fn config_for(url: &str) -> String {
    let text = format!(
        r#"
[store]
engine = "redis"

[redis]
url = "{url}"

[limits]
exempt = ["127.0.0.0/8"]
replay = 1_000_000

[[stream]]
name       = "one"
topics     = ["one/**", "raw.one"]
max_events = 1_000_000

[[stream]]
name       = "two"
topics     = ["two/**", "raw.two"]
max_events = 1_000_000

[[source.redis]]
channels = ["raw.*"]
topic    = "{{channel}}"

[[endpoint]]
path   = "/torture"
topics = ["one/**", "two/**", "raw.*"]
ping   = "1s"
"#
    );
    config(&[text.as_str(), PUBLISH].concat())
}

impl Run<'_> {
    fn run(&self, mut random: fastrand::Rng) {
        let instances = Instances::start(config_for(&self.url), INSTANCES);
        instances.wait_ready();
        let storm = Storm::new(instances.address(), SESSIONS);
        let sessions: Vec<Session> = (0..SESSIONS).map(|_| Session::new(random.fork())).collect();
        let (records, published, tries) = self.rage(&instances, &storm, sessions, &mut random);
        let verdict = judge(&records, &published, self.excuses);
        println!("torture, {}: {verdict}\n  faults: {:?}\n  webhooks: {tries:?}", self.name, storm.strikes());
        self.assert(&verdict, &storm);
    }

    /// The storm, from the first session to the last event.
    fn rage(
        &self,
        instances: &Instances,
        storm: &Storm,
        sessions: Vec<Session>,
        random: &mut fastrand::Rng,
    ) -> (Vec<Record>, Published, publish::Tries) {
        thread::scope(|scope| {
            // From here on, so that a panic below ends it for all.
            let ends = EndsStorm(storm);
            let count = sessions.len();
            let live = |mut session: Session| {
                let live = move || {
                    session.stand(storm);
                    session.live(storm)
                };
                thread::Builder::new().stack_size(STACK).spawn_scoped(scope, live).expect("a thread")
            };
            let sessions: Vec<_> = sessions.into_iter().map(live).collect();
            let standing = || storm.standing.load(Ordering::Acquire);
            until(|| standing() == count, || format!("only {} sessions stand", standing()));
            let random = &mut *random;
            let webhooks: Vec<_> = (0..WEBHOOKS)
                .map(|number| (number, random.fork()))
                .map(|(number, random)| scope.spawn(move || publish::webhooks(storm, number, random)))
                .collect();
            let (own, others, torturing) = (random.fork(), random.fork(), random.fork());
            let channels = scope.spawn(move || publish::channels(storm, own, || instances.are_ready(), self.talk));
            let suffering = scope.spawn(move || {
                if let Some(settle) = self.settle {
                    instances.torture(storm, others, settle);
                }
            });
            let torture = scope.spawn(move || (self.torture)(storm, torturing));
            storm.rest(Duration::from_secs(self.seconds.saturating_sub(AROUND).max(1)));
            // A slow machine takes longer until everything has struck once.
            let deadline = soon();
            while !self.has_not_struck(storm).is_empty() && Instant::now() < deadline {
                storm.rest(Duration::from_millis(100));
            }
            drop(ends);
            suffering.join().expect("no panic");
            torture.join().expect("no panic");
            let mut all: Vec<Webhooks> = webhooks.into_iter().map(|one| one.join().expect("no panic")).collect();
            instances.wait_ready();
            all.push(publish::last_webhooks(storm, random.fork()));
            let records = sessions.into_iter().map(|one| one.join().expect("no panic")).collect();
            let mut published = Published { lines: channels.join().expect("no panic"), ..Published::default() };
            let tries = all.iter().map(|webhooks| webhooks.tries).sum();
            for webhooks in all {
                published.lines.extend(webhooks.lines);
                published.acknowledged.push(webhooks.acknowledged);
            }
            (records, published, tries)
        })
    }

    fn has_not_struck(&self, storm: &Storm) -> Vec<&'static str> {
        let strikes = storm.strikes();
        let of_instances: &[&str] = if self.settle.is_some() { &INSTANCES_SUFFER } else { &[] };
        let all = self.faults.iter().chain(of_instances);
        all.copied().filter(|fault| !strikes.contains_key(fault)).collect()
    }

    fn assert(&self, verdict: &Verdict, storm: &Storm) {
        let faults: Vec<&String> = verdict.faults.iter().take(20).collect();
        assert!(verdict.faults.is_empty(), "{}: {faults:#?}", self.name);
        assert_eq!((verdict.losses, verdict.duplicates), (0, 0), "{}", self.name);
        let missed = self.has_not_struck(storm);
        assert!(missed.is_empty(), "{}: these never struck: {missed:?}", self.name);
        assert!(verdict.events > 100 && verdict.resumes > SESSIONS, "{}: it was no storm", self.name);
    }
}
