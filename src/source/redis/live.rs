//! What goes by without a log: each instance delivers what it heard to its own sessions.

use std::sync::Arc;

use super::draft;
use super::feed::Feed;
use super::holder::{BATCH, BATCH_BYTES};
use super::ring::{Heard, Next};
use crate::event::Time;

/// For as long as the feed lives.
pub(super) async fn run(feed: Arc<Feed>) {
    let mut at = None;
    loop {
        feed.passing.notified().await;
        if !feed.streams.may_be_live(&feed.reach()) {
            at = feed.ear().ring.latest();
            continue;
        }
        loop {
            let next = feed.ear().ring.next(at, BATCH, BATCH_BYTES);
            match next {
                Next::These(these) => {
                    at = these.last().map(|heard| heard.name);
                    deliver(&feed, &these);
                }
                Next::Gap { at: begun, .. } => {
                    if at.replace(begun).is_some() {
                        feed.streams.deliver_gap(&feed.reach(), Time::now());
                    }
                }
                Next::Nothing(latest) => {
                    at = Some(latest);
                    break;
                }
                Next::Unknown => break,
            }
        }
    }
}

fn deliver(feed: &Feed, these: &[Heard]) {
    let (topic, now) = (feed.topic.load(), Time::now());
    let draft = |heard: &Heard| {
        let payload = draft::payload(heard.payload.clone());
        draft::draft(&topic, &heard.channel, payload, None, now).ok()
    };
    // What becomes no event is counted by who appends.
    let drafts = these.iter().filter_map(draft).filter(|draft| feed.streams.is_live(&draft.topic)).collect();
    feed.streams.deliver(drafts, now);
}
