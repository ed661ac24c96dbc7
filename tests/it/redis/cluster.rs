//! A Redis Cluster of three masters, with a replica of each if asked.

use super::{Redis, Reply, Setup};
use crate::harness::until;

const MASTERS: usize = 3;
const SLOTS: usize = 16_384;
/// After this a node that does not answer has failed, if the others agree.
const NODE_TIMEOUT_MS: u32 = 1_500;

pub struct Cluster {
    /// First the masters as they were at the start, then the replica of each, if there are any.
    nodes: Vec<Redis>,
}

impl Cluster {
    /// Three masters.
    #[track_caller]
    pub fn start() -> Cluster {
        Cluster::with(&Setup::new(), false)
    }

    /// Three masters, and a replica of each.
    #[track_caller]
    pub fn with_replicas() -> Cluster {
        Cluster::with(&Setup::new(), true)
    }

    #[track_caller]
    pub fn with(setup: &Setup, replicas: bool) -> Cluster {
        let setup = setup
            .clone()
            .in_cluster()
            .line(format!("cluster-node-timeout {NODE_TIMEOUT_MS}"))
            // However old its data is: a test that fails over wants it to succeed.
            .line("cluster-replica-validity-factor 0");
        let count = if replicas { 2 * MASTERS } else { MASTERS };
        let cluster = Cluster { nodes: (0..count).map(|_| setup.clone().start()).collect() };
        cluster.share_slots();
        cluster.meet();
        cluster.wait_ok();
        (MASTERS..count).for_each(|replica| cluster.replicate(replica, replica - MASTERS));
        cluster
    }

    pub fn url(&self) -> String {
        let addresses: Vec<String> = self.nodes[..MASTERS].iter().map(|node| node.address().to_string()).collect();
        format!("redis+cluster://{}", addresses.join(","))
    }

    pub fn node(&self, index: usize) -> &Redis {
        &self.nodes[index]
    }

    pub fn nodes(&self) -> &[Redis] {
        &self.nodes
    }

    /// The master that has this key now.
    #[track_caller]
    pub fn owner_of(&self, key: &str) -> usize {
        let (slot, mut owner) = (self.slot_of(key), None);
        until(
            || {
                let masters = self.running().filter(|index| self.is_master(*index));
                let mut seen: Vec<i64> = masters.map(|index| self.owner_seen_by(index, slot)).collect();
                seen.dedup();
                let port_of = |index: &usize| i64::from(self.node(*index).port());
                owner = self.running().find(|index| seen == [port_of(index)]);
                owner.is_some()
            },
            || format!("the nodes do not agree who has slot {slot}, or who has it is down"),
        );
        owner.expect("found above")
    }

    #[track_caller]
    pub fn slot_of(&self, key: &str) -> usize {
        self.some_node().call(&["CLUSTER", "KEYSLOT", key]).int() as usize
    }

