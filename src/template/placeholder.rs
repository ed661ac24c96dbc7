//! One placeholder: what it names, what it falls back to, what it finds.

use std::borrow::Cow;

use data_encoding::BASE64;
use http::HeaderName;
use serde_json::{Number, Value};

use super::{Roots, Scope, Unfilled};
use crate::event::Kind;
use crate::select::Field;
use crate::topic::is_separator;

/// `{name}`, `{name|fallback}`, `{name|fallback as number}`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Placeholder {
    /// As written, for messages: `.labels.job`.
    name: String,
    source: Source,
    fallback: Option<String>,
    number: bool,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq)]
enum Source {
    Payload(Field),
    /// `rest`: the path captures any rest under this name, not one segment.
    Path {
        name: String,
        rest: bool,
    },
    Query(String),
    Header(HeaderName),
    Claims(Field),
    Session,
    Topic,
    Id,
    Now,
    Stats(String),
    Channel,
}

/// A value that is there; never null, which counts as absent.
pub(super) enum Found<'a> {
    Text(Cow<'a, str>),
    Value(Cow<'a, Value>),
}

impl Placeholder {
    /// Reads what stands between the braces.
    pub fn parse(inside: &str, roots: Roots) -> Result<Placeholder, String> {
        let (rest, number) = match inside.strip_suffix(" as number") {
            Some(rest) => (rest, true),
            None => (inside, false),
        };
        let (name, fallback) = match rest.split_once('|') {
            Some((name, fallback)) => (name, Some(fallback.to_owned())),
            None => (rest, None),
        };
        if let Some(text) = fallback.as_ref().filter(|text| number && text.parse::<Number>().is_err()) {
            return Err(format!("`{{{inside}}}` falls back to {text:?}, which is no number"));
        }
        let source = Source::parse(name, roots)?;
        Ok(Placeholder { name: name.to_owned(), source, fallback, number })
    }

    pub fn root(&self) -> Roots {
        self.source.root()
    }

    /// Whether it is `{.}`, the payload itself.
    pub fn is_payload(&self) -> bool {
        !self.number && matches!(&self.source, Source::Payload(field) if field.is_whole())
    }

    /// Learns from the path what it captures: pairs of a name and whether it is a rest.
    pub fn bind_path(&mut self, captures: &[(String, bool)]) -> Result<(), String> {
        let Source::Path { name, rest } = &mut self.source else { return Ok(()) };
        let mut known = captures.iter().filter(|(capture, _)| capture == name).peekable();
        if known.peek().is_none() {
            return Err(format!("the path has no `{{{name}}}`, which `{{path.{name}}}` names"));
        }
        *rest = known.any(|(_, rest)| *rest);
        Ok(())
    }

    /// Whether what it becomes may be more than one segment of a name.
    pub fn may_span_segments(&self) -> bool {
        self.keeps_separators()
            || self.fallback.as_ref().is_some_and(|text| text.bytes().any(|byte| is_separator(byte) || byte == b'*'))
    }

    /// The value, or the fallback, or nothing.
    pub fn find<'a>(&'a self, scope: &Scope<'a>) -> Result<Option<Found<'a>>, Unfilled> {
        match self.found(scope)? {
            None => self.fallback.as_deref().map(|text| self.typed(Found::Text(text.into()))).transpose(),
            found => Ok(found),
        }
    }

    /// As a piece of text.
    pub fn text<'a>(&'a self, scope: &Scope<'a>) -> Result<Cow<'a, str>, Unfilled> {
        self.as_text(self.find(scope)?.ok_or_else(|| self.absent())?)
    }

    /// As a piece of a topic or pattern: a value cannot climb out of its segment, and cannot be empty. The fallback is
    /// the operator's own text and stands as written.
    pub fn name<'a>(&'a self, scope: &Scope<'a>) -> Result<Cow<'a, str>, Unfilled> {
        let text = self.found(scope)?.map(|found| self.as_text(found)).transpose()?;
        match (text, &self.fallback) {
            (Some(text), _) if !text.is_empty() => Ok(self.tame(text)),
            (_, Some(fallback)) => Ok(fallback.into()),
            (Some(_), None) => Err(self.is("empty")),
            (None, None) => Err(self.absent()),
        }
    }

    /// As several pieces: a list expands, anything else is a list of one. `verbatim`: as it is, wildcards and all.
    pub fn names(&self, scope: &Scope<'_>, verbatim: bool) -> Result<Vec<String>, Unfilled> {
        if let Some(Found::Value(value)) = self.found(scope)?
            && let Some(elements) = value.as_array()
        {
            return elements.iter().map(|element| self.element(element, verbatim)).collect();
        }
        let one = if verbatim { self.text(scope) } else { self.name(scope) };
        Ok(vec![one?.into_owned()])
    }

    pub fn absent(&self) -> Unfilled {
        self.is("absent")
    }

    fn element(&self, element: &Value, verbatim: bool) -> Result<String, Unfilled> {
        let text = self.as_text(Found::Value(Cow::Borrowed(element)))?;
        match text.is_empty() {
            true => Err(self.is("empty")),
            false if verbatim => Ok(text.into_owned()),
            false => Ok(self.tame(text).into_owned()),
        }
    }

    fn found<'a>(&self, scope: &Scope<'a>) -> Result<Option<Found<'a>>, Unfilled> {
        self.source.find(scope).map(|found| self.typed(found)).transpose()
    }

    /// A number if that is asked for.
    fn typed<'a>(&self, found: Found<'a>) -> Result<Found<'a>, Unfilled> {
        let text = match &found {
            _ if !self.number => return Ok(found),
            Found::Value(value) if value.is_number() => return Ok(found),
            Found::Value(value) => value.as_str(),
            Found::Text(text) => Some(&**text),
        };
        let number = text.and_then(|text| text.parse::<Number>().ok()).ok_or_else(|| self.is("not a number"))?;
        Ok(Found::Value(Cow::Owned(Value::Number(number))))
    }

    fn as_text<'a>(&self, found: Found<'a>) -> Result<Cow<'a, str>, Unfilled> {
        match found {
            Found::Text(text) => Ok(text),
            Found::Value(Cow::Borrowed(Value::String(text))) => Ok(text.into()),
            Found::Value(value) => match &*value {
                Value::String(text) => Ok(text.clone().into()),
                Value::Number(number) => Ok(number.as_str().to_owned().into()),
                Value::Bool(truth) => Ok(if *truth { "true" } else { "false" }.into()),
                Value::Null => Err(self.absent()),
                Value::Array(_) => Err(self.is("a list, not a text")),
                Value::Object(_) => Err(self.is("an object, not a text")),
            },
        }
    }

    /// Takes from a value what has a meaning in names.
    fn tame<'a>(&self, text: Cow<'a, str>) -> Cow<'a, str> {
        let keeps = self.keeps_separators();
        let wild = |c: char| c == '*' || !keeps && matches!(c, '/' | '.' | ':');
        if text.contains(wild) { text.replace(wild, "_").into() } else { text }
    }

    /// What is a name already, or the rest of a path, may have several segments.
    fn keeps_separators(&self) -> bool {
        matches!(self.source, Source::Topic | Source::Channel | Source::Path { rest: true, .. })
    }

    fn is(&self, what: &str) -> Unfilled {
        Unfilled(format!("`{{{}}}` is {what}", self.name))
    }
}

