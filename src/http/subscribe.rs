//! A subscriber's request, until it is a session: held against the endpoint, the gate, and the transport it asks for.

use std::sync::Arc;

use http::HeaderMap;
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio_util::io::ReaderStream;
use warp::Reply as _;

use super::answer::{self, Reply, header};
use super::connection::Takeover;
use super::handshake;
use super::public::Call;
use super::{Routes, Site};
use crate::close::Close;
use crate::event::Time;
use crate::gate::limits::SessionPermit;
use crate::gate::origin;
use crate::gate::peer::{Peer, forwarded_host};
use crate::hub::mail::Opening;
use crate::hub::seat::{Line, Poll, Request, id_text};
use crate::metrics::Refused;
use crate::session::endpoint::Endpoint;
use crate::session::terms::{self, Asked, Begin, Denied, Terms};
use crate::template::Scope;
use crate::wire::form::{Form, Transport};

/// Events of one poll, unless it says otherwise, and at most.
const LIMIT: usize = 100;
const MOST: usize = 1000;
/// The longest a poll may wait: below what proxies allow a silent response.
const WAIT: std::time::Duration = std::time::Duration::from_secs(55);

/// Somebody who wants to subscribe.
pub struct Visitor {
    /// What is served, as of now.
    pub routes: Arc<Routes>,
    /// Who.
    pub peer: Peer,
    /// `{path.x}`.
    pub captures: Vec<(String, String)>,
    /// `{query.x}`.
    pub query: Vec<(String, String)>,
}

/// Lets a subscriber in, or says why not. On a socket that can be taken over it never answers.
pub async fn admit(site: &Arc<Site>, endpoint: &Arc<Endpoint>, visitor: Visitor, call: Call) -> Reply {
    let transport = match transport(endpoint, &visitor, &call.headers) {
        Ok(transport) => transport,
        Err(message) => {
            site.metrics.refused(Refused::TransportNotAllowed);
            return answer::error(406, &message);
        }
    };
    if !same_site(endpoint, &visitor, &call) {
        site.metrics.refused(Refused::Origin);
        return answer::error(403, "this page's origin is not allowed here (`origins`)");
    }
    if site.is_draining() {
        site.metrics.refused(Refused::Draining);
        return passing(transport, 503, "this instance is stopping", 1, Close::Drain);
    }
    if !site.streams.is_open() {
        site.metrics.refused(Refused::NotOpen);
        return passing(transport, 503, "this instance is not connected to its store yet", 1, Close::Overloaded);
    }
    let mut id = [0; 16];
    if getrandom::fill(&mut id).is_err() {
        return answer::later(503, "no randomness", 1);
    }
    (id[6], id[8]) = (id[6] & 0x0f | 0x40, id[8] & 0x3f | 0x80); // a random UUID says that it is one
    let (terms, hello) = match agree(endpoint, &visitor, &call, &id_text(&id)) {
        Ok(agreed) => agreed,
        Err(Denied { status, message }) => {
            site.metrics.refused(Refused::TopicNotAllowed);
            return answer::error(status, &message);
        }
    };
    let permit = match slot(site, endpoint, &visitor, transport).await {
        Ok(permit) => permit,
        Err(refusal) => return refusal,
    };
    // Another instance may have begun a life that its cursor names. Without the store nobody knows.
    if let Begin::After(Some(brought)) = &terms.begin
        && let Err(down) = site.streams.learn(brought).await
    {
        tracing::debug!(%down, "a cursor could not be understood");
        site.metrics.refused(Refused::NotOpen);
        return passing(transport, 503, "this instance cannot reach its store now", 1, Close::Overloaded);
    }
    begin(site, endpoint, visitor, call, Ready { transport, id, terms, hello, permit }).await
}

