//! Reading an application's Redis Stream: only the holder of its lease reads, everybody else makes sure that it could.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::aio::ConnectionLike;
use redis::{RedisError, Value};
use tokio::sync::watch;

use super::draft;
use super::duty::{Start, Turn, Wish};
use super::entry::{self, Entry};
use super::feed::Feed;
use super::holder::{BATCH, BATCH_BYTES, Holder};
use super::tail::{Info, Step, Tail};
use crate::event::Time;
use crate::link::{Backoff, Down, Wire};
use crate::stream::Name;

/// A read waits for an entry so long, and then the lease gets its turn.
const WAITS: Duration = Duration::from_millis(400);
/// Who only watches looks so often whether the server is there.
const PROBED: Duration = Duration::from_secs(2);
/// A holder that cannot read for so long gives the lease back: perhaps another instance can.
const SILENT: Duration = Duration::from_secs(3);

/// What was read in one moment.
struct Look {
    info: Info,
    entries: Vec<Entry>,
    /// Nothing lies behind these.
    all: bool,
}

/// The stream, and how far this instance knows it.
struct Reader<'f> {
    feed: &'f Arc<Feed>,
    key: String,
    holder: Holder,
    wire: Option<Wire>,
    backoff: Backoff,
    /// As the holder.
    tail: Option<Tail>,
    /// What came before the beginning is missing.
    gap: bool,
    /// When the server answered last.
    answered: Option<Instant>,
    /// And when it was asked last.
    probed: Option<Instant>,
}

