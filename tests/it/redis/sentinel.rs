//! A master and its replica, watched by Sentinels; and the failover that loses the last writes.

use super::{Redis, Reply, Setup};
use crate::harness::until;

/// What the master is called.
pub const NAME: &str = "relay-test";
/// The replica gets in as this user; taken away, it falls behind, and no kernel buffer holds what it lacks.
const REPLICA: (&str, &str) = ("the-replica", "follows");

pub struct Sentinel {
    servers: [Redis; 2],
    sentinels: Vec<Redis>,
}

impl Sentinel {
    /// With one Sentinel, which decides alone.
    #[track_caller]
    pub fn start() -> Sentinel {
        Sentinel::with(&Setup::new(), 1)
    }

    /// With so many Sentinels; more than half of them must agree.
    #[track_caller]
    pub fn with(setup: &Setup, sentinels: usize) -> Sentinel {
        let setup = setup
            .clone()
            .user(REPLICA.0, REPLICA.1, "+psync +replconf +ping")
            .line(format!("masteruser {}\nmasterauth {}", REPLICA.0, REPLICA.1));
        let master = setup.clone().start();
        let replica = setup.line(format!("replicaof 127.0.0.1 {}", master.port())).start();
        wait_in_step(&master, &replica);
        let quorum = sentinels / 2 + 1;
        let watch = Setup::new()
            .sentinel()
            .line(format!("sentinel monitor {NAME} 127.0.0.1 {} {quorum}", master.port()))
            .line(format!("sentinel down-after-milliseconds {NAME} 1000"))
            .line(format!("sentinel failover-timeout {NAME} 2000"));
        let sentinels = (0..sentinels).map(|_| watch.clone().start()).collect();
        let all = Sentinel { servers: [master, replica], sentinels };
        all.wait_watching();
        all
    }

    pub fn url(&self) -> String {
        let addresses: Vec<String> = self.sentinels.iter().map(|one| one.address().to_string()).collect();
        format!("redis+sentinel://{}/{NAME}", addresses.join(","))
    }