/// What the session gets, and how it is greeted.
fn agree(endpoint: &Endpoint, visitor: &Visitor, call: &Call, id: &str) -> Result<(Terms, Option<Vec<u8>>), Denied> {
    let scope = Scope {
        path: &visitor.captures,
        query: &visitor.query,
        headers: Some(&call.headers),
        session: Some(id),
        now: Time::now(),
        ..Scope::default()
    };
    let asked = asked(&visitor.query, &call.headers);
    let (most, replay) = (visitor.routes.topics_per_session, visitor.routes.replay);
    let terms = terms::terms(endpoint, &asked, &scope, most, replay)?;
    let hello = endpoint.settings.hello.as_ref().map(|hello| hello.reply(&scope)).transpose();
    Ok((terms, hello.map_err(|unfilled| Denied { status: 400, message: unfilled.0 })?))
}

/// A session that may begin.
struct Ready {
    transport: Transport,
    id: [u8; 16],
    terms: Terms,
    hello: Option<Vec<u8>>,
    permit: Option<SessionPermit>,
}

async fn begin(site: &Arc<Site>, endpoint: &Arc<Endpoint>, visitor: Visitor, call: Call, ready: Ready) -> Reply {
    let Ready { transport, id, terms, hello, permit } = ready;
    let plain = call.visit.plain && transport != Transport::Poll;
    let form = Form { transport, format: terms.format, chunked: plain && transport != Transport::WebSocket };
    let head = match (transport, plain) {
        (Transport::WebSocket, true) => match handshake::websocket_head(&call.headers) {
            Ok(head) => head,
            Err((status, message)) => return not_a_websocket(status, message),
        },
        (Transport::WebSocket, false) => return answer::error(400, "a WebSocket begins with a bare GET of HTTP/1.1"),
        (_, true) => handshake::stream_head(transport),
        (_, false) => Vec::new(),
    };
    let limit = number(&visitor.query, "limit").unwrap_or(LIMIT).clamp(1, MOST);
    let wait = wait(&visitor.query);
    let Call { headers, visit, .. } = call;
    let request = endpoint
        .settings
        .needs_request()
        .then(|| Arc::new(Request { path: visitor.captures, query: visitor.query, headers: copied(&headers) }));
    let (early, permits) = (bytes::Bytes::new(), (None, permit));
    let (reply, answered) = oneshot::channel();
    let poll = Poll { reply, items: Vec::new(), count: 0, limit, gap: None, wait, until: 0, fetch: 0 };
    let line = Line::Poll(Box::new(poll));
    let opening = Opening { line, head, early, id, endpoint: endpoint.clone(), form, terms, hello, request, permits };
    match (transport, plain) {
        (Transport::Poll, _) => {
            site.hub.open(opening);
            match answered.await {
                Ok(body) => answer::json(200, body),
                Err(_) => answer::later(503, "not now: this endpoint is being changed, or its store is away", 1),
            }
        }
        (_, true) => {
            visit.take_over(Takeover { opening });
            std::future::pending().await
        }
        (_, false) => through_body(site, opening),
    }
}

/// Why a handshake is none, and which version would be one.
fn not_a_websocket(status: u16, message: &str) -> Reply {
    let mut response = answer::error(status, message);
    response.headers_mut().insert("sec-websocket-version", http::HeaderValue::from_static("13"));
    response
}

/// Copies: what hyper parsed are slices that keep its whole read buffer alive, here for as long as a session lives.
fn copied(headers: &HeaderMap) -> HeaderMap {
    let copy = |value: &http::HeaderValue| http::HeaderValue::from_bytes(value.as_bytes()).ok();
    headers.iter().filter_map(|(name, value)| Some((name.clone(), copy(value)?))).collect()
}

/// The ordinary body path: the shard writes to one end of a pair of sockets, HTTP reads from the other.
fn through_body(site: &Site, opening: Opening) -> Reply {
    let headers = handshake::stream_headers(opening.form.transport);
    let pair = UnixStream::pair().and_then(|(ours, theirs)| Ok((ours.into_std()?, theirs)));
    let (ours, theirs) = match pair {
        Ok(pair) => pair,
        Err(error) => {
            tracing::warn!(%error, "no sockets for a response body");
            return answer::later(503, "out of sockets", 1);
        }
    };
    site.hub.open(Opening { line: Line::Socket(ours.into()), ..opening });
    let mut response = warp::reply::stream(ReaderStream::new(theirs)).into_response();
    response.headers_mut().extend(headers);
    response
}

