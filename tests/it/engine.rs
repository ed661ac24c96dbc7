//! What a stream promises, whatever engine keeps it: one test for each promise. An engine is a way to make streams; at
//! the end stands the list of promises, and each engine's line below it runs them all.

mod log;
mod model;
mod readers;
mod reload;
mod retention;
mod values;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use relay::event::{Event, Kind, Payload, Time};
use relay::stream::{Appended, Dedupe, Draft, Page, Partition, Refused, Settings, Streams};
use relay::topic::{Pattern, Topic};

/// Makes streams of settings, bytes of memory and a number of readers.
pub type Make<'a> = &'a dyn Fn(Vec<Settings>, u64, usize) -> Arc<Streams>;

/// More memory than any of these tests fills.
const AMPLE: u64 = 1 << 30;
/// What an event counts beside its payload and topic.
const OVERHEAD: u64 = 128;

/// A stream without an age, with one partition, for everything under `name/`.
fn stream(name: &str, max_events: u64) -> Settings {
    Settings {
        name: name.into(),
        topics: vec![Pattern::new(&format!("{name}/**")).unwrap()],
        max_events,
        max_age: None,
        retain: 0,
        clear: None,
        partitions: 1,
        live: false,
    }
}

fn draft(topic: &str, payload: &str) -> Draft {
    let payload = Payload { kind: Kind::Text, bytes: payload.to_string().into() };
    Draft { topic: Topic::new(topic).unwrap(), payload, dedupe: None, name: None }
}

fn json(topic: &str, payload: &str) -> Draft {
    let mut draft = draft(topic, payload);
    draft.payload.kind = Kind::Json;
    draft
}

fn keyed(topic: &str, payload: &str, key: &str, window: u64) -> Draft {
    let dedupe = Some(Dedupe { key: key.into(), window: Duration::from_millis(window) });
    Draft { dedupe, ..draft(topic, payload) }
}

/// Appends from a test, which is no task.
fn append(streams: &Streams, drafts: Vec<Draft>, now: u64) -> Result<Appended, Refused> {
    let appended = RUNTIME.with(|runtime| runtime.block_on(streams.append(drafts, Time(now))));
    for id in appended.iter().flat_map(|appended| &appended.ids) {
        let mut parts = id.rsplit('-');
        let position = parts.next().and_then(|text| text.parse::<u64>().ok()).expect("a position ends an id");
        let epoch = parts.next().expect("an epoch stands before it");
        // What is appended comes back at once, unless readers are behind.
        let here = || {
            let all = streams.partitions();
            let heads = all.iter().map(|one| one.head());
            streams.refusing().is_some()
                || heads.into_iter().all(|head| head.0.to_string() != epoch || head.1 >= position)
        };
        crate::harness::until(here, || format!("{id} does not come back"));
    }
    appended
}

thread_local! {
    /// On which an engine does its work while its test does not look.
    static RUNTIME: tokio::runtime::Runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    /// The servers of a test: they end with its thread.
    static SERVERS: std::cell::RefCell<Vec<crate::redis::Redis>> = const { std::cell::RefCell::new(Vec::new()) };
}

fn in_memory(settings: Vec<Settings>, memory: u64, readers: usize) -> Arc<Streams> {
    Arc::new(Streams::new(settings, memory, readers))
}

/// Streams in a Redis of their own.
fn in_redis(settings: Vec<Settings>, memory: u64, readers: usize) -> Arc<Streams> {
    let server = crate::redis::Redis::start();
    let store = relay::stream::redis::Settings {
        server: relay::link::server::Server::parse(&server.url()).unwrap(),
        prefix: "suite".into(),
        own_clock: false,
    };
    SERVERS.with_borrow_mut(|servers| servers.push(server));
    RUNTIME.with(|runtime| {
        let _inside = runtime.enter();
        let streams = Streams::in_redis(settings, memory, readers, store);
        runtime.block_on(streams.opened(crate::client::PATIENCE));
        streams
    })
}

/// Appends one event that must be accepted; its id.
fn put(streams: &Streams, topic: &str, payload: &str, now: u64) -> String {
    let appended = append(streams, vec![draft(topic, payload)], now).expect("nobody is behind");
    appended.ids.into_iter().next().expect("one id for one draft")
}

fn partition(streams: &Streams, name: &str, number: u32) -> Arc<Partition> {
    let all = streams.partitions();
    let found = all.iter().find(|one| &*one.place().stream == name && one.place().partition == number);
    found.unwrap_or_else(|| panic!("no partition {number} of {name}")).clone()
}

fn only(streams: &Streams, name: &str) -> Arc<Partition> {
    partition(streams, name, 0)
}