    /// Who is the master now, says the first Sentinel that runs.
    #[track_caller]
    pub fn master(&self) -> &Redis {
        let address = self.ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME]);
        let port = address.list()[1].text();
        let master = self.servers.iter().find(|server| server.port().to_string() == port);
        master.unwrap_or_else(|| panic!("nobody has port {port}"))
    }

    /// The other one.
    #[track_caller]
    pub fn replica(&self) -> &Redis {
        self.other_than(self.master())
    }

    pub fn sentinel(&self, index: usize) -> &Redis {
        &self.sentinels[index]
    }

    /// An ordered failover while both run; who was the master follows at once.
    #[track_caller]
    pub fn fail_over(&self) {
        let old = self.promote_replica();
        self.follow(old);
    }

    /// An ordered failover as Sentinel does it: who was the master goes on taking writes, which will be lost, until a
    /// Sentinel has looked at it for some eight seconds. Who that is.
    #[track_caller]
    pub fn promote_replica(&self) -> &Redis {
        let (old, next) = (self.master(), self.replica());
        wait_in_step(old, next);
        self.ask(&["SENTINEL", "FAILOVER", NAME]);
        self.wait_master(next);
        old
    }

    /// Makes this server the replica of the master.
    #[track_caller]
    pub fn follow(&self, server: &Redis) {
        server.call(&["REPLICAOF", "127.0.0.1", &self.master().port().to_string()]);
        wait_in_step(self.master(), server);
        self.wait_watching();
    }

    /// From now on what is written to the master does not reach the replica.
    #[track_caller]
    pub fn lag_replica(&self) {
        let (master, replica) = (self.master(), self.replica());
        master.call(&["ACL", "SETUSER", REPLICA.0, "off"]);
        master.call(&["CLIENT", "KILL", "TYPE", "replica"]);
        let is_cut = || replica.info("replication").get("master_link_status").is_some_and(|status| status == "down");
        until(is_cut, || "the replica keeps its link".into());
    }

    /// Lets it follow again.
    #[track_caller]
    pub fn catch_up(&self) {
        self.master().call(&["ACL", "SETUSER", REPLICA.0, "on"]);
        wait_in_step(self.master(), self.replica());
    }

    /// Lets the replica fall behind, does what writes to the master, and kills the master: the replica is promoted without
    /// these writes. Waits until it takes writes itself. The killed server can come back with [`Self::start_old_again`].
    #[track_caller]
    pub fn fail_over_without<T>(&self, writes: impl FnOnce() -> T) -> T {
        let (old, next) = (self.master(), self.replica());
        wait_in_step(old, next);
        self.lag_replica();
        let written = writes();
        old.kill();
        self.wait_master(next);
        written
    }

    /// The server that was killed comes back as the replica of the other; what only it had is gone.
    #[track_caller]
    pub fn start_old_again(&self) {
        let master = self.master();
        let old = self.other_than(master);
        old.start_again_with(&["--replicaof", "127.0.0.1", &master.port().to_string()]);
        wait_in_step(master, old);
        // Else the next failover finds nobody: the Sentinels see that it is back in their own time.
        self.wait_watching();
    }

    fn other_than(&self, server: &Redis) -> &Redis {
        let other = self.servers.iter().find(|other| other.port() != server.port());
        other.expect("there are two")
    }

    /// Waits until the Sentinels say so and it takes writes.
    fn wait_master(&self, next: &Redis) {
        until(
            || self.master().port() == next.port() && next.call(&["ROLE"]).list()[0].text() == "master",
            || format!("{} is not promoted:\n{}", next.address(), self.logs()),
        );
    }

    /// Waits until each Sentinel knows the replica and the other Sentinels, and sees that they are well.
    #[track_caller]
    fn wait_watching(&self) {
        let watches = |sentinel: &Redis| {
            let replicas = sentinel.call(&["SENTINEL", "REPLICAS", NAME]);
            let well = |replica: &&Reply| {
                let field = |name| field_of(replica, name);
                field("flags") == "slave" && field("master-link-status") == "ok"
            };
            let quorum = sentinel.talk().call(&["SENTINEL", "CKQUORUM", NAME]);
            let master = sentinel.call(&["SENTINEL", "MASTER", NAME]);
            let others = (self.sentinels.len() - 1).to_string();
            replicas.list().iter().filter(well).count() == 1
                && matches!(quorum, Reply::Bytes(_))
                && field_of(&master, "num-other-sentinels") == others
        };
        let all_watch = || self.sentinels.iter().filter(|one| one.is_up()).all(watches);
        until(all_watch, || format!("the Sentinels do not see all:\n{}", self.logs()));
    }

    #[track_caller]
    fn ask(&self, words: &[&str]) -> Reply {
        let sentinel = self.sentinels.iter().find(|one| one.is_up()).expect("a Sentinel that runs");
        sentinel.call(words)
    }

    fn logs(&self) -> String {
        self.sentinels.iter().map(Redis::log).collect::<Vec<_>>().join("\n")
    }
}

/// Waits until a replica has all that its master has written so far.
#[track_caller]
fn wait_in_step(master: &Redis, replica: &Redis) {
    let offset = |server: &Redis, field| server.info("replication").get(field).and_then(|at| at.parse::<u64>().ok());
    let written = offset(master, "master_repl_offset");
    let is_up = || replica.info("replication").get("master_link_status").is_some_and(|status| status == "up");
    let in_step = || is_up() && offset(replica, "slave_repl_offset") >= written;
    until(in_step, || format!("it does not follow:\n{}", replica.log()));
}

/// A field of a flat list of names and values.
fn field_of(list: &Reply, name: &str) -> String {
    let pairs = list.list().chunks_exact(2);
    pairs.filter(|pair| pair[0].text() == name).map(|pair| pair[1].text()).next().unwrap_or_default()
}
