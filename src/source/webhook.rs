//! A webhook's request becomes drafts. No HTTP server here: headers and a body in, drafts or a refusal out.

use std::time::Duration;

use bytes::Bytes;

use super::verify::Verify;
use crate::event::Time;
use crate::stream::Draft;
use crate::template::{Json, Text};

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
    pub headers: &'a http::HeaderMap,
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

/// All drafts of a request, or why there is none (400 not JSON or not UTF-8, 415 media type, 422 a template that cannot be
/// filled). All or nothing.
pub fn drafts(settings: &Settings, request: &Request<'_>, now: Time) -> Result<Vec<Draft>, Rejected> {
    let _ = (settings, request, now);
    todo!()
}
