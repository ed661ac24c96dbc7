//! What things are called the same on every instance: sources by what they read, messages by where they stand.

use sha1_smol::Sha1;

use super::Reads;
use crate::link::server::{Address, Server, Topology};
use crate::stream::Name;

/// Of messages since a marker.
pub type Count = u32;

/// Part of a name: which Redis process said it. Names of two processes tell nothing about each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run(u32);

/// So that both halves of a name stay below 2^53, the largest integer that every language can count to.
const RUN_BITS: u32 = 20;

impl Run {
    /// By Redis' own name of the process.
    pub fn new(run_id: &str) -> Run {
        let digest = Sha1::from(run_id).digest().bytes();
        Run(u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]) >> (u32::BITS - RUN_BITS))
    }
}

/// Says of a name up to which all is appended: but the gap that ends there may not be told yet.
const OWED: u64 = 1 << (Count::BITS - 1);
/// So many messages may come between two markers.
pub const MOST: Count = (1 << (Count::BITS - 1)) - 1;

/// With the gap that ends there still to be told.
pub fn owing(name: Name) -> Name {
    Name(name.0, name.1 | OWED)
}

/// Whether the gap that ends there is still to be told.
pub fn owes(name: Name) -> bool {
    name.1 & OWED != 0
}

/// The name itself.
pub fn paid(name: Name) -> Name {
    Name(name.0, name.1 & !OWED)
}

/// The message that is the `count`th after a marker.
pub fn named(marker: u64, run: Run, count: Count) -> Name {
    Name(marker, u64::from(run.0) << Count::BITS | u64::from(count))
}

/// Whether a name was given to what this process said.
pub fn same_run(name: Name, run: Run) -> bool {
    name.1 >> Count::BITS == u64::from(run.0)
}

/// Whether one comes after the other. What another process said comes after nothing here, and before nothing.
pub fn is_after(name: Name, other: Name) -> bool {
    of_one_run(name, other) && name > other
}

/// Whether a name lies in what was heard without a hole after `begun`, if that goes on for long enough.
pub fn is_within(name: Name, begun: Name) -> bool {
    of_one_run(name, begun) && name >= begun
}

/// Whether two names were given to what one process said. (The script that keeps them compares them in the same way.)
pub fn of_one_run(a: Name, b: Name) -> bool {
    a.1 >> Count::BITS == b.1 >> Count::BITS
}

/// What a source is known by, everywhere and for ever: what it reads, and from where if that is not the store.
pub fn identity(reads: &Reads, server: Option<&Server>) -> String {
    let (kind, names) = match reads {
        Reads::Channels(names) => ("channels", names),
        Reads::Sharded(names) => ("sharded", names),
        Reads::Streams(names) => ("streams", names),
    };
    let mut hash = Sha1::new();
    let mut add = |text: &str| {
        // With its length, so that no two lists become the same text.
        hash.update(&(text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    };
    add(kind);
    // In any order they are the same subscriptions.
    let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.sort_unstable();
    names.into_iter().for_each(&mut add);
    server.map(place).iter().flatten().for_each(|text| add(text));
    hash.digest().to_string()[..16].to_owned()
}

/// Where a server is; how one gets in may change.
fn place(server: &Server) -> Vec<String> {
    let address = |address: &Address| match address {
        Address::Tcp { host, port } => format!("{host}:{port}"),
        Address::Unix(path) => path.display().to_string(),
    };
    let mut place: Vec<String> = server.addresses.iter().map(address).collect();
    place.sort_unstable();
    place.push(match &server.topology {
        Topology::Single => "single".to_owned(),
        Topology::Cluster => "cluster".to_owned(),
        Topology::Sentinel { name, .. } => format!("sentinel {name}"),
    });
    place.push(server.database.to_string());
    place
}

/// What all keys and channels of relays begin with that share a Redis; with the version of their format.
pub fn ours(prefix: &str) -> String {
    format!("{prefix}:1:")
}

/// The channel of a source's markers, and the key of their number. One that is read from a Cluster's shard lies in the
/// same slot.
pub fn marks(prefix: &str, source: &str, reads: &Reads) -> String {
    match reads {
        Reads::Sharded(names) => {
            let channel = names.first().map_or("", String::as_str);
            let tag = channel.split_once('{').and_then(|(_, rest)| Some(rest.split_once('}')?.0)).unwrap_or(channel);
            format!("{}marks:{source}:{{{tag}}}", ours(prefix))
        }
        Reads::Channels(_) | Reads::Streams(_) => format!("{}marks:{source}", ours(prefix)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channels(names: &[&str]) -> Reads {
        Reads::Channels(names.iter().map(|name| name.to_string()).collect())
    }

    #[test]
    fn a_source_is_what_it_reads_and_from_where() {
        let one = identity(&channels(&["a", "b.*"]), None);
        assert_eq!(one, identity(&channels(&["b.*", "a"]), None), "the order means nothing");
        assert_eq!(one.len(), 16);
        let names = vec!["a".to_owned(), "b.*".to_owned()];
        let server = |url| Server::parse(url).unwrap();
        let others = [
            identity(&channels(&["a"]), None),
            identity(&channels(&["ab.*"]), None),
            identity(&Reads::Streams(names.clone()), None),
            identity(&Reads::Sharded(names.clone()), None),
            identity(&channels(&["a", "b.*"]), Some(&server("redis://one"))),
            identity(&channels(&["a", "b.*"]), Some(&server("redis://one:6380"))),
            identity(&channels(&["a", "b.*"]), Some(&server("redis+cluster://one"))),
            identity(&channels(&["a", "b.*"]), Some(&server("redis://one/2"))),
        ];
        let mut all: Vec<&String> = others.iter().chain([&one]).collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), others.len() + 1, "{all:?}");
        let from = |url| identity(&channels(&["a"]), Some(&server(url)));
        assert_eq!(from("redis://one"), from("rediss://u:p@one"), "how one gets in is no part of it");
        assert_eq!(from("redis+cluster://one,two"), from("redis+cluster://two,one"));
    }

    #[test]
    fn names_rise_with_marker_then_count_and_know_their_process() {
        let (run, other) = (Run::new("a"), Run::new("b"));
        assert_ne!(run, other);
        let row = [named(1, run, 0), named(1, run, 1), named(1, run, MOST), named(2, run, 0)];
        assert!(
            row.is_sorted() && row.iter().all(|name| !owes(*name) && owes(owing(*name)) && paid(owing(*name)) == *name)
        );
        assert!(row.iter().all(|name| same_run(*name, run) && !same_run(*name, other) && name.1 < 1 << 53));
    }

    #[test]
    fn markers_of_a_shard_lie_in_its_slot() {
        let marks = |channel: &str| super::marks("relay", "id", &Reads::Sharded(vec![channel.to_owned()]));
        assert_eq!(marks("orders"), "relay:1:marks:id:{orders}");
        assert_eq!(marks("{eu}.orders"), "relay:1:marks:id:{eu}");
        assert_eq!(marks("a.{eu}"), "relay:1:marks:id:{eu}");
    }
}
