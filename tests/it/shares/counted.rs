//! The count itself, without a relay around it: instances of limits and shares, more of them and faster than relays.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fastrand::Rng;
use relay::gate::limits::{Limits, Rate, Refusal, SessionPermit, Settings};
use relay::gate::peer::Peer;
use relay::gate::shares::{self, Shares};
use relay::link::server::Server;
use tokio::runtime::Runtime;

use super::{told, wait_until_told};
use crate::client::PATIENCE;
use crate::harness::{seed, until};
use crate::redis::{Cluster, Proxy, Redis};

/// An endpoint without a number of its own, and one that allows two.
const ENDPOINTS: [(u32, &str, Option<u32>); 2] = [(0, "/many", None), (1, "/few", Some(2))];

/// One that counts. It dies with its runtime.
struct Instance {
    limits: Arc<Limits>,
    shares: Arc<Shares>,
    runtime: Runtime,
}

impl Instance {
    fn start(url: &str, limit: u32) -> Instance {
        let rate = Rate { per_second: 1e9, burst: u32::MAX };
        let limits = Limits::shared(Settings {
            connections: u32::MAX,
            connections_per_ip: limit,
            connects_per_ip: rate,
            requests_per_ip: rate,
            commands_per_session: rate,
            exempt: Vec::new(),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("one");
        let settings = shares::Settings {
            server: Server::parse(url).expect("an address"),
            prefix: "relay".into(),
            instance: format!("{:x}", fastrand::u64(..)),
        };
        let shares = runtime.block_on(async { Shares::start(settings, &limits) });
        shares.set_endpoints(ENDPOINTS.map(|(number, name, _)| (number, name)));
        runtime.block_on(shares.opened(PATIENCE));
        Instance { limits, shares: Arc::new(shares), runtime }
    }

    fn enter(&self, ip: IpAddr, endpoint: usize) -> Result<SessionPermit, Refusal> {
        self.runtime.block_on(enter(&self.limits, &self.shares, ip, endpoint))
    }

    /// All of these at once.
    fn enter_all(&self, ips: impl Iterator<Item = IpAddr>) -> Vec<SessionPermit> {
        let visits: Vec<_> = ips
            .map(|ip| {
                let (limits, shares) = (self.limits.clone(), self.shares.clone());
                self.runtime.spawn(async move { enter(&limits, &shares, ip, 0).await })
            })
            .collect();
        let inside = visits.into_iter().map(|visit| self.runtime.block_on(visit).expect("no panic").expect("let in"));
        inside.collect()
    }
}

async fn enter(limits: &Arc<Limits>, shares: &Shares, ip: IpAddr, endpoint: usize) -> Result<SessionPermit, Refusal> {
    let (number, _, own) = ENDPOINTS[endpoint];
    let permit = limits.session(Peer(Some(ip)), number, own)?;
    shares.admit(permit, own).await
}

fn nth(n: u32) -> IpAddr {
    IpAddr::V4((0x0a00_0000 + n).into())
}

#[test]
fn random_walks_agree_with_a_naive_count() {
    const LIMIT: usize = 4;
    let mut rng = Rng::with_seed(seed());
    let redis = Redis::start();
    let instances: Vec<Instance> = (0..3).map(|_| Instance::start(&redis.url(), LIMIT as u32)).collect();
    let mut talk = redis.talk();
    let mut inside: Vec<(u32, usize, SessionPermit)> = Vec::new();
    let (mut admitted, mut refused) = (0, BTreeMap::new());
    for _ in 0..600 {
        let (who, endpoint) = (rng.u32(0..3), rng.usize(0..2));
        if rng.u8(0..5) < 2 && !inside.is_empty() {
            inside.swap_remove(rng.usize(0..inside.len()));
            for who in 0..3 {
                let of_who = inside.iter().filter(|(its, ..)| *its == who).count() as i64;
                until(|| told(&mut talk, &nth(who).to_string()) == of_who, || format!("{who} has {of_who}"));
            }
            continue;
        }
        let count = |at: Option<usize>| {
            inside.iter().filter(|(its, its_at, _)| *its == who && at.is_none_or(|at| at == *its_at)).count()
        };
        let full = count(None) >= LIMIT;
        let full_there = ENDPOINTS[endpoint].2.is_some_and(|own| count(Some(endpoint)) >= own as usize);
        let entered = rng.choice(&instances).expect("three").enter(nth(who), endpoint);
        match entered.as_ref().err() {
            // Where both are so, this instance alone may have found one of them.
            Some(Refusal::ConnectionsPerIp) => assert!(full),
            Some(refusal) => assert!(full_there, "{refusal:?}"),
            None => assert!(!full && !full_there),
        }
        match entered {
            Ok(permit) => {
                admitted += 1;
                inside.push((who, endpoint, permit));
            }
            Err(refusal) => *refused.entry(refusal.label()).or_insert(0) += 1,
        }
    }
    assert!(admitted > 50 && refused.len() == 2, "{admitted} came in, turned away were {refused:?}");
    let counted: Vec<_> = instances.iter().map(|instance| instance.shares.counted()).collect();
    assert_eq!(counted.iter().map(|counted| counted.admitted).sum::<u64>(), admitted);
    assert!(counted.iter().all(|counted| counted.unasked == 0));
    // Nothing is left but who lives.
    drop(inside);
    until(|| talk.call(&["KEYS", "*"]).ok().list().len() == 1, || format!("{:?}", redis.call(&["KEYS", "*"])));
}

#[test]
fn a_storm_of_coming_and_going_never_passes_the_limit() {
    const LIMIT: usize = 5;
    const ADDRESSES: usize = 3;
    let redis = Redis::start();
    let instances: Vec<Instance> = (0..3).map(|_| Instance::start(&redis.url(), LIMIT as u32)).collect();
    let inside: Arc<[AtomicUsize; ADDRESSES]> = Arc::default();
    let most: Arc<[AtomicUsize; ADDRESSES]> = Arc::default();
    let visitor = |instance: &Instance, number: usize| {
        let (limits, shares) = (instance.limits.clone(), instance.shares.clone());
        let (inside, most) = (inside.clone(), most.clone());
        instance.runtime.spawn(async move {
            for round in 0..100 {
                let who = (number + round) % ADDRESSES;
                let Ok(permit) = enter(&limits, &shares, nth(who as u32), 0).await else { continue };
                // Counted only after it was let in, and no longer before it is let go.
                most[who].fetch_max(inside[who].fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                inside[who].fetch_sub(1, Ordering::SeqCst);
                drop(permit);
            }
        })
    };
    let visits: Vec<_> = (0..30).map(|number| visitor(&instances[number % 3], number)).collect();
    instances[0].runtime.block_on(async {
        for visit in visits {
            visit.await.expect("no panic");
        }
    });
    assert!(instances.iter().all(|instance| instance.shares.counted().unasked == 0), "this Redis answers");
    let most: Vec<usize> = most.iter().map(|most| most.load(Ordering::SeqCst)).collect();
    assert!(most.iter().all(|most| (2..=LIMIT).contains(most)), "{most:?}");
    for who in 0..ADDRESSES as u32 {
        wait_until_told(&redis, &nth(who).to_string(), 0);
        let full: Vec<_> =
            (0..LIMIT).map(|number| instances[number % 3].enter(nth(who), 0).expect("a place")).collect();
        assert_eq!(instances[0].enter(nth(who), 0).err(), Some(Refusal::ConnectionsPerIp));
        drop(full);
    }
}

#[test]
fn who_does_not_wait_for_the_answer_keeps_no_place() {
    let redis = Redis::start();
    let instance = Instance::start(&redis.url(), 1);
    for _ in 0..50 {
        let (limits, shares) = (instance.limits.clone(), instance.shares.clone());
        instance.runtime.block_on(async {
            tokio::select! {
                biased;
                _ = enter(&limits, &shares, nth(1), 0) => {}
                () = tokio::task::yield_now() => {}
            }
        });
        until(|| instance.limits.counts().sessions == 0, || "its slot was not given back".into());
    }
    wait_until_told(&redis, &nth(1).to_string(), 0);
    assert!(instance.enter(nth(1), 0).is_ok());
}

#[test]
fn an_answer_that_is_lost_counts_nobody_twice() {
    let redis = Redis::start();
    let proxy = Proxy::before(redis.address());
    let (behind, beside) = (Instance::start(&proxy.url(), 3), Instance::start(&redis.url(), 3));
    let mut inside = vec![behind.enter(nth(1), 0).expect("the first")];
    let swallowed = proxy.swallowed();
    proxy.swallow_replies_to("EVALSHA", 1);
    // It may be a beat whose answer is lost: then it is known already that nobody can be asked.
    until(|| proxy.swallowed() > swallowed, || "it does not even beat".into());
    inside.push(behind.enter(nth(1), 0).expect("the second"));
    let mut talk = redis.talk();
    let mut so = || {
        let all = told(&mut talk, &nth(1).to_string());
        assert!(all <= 2, "what was told before the answer was lost counts as well: {all}");
        all == 2
    };
    until(&mut so, || "it is not told again".into());
    until(|| beside.shares.counted().instances == 2, || format!("{:?}", beside.shares.counted()));
    inside.push(beside.enter(nth(1), 0).expect("the third"));
    assert_eq!(beside.enter(nth(1), 0).err(), Some(Refusal::ConnectionsPerIp));
    inside.clear();
    wait_until_told(&redis, &nth(1).to_string(), 0);
}

#[test]
fn a_server_that_lost_something_is_told_all_again() {
    const MANY: u32 = 3000;
    let redis = Redis::start();
    let instance = Instance::start(&redis.url(), 2);
    let inside = instance.enter_all((0..MANY).map(nth));
    let mut talk = redis.talk();
    let keys = |talk: &mut crate::redis::Talk| talk.call(&["KEYS", "relay:1:{shares}:ip:*"]).ok().list().len();
    assert_eq!(keys(&mut talk), MANY as usize);
    // As after a failover: it remembers an earlier round, not the last.
    talk.call(&["DEL", &format!("relay:1:{{shares}}:ip:{}", nth(7))]).ok();
    let all = talk.call(&["HGETALL", "relay:1:{shares}:instances"]).ok();
    let (id, last) = (all.list()[0].text(), all.list()[1].text());
    let (heard, turn) = last.split_once(' ').expect("when, and which");
    let earlier = format!("{heard} {}", turn.parse::<u64>().expect("a number") - 1);
    talk.call(&["HSET", "relay:1:{shares}:instances", &id, &earlier]).ok();
    wait_until_told(&redis, &nth(7).to_string(), 1);
    // As after a restart without data.
    redis.kill();
    redis.start_again_empty();
    let mut talk = redis.talk();
    until(|| keys(&mut talk) == MANY as usize, || "not all is told again".into());
    let ends = |key: &str| redis.call(&["PTTL", key]).int();
    assert!(ends(&format!("relay:1:{{shares}}:ip:{}", nth(1))) > 0 && ends("relay:1:{shares}:instances") > 0);
    drop(inside);
    until(|| keys(&mut talk) == 0, || "they have left".into());
}

#[test]
fn who_leaves_while_redis_is_away_has_left_however_many_they_are() {
    // More than are remembered.
    const MANY: u32 = 80_000;
    const STAY: u32 = 500;
    let redis = Redis::start();
    let (instance, other) = (Instance::start(&redis.url(), 1), Instance::start(&redis.url(), 1));
    let mut inside = instance.enter_all((0..MANY).map(nth));
    assert_eq!(instance.shares.counted().admitted + instance.shares.counted().unasked, u64::from(MANY));
    redis.pause();
    until(|| instance.shares.counted().instances == 1, || "it does not notice".into());
    inside.truncate(STAY as usize);
    redis.resume();
    let together = || [&instance, &other].iter().all(|one| one.shares.counted().instances == 2);
    until(together, || format!("{:?} {:?}", instance.shares.counted(), other.shares.counted()));
    for n in (0..STAY).step_by(50) {
        wait_until_told(&redis, &nth(n).to_string(), 1);
        assert_eq!(other.enter(nth(n), 0).err(), Some(Refusal::ConnectionsPerIp), "{n}");
    }
    for n in (STAY..MANY).step_by(5000) {
        assert!(other.enter(nth(n), 0).is_ok(), "{n}");
    }
}

#[test]
fn a_cluster_keeps_the_count_while_its_slot_moves() {
    let cluster = Cluster::start();
    let instances = [(); 2].map(|()| Instance::start(&cluster.url(), 3));
    let mut inside: Vec<_> = instances.iter().map(|one| one.enter(nth(1), 0).expect("a place")).collect();
    let key = "relay:1:{shares}:instances";
    let to = (cluster.owner_of(key) + 1) % 3;
    cluster.move_slot_of(key, to);
    let together = || instances.iter().all(|one| one.shares.counted().instances == 2);
    until(together, || format!("{:?}", instances[0].shares.counted()));
    wait_until_told(cluster.node(to), &nth(1).to_string(), 2);
    inside.push(instances[0].enter(nth(1), 0).expect("the third"));
    assert!(instances.iter().all(|one| one.enter(nth(1), 0).err() == Some(Refusal::ConnectionsPerIp)));
    inside.remove(0);
    wait_until_told(cluster.node(to), &nth(1).to_string(), 2);
    assert!(instances[1].enter(nth(1), 0).is_ok());
}
