//! Who holds what: sockets and sessions by address, in parts with a lock each. Where other instances count with this
//! one, it remembers whose number changed until they were told.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::limits::Refusal;

/// Locks: more than threads accept at once.
pub(super) const PARTS: usize = 16;
/// Changes remembered in one part. More come only while nobody can be told of them, and then all is told anew.
const CHANGED: usize = 4096;

/// The table. Who holds nothing is not in it.
pub(super) struct Table {
    parts: [Mutex<Part>; PARTS],
    hasher: RandomState,
    /// Rings when a number changed that others want to know; none if nobody counts with us.
    bell: Option<Notify>,
}

#[derive(Default)]
struct Part {
    held: HashMap<IpAddr, Held>,
    changed: HashSet<IpAddr>,
    /// There were more changes than can be remembered.
    overrun: bool,
}

/// What one address holds.
#[derive(Default)]
pub(super) struct Held {
    pub sockets: u32,
    pub sessions: u32,
    /// Few, so a list.
    endpoints: Vec<Share>,
}

/// Sessions of one address at one endpoint.
struct Share {
    endpoint: u32,
    sessions: u32,
    /// Of those, which all instances together have not let in yet.
    asking: u32,
}

impl Table {
    /// Empty; `shared` with other instances or not.
    pub fn new(shared: bool) -> Table {
        let bell = shared.then(Notify::new);
        Table { parts: Default::default(), hasher: RandomState::new(), bell }
    }

    /// Whether other instances count with this one.
    pub fn is_shared(&self) -> bool {
        self.bell.is_some()
    }

    /// Adds something of this address, or leaves nothing of it.
    pub fn enter(&self, ip: IpAddr, add: impl FnOnce(&mut Held) -> Result<(), Refusal>) -> Result<(), Refusal> {
        let mut part = locked(self.part(ip));
        let held = part.held.entry(ip).or_default();
        let added = add(held);
        if held.is_nothing() {
            part.held.remove(&ip);
        }
        added
    }

    /// A socket less.
    pub fn leave_socket(&self, ip: IpAddr) {
        self.leave(ip, &mut locked(self.part(ip)), |held| held.sockets -= 1);
    }

    /// A session less. One that was still asking has told nobody of itself.
    pub fn leave_session(&self, ip: IpAddr, endpoint: u32, asking: bool) {
        let mut part = locked(self.part(ip));
        self.leave(ip, &mut part, |held| held.remove_session(endpoint, asking));
        if !asking {
            self.note(&mut part, ip);
        }
    }

    /// A session that asked is in. `told`: others know already.
    pub fn admit(&self, ip: IpAddr, endpoint: u32, told: bool) {
        let mut part = locked(self.part(ip));
        let held = part.held.get_mut(&ip).expect("a permit's address is in the table until it drops");
        held.share(endpoint).asking -= 1;
        if !told {
            self.note(&mut part, ip);
        }
    }

    /// The sessions of an address that are in, by endpoint.
    pub fn sessions_of(&self, ip: IpAddr) -> Vec<(u32, u32)> {
        let part = locked(self.part(ip));
        let shares = part.held.get(&ip).map_or(&[][..], |held| &held.endpoints);
        let inside = shares.iter().map(|share| (share.endpoint, share.sessions - share.asking));
        inside.filter(|(_, sessions)| *sessions > 0).collect()
    }

    /// Everybody with a session in one part.
    pub fn addresses_of(&self, part: usize) -> Vec<IpAddr> {
        let part = locked(&self.parts[part]);
        part.held.iter().filter(|(_, held)| held.sessions > 0).map(|(ip, _)| *ip).collect()
    }

    /// Waits until there are changes to tell; for ever, if nobody counts with us.
    pub async fn changed(&self) {
        match &self.bell {
            Some(bell) => bell.notified().await,
            None => std::future::pending().await,
        }
    }

    /// Takes at most so many changed addresses, from this part on. `false`: some were forgotten.
    pub fn take_changed(&self, first: usize, most: usize, out: &mut Vec<IpAddr>) -> bool {
        let mut whole = true;
        for part in (0..PARTS).map(|n| &self.parts[(first + n) % PARTS]) {
            let mut part = locked(part);
            let start = out.len();
            out.extend(part.changed.iter().take(most.saturating_sub(start)));
            for ip in &out[start..] {
                part.changed.remove(ip);
            }
            whole &= !part.overrun;
        }
        whole
    }

