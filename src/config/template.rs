//! Templates in the file: which placeholders mean something where, and whether what they become can be a topic.

use std::rc::Rc;

use serde_json::{Value as Json, json};
use toml::de::DeValue;

use super::mistake::Wrong;
use super::reader::{Node, Reader};
use super::value::{Kind, entries, parsed, to_json, unexpected};
use crate::http::path::PathPattern;
use crate::template::{Json as JsonTemplate, Roots, Text};

/// What placeholders may name in one place of the file.
#[derive(Clone)]
pub struct Placeholders {
    roots: Roots,
    /// What every path captures; `None` if the paths themselves are wrong, or there are none.
    captures: Option<Rc<[(String, bool)]>>,
}

impl Placeholders {
    /// Whatever `roots` name, and `{path.x}` if all of these paths capture it, since any of them may be the one.
    pub fn new(roots: Roots, paths: Option<&[PathPattern]>) -> Placeholders {
        let captures = paths.and_then(<[_]>::split_first).map(|(first, others)| {
            let others: Vec<_> = others.iter().map(PathPattern::names).collect();
            let find = |names: &[(String, bool)], name: &str| names.iter().find(|(other, _)| other == name).cloned();
            let in_all = |(name, rest): (String, bool)| {
                let same: Vec<_> = others.iter().map(|names| find(names, &name)).collect::<Option<_>>()?;
                Some((name, rest || same.iter().any(|(_, rest)| *rest)))
            };
            first.names().into_iter().filter_map(in_all).collect()
        });
        Placeholders { roots: roots | Roots::PATH, captures }
    }

    /// Where there is no path.
    pub fn without_path(roots: Roots) -> Placeholders {
        Placeholders { roots, captures: None }
    }

    /// The same and more.
    pub fn and(&self, roots: Roots) -> Placeholders {
        Placeholders { roots: self.roots | roots, captures: self.captures.clone() }
    }

    fn text(&self, text: &str) -> Result<Text, Wrong> {
        let mut template = Text::parse(text, self.roots)?;
        self.captures.as_deref().map_or(Ok(()), |captures| template.bind_path(captures))?;
        Ok(template)
    }

    fn json(&self, value: &Json) -> Result<JsonTemplate, Wrong> {
        let mut template = JsonTemplate::parse(value, self.roots)?;
        self.captures.as_deref().map_or(Ok(()), |captures| template.bind_path(captures))?;
        Ok(template)
    }
}

/// Any text.
pub fn text(example: &'static str, placeholders: &Placeholders) -> Kind<Text> {
    let placeholders = placeholders.clone();
    parsed(example, move |text| placeholders.text(text))
}

/// What becomes a topic.
pub fn topic(example: &'static str, placeholders: &Placeholders) -> Kind<Text> {
    text(example, placeholders).then(|template| match template.check_topic() {
        Ok(()) => Ok(template),
        Err(wrong) => Err(wrong.0.into()),
    })
}

/// What becomes patterns.
pub fn patterns(example: &'static str, placeholders: &Placeholders) -> Kind<Text> {
    text(example, placeholders).then(|template| match template.check_pattern() {
        Ok(()) => Ok(template),
        Err(wrong) => Err(wrong.0.into()),
    })
}

/// Any value, whose strings are templates.
pub fn json(placeholders: &Placeholders) -> Kind<JsonTemplate> {
    let placeholders = placeholders.clone();
    let read = move |reader: &Reader, node: Node<'_>| {
        check_strings(reader, node, &placeholders)?;
        let value = to_json(node).map_err(|(node, wrong)| reader.wrong(node.span(), wrong)).ok()?;
        placeholders.json(&value).map_err(|wrong| reader.wrong(node.span(), wrong)).ok()
    };
    Kind::new(|| json!({}), read).free()
}

/// One string (a template), number or boolean.
pub fn scalar(example: &'static str, placeholders: &Placeholders) -> Kind<JsonTemplate> {
    let any = json(placeholders);
    let read = move |reader: &Reader, node: Node<'_>| match node.get_ref() {
        DeValue::String(_) | DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) => any.read(reader, node),
        _ => unexpected(reader, node, &format!("a text, a number or true/false, such as \"{example}\"")),
    };
    Kind::new(|| json!({ "type": ["string", "number", "boolean"] }), read)
}

/// Each string on its own, so that a mistake has its place within a large value.
fn check_strings(reader: &Reader, node: Node<'_>, placeholders: &Placeholders) -> Option<()> {
    let check = |text: &str, span| {
        let checked = placeholders.text(text);
        checked.map(drop).map_err(|wrong| reader.wrong(span, wrong)).ok()
    };
    let good: Vec<Option<()>> = match node.get_ref() {
        DeValue::String(text) => vec![check(text, node.span())],
        DeValue::Array(nodes) => nodes.iter().map(|node| check_strings(reader, node, placeholders)).collect(),
        DeValue::Table(_) => {
            let both = entries(node).into_iter();
            both.map(|(key, value)| check(key.get_ref(), key.span()).and(check_strings(reader, value, placeholders)))
                .collect()
        }
        _ => Vec::new(),
    };
    good.into_iter().collect()
}