fn transport(endpoint: &Endpoint, visitor: &Visitor, headers: &HeaderMap) -> Result<Transport, String> {
    let accept = header(headers, "accept").unwrap_or_default();
    let asked = match first(&visitor.query, "transport") {
        _ if handshake::wants_websocket(headers) => Transport::WebSocket,
        Some("sse") => Transport::Sse,
        Some("ndjson") => Transport::Ndjson,
        Some("poll") => Transport::Poll,
        Some(other) => return Err(format!("`transport={other}` is none of sse, ndjson, poll")),
        None if accept.contains("text/event-stream") => Transport::Sse,
        None if accept.contains("application/x-ndjson") => Transport::Ndjson,
        None => Transport::Poll,
    };
    if endpoint.settings.transports.contains(&asked) {
        return Ok(asked);
    }
    Err("this endpoint does not speak that transport (`transports`)".into())
}

fn same_site(endpoint: &Endpoint, visitor: &Visitor, call: &Call) -> bool {
    let trusted = call.visit.remote.is_trusted(&visitor.routes.trusted);
    let host = forwarded_host(trusted, &call.headers).or_else(|| header(&call.headers, "host"));
    origin::allowed(&endpoint.settings.origins, header(&call.headers, "origin"), host)
}

fn first<'q>(query: &'q [(String, String)], name: &str) -> Option<&'q str> {
    query.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
}

fn number(query: &[(String, String)], name: &str) -> Option<usize> {
    first(query, name)?.parse().ok()
}

fn wait(query: &[(String, String)]) -> std::time::Duration {
    first(query, "wait").and_then(|wait| terms::duration(wait).ok()).unwrap_or_default().min(WAIT)
}

fn asked(query: &[(String, String)], headers: &HeaderMap) -> Asked {
    let get = |name| first(query, name).map(str::to_owned);
    Asked {
        topics: query.iter().filter(|(name, _)| name == "topic").map(|(_, value)| value.clone()).collect(),
        after: header(headers, "last-event-id").map(str::to_owned).or_else(|| get("after")),
        replay: get("replay"),
        pace: get("pace"),
        format: get("format"),
    }
}

/// A slot for the session, here and among all instances; a poll that does not wait is only a request.
async fn slot(
    site: &Site,
    endpoint: &Endpoint,
    visitor: &Visitor,
    transport: Transport,
) -> Result<Option<SessionPermit>, Reply> {
    let poll = transport == Transport::Poll;
    let waits = !poll || !wait(&visitor.query).is_zero();
    let request = if poll { site.limits.request(visitor.peer) } else { Ok(()) };
    let own = endpoint.settings.connections_per_ip;
    let slot = request.and_then(|()| waits.then(|| site.limits.session(visitor.peer, endpoint.id, own)).transpose());
    let slot = match (slot, &site.shares) {
        (Ok(Some(permit)), Some(shares)) => shares.admit(permit, own).await.map(Some),
        (slot, _) => slot,
    };
    slot.map_err(|refusal| {
        site.metrics.refused(refusal);
        let message = format!("too many from this address or altogether ({})", refusal.label());
        passing(transport, refusal.status(), &message, refusal.retry_after(), Close::Overloaded)
    })
}

/// A refusal that passes. An EventSource never comes back after an error, so it gets a 200 that says when to return.
fn passing(transport: Transport, status: u16, message: &str, seconds: u64, why: Close) -> Reply {
    if transport != Transport::Sse {
        return answer::later(status, message, seconds);
    }
    let form = Form { transport, format: crate::wire::form::Format::Raw, chunked: false };
    let (mut body, retry) = (Vec::new(), fastrand::u64(1000 * seconds..=2000 * seconds));
    form.close(why, Some(retry), &mut body);
    let mut response = http::Response::new(body.into());
    response.headers_mut().extend(handshake::stream_headers(transport));
    response
}
