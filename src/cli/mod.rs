//! What can be said on the command line, and what each of it does.

mod check;
mod publish;
mod server;
mod subscribe;

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use relay::config::{self, Loaded, Mistakes};

/// A configuration that cannot be used (`EX_USAGE`), so that a supervisor need not try again.
const BAD_CONFIGURATION: u8 = 64;

/// What is read when nothing else is said.
const DEFAULT_FILE: &str = "relay.toml";

const TRY_IT: &str = "\
Try it, in three terminals:
  relay                                    run ./relay.toml, or without one the built-in quickstart
  relay sub '**'                           listen to everything
  relay pub greetings '{\"hello\":\"world\"}'  and an event travels

Then:
  relay check my.toml                      all mistakes of a file, each with its place (exit 64)
  relay schema > relay.schema.json         for an editor that completes and explains the keys";

/// Webhooks in; WebSocket, SSE, ndjson and polls out, with exact resume.
#[derive(Debug, Parser)]
#[command(version, about, after_help = TRY_IT)]
pub struct Arguments {
    /// The configuration; without it ./relay.toml, and if there is none the built-in quickstart.
    #[arg(short, long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print all mistakes of a configuration with their place.
    Check {
        /// Instead of -c.
        file: Option<PathBuf>,
    },
    /// Print a JSON Schema of the configuration, for editors.
    Schema,
    /// Publish an event over the first webhook whose topic is `{path.topic}`, and print its id.
    Pub {
        /// The event's topic.
        topic: String,
        /// The payload; without it, standard input to its end.
        data: Option<String>,
        #[command(flatten)]
        target: Target,
    },
    /// Print events as they come, one envelope per line, from the first endpoint that allows the pattern.
    Sub {
        /// A topic, or a pattern: `alerts/*`, `alerts/**`.
        pattern: String,
        #[command(flatten)]
        target: Target,
    },
}

/// What replaces what the file says about a running relay.
#[derive(Debug, Args)]
struct Target {
    /// Where the relay is: `http://host:8080` or `unix:/path`. With a path, that webhook (the topic is appended) or that
    /// endpoint is used, and no file is read.
    #[arg(long)]
    url: Option<String>,
    /// The secret, instead of the file's.
    #[arg(long)]
    token: Option<String>,
}

/// Does what was asked.
pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let config = arguments.config;
    match arguments.command {
        None => {
            let file = chosen(config);
            if file.is_none() {
                eprintln!("relay: no -c and no ./{DEFAULT_FILE} here: this is the built-in quickstart");
            }
            relay::app::run(file)
        }
        Some(Command::Check { file }) => check::check(chosen(file.or(config)).as_deref()),
        Some(Command::Schema) => say(&format!("{:#}", config::schema())),
        Some(Command::Pub { topic, data, target }) => publish::publish(config, &topic, data, &target),
        Some(Command::Sub { pattern, target }) => subscribe::subscribe(config, &pattern, &target),
    }
}

/// Says why it ended, and with which code.
pub fn failed(error: &anyhow::Error) -> ExitCode {
    if let Some(mistakes) = error.downcast_ref::<Mistakes>() {
        eprintln!("{mistakes}");
        return ExitCode::from(BAD_CONFIGURATION);
    }
    eprintln!("relay: {error:#}");
    ExitCode::FAILURE
}

/// Prints a result. Whoever stopped reading (`| head`) has had enough, which is no failure.
fn say(text: &str) -> anyhow::Result<ExitCode> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("standard output"),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// The file that counts; none is the built-in quickstart.
fn chosen(config: Option<PathBuf>) -> Option<PathBuf> {
    config.or_else(|| Some(PathBuf::from(DEFAULT_FILE)).filter(|file| file.exists()))
}

/// Reads the file, or the built-in quickstart.
fn load(file: Option<&Path>) -> Result<Loaded, Mistakes> {
    match file {
        Some(path) => config::read_file(path),
        None => config::load(config::EMBEDDED, "the built-in quickstart"),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_file_may_be_named_before_and_after_the_command() {
        let file = |line: &str| {
            let arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
            match arguments.command {
                Some(Command::Check { file }) => file.or(arguments.config),
                _ => arguments.config,
            }
        };
        for line in ["relay -c a.toml", "relay -c a.toml check", "relay check a.toml", "relay sub x --config a.toml"] {
            assert_eq!(file(line), Some(PathBuf::from("a.toml")), "{line}");
        }
        assert_eq!(file("relay check"), None);
    }

    #[test]
    fn mistakes_are_64_and_all_else_is_1() {
        let mistakes = config::load("nonsense", "test").unwrap_err();
        assert_eq!(failed(&mistakes.into()), ExitCode::from(64));
        let with_context = anyhow::Error::from(config::load("nonsense", "test").unwrap_err()).context("reading");
        assert_eq!(failed(&with_context), ExitCode::from(64));
        assert_eq!(failed(&anyhow::anyhow!("no socket")), ExitCode::from(1));
    }
}
