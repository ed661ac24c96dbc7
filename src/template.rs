//! Placeholders and JSON templates. Pure: everything a placeholder can mean comes in a [`Scope`].

use std::borrow::Cow;

use serde_json::Value;

use crate::event::{Payload, Time};
use crate::topic::{NameError, Pattern, Topic};

/// What placeholders may name in one place of the file, as a set: `Roots::PAYLOAD | Roots::PATH`. A template that names
/// another is a mistake found when the file is read ("`{claims.…}` means nothing here; here are: …").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roots(pub u16);

/// What placeholders mean now. Everything absent is `None`/empty.
#[derive(Default)]
pub struct Scope<'a> {
    /// `{.}` and `{.a.b}`.
    pub payload: Option<&'a Value>,
    /// The payload as it came: `{.}` in a JSON template is spliced from here byte for byte; a lone `{.}` as a whole
    /// publish body keeps its kind (also text and binary).
    pub raw: Option<&'a Payload>,
    /// `{path.x}`, percent-decoded.
    pub path: &'a [(String, String)],
    /// `{query.x}`.
    pub query: &'a [(String, String)],
    /// `{header.x}`.
    pub headers: Option<&'a http::HeaderMap>,
    /// `{claims.x}`, dots descend.
    pub claims: Option<&'a Value>,
    /// `{session.id}`.
    pub session: Option<&'a str>,
    /// `{topic}`.
    pub topic: Option<&'a str>,
    /// `{id}`.
    pub id: Option<&'a str>,
    /// `{now}`.
    pub now: Time,
    /// `{stats.x}`.
    pub stats: Option<&'a dyn Fn(&str) -> Option<Value>>,
}

/// A text with placeholders: a topic, a pattern, a dedupe key, a reply.
#[derive(Debug, Clone, PartialEq)]
pub struct Text(());

/// A JSON value whose strings (and keys) are templates; filled into bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Json(());

/// A placeholder that had nothing to say, or a result that is no topic. The message names it: "`{.labels.job}` is absent".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unfilled(pub String);

impl From<NameError> for Unfilled {
    fn from(e: NameError) -> Unfilled {
        Unfilled(e.0)
    }
}

impl Text {
    /// Parses; the error says what is wrong, for the operator.
    pub fn parse(text: &str, roots: Roots) -> Result<Text, String> {
        let _ = (text, roots);
        todo!()
    }
    /// Whether it has no placeholder.
    pub fn is_constant(&self) -> bool {
        todo!()
    }
    /// Whether it is one placeholder and nothing else.
    pub fn is_lone(&self) -> bool {
        todo!()
    }
    /// Which roots it names (what a session must keep of its request to fill it later).
    pub fn roots(&self) -> Roots {
        todo!()
    }
    /// As plain text, values verbatim.
    pub fn text(&self, scope: &Scope<'_>) -> Result<String, Unfilled> {
        let _ = scope;
        todo!()
    }
    /// As a topic: separators and `*` inside a value become `_` (DESIGN section 3), an empty value cannot be filled.
    pub fn topic(&self, scope: &Scope<'_>) -> Result<Topic, Unfilled> {
        let _ = scope;
        todo!()
    }
    /// As patterns: like a topic, but the template's own `*` count; a lone placeholder whose value is a list gives one
    /// pattern for each element. `verbatim`: a lone placeholder is what a session itself asks for, taken as written.
    pub fn patterns(&self, scope: &Scope<'_>, verbatim: bool) -> Result<Vec<Pattern>, Unfilled> {
        let _ = (scope, verbatim);
        todo!()
    }
    /// As one JSON value: a lone placeholder keeps its type, null when absent.
    pub fn value(&self, scope: &Scope<'_>) -> Result<Value, Unfilled> {
        let _ = scope;
        todo!()
    }
    /// The pattern of everything it can become: a segment with a placeholder is `*`, `{path.x...}` is `**`.
    pub fn shape(&self) -> Pattern {
        todo!()
    }
}

impl Json {
    /// Parses a template from a JSON value (the file's TOML, converted).
    pub fn parse(value: &Value, roots: Roots) -> Result<Json, String> {
        let _ = (value, roots);
        todo!()
    }
    /// Which roots it names.
    pub fn roots(&self) -> Roots {
        todo!()
    }
    /// As a payload: JSON bytes; a template that is the lone string `"{.}"` is the raw payload with its kind.
    pub fn payload(&self, scope: &Scope<'_>) -> Result<Payload, Unfilled> {
        let _ = scope;
        todo!()
    }
    /// As text for a reply: JSON, except that a template that is a plain string is that text itself (`reply = "pong"`).
    pub fn reply(&self, scope: &Scope<'_>) -> Result<Vec<u8>, Unfilled> {
        let _ = scope;
        todo!()
    }
}

#[allow(unused)]
fn unused(_: Cow<'_, str>) {}
