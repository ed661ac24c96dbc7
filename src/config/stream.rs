//! `[[stream]]`, and conditions on a payload.

use std::cell::RefCell;
use std::sync::Arc;

use serde_json::Value as Json;
use serde_json::json;
use toml::de::DeValue;

use super::mistake::Wrong;
use super::reader::{Node, Reader, Table};
use super::value::{Kind, duration, entries, integer, list, parsed, to_json, truth, unexpected};
use crate::select::{Field, Fields};
use crate::stream::Settings;
use crate::topic::Pattern;

/// The stream that takes what no other does.
pub const LAST: &str = "events";

/// What a stream without a log has no use for.
const OF_A_LOG: [&str; 4] = ["max_events", "max_age", "retain", "clear"];

/// What streams further up take.
pub type Earlier = RefCell<Vec<Pattern>>;

/// `[[stream]]`.
pub fn stream(table: &mut Table<'_>, earlier: &Earlier) -> Option<Settings> {
    let name = table.required("name", name(), "name it: letters, digits and `_`; it is part of event ids and metrics");
    let topics = table.required(
        "topics",
        list(pattern()).filled("pattern"),
        "which topics lie in it; the first stream that matches wins",
    );
    let max_events =
        table.or("max_events", "100_000", integer(1..=10_000_000_000), "how many events may be read again");
    let max_age = table.optional("max_age", duration("1ms", "3650d"), "how old they may be");
    let retain = table.or(
        "retain",
        "0",
        integer(0..=10_000_000),
        "keep the last event of at most so many topics; the longest unchanged goes first",
    );
    let clear = table.optional(
        "clear",
        fields(false),
        "an event that matches is delivered and removes what is retained of its topic",
    );
    let partitions = table.or(
        "partitions",
        "1",
        integer(1..=64),
        "how many parts with an order of their own; a topic lies in one of them",
    );
    let live = table.or(
        "live",
        "false",
        truth(),
        "no log at all: no ids, cursors, replay, order between instances; lowest latency",
    );
    if live {
        for key in OF_A_LOG.into_iter().filter(|key| table.has(key)) {
            let help = format!("leave out `{key}`, or `live`");
            table.wrong(key, Wrong::new(format!("`{key}` and `live`: a live stream keeps nothing"), help));
        }
    } else if clear.is_some() && retain == 0 {
        let help = "set `retain`, or leave out `clear`";
        table.wrong("clear", Wrong::new("nothing is retained that could be cleared", help));
    }
    if let Some(topics) = &topics {
        let mut earlier = earlier.borrow_mut();
        if topics.iter().all(|topic| earlier.iter().any(|pattern| pattern.covers(topic))) {
            let help = "the first stream that matches wins: put the narrower one first";
            table.wrong("topics", Wrong::new("nothing ever gets here: streams above take all of it", help));
        }
        earlier.extend_from_slice(topics);
    }
    if let (Some(name), Some(topics)) = (&name, &topics) {
        table.keep_places(&format!("stream.{name}"), &["partitions", "live"]);
        if **name == *LAST && !topics.contains(&Pattern::all()) {
            let help = "take \"**\" too, or choose another name";
            table.wrong("topics", Wrong::new(format!("the stream `{LAST}` is where everything else goes"), help));
        }
    }
    Some(Settings { name: name?, topics: topics?, max_events, max_age, retain, clear, partitions, live })
}

/// The stream that is there without being said, with the defaults of any other.
pub fn last() -> Settings {
    let text = format!("name = {LAST:?}\ntopics = \"**\"");
    let entries = toml::de::DeTable::parse(&text).expect("two keys are TOML");
    let reader = Reader::default();
    let mut table = Table::new(&reader, LAST, 0..0, Some(entries.get_ref()));
    stream(&mut table, &Earlier::default()).expect("all other keys have defaults")
}

fn name() -> Kind<Arc<str>> {
    let good = |text: &str| {
        (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let parse = move |text: &str| match good(text) {
        true => Ok(Arc::from(text)),
        false => Err(Wrong::new(format!("{text:?} is no name of a stream"), "write 1-64 letters, digits and `_`")),
    };
    let name: Kind<Arc<str>> = parsed("alerts", parse);
    let once = move |reader: &Reader, node: Node<'_>| {
        let name = name.read(reader, node)?;
        if !reader.claim("stream", name.to_string()) {
            reader.wrong(node.span(), Wrong::from(format!("the stream `{name}` is there twice")));
        }
        Some(name)
    };
    Kind::new(|| json!({ "type": "string" }), once).matching("^[A-Za-z0-9_]{1,64}$")
}

/// A constant pattern.
pub fn pattern() -> Kind<Pattern> {
    parsed("alerts/**", |text| Pattern::new(text).map_err(|wrong| Wrong::from(wrong.0)))
}

/// `{ ".status" = "resolved" }`; `dotless`: also `{ status = … }` and, as TOML writes it, `{ labels.severity = … }`.
pub fn fields(dotless: bool) -> Kind<Fields> {
    let schema = || json!({ "type": "object", "minProperties": 1 });
    let read = move |reader: &Reader, node: Node<'_>| {
        let DeValue::Table(table) = node.get_ref() else {
            return unexpected(reader, node, "a table of fields and values");
        };
        if table.is_empty() {
            reader.wrong(node.span(), Wrong::new("no field is named", "name at least one field and its value"));
            return None;
        }
        let mut pairs = Vec::new();
        collect_fields(reader, node, None, dotless, &mut pairs)?;
        Some(Fields::new(pairs))
    };
    Kind::new(schema, read).free()
}

/// `None` once something was wrong, but never before all was looked at.
fn collect_fields(
    reader: &Reader,
    node: Node<'_>,
    parent: Option<&str>,
    dotless: bool,
    pairs: &mut Vec<(Field, Json)>,
) -> Option<()> {
    let mut whole = Some(());
    for (key, value) in entries(node) {
        let path = parent.map_or_else(|| key.get_ref().to_string(), |parent| format!("{parent}.{}", key.get_ref()));
        let good = match value.get_ref() {
            DeValue::Table(_) => collect_fields(reader, value, Some(&path), dotless, pairs),
            _ => {
                let field = Field::parse(&path, dotless).map_err(|wrong| reader.wrong(key.span(), wrong)).ok();
                let wanted = to_json(value).map_err(|(node, wrong)| reader.wrong(node.span(), wrong)).ok();
                field.zip(wanted).map(|pair| pairs.push(pair))
            }
        };
        whole = whole.and(good);
    }
    whole
}
