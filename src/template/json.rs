//! A JSON value with placeholders, kept as the bytes between them.

use bytes::Bytes;
use serde_json::Value;

use super::placeholder::{Found, Placeholder};
use super::{Roots, Scope, Text, Unfilled};
use crate::event::{Kind, Payload};

/// A JSON value whose strings (and keys) are templates; filled into bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Json {
    pieces: Vec<Piece>,
    /// The template, if it is a string as a whole.
    whole: Option<Text>,
}

#[derive(Debug, Clone, PartialEq)]
enum Piece {
    /// JSON as it goes out.
    Literal(Vec<u8>),
    /// A string with a placeholder; a lone one keeps its type.
    Value(Text),
    /// The same as a key, which is always a string.
    Key(Text),
}

impl Json {
    /// Parses a template from a JSON value (the file's TOML, converted).
    pub fn parse(value: &Value, roots: Roots) -> Result<Json, String> {
        let mut pieces = Vec::new();
        parse_value(value, roots, &mut pieces)?;
        let whole = value.as_str().map(|text| Text::parse(text, roots)).transpose()?;
        Ok(Json { pieces, whole })
    }

    /// Says what the path around it captures; see [`Text::bind_path`].
    pub fn bind_path(&mut self, captures: &[(String, bool)]) -> Result<(), String> {
        self.texts_mut().try_for_each(|text| text.bind_path(captures))
    }

    /// Which roots it names.
    pub fn roots(&self) -> Roots {
        self.pieces.iter().fold(Roots::NONE, |roots, piece| match piece {
            Piece::Literal(_) => roots,
            Piece::Value(text) | Piece::Key(text) => roots | text.roots(),
        })
    }

    /// As a payload: JSON bytes; a template that is the lone string `"{.}"` is the raw payload with its kind.
    pub fn payload(&self, scope: &Scope<'_>) -> Result<Payload, Unfilled> {
        match scope.raw.filter(|_| self.is_payload()) {
            Some(raw) => Ok(raw.clone()),
            None => Ok(Payload { kind: Kind::Json, bytes: Bytes::from(self.fill(scope)?) }),
        }
    }

    /// As one JSON value: a lone placeholder keeps its type, null when absent.
    pub fn value(&self, scope: &Scope<'_>) -> Result<Value, Unfilled> {
        serde_json::from_slice(&self.fill(scope)?).map_err(|e| Unfilled(e.to_string()))
    }

    /// As text for a reply: JSON, except that a template that is a plain string is that text itself (`reply = "pong"`).
    pub fn reply(&self, scope: &Scope<'_>) -> Result<Vec<u8>, Unfilled> {
        let Some(text) = &self.whole else { return self.fill(scope) };
        if let Some(raw) = scope.raw.filter(|raw| self.is_payload() && raw.kind == Kind::Json) {
            return Ok(raw.bytes.to_vec());
        }
        match text.lone() {
            Some(placeholder) => match placeholder.find(scope)?.ok_or_else(|| placeholder.absent())?.into_value() {
                Value::String(text) => Ok(text.into_bytes()),
                value => Ok(value.to_string().into_bytes()),
            },
            None => Ok(text.text(scope)?.into_bytes()),
        }
    }

    /// Whether it is nothing but `"{.}"`.
    fn is_payload(&self) -> bool {
        self.whole.as_ref().and_then(Text::lone).is_some_and(Placeholder::is_payload)
    }

    fn texts_mut(&mut self) -> impl Iterator<Item = &mut Text> {
        let pieces = self.pieces.iter_mut().filter_map(|piece| match piece {
            Piece::Literal(_) => None,
            Piece::Value(text) | Piece::Key(text) => Some(text),
        });
        pieces.chain(&mut self.whole)
    }

    fn fill(&self, scope: &Scope<'_>) -> Result<Vec<u8>, Unfilled> {
        let mut out = Vec::new();
        for piece in &self.pieces {
            match piece {
                Piece::Literal(json) => out.extend_from_slice(json),
                Piece::Value(text) => write_value(text, scope, &mut out)?,
                Piece::Key(text) => Found::Text(text.text(scope)?.into()).write(&mut out),
            }
        }
        Ok(out)
    }
}

fn write_value(text: &Text, scope: &Scope<'_>, out: &mut Vec<u8>) -> Result<(), Unfilled> {
    let Some(placeholder) = text.lone() else {
        Found::Text(text.text(scope)?.into()).write(out);
        return Ok(());
    };
    if let Some(raw) = scope.raw.filter(|raw| placeholder.is_payload() && raw.kind == Kind::Json) {
        out.extend_from_slice(&raw.bytes);
        return Ok(());
    }
    match placeholder.find(scope)? {
        Some(found) => found.write(out),
        None => out.extend_from_slice(b"null"),
    }
    Ok(())
}

fn parse_value(value: &Value, roots: Roots, pieces: &mut Vec<Piece>) -> Result<(), String> {
    match value {
        Value::String(text) => parse_string(text, roots, Piece::Value, pieces),
        Value::Array(elements) => {
            push_literal(pieces, b"[");
            for (at, element) in elements.iter().enumerate() {
                push_literal(pieces, if at == 0 { b"" } else { b"," });
                parse_value(element, roots, pieces)?;
            }
            push_literal(pieces, b"]");
            Ok(())
        }
        Value::Object(entries) => {
            push_literal(pieces, b"{");
            for (at, (key, element)) in entries.iter().enumerate() {
                push_literal(pieces, if at == 0 { b"" } else { b"," });
                parse_string(key, roots, Piece::Key, pieces)?;
                push_literal(pieces, b":");
                parse_value(element, roots, pieces)?;
            }
            push_literal(pieces, b"}");
            Ok(())
        }
        plain => {
            push_literal(pieces, plain.to_string().as_bytes());
            Ok(())
        }
    }
}

fn parse_string(text: &str, roots: Roots, piece: fn(Text) -> Piece, pieces: &mut Vec<Piece>) -> Result<(), String> {
    let text = Text::parse(text, roots)?;
    match text.constant() {
        Some(constant) => push_literal(pieces, Value::from(constant).to_string().as_bytes()),
        None => pieces.push(piece(text)),
    }
    Ok(())
}

fn push_literal(pieces: &mut Vec<Piece>, json: &[u8]) {
    match pieces.last_mut() {
        Some(Piece::Literal(last)) => last.extend_from_slice(json),
        _ => pieces.push(Piece::Literal(json.to_vec())),
    }
}
