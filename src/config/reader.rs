//! Walks the file's tree and keeps every mistake instead of stopping at the first.
//!
//! The same calls that read a table describe it: over no document, [`describe`] runs them and keeps each key with its
//! kind, default and line of documentation. So the schema cannot say anything else than what is read.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde_json::{Map, Value as Json, json};
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::mistake::{Lines, Mistake, Mistakes, Place, Wrong};
use super::secret::may_have_password;
use super::value::{Kind, to_json};

/// A value of the file, with its place.
pub type Node<'a> = &'a Spanned<DeValue<'a>>;

/// What reading one file has found so far.
#[derive(Default)]
pub struct Reader {
    found: RefCell<Vec<Found>>,
    /// The keys that lead to where it is.
    keys: RefCell<Vec<&'static str>>,
    secrets: RefCell<Vec<Range<usize>>>,
    spans: RefCell<BTreeMap<String, Range<usize>>>,
    /// Names that may stand only once, by what they name.
    claims: RefCell<BTreeSet<(&'static str, String)>>,
}

struct Found {
    key: String,
    span: Range<usize>,
    wrong: Wrong,
}

/// A table while its keys are read.
pub struct Table<'a> {
    reader: &'a Reader,
    name: &'static str,
    span: Range<usize>,
    entries: Option<&'a DeTable<'a>>,
    known: Vec<&'static str>,
    /// Those whose value is a table with keys of the operator's own.
    free: Vec<&'static str>,
    description: Option<Description>,
}

#[derive(Default)]
struct Description {
    properties: Map<String, Json>,
    required: Vec<&'static str>,
}

impl Reader {
    /// Keeps a mistake about the key that is being read.
    pub fn wrong(&self, span: Range<usize>, wrong: impl Into<Wrong>) {
        let key = self.keys.borrow().join(".");
        self.found.borrow_mut().push(Found { key, span, wrong: wrong.into() });
    }

    /// Keeps a mistake about a key that was read before.
    pub fn wrong_at(&self, key: &str, wrong: impl Into<Wrong>) {
        let span = nearest(&self.spans.borrow(), key).cloned().unwrap_or_default();
        self.found.borrow_mut().push(Found { key: key.to_owned(), span, wrong: wrong.into() });
    }

    /// Whether the file says this key, of those whose places are kept.
    pub fn says(&self, key: &str) -> bool {
        self.spans.borrow().contains_key(key)
    }

    /// What the operator keeps to himself: never shown.
    pub fn secret(&self, span: Range<usize>) {
        self.secrets.borrow_mut().push(span);
    }

    /// Keeps that this name is taken; false if it was.
    pub fn claim(&self, what: &'static str, name: String) -> bool {
        self.claims.borrow_mut().insert((what, name))
    }

    /// All mistakes, in the order of the file, if there are any; else where the keys stand that a reload asks for.
    pub fn finish(self, file: &str, text: &str) -> Result<BTreeMap<String, Place>, Mistakes> {
        let (lines, secrets) = (Lines::new(text), self.secrets.into_inner());
        let mut found = self.found.into_inner();
        found.sort_by_key(|found| found.span.start);
        if found.is_empty() {
            let place = |(key, span)| (key, lines.place(&span, &secrets));
            return Ok(self.spans.into_inner().into_iter().map(place).collect());
        }
        // A message may repeat what stands there, and a URL may stand under any key.
        let written = secrets.iter().filter_map(|span| Some(text.get(span.clone())?.trim_matches(['"', '\''])));
        let urls: Vec<&str> = written.filter(|text| may_have_password(text)).collect();
        let mistake = |Found { key, span, wrong }: Found| Mistake {
            key,
            place: lines.place(&span, &secrets),
            message: urls.iter().fold(wrong.message, |message, url| message.replace(url, "***")),
            help: wrong.help,
        };
        Err(Mistakes { file: file.to_owned(), all: found.into_iter().map(mistake).collect() })
    }
}

/// What is kept under this dotted key, or else under the longest part of it.
pub fn nearest<'m, T>(map: &'m BTreeMap<String, T>, key: &str) -> Option<&'m T> {
    let shorter = || key.rsplit_once('.').and_then(|(parent, _)| nearest(map, parent));
    map.get(key).or_else(shorter)
}

