//! A webhook's request: verified, read within its limits, appended; then, and only then, 200.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method};
use tokio_stream::{Stream, StreamExt};

use super::Site;
use super::answer::{self, Reply, header};
use super::public::{Call, wrong_method};
use crate::event::Time;
use crate::gate::origin::{self, Origins};
use crate::gate::peer::{Peer, forwarded_host};
use crate::metrics::Refused;
use crate::source::verify::{Verify, verified};
use crate::source::webhook::{self as hook, Rejected, Request};
use crate::stream;

/// A body must be here within this time of its head.
const BODY: Duration = Duration::from_secs(20);

/// A webhook and what its path captured.
pub struct Hook<'a> {
    /// Its path, as the file has it.
    pub name: String,
    /// What it does.
    pub settings: &'a hook::Settings,
    /// `{path.x}`.
    pub captures: Vec<(String, String)>,
    /// Who sends.
    pub peer: Peer,
}

/// Takes one request in.
pub async fn receive<S, B>(site: &Site, hook: Hook<'_>, call: &Call, body: S) -> Reply
where
    S: Stream<Item = Result<B, warp::Error>> + Send,
    B: Buf + Send,
{
    if call.method != Method::POST {
        return wrong_method(site, "POST");
    }
    if let Err(reply) = allowed(site, &hook, call) {
        return reply;
    }
    let body = match read(body, &call.headers, hook.settings.max_body).await {
        Ok(body) => body,
        Err(reply) => return refuse(site, &hook, reply),
    };
    let query = super::path::query(&call.query);
    let request = Request { path: &hook.captures, query: &query, headers: &call.headers, body };
    let now = Time::now();
    let drafts = match hook::drafts(hook.settings, &request, now) {
        Ok(drafts) => drafts,
        Err(rejected) => return refuse(site, &hook, Unread::Rejected(rejected)),
    };
    match site.streams.append(drafts, now).await {
        Ok(appended) => {
            let stored = appended.duplicates < appended.ids.len() || appended.ids.is_empty();
            site.metrics.webhook(&hook.name, if stored { "stored" } else { "duplicate" });
            // An event of a live stream has no id.
            let ids: Vec<_> = appended.ids.iter().map(|id| (!id.is_empty()).then_some(id)).collect();
            answer::json(200, serde_json::json!({"ids": ids, "duplicates": appended.duplicates}).to_string().into())
        }
        Err(refused) => {
            let label = match &refused {
                stream::Refused::Behind => "behind",
                stream::Refused::Away(down) => {
                    tracing::debug!(%down, "a webhook's events could not be stored");
                    "away"
                }
                stream::Refused::Fenced => "fenced",
            };
            site.metrics.webhook(&hook.name, label);
            answer::later(503, &refused.to_string(), 1)
        }
    }
}

/// Whether the sender may: its rate, its page, its credential.
fn allowed(site: &Site, hook: &Hook<'_>, call: &Call) -> Result<(), Reply> {
    if let Err(refusal) = site.limits.request(hook.peer) {
        site.metrics.refused(refusal);
        site.metrics.webhook(&hook.name, "rate");
        // Not 429: Alertmanager gives up on every 4xx, and this one passes.
        return Err(answer::later(503, "too many requests from this address", refusal.retry_after()));
    }
    if hook.settings.verify == Verify::None && is_foreign(site, call) {
        site.metrics.refused(Refused::Origin);
        site.metrics.webhook(&hook.name, "origin");
        return Err(answer::error(403, "pages of other sites may not publish here"));
    }
    if !verified(&hook.settings.verify, &call.headers) {
        site.metrics.webhook(&hook.name, "unauthorized");
        return Err(answer::error(401, "unauthorized"));
    }
    Ok(())
}

/// Whether a page of another site is behind this request. Without a secret only the browser's word protects us.
fn is_foreign(site: &Site, call: &Call) -> bool {
    let trusted = call.visit.remote.is_trusted(&site.routes.load().trusted);
    let host = forwarded_host(trusted, &call.headers).or_else(|| header(&call.headers, "host"));
    !origin::allowed(&Origins::Same, header(&call.headers, "origin"), host)
}

/// Why a body was not taken.
enum Unread {
    Rejected(Rejected),
    Late,
    Broken,
}

async fn read<S, B>(body: S, headers: &HeaderMap, most: usize) -> Result<Bytes, Unread>
where
    S: Stream<Item = Result<B, warp::Error>>,
    B: Buf,
{
    let too_large = || Unread::Rejected(Rejected::too_large(most));
    let announced = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|n| n > most) {
        return Err(too_large());
    }
    let mut body = std::pin::pin!(body);
    let mut whole = BytesMut::with_capacity(announced.unwrap_or(0));
    let deadline = tokio::time::Instant::now() + BODY;
    loop {
        match tokio::time::timeout_at(deadline, body.next()).await {
            Err(_) => return Err(Unread::Late),
            Ok(None) => return Ok(whole.freeze()),
            Ok(Some(Err(_))) => return Err(Unread::Broken),
            Ok(Some(Ok(mut part))) if part.remaining() + whole.len() <= most => {
                while part.has_remaining() {
                    let chunk = part.chunk();
                    let len = chunk.len();
                    whole.extend_from_slice(chunk);
                    part.advance(len);
                }
            }
            Ok(Some(Ok(_))) => return Err(too_large()),
        }
    }
}

fn refuse(site: &Site, hook: &Hook<'_>, unread: Unread) -> Reply {
    let (label, reply) = match unread {
        Unread::Rejected(Rejected { status, reason, message }) => (reason, answer::error(status, &message)),
        Unread::Late => {
            site.metrics.refused(Refused::BodyTimeout);
            ("body_timeout", answer::error(408, "the body did not come in time"))
        }
        Unread::Broken => ("broken_body", answer::error(400, "the body ended early")),
    };
    site.metrics.webhook(&hook.name, label);
    reply
}
