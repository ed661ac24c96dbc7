//! The only place that knows all others: build, bind, serve, watch, drain.

mod listeners;
mod log;
mod reload;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{self, Config, Engine, Loaded, Redis};
use crate::event::Time;
use crate::gate::limits::{self, Limits};
use crate::gate::shares::{self, Shares};
use crate::http::listen::Passed;
use crate::http::{Routes, Site};
use crate::hub::Hub;
use crate::hub::mail::{Publish, Settings};
use crate::metrics::Metrics;
use crate::source::command;
use crate::source::redis::feeds::Feeds;
use crate::stream::{self, Streams};
use reload::Running;
use watch::Watched;

/// Files this process needs beside its connections.
const OWN_FILES: usize = 64;
/// How often old events go, and who has been quiet is forgotten.
const SWEEP: Duration = Duration::from_secs(1);
/// What an instance that drains allows beyond `drain` for the last goodbyes and answers.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Runs a relay with this file, or the built-in quickstart, until it is told to stop.
pub fn run(file: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    log::start();
    let watched = file.clone().map(Watched::new).transpose()?;
    let mut loaded = match &file {
        Some(path) => config::read_file(path)?,
        None => config::load(config::EMBEDDED, "the built-in quickstart")?,
    };
    tracing::info!(version = env!("CARGO_PKG_VERSION"), file = %loaded.places.file, "relay starts");
    let files = raise_file_limit();
    let asked = fit(&mut loaded.config.limits.gate, files);
    warn_if_lowered(asked, loaded.config.limits.gate.connections, files);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(watched, loaded, files))
}

async fn serve(watched: Option<Watched>, loaded: Loaded, files: usize) -> anyhow::Result<ExitCode> {
    let mut passed = Passed::from_env()?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let site = build(&loaded.config, files)?;
    let bound = listeners::bind_all(&loaded.config, &mut passed)?;
    let patience = loaded.config.redis.server.timeout;
    let mut running = Running::new(site.clone(), loaded, files);
    // Before anybody hears `ready`: until it is caught, SIGHUP ends the process.
    let mut changes = watch::changes(watched)?;
    // What is in the store is found before anybody asks for it; a store that is away keeps nobody from starting.
    tokio::join!(site.streams.opened(patience), opened(&site, patience));
    running.listen(bound);
    running.announce();
    running.invite();
    println!("ready");
    sd_notify::notify(&[NotifyState::Ready]).context("the notify socket")?;
    tokio::spawn(sweep(site.clone()));
    tokio::spawn(watchdog());
    loop {
        tokio::select! {
            change = changes.recv() => match change {
                Some(change) => running.reload(change),
                None => anyhow::bail!("the file is no longer watched"),
            },
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = site.hub.failed.notified() => anyhow::bail!("a shard ended; see the log"),
        }
    }
    tokio::select! {
        () = drain(&site, running.drain()) => tracing::info!("all sessions have left"),
        _ = terminate.recv() => tracing::warn!("ended at once, by a second signal"),
        _ = interrupt.recv() => tracing::warn!("ended at once, by a second signal"),
    }
    running.close();
    site.feeds.close().await;
    site.hub.stop();
    Ok(ExitCode::SUCCESS)
}

/// All parts, wired.
fn build(config: &Config, files: usize) -> anyhow::Result<Arc<Site>> {
    let shards = std::thread::available_parallelism().map_or(1, usize::from);
    let metrics = Metrics::new(shards, Time::now());
    metrics.set_file_limit(files as u64);
    let streams = streams(config, shards);
    let publish: Publish = Arc::new(command::start(streams.clone()));
    let instance = instance_id()?;
    let Redis { server, prefix } = &config.redis;
    let feeds = Feeds::new(streams.clone(), metrics.clone(), (server.clone(), prefix), &instance);
    let hub = Hub::start(&streams, &metrics, &Arc::new(settings(config)), &publish)?;
    let (limits, shares) = limits(config, instance);
    Ok(Arc::new(Site {
        routes: Arc::new(Routes::default()).into(),
        hub,
        streams,
        feeds,
        limits,
        shares,
        metrics,
        draining: false.into(),
        requests: 0.into(),
        warned: false.into(),
    }))
}

