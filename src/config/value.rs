//! Kinds of values: how each is read, and how it is described in the schema.

use std::ops::RangeInclusive;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Map, Number, Value as Json, json};
use toml::Spanned;
use toml::de::DeValue;

use super::mistake::Wrong;
use super::reader::{Node, Reader, Table, closest, describe};
use super::units;
use crate::gate::limits::Rate;

type Read<T> = dyn Fn(&Reader, Node<'_>) -> Option<T>;

/// One kind of value. `read` keeps the mistake wherever it gives `None`.
pub struct Kind<T> {
    schema: Box<dyn Fn() -> Json>,
    read: Box<Read<T>>,
    free: bool,
}

impl<T: 'static> Kind<T> {
    /// How it is described, and how it is read.
    pub fn new(
        schema: impl Fn() -> Json + 'static,
        read: impl Fn(&Reader, Node<'_>) -> Option<T> + 'static,
    ) -> Kind<T> {
        Kind { schema: Box::new(schema), read: Box::new(read), free: false }
    }

    /// A table whose keys are the operator's own.
    pub fn free(self) -> Kind<T> {
        Kind { free: true, ..self }
    }

    /// Whether its keys are the operator's own.
    pub fn is_free(&self) -> bool {
        self.free
    }

    /// Its JSON Schema.
    pub fn schema(&self) -> Json {
        (self.schema)()
    }

    /// The value, or a mistake kept.
    pub fn read(&self, reader: &Reader, node: Node<'_>) -> Option<T> {
        (self.read)(reader, node)
    }

    /// Says in the schema which strings can be meant.
    pub fn matching(self, pattern: &'static str) -> Kind<T> {
        let Kind { schema, read, free } = self;
        let schema = move || {
            let mut schema = schema();
            schema["pattern"] = json!(pattern);
            schema
        };
        Kind { schema: Box::new(schema), read, free }
    }

    /// The same, looked at more closely or made into something else.
    pub fn then<U: 'static>(self, check: impl Fn(T) -> Result<U, Wrong> + 'static) -> Kind<U> {
        let Kind { schema, read, free } = self;
        let read = move |reader: &Reader, node: Node<'_>| {
            let checked = check(read(reader, node)?);
            checked.map_err(|wrong| reader.wrong(node.span(), wrong)).ok()
        };
        Kind { schema, read: Box::new(read), free }
    }
}

impl<T: 'static> Kind<Vec<T>> {
    /// A list with something in it.
    pub fn filled(self, what: &'static str) -> Kind<Vec<T>> {
        self.then(move |list| match list.is_empty() {
            true => Err(Wrong::new("the list is empty", format!("name at least one {what}"))),
            false => Ok(list),
        })
    }
}

/// A string that means something; `example` is what one looks like.
pub fn parsed<T: 'static, W: Into<Wrong>>(
    example: &'static str,
    parse: impl Fn(&str) -> Result<T, W> + 'static,
) -> Kind<T> {
    let schema = move || json!({ "type": "string", "examples": [example] });
    let read = move |reader: &Reader, node: Node<'_>| match node.get_ref() {
        DeValue::String(text) => parse(text).map_err(|wrong| reader.wrong(node.span(), wrong)).ok(),
        _ => unexpected(reader, node, &format!("a string, such as {example:?}")),
    };
    Kind::new(schema, read)
}

/// Any string that is not empty.
pub fn text(example: &'static str) -> Kind<String> {
    parsed(example, |text| match text {
        "" => Err(Wrong::new("the string is empty", String::new())),
        _ => Ok(text.to_owned()),
    })
}

