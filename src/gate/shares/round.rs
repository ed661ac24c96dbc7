//! One round of telling and asking: what goes into the script, and what its answers mean. It does no I/O.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use redis::Cmd;
use tokio::sync::oneshot;

use crate::gate::limits::{Limits, Refusal, SessionPermit};

/// Names of endpoints, by their numbers in this instance.
pub(super) type Names = HashMap<u32, Arc<str>>;

/// A session that has its place here, and asks for one among all.
pub(super) struct Ask {
    pub permit: SessionPermit,
    /// How many its endpoint allows.
    pub own: Option<u32>,
    pub reply: oneshot::Sender<Result<SessionPermit, Refusal>>,
}

/// Addresses whose numbers are told, and who asks.
#[derive(Default)]
pub(super) struct Round {
    entries: Vec<Entry>,
    places: HashMap<IpAddr, usize>,
}

struct Entry {
    ip: IpAddr,
    /// Sessions that are in, by endpoint.
    inside: Vec<(Arc<str>, u32)>,
    asks: Vec<Ask>,
}

impl Ask {
    /// It is in; if the other instances do not know, they are told later.
    pub fn admit(mut self, told: bool) {
        self.permit.admit(told);
        let _ = self.reply.send(Ok(self.permit)); // if nobody waits any more, its slot is given back here
    }

    fn refuse(self, refusal: Refusal) {
        drop(self.permit); // before anybody hears of it, who may come again at once
        let _ = self.reply.send(Err(refusal)); // nobody waits any more
    }
}

impl Round {
    /// Somebody asks.
    pub fn ask(&mut self, ask: Ask) {
        match ask.permit.asking() {
            Some((ip, _)) => self.entry(ip).asks.push(ask),
            None => ask.admit(false), // it counts under no address
        }
    }

    /// The number of this address is told.
    pub fn tell(&mut self, ip: IpAddr) {
        self.entry(ip);
    }

    /// How many addresses it is about.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many ask.
    pub fn asks(&self) -> usize {
        self.entries.iter().map(|entry| entry.asks.len()).sum()
    }

    /// The addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.entries.iter().map(|entry| entry.ip)
    }

    /// Looks how many are in now.
    pub fn look(&mut self, limits: &Limits, names: &Names) {
        for entry in &mut self.entries {
            let sessions = limits.held.sessions_of(entry.ip).into_iter();
            entry.inside = sessions.map(|(endpoint, sessions)| (name(names, endpoint), sessions)).collect();
        }
    }

    /// The script's arguments about addresses.
    pub fn write(&self, names: &Names, command: &mut Cmd) {
        for entry in &self.entries {
            command.arg(entry.inside.len());
            for (endpoint, sessions) in &entry.inside {
                command.arg(&**endpoint).arg(*sessions);
            }
            command.arg(entry.asks.len());
            for ask in &entry.asks {
                let endpoint = ask.permit.asking().map(|(_, endpoint)| endpoint).unwrap_or_default();
                command.arg(&*name(names, endpoint)).arg(ask.own.map(|own| own.to_string()).unwrap_or_default());
            }
        }
    }

    /// Tells those who asked, each its own.
    pub fn answer(self, answers: &[i64]) {
        for (ask, answer) in self.into_asks().zip(answers) {
            match answer {
                0 => ask.admit(true),
                1 => ask.refuse(Refusal::ConnectionsPerIp),
                _ => ask.refuse(Refusal::EndpointConnectionsPerIp),
            }
        }
    }

    /// Nobody can be asked: who is within the local limits is in.
    pub fn admit_all(self) {
        self.into_asks().for_each(|ask| ask.admit(false));
    }

    fn into_asks(self) -> impl Iterator<Item = Ask> {
        self.entries.into_iter().flat_map(|entry| entry.asks)
    }

    fn entry(&mut self, ip: IpAddr) -> &mut Entry {
        let place = *self.places.entry(ip).or_insert_with(|| {
            self.entries.push(Entry { ip, inside: Vec::new(), asks: Vec::new() });
            self.entries.len() - 1
        });
        &mut self.entries[place]
    }
}

/// One that a changed file removed has no name any more: its sessions, which are leaving, count under their address.
fn name(names: &Names, endpoint: u32) -> Arc<str> {
    names.get(&endpoint).cloned().unwrap_or_else(|| Arc::from(""))
}
