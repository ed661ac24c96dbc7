//! One instance is killed and comes back, then the other is told to stop, while events are published: sessions go on at
//! the one that is left.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::front::Program;
use super::{Scene, post};
use crate::checker::{check_items, ids, position_of_cursor};
use crate::client::feed::{Feed, Item, Transport};
use crate::client::{PATIENCE, soon};
use crate::harness::{Relay, Signal, until};

/// The last event, which everybody hears.
const LAST: &str = "orders.last";
const SESSIONS: usize = 12;
/// So many events between two things that happen.
const MORE: usize = 30;
/// Before somebody tries again.
const PAUSE: Duration = Duration::from_millis(20);

#[test]
fn behind_nginx_sessions_go_on_at_the_instance_that_is_left() {
    sessions_go_on_at_the_instance_that_is_left(Program::Nginx);
}

#[test]
fn behind_haproxy_sessions_go_on_at_the_instance_that_is_left() {
    sessions_go_on_at_the_instance_that_is_left(Program::Haproxy);
}

/// What a subscriber was told, over all its connections.
struct Subscriber {
    transport: Transport,
    began_after: u64,
    cursor: String,
    items: Vec<Item>,
    connections: usize,
}

/// Ends the publishing, also when a test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// How many events each subscriber has heard.
struct Heard(Vec<AtomicUsize>);

fn sessions_go_on_at_the_instance_that_is_left(program: Program) {
    let mut scene = Scene::new(program, "", "drain = \"1s\"");
    let transports = Transport::ALL.into_iter().cycle().take(SESSIONS);
    let subscribers: Vec<Subscriber> = transports.map(|transport| Subscriber::new(&scene, transport)).collect();
    let (stop, heard) = (AtomicBool::new(false), Heard((0..SESSIONS).map(|_| AtomicUsize::new(0)).collect()));
    let address = scene.front.address;
    let (published, subscribers) = thread::scope(|scope| {
        let publishing = scope.spawn(|| publish(address, &stop));
        let stopping = Stop(&stop);
        let live = |(one, heard): (Subscriber, _)| scope.spawn(move || one.live(address, heard));
        let living: Vec<_> = subscribers.into_iter().zip(&heard.0).map(live).collect();
        heard.more();
        let addresses = scene.end(0, Signal::KILL);
        heard.more();
        scene.start_again(0, addresses);
        heard.more();
        let addresses = scene.end(1, Signal::TERM);
        heard.more();
        scene.start_again(1, addresses);
        heard.more();
        drop(stopping);
        let published = publishing.join().expect("no panic");
        (published, living.into_iter().map(|one| one.join().expect("no panic")).collect::<Vec<_>>())
    });
    for Subscriber { transport, began_after, items, connections, .. } in subscribers {
        // nginx asks the other instance when a poll that waits is cut: the subscriber does not notice.
        assert!(connections > 1 || transport == Transport::Poll, "{transport:?} was never cut");
        let gap = items.iter().find(|item| matches!(item, Item::Gap { .. }));
        assert_eq!(gap, None, "{transport:?}");
        check_items(&published, |_| true, began_after, &items);
    }
}

impl Scene {
    /// Ends an instance; where it was.
    fn end(&mut self, number: usize, signal: Signal) -> (SocketAddr, SocketAddr) {
        let instance = &mut self.instances[number];
        let addresses = (instance.public(), instance.admin());
        instance.signal(signal);
        instance.wait_for_exit();
        addresses
    }

    /// Starts it where it was, and waits until it hears what applications publish: before that it cannot prove that
    /// nothing of it is missing, and would tell a gap if it had to go on for the other.
    fn start_again(&mut self, number: usize, (public, admin): (SocketAddr, SocketAddr)) {
        let file = self.file.replacen("127.0.0.1:0", &public.to_string(), 1);
        let relay = Relay::start(&file.replacen("127.0.0.1:0", &admin.to_string(), 1));
        let hears = || relay.metric("relay_source_up{source=\"orders.*\"}") == 1.0;
        until(hears, || format!("it does not hear its source:\n{}", relay.log()));
        self.instances[number] = relay;
    }
}

impl Heard {
    /// Waits until everybody has heard some more.
    #[track_caller]
    fn more(&self) {
        let counts = || self.0.iter().map(|heard| heard.load(Ordering::Acquire)).collect::<Vec<_>>();
        let before = counts();
        let all = || counts().iter().zip(&before).all(|(now, before)| *now >= before + MORE);
        until(all, || format!("somebody hears nothing: {before:?}, then {:?}", counts()));
    }
}

/// Publishes one event after the other, each again until it is answered with 200; the (id, topic) of all.
fn publish(front: SocketAddr, stop: &AtomicBool) -> Vec<(String, String)> {
    let mut published = Vec::new();
    while !stop.load(Ordering::Acquire) {
        published.push(publish_one(front, "orders.eu", published.len()));
        thread::sleep(Duration::from_millis(3));
    }
    published.push(publish_one(front, LAST, published.len()));
    published
}

fn publish_one(front: SocketAddr, topic: &str, number: usize) -> (String, String) {
    let deadline = soon();
    loop {
        match post(front, topic, &number.to_string()) {
            Ok(answer) if answer.status() == 200 => return (ids(&answer.json()).remove(0), topic.to_owned()),
            _ => thread::sleep(PAUSE),
        }
        assert!(Instant::now() < deadline, "number {number} is never taken");
    }
}

impl Subscriber {
    fn new(scene: &Scene, transport: Transport) -> Subscriber {
        let (before, cursor) = scene.open(transport, None).until_open();
        assert_eq!(before, []);
        Subscriber { transport, began_after: position_of_cursor(&cursor), cursor, items: Vec::new(), connections: 0 }
    }

    /// Reads, and comes again whenever it is cut, until it has heard the last event.
    fn live(mut self, front: SocketAddr, heard: &AtomicUsize) -> Subscriber {
        // Longer than whatever the test waits for; and it ends, also when the last event never comes.
        let deadline = soon() + 5 * PATIENCE;
        loop {
            let feed = Feed::connect(front, "/events", self.transport, "", Some(&self.cursor));
            if let Ok(Ok(mut feed)) = feed {
                self.connections += 1;
                if self.read(&mut feed, heard, deadline) {
                    return self;
                }
            }
            assert!(Instant::now() < deadline, "{:?} never hears the last event", self.transport);
            thread::sleep(PAUSE);
        }
    }

    /// Until it is cut, or has heard the last event.
    fn read(&mut self, feed: &mut Feed, heard: &AtomicUsize, deadline: Instant) -> bool {
        while let Ok(item) = feed.next(deadline) {
            self.cursor = item.cursor().unwrap_or(&self.cursor).to_owned();
            let last = matches!(&item, Item::Event { topic, .. } if topic == LAST);
            heard.fetch_add(usize::from(matches!(item, Item::Event { .. })), Ordering::AcqRel);
            self.items.push(item);
            if last {
                return true;
            }
        }
        false
    }
}
