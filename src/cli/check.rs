//! `relay check`: all mistakes, or one line that says what the file contains.

use std::path::Path;
use std::process::ExitCode;

use relay::config::Config;

/// The stream that takes what no other does, in the file or not.
const BUILT_IN: &str = "events";

/// Mistakes are the error; a file without one is told in a line.
pub fn check(file: Option<&Path>) -> anyhow::Result<ExitCode> {
    let loaded = super::load(file)?;
    let name = file.map_or("the built-in quickstart".to_string(), |path| path.display().to_string());
    super::say(&format!("{name}: {}", contents(&loaded.config)))
}

fn contents(config: &Config) -> String {
    let counted = |count: usize, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
    let built_in = !config.streams.iter().any(|stream| &*stream.name == BUILT_IN);
    let streams = config.streams.len() + usize::from(built_in);
    // Most files have none, and then there is nothing to say about them.
    let redis = match config.redis_sources.len() {
        0 => String::new(),
        some => format!(", {}", counted(some, "Redis source")),
    };
    format!(
        "fine, {}{redis}, {}, {}",
        counted(config.webhooks.len(), "webhook"),
        counted(streams, "stream"),
        counted(config.endpoints.len(), "endpoint")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_contains() {
        let check = |file: &str, expected: &str| {
            assert_eq!(contents(&relay::config::load(file, "test").unwrap().config), expected);
        };
        check("", "fine, 0 webhooks, 1 stream, 0 endpoints");
        let file = "[[endpoint]]\npath = \"/a\"\ntopics = [\"a\"]\n[[stream]]\nname = \"b\"\ntopics = [\"b\"]\n";
        check(file, "fine, 0 webhooks, 2 streams, 1 endpoint");
        check("[[source.redis]]\nchannels = \"a\"", "fine, 0 webhooks, 1 Redis source, 1 stream, 0 endpoints");
    }
}
