//! Appending what channels say, while this instance holds the lease.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::draft::{self, NoDraft};
use super::duty::{Turn, Work};
use super::feed::Feed;
use super::holder::{BATCH, BATCH_BYTES, Holder};
use super::ring::Heard;
use crate::event::Time;
use crate::stream::Draft;

/// From one append in a store to the next: the first message of a while goes at once, those of a stream of them together,
/// so that the way there and back is not gone for each. At 5,000 a second it more than halved the CPU for each, and what
/// is published is on the sockets within 2 ms.
const PACE: Duration = Duration::from_millis(1);
/// Who is told to stop has so long to append what was heard, and to give the lease back.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Until it is told to stop; then nothing more is heard, and what was is appended.
pub(super) async fn run(feed: &Arc<Feed>, mut stop: watch::Receiver<bool>, listening: JoinHandle<()>) {
    let mut holder = Holder::new(feed.clone());
    tokio::select! {
        () = append(feed, &mut holder) => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
    listening.abort();
    feed.ear().disconnected();
    // Cut off, an append may have been done: it is done again, by name.
    let _ = tokio::time::timeout(LAST_WORDS, async {
        while holder.duty.fence().is_some() {
            if step(feed, &mut holder).await == Step::Idle {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    })
    .await;
}

async fn append(feed: &Arc<Feed>, holder: &mut Holder) {
    let mut hearing = false;
    loop {
        let begun = Instant::now();
        match step(feed, holder).await {
            Step::Idle => {}
            Step::Full => continue,
            Step::Done => {
                if feed.streams.are_stored() {
                    // What is heard meanwhile is appended together.
                    tokio::time::sleep(PACE.saturating_sub(begun.elapsed())).await;
                }
                continue;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(holder.until_asking().unwrap_or_default()) => {}
            () = feed.heard.notified() => {}
        }
        let hears = feed.ear().is_hearing();
        if hears && !hearing && holder.duty.fence().is_none() {
            holder.ask_soon();
        }
        hearing = hears;
    }
}

/// What became of one step.
#[derive(PartialEq, Eq)]
enum Step {
    /// There is nothing to do.
    Idle,
    Done,
    /// As much was appended as goes together: more waits.
    Full,
}

/// One thing that is to be done.
async fn step(feed: &Feed, holder: &mut Holder) -> Step {
    let work = {
        let mut ear = feed.ear();
        let work = holder.duty.work(&ear, Instant::now(), (BATCH, BATCH_BYTES));
        ear.settle(holder.duty.done(), Instant::now());
        work
    };
    if work == Work::Ask || holder.until_asking().is_none() {
        return if ask(feed, holder).await { Step::Done } else { Step::Idle };
    }
    match work {
        Work::Append(these) => {
            let full = these.len() >= BATCH / 2;
            let last = these.last().map(|heard| heard.name);
            let (drafts, none) = drafts(feed, &these);
            if holder.append(drafts).await {
                none.iter().for_each(|(channel, why)| feed.dropped(channel, why));
                last.into_iter().for_each(|last| holder.duty.appended(last));
            }
            if full {
                return Step::Full;
            }
        }
        Work::TellGap { at, if_known } => {
            if holder.tell_gap(Some(at), if_known).await {
                holder.duty.appended(at);
            }
        }
        Work::Ask | Work::Rest => return Step::Idle,
    }
    Step::Done
}

/// False: there is nothing to do now.
async fn ask(feed: &Feed, holder: &mut Holder) -> bool {
    let wish = {
        let ear = feed.ear();
        holder.duty.hopeless = holder.duty.done().is_some_and(|done| ear.is_of_another(done));
        holder.duty.wish(Instant::now(), ear.is_hearing(), |name| ear.proves(name))
    };
    let turn = holder.ask(wish).await;
    if let Some(Turn::Took(start)) = turn {
        holder.duty.start(start, &feed.ear());
    }
    turn.is_some() && holder.duty.fence().is_some()
}

type Unfit<'a> = Vec<(&'a [u8], NoDraft)>;

/// What is appended; what goes by without a log is not, and is delivered by each instance itself.
fn drafts<'a>(feed: &Feed, these: &'a [Heard]) -> (Vec<Draft>, Unfit<'a>) {
    let (topic, now) = (feed.topic.load(), Time::now());
    let (mut drafts, mut unfit) = (Vec::with_capacity(these.len()), Vec::new());
    for heard in these {
        let payload = draft::payload(heard.payload.clone());
        match draft::draft(&topic, &heard.channel, payload, Some(heard.name), now) {
            Ok(draft) if feed.streams.is_live(&draft.topic) => {}
            Ok(draft) => drafts.push(draft),
            Err(none) => unfit.push((&heard.channel[..], none)),
        }
    }
    (drafts, unfit)
}
