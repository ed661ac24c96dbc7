//! Holds all that was told to all sessions against all that was published.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use super::lines::{self, Heard, Line, Payload};
use super::lives::{Lives, Mark, Seen};
use super::record::{RAW, Reason, Record, STREAMS, TOPICS, Told, parse_id};
use crate::checker::{self, Expected};

/// Everything that was published.
#[derive(Debug, Default)]
pub struct Published {
    /// Each with its topic, and what one publisher said on it.
    pub lines: Vec<(usize, Line)>,
    /// The ids that webhooks answered with, for each publisher in order: (id, topic).
    pub acknowledged: Vec<Vec<(String, usize)>>,
}

#[derive(Debug, Default)]
pub struct Verdict {
    pub events: usize,
    pub deliveries: usize,
    pub resumes: usize,
    pub gaps: BTreeMap<&'static str, usize>,
    pub lives: usize,
    /// Acknowledged, and then lost by Redis itself.
    pub forgotten: usize,
    /// Acknowledged, never heard, and told to be missing, over all sessions.
    pub excused: usize,
    /// Acknowledged, never heard and not told, over all sessions.
    pub losses: usize,
    pub duplicates: usize,
    /// Whatever else is wrong.
    pub faults: Vec<String>,
}

/// The log of one partition, as far as anybody knows it.
struct Log {
    lives: Lives,
    /// (number, topic), in order.
    events: Vec<(u64, usize)>,
}

/// All that was published, and which line each payload belongs to.
struct Lines<'a> {
    published: &'a Published,
    by_payload: HashMap<(usize, Payload), usize>,
}

/// `excuses`: what may be the reason of a gap.
pub fn judge(records: &[Record], published: &Published, excuses: &[Reason]) -> Verdict {
    let mut verdict = Verdict::default();
    let lines = Lines { published, by_payload: by_payload(published) };
    for (partition, stream) in STREAMS.iter().enumerate() {
        match Log::new(partition, records, published, &mut verdict) {
            Err(e) => verdict.faults.push(format!("{stream}: {e}")),
            Ok(log) => {
                verdict.lives += log.lives.count();
                verdict.events += log.events.len();
                for (session, record) in records.iter().enumerate() {
                    let told: Vec<&Told> = record.told.iter().filter(|told| told.partition() == partition).collect();
                    if let Err(e) = log.check(record, partition, &told) {
                        verdict.faults.push(format!("session {session} in {stream}: {e}"));
                    }
                    lines.check(session, record, partition, &told, &log.lives, &mut verdict);
                }
            }
        }
    }
    for (session, record) in records.iter().enumerate() {
        verdict.count(session, record, excuses);
    }
    verdict
}

impl Verdict {
    fn count(&mut self, session: usize, record: &Record, excuses: &[Reason]) {
        self.resumes += record.connections.saturating_sub(1);
        self.faults.extend(record.faults.iter().map(|fault| format!("session {session}: {fault}")));
        for told in &record.told {
            match told {
                Told::Event { .. } => self.deliveries += 1,
                Told::Upto { .. } => {}
                Told::Gap { reason, .. } => {
                    *self.gaps.entry(reason.name()).or_default() += 1;
                    if !excuses.contains(reason) {
                        self.faults.push(format!("session {session}: nothing excuses {told:?}"));
                    }
                }
            }
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verdict { events, deliveries, resumes, gaps, lives, forgotten, excused, losses, duplicates, faults } = self;
        write!(f, "{events} events in {lives} lives, {deliveries} deliveries, {resumes} resumes, gaps {gaps:?}, ")?;
        write!(
            f,
            "{forgotten} lost by Redis, {excused} told to be missing, {losses} losses, {duplicates} duplicates, {} other faults",
            faults.len()
        )
    }
}

impl Log {
    fn new(partition: usize, records: &[Record], published: &Published, verdict: &mut Verdict) -> Result<Log, String> {
        let mut seen = Seen::default();
        let mut entries: HashMap<Mark, (usize, Option<Payload>)> = HashMap::new();
        for record in records {
            let told = || record.told.iter().filter(|told| told.partition() == partition);
            // An event's id says who gave its position; a cursor may name it in the numbering of a later life.
            let is_event = |told: &&Told| matches!(told, Told::Event { .. });
            seen.entries(told().filter(is_event).map(Told::mark));
            let of_cursors = told().filter(|told| !is_event(told)).map(|told| told.mark().0);
            seen.cursors(record.began[partition].map(|mark| mark.0).into_iter().chain(of_cursors));
            for told in told() {
                if let Told::Gap { reason: Reason::Epoch, from: Some(from), to, .. } = told {
                    seen.lost(from.0, to.0);
                }
                if let Told::Event { mark, topic, payload, .. } = *told {
                    let (other, known) = entries.entry(mark).or_insert((topic, None));
                    if *other != topic || known.replace(payload).is_some_and(|known| known != payload) {
                        verdict.faults.push(format!("two events in one place, {mark:?}: {told:?}"));
                    }
                }
            }
        }
        for publisher in &published.acknowledged {
            let parsed = publisher.iter().map(|(id, topic)| (parse_id(id), *topic));
            let here: Vec<(Mark, usize)> =
                parsed.filter(|((of, _), _)| *of == partition).map(|((_, mark), topic)| (mark, topic)).collect();
            seen.entries(here.iter().map(|(mark, _)| *mark));
            for (mark, topic) in here {
                entries.entry(mark).or_insert((topic, None));
            }
        }
        let lives = seen.in_order()?;
        verdict.forgotten += entries.keys().filter(|mark| lives.is_lost(**mark)).count();
        let mut events: Vec<(u64, usize)> =
            entries.iter().map(|(mark, (topic, _))| (lives.number(*mark), *topic)).collect();
        events.sort_unstable();
        Ok(Log { lives, events })
    }