    /// Migrates the slot of this key, with all that is in it, as an operator would while everything runs.
    #[track_caller]
    pub fn move_slot_of(&self, key: &str, to: usize) {
        let (from, slot) = (self.owner_of(key), self.slot_of(key).to_string());
        assert_ne!(from, to, "it is there already");
        let (source, target) = (self.node(from), self.node(to));
        target.call(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &self.id(from)]);
        source.call(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &self.id(to)]);
        loop {
            let keys = source.call(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"]);
            if keys.list().is_empty() {
                break;
            }
            let port = target.port().to_string();
            let mut words: Vec<&[u8]> =
                ["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"].iter().map(|word| word.as_bytes()).collect();
            words.extend(keys.list().iter().map(Reply::bytes));
            source.call(&words);
        }
        // First who gets it: if all ends here, the slot has an owner.
        let others = self.running().filter(|index| ![from, to].contains(index) && self.is_master(*index));
        for index in [to, from].into_iter().chain(others) {
            self.node(index).call(&["CLUSTER", "SETSLOT", &slot, "NODE", &self.id(to)]);
        }
    }

    /// Lets the replica of this master take its place: in agreement if the master runs, which then follows, else by force.
    /// Which node it is.
    #[track_caller]
    pub fn fail_over(&self, master: usize) -> usize {
        let (replica, runs) = (self.replica_of(master), self.node(master).is_up());
        let how: &[&str] = if runs { &[] } else { &["TAKEOVER"] };
        self.node(replica).call(&[&["CLUSTER", "FAILOVER"], how].concat());
        self.wait_all_see(replica, |line| line.contains("master"));
        if runs {
            self.wait_follows(master, replica);
        }
        self.wait_ok();
        replica
    }

    /// Waits until it does, and everybody knows.
    #[track_caller]
    pub fn wait_follows(&self, replica: usize, master: usize) {
        let id = self.id(master);
        self.wait_all_see(replica, |line| line.contains("slave") && line.contains(&id));
        let in_step = || self.node(replica).info("replication").get("master_link_status").is_some_and(|up| up == "up");
        until(in_step, || format!("node {replica} does not follow {master}:\n{}", self.report()));
    }

    /// Waits until all that run see this node so, by its line in CLUSTER NODES.
    #[track_caller]
    fn wait_all_see(&self, seen: usize, so: impl Fn(&str) -> bool) {
        // Not by its address, which a node may not know of itself.
        let port = format!(":{}@", self.node(seen).port());
        let sees = |index: usize| {
            let nodes = self.node(index).call(&["CLUSTER", "NODES"]).text();
            nodes.lines().any(|line| line.contains(&port) && so(line))
        };
        until(|| self.running().all(sees), || format!("node {seen} is not seen so:\n{}", self.report()));
    }

    /// How the nodes see each other, and what they said.
    fn report(&self) -> String {
        let one = |index: usize| {
            let node = self.node(index);
            let nodes = if node.is_up() { node.call(&["CLUSTER", "NODES"]).text() } else { "down".into() };
            format!("node {index}, {}\n{nodes}{}\n", node.address(), node.log())
        };
        (0..self.nodes.len()).map(one).collect()
    }

    /// Waits until all nodes that run agree that all is well.
    #[track_caller]
    pub fn wait_ok(&self) {
        let is_ok = |index: usize| {
            let info = self.node(index).call(&["CLUSTER", "INFO"]).text();
            let known = format!("cluster_known_nodes:{}\r", self.nodes.len());
            let slots = format!("cluster_slots_ok:{SLOTS}\r");
            ["cluster_state:ok\r", &known, &slots].iter().all(|field| info.contains(field))
        };
        until(|| self.running().all(is_ok), || self.report());
    }

    fn share_slots(&self) {
        for (index, node) in self.nodes.iter().enumerate() {
            // Different from the start, so that no two nodes need to settle a conflict.
            node.call(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]);
            if index < MASTERS {
                let first = SLOTS * index / MASTERS;
                let last = SLOTS * (index + 1) / MASTERS - 1;
                node.call(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
            }
        }
    }

    fn meet(&self) {
        for node in &self.nodes[1..] {
            let (port, bus) = (node.port().to_string(), node.bus_port().to_string());
            self.node(0).call(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
        }
    }

    fn replicate(&self, replica: usize, master: usize) {
        self.node(replica).call(&["CLUSTER", "REPLICATE", &self.id(master)]);
        self.wait_follows(replica, master);
    }

    /// The first one that runs, as the nodes see it.
    #[track_caller]
    fn replica_of(&self, master: usize) -> usize {
        let nodes = self.some_node().call(&["CLUSTER", "NODES"]).text();
        let line_of = |index: usize| {
            let port = format!(":{}@", self.node(index).port());
            nodes.lines().find(|line| line.contains(&port)).expect("all know each other")
        };
        let id = line_of(master).split(' ').next().expect("an id");
        let mut replicas = self.running().filter(|index| line_of(*index).split(' ').nth(3) == Some(id));
        replicas.next().unwrap_or_else(|| panic!("node {master} has no replica:\n{nodes}"))
    }

    fn id(&self, index: usize) -> String {
        self.node(index).call(&["CLUSTER", "MYID"]).text()
    }

    fn is_master(&self, index: usize) -> bool {
        self.node(index).call(&["ROLE"]).list()[0].text() == "master"
    }

    /// The port of who has this slot, as a node sees it; 0 for nobody.
    fn owner_seen_by(&self, index: usize, slot: usize) -> i64 {
        let ranges = self.node(index).call(&["CLUSTER", "SLOTS"]);
        let owner = ranges.list().iter().find_map(|range| {
            let range = range.list();
            let slots = range[0].int() as usize..=range[1].int() as usize;
            slots.contains(&slot).then(|| range[2].list()[1].int())
        });
        owner.unwrap_or(0)
    }

    fn running(&self) -> impl Iterator<Item = usize> {
        (0..self.nodes.len()).filter(|index| self.node(*index).is_up())
    }

    #[track_caller]
    fn some_node(&self) -> &Redis {
        self.node(self.running().next().expect("a node that runs"))
    }
}
