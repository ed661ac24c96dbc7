//! A webhook's request becomes drafts. No HTTP server here: headers and a body in, drafts or a refusal out.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use serde_json::Value;
use sha1_smol::Sha1;

use super::alertmanager::{self, Notification};
use super::body;
use super::verify::Verify;
use crate::event::{Kind, Payload, Time};
use crate::stream::{Dedupe, Draft};
use crate::template::{Json, Roots, Scope, Text, Unfilled};
use crate::topic::Topic;

/// A status and the label that the metric counts it under.
pub type Reason = (u16, &'static str);

/// The body is not JSON.
pub const BAD_JSON: Reason = (400, "bad_json");
/// The body is not UTF-8.
pub const BAD_UTF8: Reason = (400, "bad_utf8");
/// The JSON is nested too deeply.
pub const TOO_DEEP: Reason = (400, "too_deep");
/// The body, or what would become of it, is above `max_body`.
pub const TOO_LARGE: Reason = (413, "too_large");
/// The body is of a type that the format does not take.
pub const MEDIA_TYPE: Reason = (415, "media_type");
/// A template asks for what the request does not have, or gives no topic.
pub const UNFILLED: Reason = (422, "unfilled");
/// A notification of a version that is not known here.
pub const BAD_VERSION: Reason = (422, "bad_version");
/// JSON that is no notification.
pub const BAD_NOTIFICATION: Reason = (422, "bad_notification");

/// Every label that [`Rejected::reason`] can have.
pub const REASONS: [&str; 8] =
    [BAD_JSON.1, BAD_UTF8.1, TOO_DEEP.1, TOO_LARGE.1, MEDIA_TYPE.1, UNFILLED.1, BAD_VERSION.1, BAD_NOTIFICATION.1];

/// Where senders put a mark of their own that a retry has again; the first that is there counts.
const MARKS: [&str; 3] = ["idempotency-key", "webhook-id", "x-github-delivery"];

/// What a body is read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum BodyFormat {
    Json,
    Text,
    Alertmanager,
}

/// What `[[source.webhook]]` says. (Its path is the router's.)
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct Settings {
    pub format: BodyFormat,
    pub topic: Text,
    pub verify: Verify,
    pub dedupe: Option<Text>,
    pub dedupe_window: Duration,
    pub body: Option<Json>,
    pub max_body: usize,
}

/// A request, as far as a webhook looks at it.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Request<'a> {
    pub path: &'a [(String, String)],
    pub query: &'a [(String, String)],
    pub headers: &'a HeaderMap,
    pub body: Bytes,
}

/// A refusal that will never turn into a yes: status, label for the metric, what to change.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Rejected {
    pub status: u16,
    pub reason: &'static str,
    pub message: String,
}

/// One event of a request, before its templates are filled. The value is there if a template may look into it.
struct Entry {
    payload: Payload,
    value: Option<Value>,
}

impl Rejected {
    /// Of one of the reasons above.
    pub fn new((status, reason): Reason, message: String) -> Rejected {
        Rejected { status, reason, message }
    }
    /// For whoever reads the body and stops at `max_body`.
    pub fn too_large(max_body: usize) -> Rejected {
        Rejected::new(TOO_LARGE, format!("the body is larger than max_body, {max_body} bytes"))
    }
}

impl Settings {
    /// Whether a template needs the payload as a value. If none does, it is checked and never built.
    fn looks_inside(&self) -> bool {
        let texts = [Some(&self.topic), self.dedupe.as_ref()];
        let roots = texts.into_iter().flatten().map(Text::roots).chain(self.body.as_ref().map(Json::roots));
        roots.into_iter().any(|roots| roots.contains(Roots::PAYLOAD))
    }
}

impl Entry {
    fn of_value(value: Value) -> Entry {
        let payload = Payload { kind: Kind::Json, bytes: Bytes::from(value.to_string()) };
        Entry { payload, value: Some(value) }
    }
}

