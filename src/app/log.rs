//! The log: one line for each thing that matters, on stderr; JSON when asked (`RELAY_LOG_FORMAT=json`) or under journald.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Starts it. `RELAY_LOG` filters, as in `RELAY_LOG=relay=debug`; the default is `info`.
pub fn start() {
    let filter = EnvFilter::try_from_env("RELAY_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let json = match std::env::var("RELAY_LOG_FORMAT") {
        Ok(format) => format == "json",
        Err(_) => std::env::var_os("JOURNAL_STREAM").is_some(),
    };
    // A second relay in one process (tests) keeps the first one's log.
    let _ = if json { log.json().try_init() } else { log.with_ansi(std::io::stderr().is_terminal()).try_init() };
}