    /// By positions: everything in its turn, and nothing missing but what is told.
    fn check(&self, record: &Record, partition: usize, told: &[&Told]) -> Result<(), String> {
        // It went when it had heard the last of all, which may be said once more; up to there nothing may be missing.
        let heard = told.iter().filter(|told| matches!(told, Told::Event { .. }));
        let went = heard.map(|told| self.lives.number(told.mark())).max().unwrap_or(u64::MAX);
        let mine = self.events.iter().filter(|(number, topic)| record.topics.contains(topic) && *number <= went);
        let positions: Vec<u64> = mine.map(|(number, _)| *number).collect();
        let began = record.began[partition].ok_or("it never stood whole")?;
        let expected = Expected { positions: &positions, began_after: self.lives.number(began), head: u64::MAX };
        // Behind a lost tail the same mark means less to who comes from elsewhere than to who was led there by a gap.
        let mut led: Option<(u64, u64)> = None;
        let number = |told: &&Told| {
            let here = led;
            let number_of = |mark: Mark| match here {
                Some((position, number)) if position <= mark.1 => {
                    self.lives.number(mark).max(number + mark.1 - position)
                }
                _ => self.lives.number(mark),
            };
            match **told {
                Told::Event { mark, .. } => checker::Told::Event(self.lives.number(mark)),
                Told::Upto { mark, .. } => checker::Told::Upto(number_of(mark)),
                Told::Gap { reason, from, to, missed, .. } => {
                    let began = from.map(number_of);
                    if reason == Reason::Epoch {
                        let end = self.lives.number_behind(began.zip(from.map(|from| from.0)), to);
                        led = Some((to.1, end));
                        return checker::Told::Gap { from: began, to: end, missed };
                    }
                    checker::Told::Gap { from: began, to: number_of(to), missed }
                }
            }
        };
        let told: Vec<checker::Told> = told.iter().map(number).collect();
        checker::check(&expected, &told)
    }
}

impl Lines<'_> {
    /// By payloads: what each publisher said, once and in order.
    fn check(
        &self,
        session: usize,
        record: &Record,
        partition: usize,
        told: &[&Told],
        lives: &Lives,
        verdict: &mut Verdict,
    ) {
        for told in told {
            if let Told::Event { topic, payload, mark, .. } = told
                && !self.by_payload.contains_key(&(*topic, *payload))
            {
                verdict.faults.push(format!("session {session}: nobody published {mark:?} on {}", TOPICS[*topic]));
            }
        }
        for (number, (topic, line)) in self.published.lines.iter().enumerate() {
            if !record.topics.contains(topic) || partition_of(*topic) != partition {
                continue;
            }
            let wrong = line.check(told.iter().filter_map(|told| self.concerns(number, told, lives)));
            verdict.losses += wrong.lost;
            verdict.duplicates += wrong.again;
            verdict.excused += wrong.excused;
            if !wrong.is_right() {
                verdict.faults.push(format!("session {session} on {}, line {number}: {wrong:?}", TOPICS[*topic]));
            }
        }
    }

    /// What is told of a line.
    fn concerns(&self, line: usize, told: &Told, lives: &Lives) -> Option<Heard> {
        let topic = self.published.lines[line].0;
        match *told {
            Told::Event { topic: of, payload, mark, .. } => {
                let is_its = of == topic && self.by_payload.get(&(of, payload)) == Some(&line);
                is_its.then(|| Heard::Event(lives.number(mark), payload))
            }
            Told::Gap { reason, to, .. } => {
                let excuses = reason == Reason::Epoch || (reason == Reason::Source && topic >= RAW);
                excuses.then(|| Heard::Gap { kept: lives.number(to) })
            }
            Told::Upto { .. } => None,
        }
    }
}

fn by_payload(published: &Published) -> HashMap<(usize, Payload), usize> {
    let lines = published.lines.iter().enumerate();
    let payloads = lines.flat_map(|(number, (topic, line))| {
        let of = move |sent: &lines::Sent| ((*topic, sent.payload), number);
        line.sent.iter().map(of)
    });
    payloads.collect()
}

fn partition_of(topic: usize) -> usize {
    usize::from(TOPICS[topic].contains("two"))
}
