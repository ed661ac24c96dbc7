//! The fan-out bench: the real relay and, beside it in the same run, a floor that does one `write()` of a ready frame
//! per session and event and nothing else. Both are pinned to one core, the load generator to another. Rows named
//! `redis-…` have a redis-server of their own beside the load generator, through which events come, or which keeps them.
//!
//! ```text
//! cargo bench --bench fanout                     every row, medians of three runs
//! cargo bench --bench fanout -- --quick          one short run of every row
//! cargo bench --bench fanout -- ws-cpu idle-ws   only rows whose names contain one of these
//! cargo bench --bench fanout -- redis            only those with a Redis
//! ```
//!
//! `RELAY_BIN` names another binary. Absolute figures mean little; ratios taken in one run do. The exit code is 1 when
//! an event was lost, doubled or out of order; a missed target is only reported.
#![forbid(unsafe_code)]

mod config;
mod floor;
mod frames;
mod load;
mod machine;
mod publish;
mod redis;
mod resp;
mod rows;
mod scene;
mod server;
mod subscribe;
mod table;
mod way;

use std::process::ExitCode;

use anyhow::Result;

use machine::Moment;
use rows::{Row, Scale};
use server::Kind;
use table::Table;

/// The first argument of the process that plays the floor.
const SERVE_FLOOR: &str = "--serve-floor";

struct Arguments {
    quick: bool,
    /// Floor only: to work on the bench itself.
    floor_only: bool,
    filters: Vec<String>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.first().map(String::as_str) {
        Some(SERVE_FLOOR) => floor::serve(&arguments[1..]).map(|()| true),
        _ => compare(&Arguments::read(&arguments)),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("fanout: {error:#}");
            ExitCode::FAILURE
        }
    }
}

impl Arguments {
    fn read(arguments: &[String]) -> Arguments {
        let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
        let filters = arguments.iter().filter(|argument| !argument.starts_with("--")).cloned().collect();
        Arguments { quick: has("--quick"), floor_only: has("--floor-only"), filters }
    }

    fn wants(&self, row: &Row) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| row.name.contains(filter.as_str()))
    }
}

/// Runs the rows that are wanted; false when one of them failed.
fn compare(arguments: &Arguments) -> Result<bool> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    machine::pin_self(cores)?;
    server::forget_log()?;
    let scale = if arguments.quick { Scale::QUICK } else { Scale::FULL };
    let mut table = Table::new(cores, scale.runs);
    for row in rows::ALL.iter().filter(|row| arguments.wants(row)) {
        table.begin(row);
        for _ in 0..scale.runs {
            // Floor and relay take turns, so that a machine that grows slower does so for both.
            let kinds = [(Kind::Floor, row.floor), (Kind::Relay, !arguments.floor_only)];
            for (kind, _) in kinds.into_iter().filter(|(_, wanted)| *wanted) {
                let before = Moment::now()?;
                let readings = (row.run)(scale, kind);
                table.add(row, kind, readings, before.others()?);
            }
        }
    }
    table.print();
    Ok(!table.failed())
}
