//! `relay check`: all mistakes, or one line that says what the file contains.

use std::path::Path;
use std::process::ExitCode;

use relay::config::Config;

/// Mistakes are the error; a file without one is told in a line.
pub fn check(file: Option<&Path>) -> anyhow::Result<ExitCode> {
    let loaded = super::load(file)?;
    let name = file.map_or("the built-in quickstart".to_string(), |path| path.display().to_string());
    println!("{name}: {}", contents(&loaded.config));
    Ok(ExitCode::SUCCESS)
}

fn contents(config: &Config) -> String {
    let counted = |count: usize, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
    format!(
        "fine, {}, {}, {}",
        counted(config.webhooks.len(), "webhook"),
        counted(config.streams.len(), "stream"),
        counted(config.endpoints.len(), "endpoint")
    )
}
