//! A text with placeholders.

use std::borrow::Cow;

use serde_json::Value;

use super::placeholder::{Found, Placeholder};
use super::{Roots, Scope, Unfilled};
use crate::topic::{NameError, Pattern, Topic, parts};

/// Stands for a placeholder's value while a template's shape is found; no topic contains it.
const ANY: &str = "\u{1}";
/// The same for a value that may be several segments.
const ANY_REST: &str = "\u{2}";

/// A text with placeholders: a topic, a pattern, a dedupe key, a reply.
#[derive(Debug, Clone, PartialEq)]
pub struct Text(Vec<Piece>);

#[derive(Debug, Clone, PartialEq)]
enum Piece {
    Literal(String),
    Placeholder(Placeholder),
}

impl Text {
    /// Parses; the error says what is wrong, for the operator.
    pub fn parse(text: &str, roots: Roots) -> Result<Text, String> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, brace, after) = (&rest[..at], &rest[at..=at], &rest[at + 1..]);
            literal.push_str(before);
            if let Some(after) = after.strip_prefix(brace) {
                literal.push_str(brace);
                rest = after;
                continue;
            }
            let Some((inside, after)) = after.split_once('}').filter(|_| brace == "{") else {
                return Err(format!("a single `{brace}` in {text:?}; a brace itself is written `{brace}{brace}`"));
            };
            if !literal.is_empty() {
                pieces.push(Piece::Literal(std::mem::take(&mut literal)));
            }
            pieces.push(Piece::Placeholder(Placeholder::parse(inside, roots)?));
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        Ok(Text(pieces))
    }

    /// Says what the path around it captures, as pairs of a name and whether it is a rest: `{path.x}` of another name
    /// is a mistake, and the value of a rest keeps its separators. (Unbound, every capture counts as one segment.)
    pub fn bind_path(&mut self, captures: &[(String, bool)]) -> Result<(), String> {
        self.0.iter_mut().try_for_each(|piece| match piece {
            Piece::Literal(_) => Ok(()),
            Piece::Placeholder(placeholder) => placeholder.bind_path(captures),
        })
    }

    /// Whether it has no placeholder.
    pub fn is_constant(&self) -> bool {
        self.0.iter().all(|piece| matches!(piece, Piece::Literal(_)))
    }

    /// Whether it is one placeholder and nothing else.
    pub fn is_lone(&self) -> bool {
        self.lone().is_some()
    }

    /// Which roots it names (what a session must keep of its request to fill it later).
    pub fn roots(&self) -> Roots {
        self.placeholders().fold(Roots::NONE, |roots, placeholder| roots | placeholder.root())
    }

    /// As plain text, values verbatim.
    pub fn text(&self, scope: &Scope<'_>) -> Result<String, Unfilled> {
        self.fill(|placeholder| placeholder.text(scope))
    }

    /// As a topic: separators and `*` inside a value become `_` (DESIGN section 3), an empty value cannot be filled.
    pub fn topic(&self, scope: &Scope<'_>) -> Result<Topic, Unfilled> {
        Ok(Topic::new(&self.fill(|placeholder| placeholder.name(scope))?)?)
    }

    /// As patterns: like a topic, but the template's own `*` count; a lone placeholder whose value is a list gives one
    /// pattern for each element. `verbatim`: a lone placeholder is what a session itself asks for, taken as written.
    pub fn patterns(&self, scope: &Scope<'_>, verbatim: bool) -> Result<Vec<Pattern>, Unfilled> {
        let names = match self.lone() {
            Some(placeholder) => placeholder.names(scope, verbatim)?,
            None => vec![self.fill(|placeholder| placeholder.name(scope))?],
        };
        names.iter().map(|name| Ok(Pattern::new(name)?)).collect()
    }

    /// As one JSON value: a lone placeholder keeps its type, null when absent.
    pub fn value(&self, scope: &Scope<'_>) -> Result<Value, Unfilled> {
        match self.lone() {
            Some(placeholder) => Ok(placeholder.find(scope)?.map_or(Value::Null, Found::into_value)),
            None => self.text(scope).map(Value::String),
        }
    }

    /// Whether it is a topic once its placeholders have ordinary values: what can be wrong with it before.
    pub fn check_topic(&self) -> Result<(), NameError> {
        Topic::new(&self.filled_with(|_| "x")).map(drop)
    }

    /// The same for a pattern.
    pub fn check_pattern(&self) -> Result<(), NameError> {
        Pattern::new(&self.filled_with(|_| "x")).map(drop)
    }

    /// The pattern of everything it can become: a segment with a placeholder is `*`, one with a rest is `**`.
    pub fn shape(&self) -> Pattern {
        let text = self.filled_with(|placeholder| if placeholder.may_span_segments() { ANY_REST } else { ANY });
        let mut shape = String::new();
        for part in parts(&text) {
            let separator = part.text.strip_suffix(part.segment()).unwrap_or_default();
            shape.push_str(separator);
            match part.segment() {
                segment if segment.contains(ANY_REST) => {
                    shape.push_str("**");
                    break;
                }
                segment if segment.contains(ANY) => shape.push('*'),
                segment => shape.push_str(segment),
            }
        }
        // With more `*` than a pattern may have, or a text that is no name at all, "everything" is still no lie.
        Pattern::new(&shape).unwrap_or_else(|_| Pattern::all())
    }

    pub(super) fn lone(&self) -> Option<&Placeholder> {
        match &self.0[..] {
            [Piece::Placeholder(placeholder)] => Some(placeholder),
            _ => None,
        }
    }

    /// The text if there is no placeholder.
    pub(super) fn constant(&self) -> Option<&str> {
        match &self.0[..] {
            [] => Some(""),
            [Piece::Literal(text)] => Some(text),
            _ => None,
        }
    }

    fn placeholders(&self) -> impl Iterator<Item = &Placeholder> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Literal(_) => None,
            Piece::Placeholder(placeholder) => Some(placeholder),
        })
    }

    fn fill<'a>(
        &'a self,
        value: impl Fn(&'a Placeholder) -> Result<Cow<'a, str>, Unfilled>,
    ) -> Result<String, Unfilled> {
        let mut filled = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Literal(text) => filled.push_str(text),
                Piece::Placeholder(placeholder) => filled.push_str(&value(placeholder)?),
            }
        }
        Ok(filled)
    }

    fn filled_with(&self, value: impl Fn(&Placeholder) -> &'static str) -> String {
        self.fill(|placeholder| Ok(value(placeholder).into())).expect("a constant is never absent")
    }
}