/// Where events are kept.
fn streams(config: &Config, shards: usize) -> Arc<Streams> {
    let (settings, memory) = (config.streams.clone(), config.store.memory);
    match config.store.engine {
        Engine::Memory => Arc::new(Streams::new(settings, memory, shards)),
        Engine::Redis => {
            let Redis { server, prefix } = config.redis.clone();
            let store = stream::redis::Settings { server, prefix, own_clock: true };
            Streams::in_redis(settings, memory, shards, store)
        }
    }
}

/// Who may come in, counted with the instances that have the same store.
fn limits(config: &Config, instance: String) -> (Arc<Limits>, Option<Shares>) {
    let gate = config.limits.gate.clone();
    match config.store.engine {
        Engine::Memory => (Limits::new(gate), None),
        Engine::Redis => {
            let Redis { server, prefix } = config.redis.clone();
            let limits = Limits::shared(gate);
            let shares = Shares::start(shares::Settings { server, prefix, instance }, &limits);
            (limits, Some(shares))
        }
    }
}

/// What other instances know this process by: no two ever have the same.
fn instance_id() -> anyhow::Result<String> {
    Ok(format!("{:016x}", getrandom::u64().context("no randomness")?))
}

async fn opened(site: &Site, patience: Duration) {
    if let Some(shares) = &site.shares {
        shares.opened(patience).await;
    }
}

/// What sessions are held to.
fn settings(config: &Config) -> Settings {
    let limits = &config.limits;
    Settings {
        queue: limits.queue,
        queues: limits.queues,
        replay: limits.replay,
        frame: limits.frame,
        topics_per_session: limits.topics_per_session,
        commands: limits.gate.commands_per_session,
        session_age: config.server.session_age,
    }
}

/// As many open files as the system allows.
fn raise_file_limit() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "the file limit could not be raised");
        }
    }
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |files| files as usize)
}

/// Lowers `connections` to what the file limit can hold; returns what was asked for.
fn fit(limits: &mut limits::Settings, files: usize) -> u32 {
    let asked = limits.connections;
    while limits.sockets() + OWN_FILES > files && limits.connections > 1 {
        limits.connections -= (limits.connections / 64).max(1);
    }
    asked
}

/// Says so, once.
fn warn_if_lowered(asked: u32, connections: u32, files: usize) {
    if connections < asked {
        tracing::warn!(
            asked,
            connections,
            files,
            "[limits] connections is lowered to what the file limit holds; raise it (LimitNOFILE=) or ask for fewer"
        );
    }
}

async fn sweep(site: Arc<Site>) {
    let mut ticks = tokio::time::interval(SWEEP);
    for turn in 0u64.. {
        ticks.tick().await;
        site.streams.sweep(Time::now());
        if turn % 30 == 0 {
            site.limits.sweep();
        }
    }
}

/// Tells systemd that the runtime still turns.
async fn watchdog() {
    let Some(every) = sd_notify::watchdog_enabled().filter(|every| !every.is_zero()) else { return };
    let mut ticks = tokio::time::interval(every / 2);
    loop {
        ticks.tick().await;
        if let Err(error) = sd_notify::notify(&[NotifyState::Watchdog]) {
            tracing::warn!(%error, "the watchdog could not be told");
        }
    }
}

/// Lets all sessions leave, evenly over `over`; webhooks are served until the last one left.
async fn drain(site: &Site, over: Duration) {
    tracing::info!(?over, sessions = site.limits.counts().sessions, "draining");
    let _ = sd_notify::notify(&[NotifyState::Stopping]); // systemd gone: it has other means to know
    site.draining.store(true, Ordering::Relaxed);
    site.hub.drain(over);
    let deadline = tokio::time::Instant::now() + over + LAST_WORDS;
    while tokio::time::Instant::now() < deadline {
        if site.limits.counts().sessions == 0 && site.requests.load(Ordering::Relaxed) == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tracing::warn!("some sessions or requests did not end in time");
}