    /// Whether no change waits to be taken.
    pub fn is_told(&self) -> bool {
        self.parts.iter().all(|part| locked(part).changed.is_empty())
    }

    /// All is going to be told anew, so changes so far do not matter.
    pub fn forget_changes(&self) {
        for part in &self.parts {
            let mut part = locked(part);
            (part.changed, part.overrun) = (HashSet::new(), false);
        }
    }

    /// Addresses that hold anything.
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| locked(part).held.len()).sum()
    }

    /// Gives memory back.
    pub fn shrink(&self) {
        for part in &self.parts {
            let mut part = locked(part);
            let (held, changed) = (part.held.len() * 2, part.changed.len() * 2);
            part.held.shrink_to(held);
            part.changed.shrink_to(changed);
        }
    }

    /// Whether this holds for what every address holds.
    #[cfg(test)]
    pub fn all(&self, mut holds: impl FnMut(&Held) -> bool) -> bool {
        self.parts.iter().all(|part| locked(part).held.values().all(&mut holds))
    }

    fn leave(&self, ip: IpAddr, part: &mut Part, remove: impl FnOnce(&mut Held)) {
        let held = part.held.get_mut(&ip).expect("a permit's address is in the table until it drops");
        remove(held);
        if held.is_nothing() {
            part.held.remove(&ip);
        }
    }

    fn note(&self, part: &mut Part, ip: IpAddr) {
        let Some(bell) = &self.bell else { return };
        if part.changed.len() < CHANGED {
            part.changed.insert(ip);
        } else {
            part.overrun |= !part.changed.contains(&ip);
        }
        bell.notify_one();
    }

    fn part(&self, ip: IpAddr) -> &Mutex<Part> {
        &self.parts[self.hasher.hash_one(ip) as usize % PARTS]
    }
}

impl Held {
    fn is_nothing(&self) -> bool {
        self.sockets == 0 && self.sessions == 0
    }

    pub fn add_socket(&mut self, most: u32) -> Result<(), Refusal> {
        if self.sockets >= most {
            return Err(Refusal::ConnectionsPerIp);
        }
        self.sockets += 1;
        Ok(())
    }

    pub fn add_session(&mut self, most: u32, endpoint: u32, own: Option<u32>, asking: bool) -> Result<(), Refusal> {
        if self.sessions >= most {
            return Err(Refusal::ConnectionsPerIp);
        }
        let at = self.endpoints.iter().position(|share| share.endpoint == endpoint);
        let here = at.map_or(0, |at| self.endpoints[at].sessions);
        if own.is_some_and(|own| here >= own) {
            return Err(Refusal::EndpointConnectionsPerIp);
        }
        self.sessions += 1;
        let at = at.unwrap_or_else(|| {
            self.endpoints.push(Share { endpoint, sessions: 0, asking: 0 });
            self.endpoints.len() - 1
        });
        self.endpoints[at].sessions += 1;
        self.endpoints[at].asking += u32::from(asking);
        Ok(())
    }

    fn remove_session(&mut self, endpoint: u32, asking: bool) {
        self.sessions -= 1;
        let share = self.share(endpoint);
        share.sessions -= 1;
        share.asking -= u32::from(asking);
        if share.sessions == 0 {
            self.endpoints.retain(|share| share.sessions > 0);
        }
    }

    fn share(&mut self, endpoint: u32) -> &mut Share {
        let share = self.endpoints.iter_mut().find(|share| share.endpoint == endpoint);
        share.expect("a session's endpoint is counted until it ends")
    }
}