/// One of a closed list of words.
pub fn choice<T: Clone + 'static>(words: &'static [(&'static str, T)]) -> Kind<T> {
    let all = || words.iter().map(|(word, _)| *word);
    let list = move || all().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ");
    let schema = move || json!({ "enum": all().collect::<Vec<_>>() });
    let read = move |reader: &Reader, node: Node<'_>| {
        let DeValue::String(text) = node.get_ref() else {
            return unexpected(reader, node, &format!("one of {}", list()));
        };
        let found = words.iter().find(|(word, _)| *word == text.as_ref());
        if found.is_none() {
            let help = match closest(text, all()) {
                Some(word) => format!("did you mean {word:?}?"),
                None => format!("one of {}", list()),
            };
            reader.wrong(node.span(), Wrong::new(format!("{text:?} is not known here"), help));
        }
        found.map(|(_, value)| value.clone())
    };
    Kind::new(schema, read)
}

/// `true` or `false`.
pub fn truth() -> Kind<bool> {
    let read = |reader: &Reader, node: Node<'_>| match node.get_ref() {
        DeValue::Boolean(truth) => Some(*truth),
        _ => unexpected(reader, node, "true or false"),
    };
    Kind::new(|| json!({ "type": "boolean" }), read)
}

/// A whole number within bounds.
pub fn integer<N: TryFrom<u64> + 'static>(bounds: RangeInclusive<u64>) -> Kind<N> {
    let (least, most) = (*bounds.start(), *bounds.end());
    let schema = move || json!({ "type": "integer", "minimum": least, "maximum": most });
    let read = move |reader: &Reader, node: Node<'_>| {
        let DeValue::Integer(number) = node.get_ref() else {
            return unexpected(reader, node, "a whole number");
        };
        let number = u64::from_str_radix(number.as_str(), number.radix()).ok().filter(|number| bounds.contains(number));
        let number = number.and_then(|number| N::try_from(number).ok());
        if number.is_none() {
            reader.wrong(node.span(), outside(least, most));
        }
        number
    };
    Kind::new(schema, read)
}

/// `"25s"`, within bounds written alike.
pub fn duration(least: &'static str, most: &'static str) -> Kind<Duration> {
    bounded("25s", least, most, units::duration).matching("^[0-9]+(ms|s|m|h|d)$")
}

/// `"64KiB"`, within bounds written alike.
pub fn size<N: TryFrom<u64> + 'static>(least: &'static str, most: &'static str) -> Kind<N> {
    let bytes = bounded("64KiB", least, most, units::size).matching("^[0-9]+(B|[KMG]i?B)$");
    bytes.then(move |bytes| N::try_from(bytes).map_err(|_| outside(least, most)))
}

fn bounded<T: PartialOrd + 'static>(
    example: &'static str,
    least: &'static str,
    most: &'static str,
    parse: fn(&str) -> Result<T, Wrong>,
) -> Kind<T> {
    parsed(example, move |text| {
        let value = parse(text)?;
        let bound = |text| parse(text).expect("a bound can be read");
        (bound(least)..=bound(most)).contains(&value).then_some(value).ok_or_else(|| outside(least, most))
    })
}

/// `"20/s burst 50"`.
pub fn rate() -> Kind<Rate> {
    parsed("20/s burst 50", units::rate).matching("^[0-9]+/[sm]( burst [0-9]+)?$")
}

/// A list; one alone need not stand in brackets.
pub fn list<T: 'static>(one: Kind<T>) -> Kind<Vec<T>> {
    let one = Rc::new(one);
    let described = Rc::clone(&one);
    let schema = move || {
        let item = described.schema();
        json!({ "anyOf": [item, { "type": "array", "items": item }] })
    };
    let read = move |reader: &Reader, node: Node<'_>| match node.get_ref() {
        DeValue::Array(nodes) => all_of(nodes.iter().map(|node| one.read(reader, node))),
        _ => Some(vec![one.read(reader, node)?]),
    };
    Kind::new(schema, read)
}

/// Every mistake is wanted, so all are read before one that failed counts.
fn all_of<T>(values: impl Iterator<Item = Option<T>>) -> Option<Vec<T>> {
    let values: Vec<Option<T>> = values.collect();
    values.into_iter().collect()
}

