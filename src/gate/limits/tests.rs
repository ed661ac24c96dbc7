use std::collections::HashSet;

use super::*;

/// So slow that within a test nothing refills.
fn slow(burst: u32) -> Rate {
    Rate { per_second: 1.0 / 3600.0, burst }
}

fn settings() -> Settings {
    Settings {
        connections: 1000,
        connections_per_ip: 4,
        connects_per_ip: slow(100),
        requests_per_ip: slow(3),
        commands_per_session: slow(2),
        exempt: vec![Network::parse("10.0.0.0/8").unwrap()],
    }
}

fn peer(text: &str) -> Peer {
    Peer(Some(text.parse().unwrap()))
}

fn nth(n: u32) -> Peer {
    Peer(Some(IpAddr::V4(n.into())))
}

/// Sessions until one is refused, at most `tries`; and why.
fn sessions(limits: &Arc<Limits>, who: Peer, own: Option<u32>, tries: usize) -> (Vec<SessionPermit>, Option<Refusal>) {
    let mut permits = Vec::new();
    for _ in 0..tries {
        match limits.session(who, 7, own) {
            Ok(permit) => permits.push(permit),
            Err(refusal) => return (permits, Some(refusal)),
        }
    }
    (permits, None)
}

fn check(settings: Settings, who: Peer, own: Option<u32>, expected: (usize, Option<Refusal>)) {
    let limits = Limits::new(settings);
    let (permits, refusal) = sessions(&limits, who, own, 50);
    assert_eq!((permits.len(), refusal), expected, "{who:?}");
    drop(permits);
    assert_eq!(Counts { remembered: 0, ..limits.counts() }, Counts::default());
}

#[test]
fn each_limit_says_no_by_its_name() {
    let alice = peer("203.0.113.7");
    check(settings(), alice, None, (4, Some(Refusal::ConnectionsPerIp)));
    check(settings(), alice, Some(2), (2, Some(Refusal::EndpointConnectionsPerIp)));
    check(settings(), alice, Some(9), (4, Some(Refusal::ConnectionsPerIp)));
    check(Settings { connections: 3, ..settings() }, alice, None, (3, Some(Refusal::Connections)));
    check(Settings { connects_per_ip: slow(2), ..settings() }, alice, None, (2, Some(Refusal::ConnectsPerIp)));
}

#[test]
fn exempt_and_unnamed_peers_meet_only_the_total() {
    for who in [peer("10.1.2.3"), peer("::ffff:10.1.2.3"), Peer(None)] {
        check(Settings { connects_per_ip: slow(1), ..settings() }, who, Some(1), (50, None));
        check(Settings { connections: 9, ..settings() }, who, Some(1), (9, Some(Refusal::Connections)));
        let limits = Limits::new(settings());
        assert!((0..50).all(|_| limits.request(who).is_ok()));
        let permits: Vec<_> = (0..50).map_while(|_| limits.accept(Some(who)).ok()).collect();
        assert_eq!(permits.len(), 50);
        assert_eq!(limits.counts(), Counts { sockets: 50, ..Counts::default() });
    }
}

#[test]
fn an_ipv6_network_counts_as_one() {
    let limits = Limits::new(settings());
    let (first, _) = sessions(&limits, peer("2001:db8:0:1::1"), None, 3);
    let (second, refusal) = sessions(&limits, peer("2001:db8:0:1:ffff::9"), None, 3);
    let (other, none) = sessions(&limits, peer("2001:db8:0:2::1"), None, 3);
    assert_eq!((first.len(), second.len(), refusal), (3, 1, Some(Refusal::ConnectionsPerIp)));
    assert_eq!((other.len(), none), (3, None));
    assert_eq!(limits.counts().addresses, 2);
}