impl Source {
    fn parse(name: &str, roots: Roots) -> Result<Source, String> {
        let source = match name.split_once('.') {
            Some(("", _)) => Some(Source::Payload(Field::parse(name, false)?)),
            Some((root, key)) if !key.is_empty() => Source::parse_keyed(root, key)?,
            None => match name {
                "topic" => Some(Source::Topic),
                "id" => Some(Source::Id),
                "now" => Some(Source::Now),
                "channel" => Some(Source::Channel),
                _ => None,
            },
            _ => None,
        };
        source.filter(|source| roots.contains(source.root())).ok_or_else(|| {
            let here = if roots == Roots::NONE { "no placeholder does".into() } else { format!("here are: {roots}") };
            format!("`{{{name}}}` means nothing here; {here} (a brace itself is written `{{{{`)")
        })
    }

    fn parse_keyed(root: &str, key: &str) -> Result<Option<Source>, String> {
        Ok(Some(match root {
            "path" if key.ends_with("...") => {
                let name = key.trim_end_matches('.');
                return Err(format!("the dots stand in the path only; write `{{path.{name}}}`"));
            }
            "path" => Source::Path { name: key.to_owned(), rest: false },
            "query" => Source::Query(key.to_owned()),
            "header" => Source::Header(key.parse().map_err(|_| format!("`{key}` is no name of a header"))?),
            "claims" => Source::Claims(Field::parse(key, true)?),
            "session" if key == "id" => Source::Session,
            "stats" => Source::Stats(key.to_owned()),
            _ => return Ok(None),
        }))
    }