/// A table is whole after each of its changes: what panicked elsewhere under its lock does not matter to it.
fn locked<T>(part: &Mutex<T>) -> MutexGuard<'_, T> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nth(n: u32) -> IpAddr {
        IpAddr::V4(n.into())
    }

    fn enter(table: &Table, ip: IpAddr, endpoint: u32) {
        table.enter(ip, |held| held.add_session(u32::MAX, endpoint, None, true)).unwrap();
    }

    fn changed(table: &Table) -> Option<Vec<IpAddr>> {
        let mut all = Vec::new();
        let whole = table.take_changed(3, usize::MAX, &mut all);
        all.sort_unstable();
        whole.then_some(all)
    }

    #[test]
    fn who_asks_is_not_in_yet() {
        let table = Table::new(true);
        (0..3).for_each(|_| enter(&table, nth(1), 7));
        enter(&table, nth(1), 8);
        assert_eq!(table.sessions_of(nth(1)), []);
        table.admit(nth(1), 7, true);
        table.admit(nth(1), 7, true);
        table.admit(nth(1), 8, true);
        assert_eq!(table.sessions_of(nth(1)), [(7, 2), (8, 1)]);
        table.leave_session(nth(1), 7, true);
        assert_eq!(table.sessions_of(nth(1)), [(7, 2), (8, 1)], "it was not in");
        table.leave_session(nth(1), 7, false);
        table.leave_session(nth(1), 8, false);
        assert_eq!(table.sessions_of(nth(1)), [(7, 1)]);
        table.leave_session(nth(1), 7, false);
        assert_eq!((table.sessions_of(nth(1)), table.len()), (vec![], 0));
    }

    #[test]
    fn only_what_others_do_not_know_is_a_change() {
        let table = Table::new(true);
        for n in 1..=4 {
            enter(&table, nth(n), 7);
        }
        assert!(table.is_told() && changed(&table) == Some(vec![]));
        table.admit(nth(1), 7, true);
        table.admit(nth(2), 7, false);
        table.leave_session(nth(3), 7, true);
        table.admit(nth(4), 7, true);
        table.leave_session(nth(4), 7, false);
        assert!(!table.is_told());
        assert_eq!(changed(&table), Some(vec![nth(2), nth(4)]));
        assert!(table.is_told() && changed(&table) == Some(vec![]), "once");
    }

    #[test]
    fn changes_are_taken_in_pieces_and_each_address_once() {
        let table = Table::new(true);
        for round in 0..3 {
            for n in 0..1000 {
                enter(&table, nth(n), round);
                table.admit(nth(n), round, false);
            }
        }
        let mut all = Vec::new();
        for turn in 0.. {
            let mut piece = Vec::new();
            assert!(table.take_changed(turn, 64, &mut piece));
            assert!(piece.len() == 64 || table.is_told());
            all.extend(piece);
            if table.is_told() {
                break;
            }
        }
        all.sort_unstable();
        assert_eq!(all, (0..1000).map(nth).collect::<Vec<_>>());
    }

    #[test]
    fn more_changes_than_are_remembered_are_known_to_be_more() {
        let table = Table::new(true);
        let come_and_go = |n| {
            enter(&table, nth(n), 7);
            table.admit(nth(n), 7, true);
            table.leave_session(nth(n), 7, false);
        };
        let most = (CHANGED * PARTS) as u32;
        (0..most / 2).for_each(come_and_go);
        assert_eq!(changed(&table).map(|all| all.len()), Some(CHANGED * PARTS / 2));
        (0..most * 2).for_each(come_and_go);
        assert_eq!(changed(&table), None);
        assert_eq!(changed(&table), None, "until all is told anew");
        table.forget_changes();
        assert_eq!(changed(&table), Some(vec![]));
    }

    #[test]
    fn everybody_with_a_session_is_in_one_part() {
        let table = Table::new(true);
        (0..100).for_each(|n| enter(&table, nth(n), 7));
        table.enter(nth(200), |held| held.add_socket(1)).unwrap();
        let mut all: Vec<IpAddr> = (0..PARTS).flat_map(|part| table.addresses_of(part)).collect();
        all.sort_unstable();
        assert_eq!(all, (0..100).map(nth).collect::<Vec<_>>());
    }

    #[test]
    fn who_counts_alone_remembers_nothing() {
        let table = Table::new(false);
        table.enter(nth(1), |held| held.add_session(1, 7, None, false)).unwrap();
        table.leave_session(nth(1), 7, false);
        assert!(!table.is_shared() && table.is_told());
    }
}
