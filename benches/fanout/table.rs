//! One table: relay, floor, ratio, target, verdict.

use anyhow::Result;

use crate::rows::Row;
use crate::server::Kind;
use crate::{machine, redis};

/// Other processes that use more than so many percent of a core make a reading doubtful.
const DISTURBED: f64 = 10.0;

/// What NUMBERS asks of a line.
#[derive(Debug, Clone, Copy)]
pub enum Goal {
    /// Times the floor, at most: must, moonshot.
    AtMostFloor(f64, f64),
    /// Times the floor, at least.
    AtLeastFloor(f64, f64),
    /// As it is, at most; a moonshot is not always named.
    AtMost(f64, Option<f64>),
    /// As it is, at least.
    AtLeast(f64, Option<f64>),
    /// To be seen, without a target.
    Shown,
}

/// One line of the table.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    pub what: &'static str,
    pub unit: &'static str,
    pub goal: Goal,
}

/// One measured value, and what should be read beside it.
#[derive(Debug, Clone)]
pub struct Reading {
    pub value: f64,
    pub note: String,
}

/// All lines so far.
pub struct Table {
    cores: usize,
    runs: usize,
    lines: Vec<(Line, Readings)>,
    faults: Vec<String>,
}

#[derive(Default)]
struct Readings {
    relay: Vec<Reading>,
    floor: Vec<Reading>,
}

impl Table {
    pub fn new(cores: usize, runs: usize) -> Table {
        Table { cores, runs, lines: Vec::new(), faults: Vec::new() }
    }

    pub fn begin(&mut self, row: &Row) {
        self.lines.extend(row.lines.iter().map(|line| (*line, Readings::default())));
    }

    /// What one run of the row that was begun last brought, while `others` used so many percent of a core.
    pub fn add(&mut self, row: &Row, kind: Kind, run: Result<Vec<Reading>>, others: f64) {
        let readings = match run {
            Ok(readings) => readings,
            Err(error) => {
                eprintln!("{} {kind:?}: FAILED: {error:#}", row.name);
                self.faults.push(format!("{} ({kind:?}): {error:#}", row.name));
                return;
            }
        };
        let first = self.lines.len() - row.lines.len();
        for ((line, all), mut reading) in self.lines[first..].iter_mut().zip(readings) {
            if others > DISTURBED {
                reading.note += &format!(", DISTURBED: others used {others:.0} % of a core");
            }
            eprintln!("{} {kind:?}: {} {} {} ({})", row.name, line.what, show(reading.value), line.unit, reading.note);
            if kind == Kind::Floor { all.floor.push(reading) } else { all.relay.push(reading) }
        }
    }

    /// Whether a row lost, doubled or reordered something, or could not run.
    pub fn failed(&self) -> bool {
        !self.faults.is_empty()
    }

    pub fn print(&self) {
        println!("{}", self.heading());
        println!();
        println!("| what | unit | relay | floor | ratio | must | moonshot | verdict | beside it |");
        println!("|---|---|--:|--:|--:|--:|--:|---|---|");
        for (line, readings) in &self.lines {
            println!("{}", readings.row(line));
        }
        for fault in &self.faults {
            println!("\nFAILED {fault}");
        }
    }

    fn heading(&self) -> String {
        format!(
            "{}; medians of {} run(s); 200-byte JSON payloads; the \
             relay's default format (envelope) unless it says raw; the floor writes the bare payload; {} beside the \
             load generator, with nothing on disk except where it is killed (appendfsync no).",
            machine::description(self.cores),
            self.runs,
            redis::version(),
        )
    }
}

impl Readings {
    fn row(&self, line: &Line) -> String {
        let (relay, floor) = (median(&self.relay), median(&self.floor));
        let ratio = self.ratio();
        let (must, moonshot) = line.goal.shown();
        let verdict = line.goal.verdict(relay.as_ref().map(|reading| reading.value), ratio);
        let value =
            |reading: &Option<Reading>| reading.as_ref().map_or("–".to_owned(), |reading| show(reading.value));
        let note = |reading: &Option<Reading>| reading.as_ref().map_or(String::new(), |reading| reading.note.clone());
        let mut notes = note(&relay);
        if !note(&floor).is_empty() {
            notes = format!("{notes} (floor: {})", note(&floor));
        }
        format!(
            "| {} | {} | {} | {} | {} | {must} | {moonshot} | {verdict} | {notes} |",
            line.what,
            line.unit,
            value(&relay),
            value(&floor),
            ratio.map_or("–".to_owned(), |ratio| format!("{ratio:.2}")),
        )
    }

    /// The median of the ratios of single runs: only what was measured together is compared.
    fn ratio(&self) -> Option<f64> {
        let pairs = self.relay.iter().zip(&self.floor).filter(|(_, floor)| floor.value > 0.0);
        let ratios = pairs.map(|(relay, floor)| Reading { value: relay.value / floor.value, note: String::new() });
        median(&ratios.collect::<Vec<_>>()).map(|reading| reading.value)
    }
}

impl Goal {
    fn shown(self) -> (String, String) {
        let (sign, times, must, moonshot) = match self {
            Goal::AtMostFloor(must, moonshot) => ("≤", " ×", must, Some(moonshot)),
            Goal::AtLeastFloor(must, moonshot) => ("≥", " ×", must, Some(moonshot)),
            Goal::AtMost(must, moonshot) => ("≤", "", must, moonshot),
            Goal::AtLeast(must, moonshot) => ("≥", "", must, moonshot),
            Goal::Shown => return (String::new(), String::new()),
        };
        let text = |value: f64| format!("{sign} {value}{times}");
        (text(must), moonshot.map(text).unwrap_or_default())
    }

    fn verdict(self, value: Option<f64>, ratio: Option<f64>) -> &'static str {
        let (measured, must, moonshot, most) = match self {
            Goal::AtMostFloor(must, moonshot) => (ratio, must, Some(moonshot), true),
            Goal::AtLeastFloor(must, moonshot) => (ratio, must, Some(moonshot), false),
            Goal::AtMost(must, moonshot) => (value, must, moonshot, true),
            Goal::AtLeast(must, moonshot) => (value, must, moonshot, false),
            Goal::Shown => return "",
        };
        let Some(measured) = measured else { return "not measured" };
        let holds = |bound: f64| if most { measured <= bound } else { measured >= bound };
        match (holds(must), moonshot.is_some_and(holds)) {
            (_, true) => "moonshot",
            (true, _) => "holds",
            (false, _) => "MISSED",
        }
    }
}

/// The middle one; of two, the smaller.
fn median(readings: &[Reading]) -> Option<Reading> {
    let mut sorted: Vec<&Reading> = readings.iter().collect();
    sorted.sort_by(|one, other| one.value.total_cmp(&other.value));
    sorted.get(readings.len().checked_sub(1)? / 2).map(|reading| (*reading).clone())
}

/// Three digits that matter.
fn show(value: f64) -> String {
    match value.abs() {
        large if large >= 1e3 => {
            let digits = format!("{value:.0}");
            let groups: Vec<&str> =
                digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
            groups.join(",")
        }
        middle if middle >= 100.0 => format!("{value:.0}"),
        small if small >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