#[test]
fn a_peer_has_twice_as_many_sockets_as_sessions() {
    let limits = Limits::new(settings());
    let alice = Some(peer("203.0.113.7"));
    let mut permits: Vec<_> = (0..50).map_while(|_| limits.accept(alice).ok()).collect();
    assert_eq!(permits.len(), 8);
    assert_eq!(limits.accept(alice).err(), Some(Refusal::ConnectionsPerIp));
    permits.pop();
    assert!(limits.accept(alice).is_ok());
    assert!((0..50).all(|_| limits.accept(None).is_ok()), "a proxy itself is not counted by address");
    drop(permits);
    assert_eq!(limits.counts(), Counts::default());
}

#[test]
fn sockets_beyond_the_total_still_get_an_answer() {
    let limits = Limits::new(Settings { connections: 160, ..settings() });
    let permits: Vec<_> = (0..).map_while(|n| limits.accept(Some(nth(n))).ok()).collect();
    assert_eq!(permits.len(), 160 + 10 + 64);
    assert_eq!(limits.accept(None).err(), Some(Refusal::Connections));
}

#[test]
fn endpoints_are_counted_apart() {
    let limits = Limits::new(settings());
    let alice = peer("203.0.113.7");
    let first = limits.session(alice, 1, Some(1));
    assert_eq!(limits.session(alice, 1, Some(1)).err(), Some(Refusal::EndpointConnectionsPerIp));
    let second = limits.session(alice, 2, Some(1));
    assert!(first.is_ok() && second.is_ok());
    drop(first);
    assert!(limits.session(alice, 1, Some(1)).is_ok());
    assert_eq!(limits.session(alice, 2, Some(1)).err(), Some(Refusal::EndpointConnectionsPerIp));
}

#[test]
fn a_refused_session_leaves_nothing_behind() {
    let limits = Limits::new(Settings { connections_per_ip: 0, ..settings() });
    let alice = peer("203.0.113.7");
    assert_eq!(limits.session(alice, 1, None).err(), Some(Refusal::ConnectionsPerIp));
    assert_eq!(limits.accept(Some(alice)).err(), Some(Refusal::ConnectionsPerIp));
    assert_eq!(limits.counts(), Counts { remembered: 1, ..Counts::default() });
}

#[test]
fn requests_have_a_rate_of_their_own() {
    let limits = Limits::new(settings());
    let allowed = |who| (0..9).filter(|_| limits.request(who) == Ok(())).count();
    assert_eq!((allowed(nth(1)), allowed(nth(2)), allowed(nth(1))), (3, 3, 0));
    assert_eq!(limits.request(nth(1)), Err(Refusal::RequestsPerIp));
    assert!(limits.session(nth(1), 1, None).is_ok());
}

#[test]
fn a_reload_moves_the_limits_and_throws_nobody_out() {
    let limits = Limits::new(settings());
    let alice = peer("203.0.113.7");
    let (mut permits, _) = sessions(&limits, alice, None, 50);
    let with = |connections_per_ip| Settings { connections_per_ip, ..settings() };
    limits.apply(with(6));
    permits.extend(sessions(&limits, alice, None, 50).0);
    assert_eq!(permits.len(), 6);
    limits.apply(with(2));
    assert_eq!(limits.counts().sessions, 6);
    permits.truncate(2);
    assert_eq!(limits.session(alice, 7, None).err(), Some(Refusal::ConnectionsPerIp));
    permits.truncate(1);
    assert!(limits.session(alice, 7, None).is_ok());
    // An endpoint's own number, new in the file, counts those who are in.
    assert_eq!(limits.session(alice, 7, Some(1)).err(), Some(Refusal::EndpointConnectionsPerIp));
    // Exempt from now on; what was counted before is still given back.
    limits.apply(Settings { exempt: vec![Network::parse("203.0.113.0/24").unwrap()], ..settings() });
    permits.extend(sessions(&limits, alice, None, 50).0);
    assert_eq!(limits.counts().addresses, 1);
    drop(permits);
    assert_eq!((limits.counts().sessions, limits.counts().addresses), (0, 0));
}

