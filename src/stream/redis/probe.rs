//! Whether the store takes what it is given, asked all the time: nobody sends webhooks to an instance that says it is not
//! ready, so nobody else would find out that it could be. And whose keys these are.

use std::sync::{Arc, Weak};
use std::time::Duration;

use redis::Cmd;

use super::{FORMAT, Store, entry};
use crate::link::Down;
use crate::stream::Streams;

/// How often: a Redis that can be written to again is found so late, and one that cannot.
const EVERY: Duration = Duration::from_secs(1);

/// Asks for as long as there are streams.
pub(in crate::stream) async fn run(store: Arc<Store>, streams: Weak<Streams>) {
    while streams.strong_count() > 0 {
        // What is wrong is said by the link, and by those who read.
        let _ = store.link.probe(&store.format_key(), &store.claim()).await;
        tokio::time::sleep(EVERY).await;
    }
}

impl Store {
    fn format_key(&self) -> Vec<u8> {
        format!("{}:format", self.prefix).into_bytes()
    }

    /// The first to come says how the keys under this prefix are kept. A Redis that takes no writes refuses it, also when
    /// it was said long ago.
    fn claim(&self) -> Cmd {
        redis::cmd("SET").arg(self.format_key()).arg(FORMAT).arg("NX").arg("GET").to_owned()
    }

    /// Another release may keep its keys in another way: then this one keeps out of its prefix. What is there can be read
    /// from a Redis that takes no writes.
    pub(super) async fn check_format(&self) -> Result<(), Down> {
        let key = self.format_key();
        let mut found = entry::bytes(self.link.call(&key, redis::cmd("GET").arg(&key)).await?);
        if found.is_none() {
            found = entry::bytes(self.link.call(&key, &self.claim()).await?);
        }
        match found {
            Some(format) if format != FORMAT.as_bytes() => Err(Down(format!(
                "the prefix `{}` is used by a release with format {}, and this one has format {FORMAT}: \
                 use another `prefix`, or run the same release everywhere",
                self.prefix,
                String::from_utf8_lossy(&format),
            ))),
            _ => Ok(()),
        }
    }
}
