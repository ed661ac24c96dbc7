//! The file that a relay under test reads: the quickstart's features, on free ports, with room for what the rows do.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

use crate::server::{Engine, Setup};
use crate::way::Way;

/// The file, for as long as somebody may want to look at it.
pub struct File(pub PathBuf);

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

pub fn write(setup: &Setup) -> Result<File> {
    static WRITTEN: AtomicU32 = AtomicU32::new(0);
    let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
    let file = std::env::temp_dir().join(format!("relay-fanout-{}-{number}.toml", std::process::id()));
    fs::write(&file, text(setup)?)?;
    Ok(File(file))
}

fn text(setup: &Setup) -> Result<String> {
    let engine = match setup.engine {
        Engine::Memory => "memory",
        Engine::Redis => "redis",
    };
    let (redis, source) = if setup.needs_redis() { redis(setup)? } else { (String::new(), String::new()) };
    Ok(format!(
        r#"
[server]
listen = ["127.0.0.1:0"]

[admin]
listen = ["127.0.0.1:0"]

[limits]
exempt = ["127.0.0.0/8"]
replay = 200_000

[store]
engine = "{engine}"
memory = "256MiB"
{redis}
[[stream]]
name = "bench"
topics = ["**"]
max_events = 200_000

[[source.webhook]]
path = "/publish/{{topic...}}"
topic = "{{path.topic}}"
verify = "none"
{source}
[[endpoint]]
path = "/events"
topics = ["bench"]
allow = ["**"]
ping = "{}"
"#,
        setup.ping
    ))
}

/// Where Redis is, and what is read from it besides the store.
fn redis(setup: &Setup) -> Result<(String, String)> {
    let address = setup.redis.context("a row starts its Redis first")?;
    let reads = match setup.way {
        Way::Publish => r#"channels = ["bench", "bench/*"]"#,
        Way::Xadd => r#"streams = ["bench"]"#,
        Way::Http | Way::Trigger => "",
    };
    let source = match reads {
        "" => String::new(),
        reads => format!("\n[[source.redis]]\n{reads}\ntopic = \"{{channel}}\"\n"),
    };
    Ok((format!("\n[redis]\nurl = \"redis://{address}\"\n"), source))
}