/// Everything that a session may read.
fn readable(partition: &Partition) -> Vec<Arc<Event>> {
    let mut events = Vec::new();
    assert_eq!(partition.read(partition.first() - 1, u64::MAX, usize::MAX, &mut events), Page::Here);
    events
}

/// Everything that a reader has not seen.
fn tail(partition: &Partition, reader: usize) -> Vec<Arc<Event>> {
    let mut events = Vec::new();
    // The first word of a mirror is where it begins.
    while partition.tail(reader, usize::MAX, usize::MAX, &mut events).is_some() {}
    events
}

fn retained(partition: &Partition) -> Vec<Arc<Event>> {
    let mut events = Vec::new();
    partition.retained(0, u64::MAX, usize::MAX, &mut events);
    events
}

fn positions(events: &[Arc<Event>]) -> Vec<u64> {
    events.iter().map(|event| event.position).collect()
}

fn payloads(events: &[Arc<Event>]) -> Vec<String> {
    events.iter().map(|event| String::from_utf8(event.payload.bytes.to_vec()).unwrap()).collect()
}

fn topics(events: &[Arc<Event>]) -> Vec<&str> {
    events.iter().map(|event| event.topic.as_str()).collect()
}

fn distinct<T: Eq + std::hash::Hash>(all: impl IntoIterator<Item = T>) -> usize {
    all.into_iter().collect::<HashSet<_>>().len()
}

/// Each thread of a test holds one, so that none waits for ever for another that has failed.
struct Fuse<'a>(&'a AtomicBool);

impl Fuse<'_> {
    /// Lets the others go on.
    fn wait(&self) {
        assert!(!self.0.load(Ordering::Relaxed), "another thread has failed");
        std::thread::yield_now();
    }
}

impl Drop for Fuse<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

/// One engine, and what it promises.
macro_rules! promises {
    ($make:expr; $($group:ident { $($promise:ident,)+ })+) => {$(
        mod $group {$(
            #[test]
            fn $promise() {
                crate::engine::$group::$promise(&$make);
            }
        )+}
    )+};
}

/// What holds for any engine.
macro_rules! suite {
    ($engine:ident, $make:expr) => {
        mod $engine {
            promises! { $make;
                log {
                    positions_are_contiguous_and_times_never_go_back,
                    an_id_is_the_same_everywhere,
                    the_first_match_wins_and_events_has_the_rest,
                    a_batch_over_partitions_answers_in_its_own_order,
                    partitions_spread_and_a_topic_stays_in_its_place,
                    pages_join_without_a_seam,
                    nothing_after_the_head_is_no_gap,
                    reading_back_is_newest_first,
                    marks_mean_positions_of_this_epoch_only,
                    a_key_is_one_event_within_its_window,
                    keys_of_any_length_are_told_apart,
                    keys_are_bounded,
                    stats_count,
                }
                retention {
                    a_count_keeps_the_newest,
                    a_count_is_shared_by_partitions,
                    an_age_ends_at_any_sign_of_time,
                    a_payload_does_not_hold_the_buffer_it_came_in,
                }
                values {
                    the_last_event_of_a_topic_is_kept_beyond_the_log,
                    the_longest_unchanged_goes_first,
                    an_event_that_clears_is_delivered_and_removes,
                    a_walk_in_pages_meets_each_value_at_most_once,
                    a_walk_under_concurrent_updates_misses_nothing_unchanged,
                }
                readers {
                    a_reader_sees_each_event_once,
                    a_page_of_the_tail_is_bounded_but_never_empty,
                    what_is_unread_outlives_its_retention,
                    nothing_is_missed_under_concurrent_appends,
                    too_many_unread_events_are_refused_until_read,
                    a_partition_that_refuses_takes_nothing_of_the_batch,
                    a_large_ring_allows_a_long_lag,
                }
                reload {
                    a_stream_keeps_its_events_by_name,
                    other_limits_hold_at_once,
                    a_stream_that_comes_back_can_be_used,
                    topics_move_with_the_file,
                    an_apply_is_seen,
                    appends_go_on_during_applies,
                }
            }
        }
    };
}

suite!(in_memory, crate::engine::in_memory);
suite!(in_redis, crate::engine::in_redis);

/// What holds where memory is all there is: what it drops is gone, a removed stream ends, and nothing comes late.
mod memory_alone {
    promises! { crate::engine::in_memory;
        retention {
            memory_drops_the_oldest_of_all_partitions,
            memory_counts_an_event_once,
            memory_drops_what_is_past_its_retention_first,
        }
        readers {
            too_many_unread_bytes_are_refused_until_read,
            every_waker_hears_of_new_events,
        }
        reload {
            less_memory_holds_at_once,
            a_removed_stream_gives_its_memory_back,
            a_new_partition_is_unread,
        }
        model {
            random_walks_agree_with_a_naive_model,
        }
    }
}
