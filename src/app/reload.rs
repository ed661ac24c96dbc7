//! A running instance and how it follows its file: parse all, diff purely, then act; or refuse whole.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;

use super::listeners::{self, Bound, Listeners};
use super::watch::Change;
use super::{fit, settings};
use crate::config::diff::{Changes, diff};
use crate::config::{Config, Loaded, Mistakes};
use crate::http::{Routes, Site};
use crate::session::endpoint::{Endpoint, Settings};
use crate::source::verify::Verify;
use crate::template::{Scope, Text};
use crate::topic::Pattern;

/// What runs, and the file it follows.
pub struct Running {
    site: Arc<Site>,
    loaded: Loaded,
    listeners: Listeners,
    files: usize,
    /// Endpoints by name, with the number each keeps.
    endpoints: HashMap<String, Arc<Endpoint>>,
    next: u32,
}

impl Running {
    /// What was built from the first file.
    pub fn new(site: Arc<Site>, loaded: Loaded, files: usize) -> Running {
        let listeners = Listeners::new(site.clone());
        site.feeds.apply(&loaded.config.redis_sources);
        let mut running = Running { site, loaded, listeners, files, endpoints: HashMap::new(), next: 0 };
        running.route();
        running
    }

    /// Accepts from here on.
    pub fn listen(&mut self, bound: Vec<Bound>) {
        bound.into_iter().for_each(|bound| self.listeners.start(bound));
    }

    /// One line for each address.
    pub fn announce(&self) {
        self.listeners.lines().for_each(|line| println!("{line}"));
    }

    /// Two lines to try: one listens, one publishes. Only where that works without a secret.
    pub fn invite(&self) {
        let config = &self.loaded.config;
        let open = |(path, hook): &&(crate::http::path::PathPattern, crate::source::webhook::Settings)| {
            hook.verify == Verify::None && path.names() == [("topic".to_owned(), true)]
        };
        let address = self.listeners.lines().find_map(|line| line.strip_prefix("public  http://"));
        let hears = |e: &&Settings| e.paths[0].names().is_empty();
        if let (Some(address), Some((hook, _)), Some(endpoint)) =
            (address, config.webhooks.iter().find(open), config.endpoints.iter().find(hears))
        {
            let publish = hook.as_str().replace("{topic...}", "demo");
            println!("try     curl -N 'http://{address}{}?topic=demo&transport=sse'", endpoint.name());
            println!("try     curl -d '{{\"hello\":\"world\"}}' http://{address}{publish}");
        }
    }

    /// How long sessions may take to leave.
    pub fn drain(&self) -> Duration {
        self.loaded.config.server.drain
    }

    /// Stops accepting.
    pub fn close(&mut self) {
        self.listeners.close();
    }

    /// Follows a changed file, or says why not and stays as it is.
    pub fn reload(&mut self, change: Change) {
        let _ = sd_notify::notify(&reloading()); // not under systemd
        let outcome = change.read.map_err(anyhow::Error::from).and_then(|loaded| self.follow(loaded));
        self.site.metrics.reloaded(outcome.is_ok());
        let status = match outcome {
            Ok(summary) => {
                tracing::info!(changes = %summary, "the file was applied");
                format!("applied: {summary}")
            }
            Err(error) => {
                match error.downcast_ref::<Mistakes>() {
                    Some(mistakes) => {
                        tracing::error!("the changed file is refused whole, the old one applies\n{mistakes}")
                    }
                    None => tracing::error!("the changed file is refused whole, the old one applies: {error:#}"),
                }
                "the changed file was refused; see the log".to_owned()
            }
        };
        let _ = sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(&status)]);
    }

    fn follow(&mut self, mut loaded: Loaded) -> anyhow::Result<String> {
        fit(&mut loaded.config.limits.gate, self.files);
        let mut changes = diff(&self.loaded, &loaded)?;
        let summary = changes.to_string();
        self.listeners.change_modes(&mut changes.public)?;
        self.listeners.change_modes(&mut changes.admin)?;
        let bound = listeners::bind_added(&changes.public, &changes.admin)?;
        self.loaded = loaded;
        self.apply(&changes);
        self.listeners.stop(&changes.public, false);
        self.listeners.stop(&changes.admin, true);
        self.listen(bound);
        Ok(summary)
    }

    fn apply(&mut self, changes: &Changes) {
        let config = &self.loaded.config;
        if changes.streams || changes.store {
            self.site.streams.apply(config.streams.clone(), config.store.memory);
        }
        if changes.redis_sources {
            self.site.feeds.apply(&config.redis_sources);
        }
        if changes.limits {
            self.site.limits.apply(config.limits.gate.clone());
        }
        if changes.limits || changes.server {
            self.site.hub.settings(&Arc::new(settings(config)));
        }
        self.route();
    }

    /// Puts webhooks and endpoints in their places.
    fn route(&mut self) {
        let mut endpoints = HashMap::new();
        let mut paths = Vec::new();
        let config = &self.loaded.config;
        for settings in &config.endpoints {
            let endpoint = match self.endpoints.remove(settings.name()) {
                Some(old)
                    if old.settings == *settings && old.reach[..] == self.site.streams.reach(&shapes(settings)) =>
                {
                    old
                }
                Some(old) => Arc::new(self.endpoint(old.id, settings)),
                None => {
                    let id = self.next;
                    self.next += 1;
                    Arc::new(self.endpoint(id, settings))
                }
            };
            paths.extend(settings.paths.iter().map(|path| (path.clone(), endpoint.clone())));
            endpoints.insert(settings.name().to_owned(), endpoint);
        }
        self.endpoints = endpoints;
        let by_number = self.endpoints.values().map(|e| (e.id, e.clone())).collect();
        self.site.hub.endpoints(&by_number, config.server.drain);
        if let Some(shares) = &self.site.shares {
            shares.set_endpoints(self.endpoints.values().map(|e| (e.id, e.settings.name())));
        }
        self.site.metrics.set_sources(config.webhooks.iter().map(|(path, _)| path.as_str()));
        self.site.routes.store(Arc::new(routes(config, paths)));
    }

    fn endpoint(&self, id: u32, settings: &Settings) -> Endpoint {
        let constant = settings.allow.iter().all(Text::is_constant);
        let allow = settings.allow.iter().map(|text| text.patterns(&Scope::default(), false).unwrap_or_default());
        Endpoint {
            id,
            reach: self.site.streams.reach(&shapes(settings)).into(),
            allow: constant.then(|| allow.flatten().collect::<Vec<Pattern>>().into()),
            counters: self.site.metrics.endpoint(settings.name()),
            settings: settings.clone(),
        }
    }
}

/// What an endpoint's sessions can hear at most.
fn shapes(settings: &Settings) -> Vec<Pattern> {
    settings.allow.iter().chain(&settings.topics).map(Text::shape).collect()
}

fn routes(config: &Config, endpoints: Vec<(crate::http::path::PathPattern, Arc<Endpoint>)>) -> Routes {
    Routes {
        webhooks: config.webhooks.iter().map(|(path, hook)| (path.clone(), Arc::new(hook.clone()))).collect(),
        endpoints,
        trusted: config.server.trusted_proxies.clone(),
        topics_per_session: config.limits.topics_per_session,
        replay: config.limits.replay,
    }
}

/// `RELOADING=1` with the time it began, as `Type=notify` wants it.
fn reloading() -> Vec<NotifyState<'static>> {
    let mut state = vec![NotifyState::Reloading];
    state.extend(NotifyState::monotonic_usec_now().ok());
    state
}