/// Until it is told to stop. Who holds the lease then gives it back.
pub(super) async fn run(feed: &Arc<Feed>, mut stop: watch::Receiver<bool>) {
    let Some(mut reader) = Reader::new(feed) else { return };
    tokio::select! {
        () = reader.read() => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
    let done = reader.holder.duty.fence().zip(reader.holder.duty.done());
    if done.is_some() {
        let resign = reader.holder.ask(Wish { may_take: false, resign: true, done });
        let _ = tokio::time::timeout(Duration::from_secs(1), resign).await; // without it the lease runs out
    }
}

impl<'f> Reader<'f> {
    fn new(feed: &'f Arc<Feed>) -> Option<Reader<'f>> {
        let super::Reads::Streams(keys) = &feed.reads else { return None };
        Some(Reader {
            feed,
            key: keys.first()?.clone(),
            holder: Holder::new(feed.clone()),
            wire: None,
            backoff: Backoff::default(),
            tail: None,
            gap: false,
            answered: None,
            probed: None,
        })
    }

    async fn read(&mut self) {
        loop {
            if self.holder.duty.fence().is_none() {
                self.tail = None;
                self.probe().await;
            }
            if self.holder.until_asking().is_none() {
                self.ask().await;
            }
            if self.holder.duty.fence().is_none() {
                tokio::time::sleep(self.holder.until_asking().unwrap_or_default()).await;
                continue;
            }
            match self.step().await {
                Ok(()) => self.is_there(),
                Err(Down(why)) => self.is_away(why).await,
            }
        }
    }

    /// One look at the stream, and all that follows from it; or, if nothing does, a wait.
    async fn step(&mut self) -> Result<(), Down> {
        let Some(tail) = self.tail.clone() else { return self.begin().await };
        let Some(look) = self.look(tail.at()).await? else { return self.wait(tail.at()).await };
        let ids: Vec<Name> = look.entries.iter().map(|entry| entry.id).collect();
        let (steps, next) = tail.look(&look.info, &ids, look.all);
        let fence = self.holder.duty.fence();
        if !self.take(&steps, &look.entries).await || self.holder.duty.fence() != fence {
            return Ok(()); // it is looked at once more: what is appended by then is known by name
        }
        self.holder.duty.appended(next.at());
        self.tail = Some(next);
        if look.all { self.wait(self.at()).await } else { Ok(()) }
    }

    /// A holder that has no place yet: where the stream ends now.
    async fn begin(&mut self) -> Result<(), Down> {
        let info = self.look(Name(u64::MAX, 0)).await?.map(|look| look.info).unwrap_or_default();
        let tail = Tail::end(&info);
        if !self.holder.tell_gap(Some(tail.at()), !self.gap).await {
            return Ok(());
        }
        self.holder.duty.appended(tail.at());
        self.tail = Some(tail);
        // What is said from now on must not be taken for the past by a successor.
        self.ask().await;
        Ok(())
    }

    /// Appends, and tells gaps, in order. False: not all of it.
    async fn take(&mut self, steps: &[Step], entries: &[Entry]) -> bool {
        let mut rest = steps;
        while let Some(first) = rest.first() {
            if self.holder.until_asking().is_none() {
                self.ask().await;
            }
            let taken = match first {
                Step::Gap(at) => {
                    rest = &rest[1..];
                    self.holder.tell_gap(*at, false).await
                }
                Step::Entry(_) => {
                    let gap = rest.iter().position(|step| matches!(step, Step::Gap(_))).unwrap_or(rest.len());
                    let (these, others) = rest.split_at(gap);
                    rest = others;
                    self.append(these, entries).await
                }
            };
            if !taken {
                return false;
            }
        }
        true
    }

    async fn append(&mut self, steps: &[Step], entries: &[Entry]) -> bool {
        let (topic, now) = (self.feed.topic.load_full(), Time::now());
        let (mut drafts, mut unfit) = (Vec::new(), Vec::new());
        let these =
            steps.iter().filter_map(|step| if let Step::Entry(index) = step { Some(&entries[*index]) } else { None });
        let count = these.clone().count() as u64;
        for entry in these {
            match draft::draft(&topic, self.key.as_bytes(), entry.payload(), Some(entry.id), now) {
                Ok(draft) => drafts.push(draft),
                Err(none) => unfit.push(none),
            }
        }
        let appended = self.holder.append(drafts).await;
        if appended {
            self.feed.counters.heard(count);
            unfit.iter().for_each(|none| self.feed.dropped(self.key.as_bytes(), none));
        }
        appended
    }

    /// Asks for the lease. Whoever takes it can read on where the last one stopped.
    async fn ask(&mut self) {
        let ready = self.answered.is_some_and(|answered| answered.elapsed() < SILENT);
        if !ready && self.holder.duty.fence().is_some() {
            self.holder.duty.give_back();
        }
        let wish = self.holder.duty.wish(Instant::now(), ready, |_| true);
        match self.holder.ask(wish).await {
            Some(Turn::Took(Start::After(done))) => self.start(Some(done), false),
            Some(Turn::Took(Start::Afresh { gap })) => self.start(None, gap),
            // What the store forgot was appended is read again: who heard it is told of another epoch.
            Some(Turn::Took(Start::Beyond)) => {
                let done = self.holder.duty.done();
                self.start(done, done.is_none());
            }
            _ => {}
        }
    }

    fn start(&mut self, done: Option<Name>, gap: bool) {
        self.holder.duty.start_at(done);
        (self.tail, self.gap) = (done.map(Tail::after), gap);
    }

    fn at(&self) -> Name {
        self.tail.as_ref().map_or(Name(0, 0), Tail::at)
    }

    fn is_there(&mut self) {
        self.answered = Some(Instant::now());
        self.backoff.reset();
        self.feed.troubled(None);
    }

    async fn is_away(&mut self, why: String) {
        if self.wire.take().is_some() {
            self.feed.counters.reconnects();
        }
        self.feed.troubled(Some(why));
        self.backoff.wait().await;
    }

    /// Whether the server answers, for who only watches.
    async fn probe(&mut self) {
        if self.probed.is_some_and(|probed| probed.elapsed() < PROBED) {
            return;
        }
        self.probed = Some(Instant::now());
        self.wire = None;
        match self.feed.link.call(self.key.as_bytes(), redis::cmd("EXISTS").arg(&self.key)).await {
            Ok(_) => self.is_there(),
            Err(Down(why)) => self.feed.troubled(Some(why)),
        }
    }

    /// What lies behind an entry, and what the stream is, in one moment. None: there is no stream.
    async fn look(&mut self, after: Name) -> Result<Option<Look>, Down> {
        let mut pipe = redis::pipe();
        let start = format!("({}-{}", after.0, after.1);
        pipe.cmd("MULTI").cmd("EXISTS").arg(&self.key).cmd("XINFO").arg("STREAM").arg(&self.key);
        pipe.cmd("XRANGE").arg(&self.key).arg(start).arg("+").arg("COUNT").arg(BATCH).cmd("EXEC");
        let mut wire = self.wire().await?;
        let answered = wire.connection.req_packed_commands(&pipe, 0, 5).await;
        let answers = match answered.and_then(whole) {
            Ok(answers) => answers,
            Err(error) => return Err(self.failed(&wire, error).await),
        };
        let unread = || Down(format!("{}: what `{}` is cannot be read", self.feed.link.server(), self.key));
        let [exists, info, entries] = <[Value; 3]>::try_from(answers).map_err(|_| unread())?;
        if exists == Value::Int(0) {
            return Ok(None);
        }
        let failed = [&info, &entries].into_iter().find_map(|answer| match answer {
            Value::ServerError(error) => Some(RedisError::from(error.clone())),
            _ => None,
        });
        if let Some(error) = failed {
            return Err(self.failed(&wire, error).await);
        }
        let (info, mut entries) = entry::info(info).zip(entry::entries(entries)).ok_or_else(unread)?;
        let fits = fitting(&entries);
        let all = entries.len() < BATCH && fits == entries.len();
        entries.truncate(fits);
        Ok(Some(Look { info, entries, all }))
    }

    /// Until something lies behind an entry, or the lease wants its turn.
    async fn wait(&mut self, after: Name) -> Result<(), Down> {
        let mut wire = self.wire().await?;
        let mut read = redis::cmd("XREAD");
        read.arg("COUNT").arg(1).arg("BLOCK").arg(WAITS.as_millis() as u64).arg("STREAMS").arg(&self.key);
        let read = read.arg(format!("{}-{}", after.0, after.1));
        match read.query_async::<Value>(&mut wire.connection).await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.failed(&wire, error).await),
        }
    }

    async fn failed(&mut self, wire: &Wire, error: RedisError) -> Down {
        self.feed.link.failed(wire, &error).await;
        self.feed.link.down(&error)
    }

    async fn wire(&mut self) -> Result<Wire, Down> {
        if let Some(wire) = &self.wire {
            return Ok(wire.clone());
        }
        let patience = self.feed.link.server().timeout + WAITS;
        let wire = self.feed.link.own(self.key.as_bytes(), None, patience).await?;
        self.wire = Some(wire.clone());
        Ok(wire)
    }
}

/// The answers of a transaction: the last one, or what went wrong with it.
fn whole(answers: Vec<Value>) -> Result<Vec<Value>, RedisError> {
    let mut error = None;
    for answer in answers {
        match answer {
            Value::Array(answers) => return Ok(answers),
            // The first says why; `EXECABORT` only that it was so.
            Value::ServerError(why) => error = error.or(Some(RedisError::from(why))),
            _ => {}
        }
    }
    Err(error.unwrap_or_else(|| RedisError::from((redis::ErrorKind::Parse, "no answer to EXEC"))))
}

/// How many entries make one batch.
fn fitting(entries: &[Entry]) -> usize {
    let mut bytes = 0;
    let fits = |entry: &&Entry| {
        let fits = bytes < BATCH_BYTES;
        bytes += entry.fields.iter().map(|(_, value)| value.len()).sum::<usize>();
        fits
    };
    entries.iter().take_while(fits).count()
}
