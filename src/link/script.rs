//! Lua scripts: sent whole once to each process, by their hash from then on.

use std::sync::OnceLock;

use redis::{Cmd, ErrorKind, RedisResult, ServerErrorKind, Value};

use super::{Fill, Wire};

/// A script, and its hash once somebody asked for it.
pub struct Script {
    text: &'static str,
    hash: OnceLock<String>,
}

impl Script {
    /// Of this text.
    pub const fn new(text: &'static str) -> Script {
        Script { text, hash: OnceLock::new() }
    }

    /// Runs it on one connection. `asking`: for keys that are on their way to this node.
    pub async fn run(&self, wire: &mut Wire, keys: &[Vec<u8>], fill: Fill<'_>, asking: bool) -> RedisResult<Value> {
        let hash = self.hash.get_or_init(|| sha1_smol::Sha1::from(self.text).digest().to_string());
        let by_hash = self.command("EVALSHA", hash, keys, wire, fill);
        match wire.send(&by_hash, asking).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                let whole = self.command("EVAL", self.text, keys, wire, fill);
                wire.send(&whole, asking).await
            }
            other => other,
        }
    }

    fn command(&self, name: &str, script: &str, keys: &[Vec<u8>], wire: &Wire, fill: Fill<'_>) -> Cmd {
        let mut command = redis::cmd(name);
        command.arg(script).arg(keys.len());
        for key in keys {
            command.arg(&key[..]);
        }
        fill(wire, &mut command);
        command
    }
}
