//! What is counted of sources that are read, not called: the Redis channels and streams of the file.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use super::exposition::{Exposition, Kind};
use super::{Metrics, locked};

/// Why something heard became no event; a closed list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// Its topic could not be filled.
    Unfilled,
    /// Larger than a source may be.
    TooLarge,
}

/// One source's counters; they live as long as it does.
#[derive(Debug, Default)]
pub struct SourceCounters {
    up: AtomicBool,
    lease: AtomicBool,
    messages: AtomicU64,
    dropped: [AtomicU64; Dropped::ALL.len()],
    gaps: AtomicU64,
    reconnects: AtomicU64,
}

/// By label.
pub(super) type Sources = BTreeMap<String, Weak<SourceCounters>>;

impl Dropped {
    /// All of them.
    pub const ALL: [Dropped; 2] = [Dropped::Unfilled, Dropped::TooLarge];

    /// The metric's label.
    pub fn label(self) -> &'static str {
        match self {
            Dropped::Unfilled => "unfilled",
            Dropped::TooLarge => "too_large",
        }
    }
}

impl SourceCounters {
    /// It can be heard, or cannot.
    pub fn up(&self, up: bool) {
        self.up.store(up, Relaxed);
    }

    /// This instance appends what it says, or does not.
    pub fn lease(&self, ours: bool) {
        self.lease.store(ours, Relaxed);
    }

    /// So many more were heard.
    pub fn heard(&self, count: u64) {
        self.messages.fetch_add(count, Relaxed);
    }

    /// So many became no event.
    pub fn dropped(&self, why: Dropped, count: u64) {
        self.dropped[why as usize].fetch_add(count, Relaxed);
    }

    /// A gap was told.
    pub fn gap(&self) {
        self.gaps.fetch_add(1, Relaxed);
    }

    /// A connection ended.
    pub fn reconnects(&self) {
        self.reconnects.fetch_add(1, Relaxed);
    }
}

impl Metrics {
    /// The counters of a source, by what the file calls it.
    pub fn source(&self, label: &str) -> Arc<SourceCounters> {
        let mut sources = locked(&self.sources);
        sources.retain(|_, counters| counters.strong_count() > 0);
        sources.get(label).and_then(Weak::upgrade).unwrap_or_else(|| {
            let counters = Arc::default();
            sources.insert(label.to_owned(), Arc::downgrade(&counters));
            counters
        })
    }

    pub(super) fn write_sources(&self, out: &mut Exposition) {
        let sources = locked(&self.sources);
        let alive: Vec<_> =
            sources.iter().filter_map(|(label, counters)| Some((&**label, counters.upgrade()?))).collect();
        let mut family = |name, kind, help, of: fn(&SourceCounters) -> u64| {
            out.labelled(name, kind, help, "source", alive.iter().map(|(label, counters)| (*label, of(counters))));
        };
        family("relay_source_up", Kind::Gauge, "Whether a source can be heard.", |s| s.up.load(Relaxed).into());
        family("relay_source_lease", Kind::Gauge, "Whether this instance appends what a source says.", |s| {
            s.lease.load(Relaxed).into()
        });
        family("relay_source_messages_total", Kind::Counter, "Messages of sources.", |s| s.messages.load(Relaxed));
        family("relay_source_gaps_total", Kind::Counter, "Gaps told of sources.", |s| s.gaps.load(Relaxed));
        family("relay_source_reconnects_total", Kind::Counter, "Connections to sources that ended.", |s| {
            s.reconnects.load(Relaxed)
        });
        out.family("relay_source_dropped_total", Kind::Counter, "Messages of sources that became no event, by why.");
        for (label, counters) in &alive {
            for why in Dropped::ALL {
                let labels = [("source", *label), ("reason", why.label())];
                out.sample("relay_source_dropped_total", &labels, counters.dropped[why as usize].load(Relaxed));
            }
        }
    }
}
