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
            seen.entries(told().filter_map(Told::entry));
            let of_cursors = told().filter(|told| !matches!(told, Told::Event { .. })).map(|told| told.mark().0);
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
        let mine = self.events.iter().filter(|(_, topic)| record.topics.contains(topic));
        let positions: Vec<u64> = mine.map(|(number, _)| *number).collect();
        let began = record.began[partition].ok_or("it never stood whole")?;
        let expected = Expected { positions: &positions, began_after: self.lives.number(began), head: u64::MAX };
        // Behind a lost tail the same mark means less to who comes from elsewhere than to who was led there by a gap.
        let mut led: Option<(Mark, u64)> = None;
        let number = |told: &&Told| {
            let here = led;
            let number_of = |mark: Mark| match here {
                Some((there, number)) if there == mark => number,
                _ => self.lives.number(mark),
            };
            match **told {
                Told::Event { mark, .. } => checker::Told::Event(self.lives.number(mark)),
                Told::Upto { mark, .. } => checker::Told::Upto(number_of(mark)),
                Told::Gap { reason, from, to, missed, .. } => {
                    let lost_tail = reason == Reason::Epoch;
                    let end = if lost_tail { self.lives.number_behind(to) } else { self.lives.number(to) };
                    led = Some((to, end));
                    checker::Told::Gap { from: from.map(number_of), to: end, missed }
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

#[cfg(test)]
mod tests {
    use relay::event::Epoch;

    use super::*;

    const A: Epoch = Epoch(1);
    const B: Epoch = Epoch(2);
    /// `one/0`, published by webhooks.
    const HOOK: usize = 0;
    /// `raw.one`.
    const CHANNEL: usize = RAW;

    /// Of stream one. The payloads of the webhook are 1 to 4, those of the channel 11 to 13.
    fn published() -> Published {
        let line = |payloads: std::ops::RangeInclusive<Payload>| {
            let mut line = Line::default();
            payloads.for_each(|payload| line.push(payload, true));
            line
        };
        let ids = [1, 3, 5, 7].map(|position| (format!("one-1-{position}"), HOOK));
        Published { lines: vec![(HOOK, line(1..=4)), (CHANNEL, line(11..=13))], acknowledged: vec![ids.to_vec()] }
    }

    fn event(epoch: Epoch, position: u64, topic: usize, payload: Payload) -> Told {
        Told::Event { partition: 0, mark: (epoch, position), topic, payload }
    }

    fn gap(reason: Reason, from: Mark, to: Mark) -> Told {
        Told::Gap { partition: 0, reason, from: Some(from), to, missed: None }
    }

    fn upto(position: u64) -> Told {
        Told::Upto { partition: 0, mark: (A, position) }
    }

    /// Hooks at 1, 3, 5, 7, the channel at 2, 6, 8.
    fn clean() -> Vec<Told> {
        let places = [(1, HOOK, 1), (2, CHANNEL, 11), (3, HOOK, 2), (5, HOOK, 3), (6, CHANNEL, 12), (7, HOOK, 4)];
        let mut all: Vec<Told> =
            places.iter().map(|(position, topic, payload)| event(A, *position, *topic, *payload)).collect();
        all.push(event(A, 8, CHANNEL, 13));
        all.insert(3, upto(4));
        all
    }

    /// What one session was told, beside another that was told all.
    fn verdict(told: Vec<Told>, excuses: &[Reason]) -> Verdict {
        let record = |told| {
            let mut record = Record::of(vec![HOOK, CHANNEL]);
            record.began = [Some((A, 0)), Some((A, 0))];
            record.told = told;
            record
        };
        judge(&[record(clean()), record(told)], &published(), excuses)
    }

    #[test]
    fn a_clean_history_is_clean() {
        let verdict = verdict(clean(), &[]);
        assert!(verdict.faults.is_empty(), "{:?}", verdict.faults);
        let Verdict { events, deliveries, losses, duplicates, lives, .. } = verdict;
        assert_eq!((events, deliveries, losses, duplicates, lives), (7, 14, 0, 0, 2));
    }

    #[test]
    fn each_loss_duplicate_and_swap_is_found() {
        let events: Vec<usize> = (0..8).filter(|index| *index != 3).collect();
        for &index in &events {
            let mut lost = clean();
            lost.remove(index);
            let found = verdict(lost, &[]);
            assert!(found.losses == 1 && found.faults.len() >= 2, "without {index}: {found}");
            let mut doubled = clean();
            doubled.insert(index, doubled[index].clone());
            let found = verdict(doubled, &[]);
            assert!(found.duplicates == 1 && !found.faults.is_empty(), "{index} twice: {found}");
        }
        for pair in events.windows(2) {
            let mut swapped = clean();
            swapped.swap(pair[0], pair[1]);
            assert!(!verdict(swapped, &[]).faults.is_empty(), "{pair:?} swapped");
        }
    }

    #[test]
    fn what_is_appended_twice_is_found_by_who_hears_both() {
        let mut twice = clean();
        twice.push(event(A, 9, HOOK, 4));
        let found = verdict(twice, &[]);
        // And the other session lacks an event of the log.
        assert!(found.duplicates == 1 && found.faults.len() == 2, "{:?}", found.faults);
    }

    #[test]
    fn a_gap_of_a_source_excuses_what_came_from_there_and_only_in_its_place() {
        let without = |payload: Payload, place: usize| {
            let mut told = clean();
            told.retain(|told| !matches!(told, Told::Event { payload: of, .. } if *of == payload));
            told.insert(place, gap(Reason::Source, (A, 8), (A, 9)));
            told
        };
        // Nobody heard 13, so it is not in the log at all.
        let everybody = |told: Vec<Told>, excuses: &[Reason]| {
            let mut record = Record::of(vec![HOOK, CHANNEL]);
            record.began = [Some((A, 0)), Some((A, 0))];
            record.told = told;
            judge(&[record], &published(), excuses)
        };
        assert!(everybody(without(13, 7), &[Reason::Source]).faults.is_empty());
        assert!(!everybody(without(13, 7), &[]).faults.is_empty(), "not where nothing excuses it");
        assert!(!everybody(without(4, 7), &[Reason::Source]).faults.is_empty(), "not what webhooks lost");
        assert!(!everybody(without(12, 7), &[Reason::Source]).faults.is_empty(), "not elsewhere");
    }

    #[test]
    fn a_lost_tail_is_excused_by_a_gap_and_nothing_else() {
        // Redis lost 7 and 8; then 7 was published anew by the channel, which its publisher knows nothing of.
        let common = || clean().into_iter().take(6);
        let anew = event(B, 7, CHANNEL, 13);
        let lost_tail = gap(Reason::Epoch, (A, 6), (B, 6));
        let mut published = published();
        published.lines[1].1.push(13, true);
        let verdict = |second: Vec<Told>| {
            let record = |told| {
                let mut record = Record::of(vec![HOOK, CHANNEL]);
                record.began = [Some((A, 0)), Some((A, 0))];
                record.told = told;
                record
            };
            let mut first = clean();
            first.extend([gap(Reason::Epoch, (A, 8), (B, 6)), anew.clone()]);
            judge(&[record(first), record(second)], &published, &[Reason::Epoch])
        };
        let told = verdict(common().chain([lost_tail, anew.clone()]).collect());
        assert!(told.faults.is_empty() && told.lives == 3 && told.forgotten == 2, "{:?}", told.faults);
        let silent = verdict(common().chain([anew.clone()]).collect());
        assert!(silent.losses > 0 && silent.faults.len() > 1, "{:?}", silent.faults);
    }

    #[test]
    fn a_gap_may_follow_where_another_led_to() {
        let led = [gap(Reason::Epoch, (A, 8), (B, 6)), gap(Reason::Epoch, (B, 6), (B, 7))];
        let found = verdict(clean().into_iter().chain(led).collect(), &[Reason::Epoch]);
        assert!(found.faults.is_empty() && found.losses == 0, "{:?}", found.faults);
    }

    #[test]
    fn two_events_in_one_place_are_found() {
        let mut told = clean();
        told[0] = event(A, 1, HOOK, 2);
        assert!(verdict(told, &[]).faults.iter().any(|fault| fault.starts_with("two events in one place")));
    }
}
