//! The task that talks with Redis: round after round, for as long as somebody may ask.

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use redis::{Cmd, FromRedisValue};
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use super::round::{Ask, Round};
use super::{Settings, Standing, Tally};
use crate::gate::held::PARTS;
use crate::gate::limits::Limits;
use crate::link::{Down, Link, Script, Wire};

/// The layout of keys and fields, part of every key.
const FORMAT: &str = "1";
/// How often an instance says that it is alive, if it has nothing else to say.
const BEAT: Duration = Duration::from_secs(1);
/// After such a silence an instance is dead, and its sessions with it: three beats, so that one may be late.
const SILENCE: Duration = Duration::from_secs(3);
/// How long a newcomer may be kept waiting, once, when Redis falls silent: nobody notices.
const PATIENCE: Duration = Duration::from_millis(500);
/// Numbers that nobody tells again go after so long.
const KEEP: Duration = Duration::from_secs(30 * 60);
/// One part of the table is told again every so many beats, so all of it three times while it is kept.
const SLICE: u64 = KEEP.as_secs() / 3 / PARTS as u64;
/// Addresses in one round: each takes the script 13 µs, so it keeps others from Redis for less than two milliseconds.
const ROUND: usize = 128;

static COUNT: Script = Script::new(include_str!("count.lua"));

/// What the task knows.
pub(super) struct Teller {
    link: Link,
    limits: Arc<Limits>,
    standing: watch::Sender<Standing>,
    tally: Arc<Tally>,
    prefix: String,
    instance: String,
    /// What was told on an earlier one is void.
    account: u64,
    /// Of the last round on this account; 0 before the first one.
    turn: u64,
    beats: u64,
    retold: Retold,
}

/// What is told again although it has not changed.
#[derive(Default)]
struct Retold {
    /// The next part of the table.
    part: usize,
    /// How many parts from there on.
    parts: usize,
    /// What is left of the one before.
    addresses: Vec<IpAddr>,
}

impl Teller {
    pub fn new(
        settings: Settings,
        limits: Arc<Limits>,
        standing: watch::Sender<Standing>,
        tally: Arc<Tally>,
    ) -> Teller {
        let Settings { server, prefix, instance } = settings;
        let (link, retold) = (Link::new(server, "limits"), Retold::default());
        Teller { link, limits, standing, tally, prefix, instance, account: 1, turn: 0, beats: 0, retold }
    }

    /// Until nobody can ask any more.
    pub async fn run(mut self, mut asked: mpsc::Receiver<Ask>) {
        let mut beats = tokio::time::interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut asks = Vec::new();
        let mut more = false;
        loop {
            let beat = tokio::select! {
                biased;
                _ = beats.tick() => true,
                count = asked.recv_many(&mut asks, ROUND) => match count {
                    0 => return,
                    _ => false,
                },
                () = self.limits.held.changed(), if self.is(Standing::Together) => false,
                () = std::future::ready(()), if more => false,
            };
            self.beats += u64::from(beat);
            if beat && self.beats.is_multiple_of(SLICE) {
                self.retold.parts = (self.retold.parts + 1).min(PARTS);
            }
            let mut round = Round::default();
            asks.drain(..).for_each(|ask| round.ask(ask));
            if !self.is(Standing::Together) {
                self.admit_all(std::mem::take(&mut round)); // they asked just before it was known
            }
            if beat || self.is(Standing::Together) {
                self.fill(&mut round);
                more = self.hold(round, &mut asked).await;
            }
        }
    }

    /// One round. Whether there is more to tell.
    async fn hold(&mut self, mut round: Round, asked: &mut mpsc::Receiver<Ask>) -> bool {
        let mut said = self.hear(&mut round, asked).await;
        if let Ok(None) = said {
            self.begin_anew();
            said = self.hear(&mut round, asked).await;
        }
        let why = match said {
            Ok(Some(said)) if said.len() == 1 + round.asks() => {
                let admitted = said[1..].iter().filter(|answer| **answer == 0).count();
                self.tally.admitted.fetch_add(admitted as u64, Relaxed);
                self.tally.refused.fetch_add((said.len() - 1 - admitted) as u64, Relaxed);
                self.tally.instances.store(said[0].unsigned_abs(), Relaxed);
                self.stand(Standing::Together, None);
                round.answer(&said[1..]);
                return !self.retold.is_done() || !self.limits.held.is_told();
            }
            Ok(Some(_)) => Down("it answers in a language of another release".to_owned()),
            Ok(None) => Down("it does not remember what it was told".to_owned()),
            Err(down) => down,
        };
        self.admit_all(round);
        self.begin_anew();
        self.stand(Standing::Alone, Some(why));
        false
    }

