//! `relay sub`: events as they come, one envelope per line, over ndjson; a lost connection is resumed by its cursor.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use relay::config::Config;
use relay::session::endpoint;
use relay::template::Scope;
use relay::topic::Pattern;
use relay::wire::form::Transport;
use serde_json::Value;

use super::Target;
use super::server::{self, Credential, Server};

/// Waits between attempts double from the first to the last, each shortened by chance.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LAST_WAIT: Duration = Duration::from_secs(15);

/// A connection on which so many heartbeats are missing is dead.
const MISSED_HEARTBEATS: u32 = 3;

/// The heartbeat of an endpoint whose settings are not at hand.
const USUAL_PING: Duration = Duration::from_secs(25);

/// Longer than any envelope of a relay can be.
const MAX_LINE: usize = 64 << 20;

/// One subscription, over as many connections as it takes.
#[derive(Debug)]
struct Subscription {
    server: Server,
    path: String,
    pattern: String,
    credential: Credential,
    /// As long as it may be silent.
    silence: Duration,
    cursor: Option<String>,
    /// Whether a connection stood once: until then, a failure is the answer.
    stood: bool,
    wait: Duration,
}

/// Why a connection ended.
#[derive(Debug)]
enum End {
    /// Worth another attempt, perhaps at a time that the relay asks for.
    Lost { why: String, wait: Option<Duration> },
    /// It will be so again.
    Final(String),
    /// Whoever read our output is gone.
    Unheard,
}

/// Prints events until nobody reads them or the relay says not to come back.
pub fn subscribe(config: Option<PathBuf>, pattern: &str, target: &Target) -> anyhow::Result<ExitCode> {
    let subscription = Subscription::find(config, pattern, target)?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    server::block_on(subscription.run(&mut out))?;
    Ok(ExitCode::SUCCESS)
}

impl Subscription {
    fn find(config: Option<PathBuf>, pattern: &str, target: &Target) -> anyhow::Result<Subscription> {
        let credential = target.token.as_deref().map(server::bearer).transpose()?;
        let given = target.url.as_deref().map(Server::parse).transpose()?;
        if let Some((server, Some(path))) = given {
            return Ok(Subscription::new(server, path, pattern, credential, USUAL_PING));
        }
        let file = super::chosen(config);
        let config = super::load(file.as_deref())?.config;
        let (endpoint, path) = allowing(&config, pattern)?;
        let server = given.map_or_else(|| Server::of(&config.server.listen), |(server, _)| Ok(server))?;
        Ok(Subscription::new(server, path, pattern, credential, endpoint.ping))
    }

    fn new(server: Server, path: String, pattern: &str, credential: Credential, ping: Duration) -> Subscription {
        let silence = ping.saturating_mul(MISSED_HEARTBEATS);
        let pattern = pattern.to_string();
        Subscription { server, path, pattern, credential, silence, cursor: None, stood: false, wait: FIRST_WAIT }
    }

