//! Listeners: one accepting task for each address, which never waits for a client.

use std::os::unix::fs::PermissionsExt;
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

/// An address of the file and its socket, on which nobody accepts yet.
pub struct Bound {
    address: Address,
    listener: Listener,
    admin: bool,
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
        if let Address::Unix { path, .. } = &self.address {
            let _ = std::fs::remove_file(path); // gone already: what was wanted
        }
    }
}

impl Listeners {
    /// Nothing listens.
    pub fn new(site: Arc<Site>) -> Listeners {
        Listeners { site, open: Vec::new() }
    }

    /// Serves what was bound.
    pub fn start(&mut self, Bound { address, listener, admin }: Bound) {
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

    /// A Unix socket of which only the mode changed stays bound: it leaves the lists and gets its mode.
    pub fn change_modes(&mut self, listening: &mut Listening) -> std::io::Result<()> {
        let Listening { added, removed } = listening;
        for open in &mut self.open {
            let Address::Unix { path, .. } = &open.address else { continue };
            let same = |a: &Address| matches!(a, Address::Unix { path: p, .. } if p == path);
            let (Some(new), Some(old)) = (added.iter().position(same), removed.iter().position(same)) else { continue };
            if let Address::Unix { path, mode: Some(mode) } = &added[new] {
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(*mode))?;
            }
            removed.remove(old);
            open.address = added.remove(new);
        }
        Ok(())
    }

    /// Stops accepting.
    pub fn close(&mut self) {
        self.open.clear();
    }
}

/// Binds every address of the file; what systemd passed is bound already.
pub fn bind_all(config: &Config, passed: &mut Passed) -> anyhow::Result<Vec<Bound>> {
    let mut bound = Vec::new();
    for (addresses, admin) in [(&config.server.listen, false), (&config.admin.listen, true)] {
        for address in addresses {
            let listeners = match address {
                Address::Systemd => passed.take(admin),
                address => vec![bind(address)?],
            };
            anyhow::ensure!(!listeners.is_empty(), "`systemd` is listened on, but systemd passed no socket");
            bound.extend(listeners.into_iter().map(|listener| Bound { address: address.clone(), listener, admin }));
        }
    }
    Ok(bound)
}

/// Binds what a changed file adds, or nothing of it.
pub fn bind_added(public: &Listening, admin: &Listening) -> anyhow::Result<Vec<Bound>> {
    let added = |listening: &Listening, admin| {
        let bind = |address: &Address| Ok(Bound { address: address.clone(), listener: bind(address)?, admin });
        listening.added.iter().map(bind).collect::<anyhow::Result<Vec<_>>>()
    };
    let mut bound = added(public, false)?;
    bound.extend(added(admin, true)?);
    Ok(bound)
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