    /// What is told beside those who ask: changes first, then what has to be told again.
    fn fill(&mut self, round: &mut Round) {
        let mut changed = Vec::new();
        // However many ask: who has left makes room for them.
        let most = ROUND.saturating_sub(round.len()).max(ROUND / 4);
        if !self.limits.held.take_changed(self.turn as usize, most, &mut changed) {
            self.begin_anew();
        }
        changed.into_iter().for_each(|ip| round.tell(ip));
        while self.turn > 0 && round.len() < ROUND {
            match self.retold.next(&self.limits) {
                Some(ip) => round.tell(ip),
                None => break,
            }
        }
    }

    /// Tells, and hears what is said to it. Unless it is known that Redis answers, nobody waits for that.
    async fn hear(&mut self, round: &mut Round, asked: &mut mpsc::Receiver<Ask>) -> Result<Option<Vec<i64>>, Down> {
        if self.is(Standing::Together) {
            return self.tell(round).await;
        }
        let tally = self.tally.clone();
        let mut telling = pin!(self.tell(round));
        loop {
            tokio::select! {
                biased;
                said = &mut telling => return said,
                Some(ask) = asked.recv() => {
                    tally.unasked.fetch_add(1, Relaxed);
                    ask.admit(false);
                }
            }
        }
    }

    /// Runs the script. `None`: the other instances do not know what was told before.
    async fn tell(&mut self, round: &mut Round) -> Result<Option<Vec<i64>>, Down> {
        if self.turn == 0 {
            self.limits.held.forget_changes();
            self.retold = Retold { parts: PARTS, ..Retold::default() };
        }
        self.turn += 1;
        let names = self.tally.names.load_full();
        round.look(&self.limits, &names);
        let mut keys = vec![self.key("instances")];
        keys.extend(round.addresses().map(|ip| self.key(&format!("ip:{ip}"))));
        let most = self.limits.sessions_per_ip();
        let fill = |_: &Wire, command: &mut Cmd| {
            command.arg(&self.instance).arg(self.account).arg(self.turn);
            command.arg(SILENCE.as_millis() as u64).arg(KEEP.as_millis() as u64).arg(most);
            round.write(&names, command);
        };
        let answer = self.link.run(&COUNT, &keys, &fill);
        let answer = match self.is(Standing::Together) {
            true => {
                let late = |_| Err(Down(format!("{}: no answer within {PATIENCE:?}", self.link.server())));
                tokio::time::timeout(PATIENCE, answer).await.unwrap_or_else(late)?
            }
            // Nobody waits: it may take as long as the link allows.
            false => answer.await?,
        };
        let said = Vec::<i64>::from_redis_value(answer).map_err(|error| Down(error.to_string()))?;
        Ok(Some(said).filter(|said| !said.is_empty()))
    }

    /// Whatever was told is void.
    fn begin_anew(&mut self) {
        self.account += 1;
        self.turn = 0;
    }

    fn admit_all(&self, round: Round) {
        self.tally.unasked.fetch_add(round.asks() as u64, Relaxed);
        round.admit_all();
    }

    fn is(&self, standing: Standing) -> bool {
        *self.standing.borrow() == standing
    }

    /// Says so when it changes.
    fn stand(&self, now: Standing, why: Option<Down>) {
        let before = self.standing.send_replace(now);
        match why {
            Some(Down(why)) if before != Standing::Alone => {
                self.tally.instances.store(1, Relaxed);
                tracing::warn!(%why, "sessions of an address are counted by this instance alone");
            }
            None if before == Standing::Alone => {
                tracing::info!("sessions of an address are counted over all instances again");
            }
            _ => {}
        }
    }

    fn key(&self, name: &str) -> Vec<u8> {
        format!("{}:{FORMAT}:{{shares}}:{name}", self.prefix).into_bytes()
    }
}

impl Retold {
    fn next(&mut self, limits: &Limits) -> Option<IpAddr> {
        while self.addresses.is_empty() && self.parts > 0 {
            self.addresses = limits.held.addresses_of(self.part);
            self.part = (self.part + 1) % PARTS;
            self.parts -= 1;
        }
        self.addresses.pop()
    }

    fn is_done(&self) -> bool {
        self.addresses.is_empty() && self.parts == 0
    }
}
