//! Redis goes away behind the balancer, and comes back: sessions stay, new ones are let in, webhooks hear when to come
//! again.

use relay::cursor;
use relay::event::Epoch;

use super::Scene;
use super::front::Program;
use crate::client::feed::{Feed, Item, Transport};
use crate::client::http::get;
use crate::harness::until;

#[test]
fn behind_nginx_sessions_go_on_while_redis_is_away() {
    sessions_go_on_while_redis_is_away(Program::Nginx);
}

#[test]
fn behind_haproxy_sessions_go_on_while_redis_is_away() {
    sessions_go_on_while_redis_is_away(Program::Haproxy);
}

fn sessions_go_on_while_redis_is_away(program: Program) {
    let scene = Scene::new(program, "", "");
    let mut feeds = Transport::ALL.map(|transport| scene.open(transport, None));
    let began = feeds.each_mut().map(|feed| feed.until_open().1);
    let first = scene.publish("orders.eu", "first");
    feeds.iter_mut().for_each(|feed| assert_eq!(feed.events(1)[0].id(), &first));

    scene.redis.kill();
    let all_are = |status: u16| scene.instances.iter().all(|relay| get(relay.admin(), "/readyz").status() == status);
    until(|| all_are(503), || "an instance is ready".to_owned());
    scene.wait_until_known(program, "DOWN");
    let refused = scene.post("orders.eu", "second").expect(503);
    assert!(refused.header("retry-after").is_some(), "not Relay's own answer: {}", refused.head.raw);
    // A cursor of a life that nobody knows can be understood by nobody now: this one waits, and others are let in.
    let mut marks = cursor::parse(&began[0]).expect("a cursor");
    marks[0].epoch = Epoch(marks[0].epoch.0 ^ 64);
    let mut foreign = Vec::new();
    cursor::write(&marks, &mut foreign);
    let target = format!("/events?after={}", String::from_utf8(foreign).expect("a cursor is text"));
    for _ in 0..3 {
        let refused = get(scene.front.address, &target).expect(503);
        assert!(refused.header("retry-after").is_some(), "not Relay's own answer: {}", refused.head.raw);
    }
    // Who comes again gets what it missed from what each instance has in process.
    let mut resumed: Vec<Feed> = Vec::new();
    for (transport, cursor) in Transport::ALL.into_iter().zip(&began) {
        let mut feed = scene.open(transport, Some(cursor));
        assert_eq!(feed.events(1)[0].id(), &first, "{transport:?}");
        resumed.push(feed);
    }

    scene.redis.start_again();
    until(|| scene.post("orders.eu", "second").status() == 200, || "webhooks are never taken again".to_owned());
    until(|| all_are(200), || "an instance is not ready".to_owned());
    scene.wait_until_known(program, "UP");
    for feed in feeds.iter_mut().chain(&mut resumed) {
        // What was published to channels meanwhile nobody heard: that is told, before or after.
        let event = std::iter::repeat_with(|| feed.expect()).find(|item| match item {
            Item::Gap { reason, .. } => {
                assert_eq!(reason, "source", "{item:?}");
                false
            }
            item => matches!(item, Item::Event { .. }),
        });
        assert_eq!(event.expect("it goes on").data()["n"], 1);
    }
}

impl Scene {
    /// HAProxy asks once a second, and says what it finds.
    fn wait_until_known(&self, program: Program, state: &str) {
        let says = |name: &str| self.front.said().contains(&format!("relay/{name} is {state}"));
        if program == Program::Haproxy {
            until(|| says("one") && says("two"), || self.front.said());
        }
    }
}