/// The schema of a table that is read by `read`.
pub fn describe<T>(read: &dyn Fn(&mut Table<'_>) -> Option<T>) -> Json {
    let reader = Reader::default();
    let mut table = Table::new(&reader, "", 0..0, None);
    table.description = Some(Description::default());
    read(&mut table);
    let Description { properties, required } = table.description.take().unwrap_or_default();
    let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

impl<'a> Table<'a> {
    /// Over these entries; over none if it only describes itself.
    pub fn new(
        reader: &'a Reader,
        name: &'static str,
        span: Range<usize>,
        entries: Option<&'a DeTable<'a>>,
    ) -> Table<'a> {
        Table { reader, name, span, entries, known: Vec::new(), free: Vec::new(), description: None }
    }

    /// A key that must be there.
    pub fn required<T: 'static>(&mut self, key: &'static str, kind: Kind<T>, doc: &'static str) -> Option<T> {
        if let Some(description) = &mut self.description {
            description.required.push(key);
        } else if self.node(key).is_none() {
            self.wrong(key, Wrong::new(format!("`{key}` is missing in {}", self.name), doc));
        }
        self.take(key, &kind, doc, None).flatten()
    }

    /// A key that may be there.
    pub fn optional<T: 'static>(&mut self, key: &'static str, kind: Kind<T>, doc: &'static str) -> Option<T> {
        self.take(key, &kind, doc, None).flatten()
    }

    /// A key with a default, written as the file would write it.
    pub fn or<T: 'static>(&mut self, key: &'static str, default: &'static str, kind: Kind<T>, doc: &'static str) -> T {
        let node = DeValue::parse(default).expect("a default is TOML");
        let taken = self.take(key, &kind, doc, to_json(&node).ok()).flatten();
        taken.unwrap_or_else(|| kind.read(&Reader::default(), &node).expect("a default can be read"))
    }

    /// `None`: not there. `Some(None)`: there and wrong.
    fn take<T: 'static>(
        &mut self,
        key: &'static str,
        kind: &Kind<T>,
        doc: &str,
        default: Option<Json>,
    ) -> Option<Option<T>> {
        self.known.push(key);
        if kind.is_free() {
            self.free.push(key);
        }
        if let Some(description) = &mut self.description {
            let mut schema = kind.schema();
            schema["description"] = json!(doc);
            if let Some(default) = default {
                schema["default"] = default;
            }
            description.properties.insert(key.to_owned(), schema);
        }
        let node = self.node(key)?;
        self.reader.keys.borrow_mut().push(key);
        let value = kind.read(self.reader, node);
        self.reader.keys.borrow_mut().pop();
        Some(value)
    }

    fn node(&self, key: &str) -> Option<Node<'a>> {
        self.entries?.get(key)
    }

    /// Keeps a mistake about one of the keys, at its value, or at the table's head if it is not there.
    pub fn wrong(&self, key: &'static str, wrong: impl Into<Wrong>) {
        self.wrong_within(key, self.node(key).map_or(self.span.clone(), Spanned::span), wrong.into());
    }

    fn wrong_within(&self, key: &'static str, span: Range<usize>, wrong: Wrong) {
        self.reader.keys.borrow_mut().push(key);
        self.reader.wrong(span, wrong);
        self.reader.keys.borrow_mut().pop();
    }

    /// A mistake that has no one key.
    pub fn wrong_whole(&self, wrong: impl Into<Wrong>) {
        self.reader.wrong(self.span.clone(), wrong);
    }

    /// Keeps where these keys stand, for whoever asks after `name.key`.
    pub fn keep_places(&self, name: &str, keys: &[&str]) {
        let mut spans = self.reader.spans.borrow_mut();
        spans.insert(name.to_owned(), self.span.clone());
        for key in keys {
            if let Some(node) = self.node(key) {
                spans.insert(format!("{name}.{key}"), node.span());
            }
        }
    }

    /// Whether the file has this key here.
    pub fn has(&self, key: &str) -> bool {
        self.node(key).is_some()
    }

    /// Whether the file says nothing here at all.
    pub fn is_empty(&self) -> bool {
        self.entries.is_none_or(|entries| entries.is_empty())
    }

    /// Where mistakes are kept.
    pub fn reader(&self) -> &'a Reader {
        self.reader
    }

    /// All keys were read: what is left was never known.
    pub fn finish(self) {
        let Some(entries) = self.entries else { return };
        for (key, _) in entries.iter().filter(|(key, _)| !self.known.contains(&&**key.get_ref())) {
            let wrong =
                Wrong::new(format!("unknown key `{}` in {}", key.get_ref(), self.name), self.suggestion(key.get_ref()));
            self.reader.wrong(key.span(), wrong);
        }
        for free in &self.free {
            self.find_strays(free);
        }
    }

    fn suggestion(&self, key: &str) -> String {
        match closest(key, self.known.iter().copied()) {
            Some(known) => format!("did you mean `{known}`?"),
            None => format!("known here: {}", self.known.join(", ")),
        }
    }

    /// `[endpoint.hello]` swallows what follows it, and whatever is in it would be taken for content.
    fn find_strays(&self, free: &'static str) {
        let Some(DeValue::Table(inside)) = self.node(free).map(Spanned::get_ref) else { return };
        for key in inside.keys().filter(|key| self.known.contains(&&**key.get_ref()) && !is_quoted(key)) {
            let key_name = key.get_ref();
            let wrong = Wrong::new(
                format!("`{key_name}` is a key of {}, and here it would be content of `{free}`", self.name),
                format!("move it out of `{free}`, or quote it if it is meant to be there: \"{key_name}\""),
            );
            self.wrong_within(free, key.span(), wrong);
        }
    }
}

fn is_quoted(key: &Spanned<DeString<'_>>) -> bool {
    key.span().len() > key.get_ref().len()
}

/// The name that somebody probably meant.
pub fn closest<'n>(text: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let far = text.chars().count() / 3 + 1;
    let near =
        names.map(|name| (strsim::damerau_levenshtein(text, name), name)).filter(|(distance, _)| *distance <= far);
    near.min_by_key(|(distance, _)| *distance).map(|(_, name)| name)
}
