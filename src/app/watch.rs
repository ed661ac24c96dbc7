//! The file, watched however it is replaced: written in place, renamed over, swapped through a symlink, deleted and made
//! again. What the system tells is only a hint to look; what counts is whether the content changed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::config::{self, Loaded, Mistakes};

/// Writers are given so long to finish.
const QUIET: Duration = Duration::from_millis(250);
/// But not for ever.
const PATIENCE: Duration = Duration::from_secs(2);
/// Looked at without a hint: network file systems give none.
const LOOK: Duration = Duration::from_secs(15);

/// The file, read again.
pub struct Change {
    /// What it says now.
    pub read: Result<Loaded, Mistakes>,
}

/// Changes of the file, and SIGHUP. Without a file SIGHUP reads the built-in quickstart again.
pub fn changes(mut watched: Option<Watched>) -> anyhow::Result<mpsc::Receiver<Change>> {
    let (sender, receiver) = mpsc::channel(1);
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        loop {
            let asked = tokio::select! {
                _ = hangup.recv() => true,
                () = hinted(&mut watched) => false,
                () = tokio::time::sleep(LOOK) => false,
            };
            let change = match &mut watched {
                Some(watched) => watched.look(asked).await,
                None => asked.then(|| Change { read: config::load(config::EMBEDDED, "the built-in quickstart") }),
            };
            if let Some(change) = change
                && sender.send(change).await.is_err()
            {
                return;
            }
        }
    });
    Ok(receiver)
}

/// Waits for a hint, if there is anything to wait for.
async fn hinted(watched: &mut Option<Watched>) {
    if let Some(Watched { hints, .. }) = watched
        && hints.recv().await.is_some()
    {
        return settle(hints).await;
    }
    std::future::pending().await
}

/// Waits until the hints pause.
async fn settle(hints: &mut mpsc::Receiver<()>) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while let Ok(Some(())) = tokio::time::timeout(QUIET, hints.recv()).await {
        if tokio::time::Instant::now() > deadline {
            return;
        }
    }
}

/// The file, and what it held when it was last looked at.
pub struct Watched {
    file: PathBuf,
    watcher: RecommendedWatcher,
    hints: mpsc::Receiver<()>,
    folders: Vec<PathBuf>,
    content: Option<Vec<u8>>,
}

impl Watched {
    /// From here on. The caller reads the file after this: a change in between is then seen, not lost.
    pub fn new(file: PathBuf) -> anyhow::Result<Watched> {
        let (hint, hints) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |_| {
            let _ = hint.try_send(()); // one waits already: that is enough
        });
        let watcher = watcher.context("the file cannot be watched")?;
        let content = std::fs::read(&file).ok();
        let mut watched = Watched { file, watcher, hints, folders: Vec::new(), content };
        watched.follow();
        Ok(watched)
    }

    /// Watches the folder of the file and, if it is a symlink, of what it points to; again after each change, because
    /// either may be another now.
    fn follow(&mut self) {
        let target = self.file.canonicalize().ok();
        let folders = [Some(self.file.clone()), target].into_iter().flatten().map(|path| folder(&path));
        let folders: Vec<PathBuf> = folders.collect();
        for old in &self.folders {
            let _ = self.watcher.unwatch(old); // it may have been deleted
        }
        for folder in &folders {
            if let Err(error) = self.watcher.watch(folder, RecursiveMode::NonRecursive) {
                tracing::warn!(%error, folder = %folder.display(), "not watched; looked at every 15 s instead");
            }
        }
        self.folders = folders;
    }

    /// The change, if there is one (or one was asked for). A file that is not there is being replaced: the next look tells.
    async fn look(&mut self, asked: bool) -> Option<Change> {
        let content = std::fs::read(&self.file).ok();
        if !asked && (content.is_none() || content == self.content) {
            return None;
        }
        self.follow();
        if content.is_some_and(|bytes| bytes.trim_ascii().is_empty()) {
            tokio::time::sleep(QUIET).await; // emptied, and not yet written
        }
        let mut read = config::read_file(&self.file);
        if read.is_err() {
            tokio::time::sleep(QUIET).await; // perhaps half written
            read = config::read_file(&self.file);
        }
        self.content = std::fs::read(&self.file).ok();
        Some(Change { read })
    }
}

fn folder(path: &Path) -> PathBuf {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}
