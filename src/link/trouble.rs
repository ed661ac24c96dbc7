//! Why a server cannot be used, as far as anybody knows; said in the log when it begins and when it is over.

use std::time::{Duration, Instant};

use super::{Down, Server};

/// The same is not said again before. One node of a Cluster that is gone comes and goes in what is known of all of them.
const AGAIN: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(super) struct Trouble {
    pub now: Option<Down>,
    /// What was said last, and when.
    said: Option<(Down, Instant)>,
    /// What is now was not said, as it had been just before.
    kept_back: bool,
}

impl Trouble {
    /// Of the server of the link with this name that is known by now.
    pub fn note(&mut self, name: &str, server: &Server, down: Option<&Down>) {
        match (down, &self.now) {
            (Some(down), None) => {
                let again = |(said, at): &(Down, Instant)| said == down && at.elapsed() < AGAIN;
                self.kept_back = self.said.as_ref().is_some_and(again);
                if !self.kept_back {
                    tracing::warn!(link = name, %server, why = %down, "Redis cannot be used");
                    self.said = Some((down.clone(), Instant::now()));
                }
            }
            (None, Some(_)) if !self.kept_back => tracing::info!(link = name, %server, "Redis can be used again"),
            _ => {}
        }
        self.now = down.cloned();
    }
}