/// A table with known keys. `name` is what mistakes call it.
pub fn table<T: 'static>(name: &'static str, keys: impl Fn(&mut Table<'_>) -> Option<T> + 'static) -> Kind<T> {
    let keys = Rc::new(keys);
    let described = Rc::clone(&keys);
    let read = move |reader: &Reader, node: Node<'_>| match node.get_ref() {
        DeValue::Table(entries) => {
            let mut table = Table::new(reader, name, node.span(), Some(entries));
            let value = keys(&mut table);
            table.finish();
            value
        }
        _ => unexpected(reader, node, "a table"),
    };
    Kind::new(move || describe(&*described), read)
}

/// `[[name]]`, as often as wanted.
pub fn tables<T: 'static>(name: &'static str, keys: impl Fn(&mut Table<'_>) -> Option<T> + 'static) -> Kind<Vec<T>> {
    let one = Rc::new(table(name, keys));
    let described = Rc::clone(&one);
    let schema = move || json!({ "type": "array", "items": described.schema() });
    let read = move |reader: &Reader, node: Node<'_>| match node.get_ref() {
        DeValue::Array(nodes) => all_of(nodes.iter().map(|node| one.read(reader, node))),
        _ => unexpected(reader, node, &format!("tables under {name}, in double brackets")),
    };
    Kind::new(schema, read)
}

/// A string of one kind, or something else of another.
pub fn either<T: 'static>(text: Kind<T>, other: Kind<T>) -> Kind<T> {
    let free = text.free || other.free;
    let (text, other) = (Rc::new(text), Rc::new(other));
    let (text_too, other_too) = (Rc::clone(&text), Rc::clone(&other));
    let schema = move || json!({ "anyOf": [text_too.schema(), other_too.schema()] });
    let read = move |reader: &Reader, node: Node<'_>| match node.get_ref() {
        DeValue::String(_) => text.read(reader, node),
        _ => other.read(reader, node),
    };
    Kind { free, ..Kind::new(schema, read) }
}

/// Keeps that something else stands there.
pub fn unexpected<T>(reader: &Reader, node: Node<'_>, wanted: &str) -> Option<T> {
    let found = match node.get_ref() {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    reader.wrong(node.span(), Wrong::from(format!("expected {wanted}, found {found}")));
    None
}

fn outside(least: impl std::fmt::Display, most: impl std::fmt::Display) -> Wrong {
    format!("must be at least {least} and at most {most}").into()
}

/// As JSON, in the order of the file; the error has the value that JSON does not have.
pub fn to_json<'n>(node: Node<'n>) -> Result<Json, (Node<'n>, Wrong)> {
    let no_json = |message: String| (node, Wrong::from(message));
    Ok(match node.get_ref() {
        DeValue::String(text) => json!(text),
        DeValue::Boolean(truth) => json!(truth),
        DeValue::Integer(number) => {
            let parsed = i64::from_str_radix(number.as_str(), number.radix());
            json!(parsed.map_err(|_| no_json(format!("{number} is too large a number")))?)
        }
        DeValue::Float(number) => {
            let parsed = number.as_str().parse().ok().and_then(Number::from_f64);
            Json::Number(parsed.ok_or_else(|| no_json(format!("JSON has no number {number}")))?)
        }
        DeValue::Datetime(_) => return Err(no_json("JSON has no dates; put it in quotes".to_owned())),
        DeValue::Array(nodes) => nodes.iter().map(to_json).collect::<Result<_, _>>()?,
        DeValue::Table(_) => {
            let pairs = entries(node).into_iter().map(|(key, node)| Ok((key.get_ref().to_string(), to_json(node)?)));
            Json::Object(pairs.collect::<Result<Map<_, _>, _>>()?)
        }
    })
}

/// What stands in a table, in the order of the file. Nothing for other values.
pub fn entries<'n>(node: Node<'n>) -> Vec<(&'n Spanned<std::borrow::Cow<'n, str>>, Node<'n>)> {
    let DeValue::Table(table) = node.get_ref() else { return Vec::new() };
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}