    fn root(&self) -> Roots {
        match self {
            Source::Payload(_) => Roots::PAYLOAD,
            Source::Path { .. } => Roots::PATH,
            Source::Query(_) => Roots::QUERY,
            Source::Header(_) => Roots::HEADER,
            Source::Claims(_) => Roots::CLAIMS,
            Source::Session => Roots::SESSION,
            Source::Topic => Roots::TOPIC,
            Source::Id => Roots::ID,
            Source::Now => Roots::NOW,
            Source::Stats(_) => Roots::STATS,
            Source::Channel => Roots::CHANNEL,
        }
    }

    fn find<'a>(&self, scope: &Scope<'a>) -> Option<Found<'a>> {
        match self {
            Source::Payload(field) => find_payload(field, scope),
            Source::Path { name, .. } => find_pair(scope.path, name),
            Source::Query(name) => find_pair(scope.query, name),
            Source::Header(name) => {
                let value = scope.headers?.get(name)?.as_bytes();
                Some(Found::Text(std::str::from_utf8(value).ok()?.into()))
            }
            Source::Claims(field) => present(field.get(scope.claims?)?),
            Source::Session => scope.session.map(|text| Found::Text(text.into())),
            Source::Topic => scope.topic.map(|text| Found::Text(text.into())),
            Source::Id => scope.id.map(|text| Found::Text(text.into())),
            Source::Channel => scope.channel.map(|text| Found::Text(text.into())),
            Source::Now => {
                let mut out = Vec::with_capacity(24);
                scope.now.write(&mut out);
                Some(Found::Text(String::from_utf8_lossy(&out).into_owned().into()))
            }
            Source::Stats(name) => {
                scope.stats?(name).filter(|value| !value.is_null()).map(Cow::Owned).map(Found::Value)
            }
        }
    }
}

impl Found<'_> {
    /// Appends it as JSON.
    pub fn write(&self, out: &mut Vec<u8>) {
        let written = match self {
            Found::Text(text) => serde_json::to_writer(out, text),
            Found::Value(value) => serde_json::to_writer(out, value),
        };
        written.expect("memory takes every write, and keys of JSON objects are texts");
    }

    pub fn into_value(self) -> Value {
        match self {
            Found::Text(text) => Value::String(text.into_owned()),
            Found::Value(value) => value.into_owned(),
        }
    }
}

/// A payload that is no JSON has no fields, but is something as a whole: text is itself, binary is base64.
fn find_payload<'a>(field: &Field, scope: &Scope<'a>) -> Option<Found<'a>> {
    if let Some(value) = scope.payload {
        return present(field.get(value)?);
    }
    let raw = scope.raw.filter(|_| field.is_whole())?;
    match raw.kind {
        Kind::Json => serde_json::from_slice(&raw.bytes).ok().map(|value| Found::Value(Cow::Owned(value))),
        Kind::Text => std::str::from_utf8(&raw.bytes).ok().map(|text| Found::Text(text.into())),
        Kind::Binary => Some(Found::Text(BASE64.encode(&raw.bytes).into())),
        Kind::Gap => None,
    }
}

fn find_pair<'a>(pairs: &'a [(String, String)], name: &str) -> Option<Found<'a>> {
    pairs.iter().find(|(key, _)| key == name).map(|(_, value)| Found::Text(value.as_str().into()))
}

fn present(value: &Value) -> Option<Found<'_>> {
    (!value.is_null()).then_some(Found::Value(Cow::Borrowed(value)))
}