#[test]
fn a_reload_forgets_only_a_rate_that_changed() {
    let limits = Limits::new(settings());
    let allowed = || (0..9).filter(|_| limits.request(nth(1)) == Ok(())).count();
    assert_eq!(allowed(), 3);
    limits.apply(Settings { connections: 5, ..settings() });
    assert_eq!(allowed(), 0);
    limits.apply(Settings { requests_per_ip: slow(5), ..settings() });
    assert_eq!(allowed(), 5);
}

#[test]
fn limits_hold_under_a_storm() {
    let limits = Limits::new(Settings { connections: 30, connects_per_ip: slow(u32::MAX), ..settings() });
    let most = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..8_u32 {
            let (limits, most) = (&limits, &most);
            scope.spawn(move || {
                let mut permits = Vec::new();
                for round in 0..2000_u32 {
                    let who = nth((thread + round) % 10);
                    let socket = limits.accept(Some(who));
                    permits.extend(limits.session(who, round % 3, Some(2)).map(|session| (socket, session)));
                    most.fetch_max(limits.counts().sessions, Relaxed);
                    assert!(limits.held.all(|held| held.sessions <= 4 && held.sockets <= 8));
                    if permits.len() > 28 || (round % 5 == 0 && !permits.is_empty()) {
                        drop(permits.remove(round as usize % permits.len()));
                    }
                }
            });
        }
    });
    assert!(most.load(Relaxed) <= 30);
    assert!(most.load(Relaxed) > 20, "the storm was none");
    assert_eq!(Counts { remembered: 0, ..limits.counts() }, Counts::default());
}

#[test]
fn a_million_strangers_stay_within_the_cap() {
    let limits = Limits::new(Settings { connections_per_ip: 1, connects_per_ip: slow(2), ..settings() });
    let known = nth(0);
    assert!(limits.session(known, 1, None).is_ok());
    let admitted = (1..=1_000_000).filter(|n| limits.session(nth(*n), 1, None).is_ok()).count();
    assert_eq!(admitted, KNOWN_ADDRESSES - 1 + 2, "the table, and what strangers share");
    assert!(limits.session(known, 1, None).is_ok(), "who was known before still has a bucket");
    limits.sweep();
    assert_eq!(limits.counts(), Counts { remembered: KNOWN_ADDRESSES, ..Counts::default() });
}

#[test]
fn any_rate_becomes_a_quota() {
    let check = |per_second: f64, burst: u32, period: Duration| {
        let quota = Rate { per_second, burst }.quota();
        assert_eq!((quota.replenish_interval(), quota.burst_size().get()), (period, burst.max(1)), "{per_second}");
    };
    check(20.0, 64, Duration::from_millis(50));
    check(1.0 / 60.0, 1, Duration::from_secs(60));
    check(0.5, 0, Duration::from_secs(2));
    check(f64::INFINITY, 5, Duration::from_nanos(1));
    check(1e12, 5, Duration::from_nanos(1));
    for never in [0.0, -1.0, f64::NAN, f64::MIN_POSITIVE] {
        check(never, u32::MAX, Duration::from_nanos(u64::MAX / 8 / u64::from(u32::MAX)));
        let rate = CommandRate::new(Rate { per_second: never, burst: u32::MAX });
        assert!((0..100).all(|_| rate.allows()));
    }
}

#[test]
fn commands_are_counted_by_session() {
    let allowed = |rate: &CommandRate| (0..9).filter(|_| rate.allows()).count();
    let (one, other) = (CommandRate::new(slow(2)), CommandRate::new(slow(3)));
    assert_eq!((allowed(&one), allowed(&other), allowed(&one)), (2, 3, 0));
}

#[test]
fn refusals_have_names_of_their_own_and_a_time_to_return() {
    let labels: HashSet<_> = Refusal::ALL.iter().map(|refusal| refusal.label()).collect();
    assert_eq!(labels.len(), Refusal::ALL.len());
    assert!(Refusal::ALL.iter().all(|refusal| refusal.retry_after() > 0));
}