    async fn run(mut self, out: &mut impl Write) -> anyhow::Result<()> {
        loop {
            match self.connection(out).await {
                End::Unheard => return Ok(()),
                End::Final(why) => bail!(why),
                End::Lost { why, .. } if !self.stood => bail!(why),
                End::Lost { why, wait } => {
                    let wait = wait.unwrap_or_else(|| self.next_wait());
                    eprintln!("relay sub: {why}; trying again in {} ms", wait.as_millis());
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    /// Half to all of the present wait, so that those who lost one relay do not return together.
    fn next_wait(&mut self) -> Duration {
        let wait = self.wait.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.wait = (self.wait * 2).min(LAST_WAIT);
        wait
    }

    async fn connection(&mut self, out: &mut impl Write) -> End {
        let answer = match self.request() {
            Ok(request) => self.server.send(request).await,
            Err(error) => return End::Final(format!("{error:#}")),
        };
        match answer {
            Ok(answer) if answer.status() == StatusCode::OK => self.listen(answer, out).await,
            Ok(answer) => refused(&self.server, &self.path, answer).await,
            Err(error) => lost(format!("{error:#}")),
        }
    }

    fn request(&self) -> anyhow::Result<Request<Full<Bytes>>> {
        let mut target = format!(
            "{}?transport=ndjson&format=envelope&topic={}",
            self.path,
            server::percent_encoded(&self.pattern, false)
        );
        if let Some(cursor) = &self.cursor {
            target.push_str("&after=");
            target.push_str(&server::percent_encoded(cursor, false));
        }
        let mut request = Request::get(target);
        if let Some((name, value)) = &self.credential {
            request = request.header(name, value);
        }
        Ok(request.body(Full::default())?)
    }

    async fn listen(&mut self, answer: Response<Incoming>, out: &mut impl Write) -> End {
        if std::mem::replace(&mut self.stood, true) {
            eprintln!("relay sub: connected again");
        }
        let mut body = answer.into_body();
        let mut rest = Vec::new();
        loop {
            let frame = match tokio::time::timeout(self.silence, body.frame()).await {
                Err(_) => return lost(format!("nothing was heard for {:?}", self.silence)),
                Ok(None) => return lost("the connection ended".to_string()),
                Ok(Some(Err(error))) => return lost(format!("the connection broke: {error}")),
                Ok(Some(Ok(frame))) => frame,
            };
            self.wait = FIRST_WAIT;
            rest.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            if let Some(end) = self.hear(&mut rest, out) {
                return end;
            }
        }
    }

    /// Takes the whole lines out of what came.
    fn hear(&mut self, rest: &mut Vec<u8>, out: &mut impl Write) -> Option<End> {
        let whole = memchr::memrchr(b'\n', rest).map_or(0, |at| at + 1);
        for line in rest[..whole].split_inclusive(|byte| *byte == b'\n') {
            if let Some(end) = self.hear_line(line, out) {
                return out.flush().map_or(Some(End::Unheard), |()| Some(end));
            }
        }
        rest.drain(..whole);
        if rest.len() > MAX_LINE {
            return Some(End::Final(format!("{} sends a line that does not end", self.server)));
        }
        out.flush().is_err().then_some(End::Unheard)
    }

    fn hear_line(&mut self, line: &[u8], out: &mut impl Write) -> Option<End> {
        let Ok(said) = serde_json::from_slice::<Value>(line) else { return None };
        let kind = said["type"].as_str().unwrap_or_default();
        let is_event = said["topic"].is_string() && said["time"].is_string();
        if !is_event && !kind.starts_with("relay.") {
            return None; // the endpoint's greeting
        }
        if let Some(cursor) = said["cursor"].as_str() {
            self.cursor = Some(cursor.to_string());
        }
        match kind {
            _ if is_event => out.write_all(line).is_err().then_some(End::Unheard),
            "relay.gap" => {
                eprintln!("relay sub: {}", gap(&said));
                None
            }
            "relay.close" => Some(closed(&said)),
            _ => None,
        }
    }
}

/// The first endpoint of the file that lets a session ask for this over ndjson, and the path to it.
fn allowing<'c>(config: &'c Config, pattern: &str) -> anyhow::Result<(&'c endpoint::Settings, String)> {
    let wanted = Pattern::new(pattern)?;
    let found = config.endpoints.iter().find_map(|endpoint| {
        let path = endpoint.paths.iter().find(|path| path.names().is_empty())?;
        let fits = endpoint.transports.contains(&Transport::Ndjson) && allows(endpoint, &wanted);
        fits.then(|| (endpoint, path.as_str().to_string()))
    });
    found.with_context(|| format!("the file has no [[endpoint]] that allows {pattern} over ndjson"))
}

/// What depends on who asks (`user/{query.id}`) allows nothing here.
fn allows(endpoint: &endpoint::Settings, wanted: &Pattern) -> bool {
    let nobody = Scope::default();
    let mut allowed = endpoint.allow.iter().filter_map(|template| template.patterns(&nobody, false).ok()).flatten();
    allowed.any(|pattern| pattern.covers(wanted))
}

fn lost(why: String) -> End {
    End::Lost { why, wait: None }
}

async fn refused(server: &Server, path: &str, answer: Response<Incoming>) -> End {
    let (status, wait) = (answer.status(), retry_after(answer.headers()));
    let why = format!("{server}{path} says {status}: {}", server::text(answer).await);
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        return End::Lost { why, wait };
    }
    End::Final(why)
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// `relay.close` with a time says when to return, and without one not to.
fn closed(said: &Value) -> End {
    let why = format!("closed, {} {}", said["code"], said["reason"].as_str().unwrap_or_default());
    match said["retry_ms"].as_u64() {
        Some(ms) => End::Lost { why, wait: Some(Duration::from_millis(ms)) },
        None => End::Final(why),
    }
}

fn gap(said: &Value) -> String {
    let missed = said["missed"].as_u64().map_or("events".to_string(), |missed| format!("{missed} events"));
    format!("a gap: {missed} cannot be had any more ({})", said["reason"].as_str().unwrap_or_default())
}

#[cfg(test)]
mod tests;
