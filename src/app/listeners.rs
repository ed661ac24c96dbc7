//! Listeners: one accepting task for each address, which never waits for a client.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::config::diff::Listening;
use crate::gate::peer::Peer;
use crate::http::listen::{Address, Listener, Passed, bind};
use crate::http::{Site, admin, connection, public};
use crate::metrics::Refused;

/// After the system gave no socket: long enough for some to be given back, short enough for nobody to notice.
const PAUSE: Duration = Duration::from_millis(20);
/// Connections to the admin address; they do not count among the public ones, so that health can be asked when those are
/// used up.
const ADMINS: usize = 256;

/// All that listen.
pub struct Listeners {
    site: Arc<Site>,
    open: Vec<Open>,
}

struct Open {
    address: Address,
    admin: bool,
    shown: String,
    task: JoinHandle<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Listeners {
    /// Nothing listens.
    pub fn new(site: Arc<Site>) -> Listeners {
        Listeners { site, open: Vec::new() }
    }

    /// Binds every address of the file, and serves what systemd passed.
    pub fn bind_all(&mut self, config: &Config, passed: &mut Passed) -> anyhow::Result<()> {
        for (addresses, admin) in [(&config.server.listen, false), (&config.admin.listen, true)] {
            for address in addresses {
                match address {
                    Address::Systemd => {
                        let listeners = passed.take(admin);
                        anyhow::ensure!(
                            !listeners.is_empty(),
                            "`systemd` is listened on, but systemd passed no socket"
                        );
                        listeners.into_iter().for_each(|l| self.start(address.clone(), l, admin));
                    }
                    address => self.start(address.clone(), bind(address)?, admin),
                }
            }
        }
        Ok(())
    }

    /// Binds what a changed file adds, or nothing of it.
    pub fn bind_added(&self, public: &Listening, admin: &Listening) -> anyhow::Result<Vec<(Address, Listener, bool)>> {
        let mut bound = Vec::new();
        for (listening, admin) in [(public, false), (admin, true)] {
            for address in &listening.added {
                bound.push((address.clone(), bind(address)?, admin));
            }
        }
        Ok(bound)
    }

    /// Serves what was bound.
    pub fn start(&mut self, address: Address, listener: Listener, admin: bool) {
        let shown = format!("{}  {listener}", if admin { "admin " } else { "public" });
        tracing::info!(address = %listener, admin, "listening");
        let site = self.site.clone();
        let task = tokio::spawn(async move {
            if admin { accept_admin(listener, site).await } else { accept_public(listener, site).await }
        });
        self.open.push(Open { address, admin, shown, task });
    }

    /// Stops accepting on what a changed file no longer has. Connections that came in by it stay.
    pub fn stop(&mut self, listening: &Listening, admin: bool) {
        self.open.retain(|open| open.admin != admin || !listening.removed.contains(&open.address));
    }

    /// One line for each address, as people read it.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.open.iter().map(|open| open.shown.as_str())
    }

    /// Stops accepting, and takes Unix sockets out of the file system.
    pub fn close(&mut self) {
        for open in self.open.drain(..) {
            if let Address::Unix { path, .. } = &open.address {
                let _ = std::fs::remove_file(path); // gone already: what was wanted
            }
        }
    }
}

async fn accept_public(listener: Listener, site: Arc<Site>) {
    let service = warp::service(public::routes(site.clone()));
    let local = listener.is_local();
    loop {
        let Some((stream, remote)) = next(&listener, &site).await else { continue };
        // A trusted proxy brings many peers: they count, one by one, when their requests are read.
        let peer = (!remote.is_trusted(&site.routes.load().trusted)).then(|| Peer::from(remote));
        match site.limits.accept(peer) {
            Ok(permit) => {
                let visit = connection::visit(remote, local);
                tokio::spawn(connection::serve(stream, visit, Some(permit), site.clone(), service.clone()));
            }
            Err(refusal) => site.metrics.refused(refusal),
        }
    }
}

async fn accept_admin(listener: Listener, site: Arc<Site>) {
    let service = warp::service(admin::routes(site.clone()));
    let (local, slots) = (listener.is_local(), Arc::new(Semaphore::new(ADMINS)));
    loop {
        let Some((stream, remote)) = next(&listener, &site).await else { continue };
        let Ok(slot) = slots.clone().try_acquire_owned() else { continue };
        let serving = connection::serve(stream, connection::visit(remote, local), None, site.clone(), service.clone());
        tokio::spawn(async move {
            serving.await;
            drop(slot);
        });
    }
}

async fn next(listener: &Listener, site: &Site) -> Option<(crate::http::listen::Stream, crate::gate::peer::Remote)> {
    match listener.accept().await {
        Ok(accepted) => Some(accepted),
        Err(error) => {
            site.metrics.refused(Refused::AcceptErrors);
            tracing::warn!(%error, "a connection could not be accepted");
            tokio::time::sleep(PAUSE).await;
            None
        }
    }
}