/// All drafts of a request, or why there is none (400 not JSON or not UTF-8, 415 media type, 422 a template that cannot be
/// filled). All or nothing.
pub fn drafts(settings: &Settings, request: &Request<'_>, now: Time) -> Result<Vec<Draft>, Rejected> {
    let entries = entries(settings, request)?;
    entries.into_iter().enumerate().map(|(index, entry)| draft(settings, request, now, index, &entry)).collect()
}

fn entries(settings: &Settings, request: &Request<'_>) -> Result<Vec<Entry>, Rejected> {
    let text = body::text(settings.format, request.headers, &request.body)?;
    let looks_inside = settings.looks_inside();
    let as_sent = |kind| Payload { kind, bytes: request.body.clone() };
    Ok(match settings.format {
        BodyFormat::Json if looks_inside => {
            vec![Entry { payload: as_sent(Kind::Json), value: Some(body::parse_json(text)?) }]
        }
        BodyFormat::Json => {
            body::check_json(text)?;
            vec![Entry { payload: as_sent(Kind::Json), value: None }]
        }
        BodyFormat::Text => {
            vec![Entry { payload: as_sent(Kind::Text), value: looks_inside.then(|| Value::from(text)) }]
        }
        BodyFormat::Alertmanager => {
            Notification::read(text, settings.max_body)?.events().map(Entry::of_value).collect()
        }
    })
}

fn draft(
    settings: &Settings,
    request: &Request<'_>,
    now: Time,
    index: usize,
    entry: &Entry,
) -> Result<Draft, Rejected> {
    let mut scope = Scope {
        payload: entry.value.as_ref(),
        raw: Some(&entry.payload),
        path: request.path,
        query: request.query,
        headers: Some(request.headers),
        now,
        ..Scope::default()
    };
    let topic = settings.topic.topic(&scope).map_err(|e| unfilled("topic", &e))?;
    scope.topic = Some(topic.as_str());
    let key = match &settings.dedupe {
        Some(template) => own_key(template, &scope, index)?,
        None => default_key(settings.format, &scope),
    };
    let dedupe = key.map(|key| Dedupe { key: digest(&topic, &key), window: settings.dedupe_window });
    let payload = match &settings.body {
        Some(template) => template.payload(&scope).map_err(|e| unfilled("body", &e))?,
        None => entry.payload.clone(),
    };
    Ok(Draft { topic, payload, dedupe, name: None })
}

/// The key that the operator asked for; a template that becomes empty (`{header.x-id|}`) is no key.
fn own_key(template: &Text, scope: &Scope<'_>, index: usize) -> Result<Option<Vec<u8>>, Rejected> {
    let key = template.text(scope).map_err(|e| unfilled("dedupe", &e))?;
    if key.is_empty() {
        return Ok(None);
    }
    // What says nothing about the payload names the request, and each of its events needs a name of its own.
    let key = if template.roots().contains(Roots::PAYLOAD) { key } else { format!("{key}\0{index}") };
    Ok(Some(key.into_bytes()))
}

fn default_key(format: BodyFormat, scope: &Scope<'_>) -> Option<Vec<u8>> {
    if format == BodyFormat::Alertmanager {
        return scope.payload.map(|event| alertmanager::dedupe_parts(event).join("\0").into_bytes());
    }
    let mark = MARKS.iter().find_map(|name| scope.headers?.get(*name))?;
    (!mark.is_empty()).then(|| mark.as_bytes().to_vec())
}

/// Within a topic, because two senders may well count from 1 each; hashed, because a stream keeps many of them, and what
/// a sender sends may be long.
fn digest(topic: &Topic, key: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(topic.as_str().as_bytes());
    hash.update(b"\0");
    hash.update(key);
    hash.digest().to_string()
}

fn unfilled(template: &str, error: &Unfilled) -> Rejected {
    Rejected::new(UNFILLED, format!("{template}: {error}"))
}

#[cfg(test)]
mod tests;
