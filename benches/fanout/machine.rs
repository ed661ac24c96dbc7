//! The machine: what it is, and whether somebody else was using it while we measured.

use std::fs;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

/// The kernel's unit of CPU time in `/proc`, on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time at one moment: everybody's, and that of this process and the servers it has ended.
pub struct Moment {
    at: Instant,
    all_ticks: i64,
    own_ticks: i64,
}

impl Moment {
    pub fn now() -> Result<Moment> {
        let stat = fs::read_to_string("/proc/stat")?;
        let of_all = numbers(stat.lines().next().context("/proc/stat")?);
        // user, nice, system, and what the hypervisor gave to others; not idle, iowait, irq, softirq.
        let all_ticks = [0, 1, 2, 7].iter().filter_map(|&field| of_all.get(field)).sum();
        let own = fs::read_to_string("/proc/self/stat")?;
        let after_name = own.rsplit_once(')').context("/proc/self/stat")?.1;
        // utime, stime and those of children that were waited for.
        let own_ticks = numbers(after_name).iter().skip(10).take(4).sum();
        Ok(Moment { at: Instant::now(), all_ticks, own_ticks })
    }

    /// How much of one core others used since then, in percent.
    pub fn others(&self) -> Result<f64> {
        let now = Moment::now()?;
        let all = now.all_ticks - self.all_ticks;
        let others = (all - (now.own_ticks - self.own_ticks)).max(0);
        Ok(others as f64 * 100.0 / TICKS_PER_SECOND / now.at.duration_since(self.at).as_secs_f64())
    }
}

fn numbers(line: &str) -> Vec<i64> {
    line.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// The load generator, and with it this whole process, goes to the last core; `server` pins its own to the first.
pub fn pin_self(cores: usize) -> Result<()> {
    let pid = std::process::id().to_string();
    let core = (cores - 1).to_string();
    let pinned = Command::new("taskset").args(["-cp", &core, &pid]).output().context("taskset (util-linux)")?;
    ensure!(pinned.status.success(), "taskset: {}", String::from_utf8_lossy(&pinned.stderr));
    Ok(())
}

/// Date and machine, for the table's head.
pub fn description(cores: usize) -> String {
    let date = Command::new("date").args(["-u", "+%F %H:%M UTC"]).output();
    let date = date.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown processor");
    let model = model.trim_start_matches([' ', '\t', ':']);
    let pinned = match cores {
        1 => "ONE CORE ONLY, shared by server and load generator: these numbers mean little",
        _ => "server on core 0, load generator on another",
    };
    format!("{date}, {cores} cores ({model}), Linux {}, loopback, {pinned}", kernel.trim())
}
