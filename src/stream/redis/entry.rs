//! An event as an entry of a Redis Stream, and as a last value. Pure.

use std::sync::Arc;

use bytes::Bytes;
use redis::{Cmd, Value};

use crate::event::{Epoch, Event, Kind, Payload, Place, Time};
use crate::stream::partition::Entry;
use crate::topic::Topic;

/// A JSON event that removes what is retained of its topic.
const CLEARS: &str = "json clear";
/// In the place of a window: only where the source appended something before.
const IF_KNOWN: &str = "known";

/// Adds the seven arguments of a draft.
pub(super) fn write(entry: &Entry, command: &mut Cmd) {
    let kind = if entry.clears { CLEARS } else { word(entry.payload.kind) };
    command.arg(entry.topic.as_str()).arg(kind).arg(&entry.payload.bytes[..]);
    match &entry.key {
        Some(key) => command.arg(key.digest.bytes()).arg(key.window.as_millis().min(u128::from(u32::MAX)) as u64),
        None => command.arg("").arg(if entry.if_known { IF_KNOWN } else { "" }),
    };
    match entry.name {
        Some(name) => command.arg(name.0).arg(name.1),
        None => command.arg("").arg(""),
    };
}

/// How a kind is written.
pub(super) fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Json => "json",
        Kind::Text => "text",
        Kind::Binary => "binary",
        Kind::Gap => "gap",
    }
}

/// A kind, and whether it clears.
pub(super) fn kind(word: &[u8]) -> Option<(Kind, bool)> {
    Some(match word {
        b"json" => (Kind::Json, false),
        b"json clear" => (Kind::Json, true),
        b"text" => (Kind::Text, false),
        b"binary" => (Kind::Binary, false),
        b"gap" => (Kind::Gap, false),
        _ => return None,
    })
}

/// One entry of a log: its id, and the event with whether it clears. `None` is no entry of ours.
pub(super) fn read(entry: Value, place: &Arc<Place>) -> Option<((u64, u64), Arc<Event>, bool)> {
    let Value::Array(parts) = entry else { return None };
    let [id, fields] = <[Value; 2]>::try_from(parts).ok()?;
    let id = read_id(&bytes(id)?)?;
    let Value::Array(fields) = fields else { return None };
    let (mut epoch, mut topic, mut sort, mut data) = (None, None, None, None);
    let mut fields = fields.into_iter();
    while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
        let (name, value) = (bytes(name)?, bytes(value)?);
        match &name[..] {
            b"epoch" => epoch = text(&value)?.parse().ok().map(Epoch),
            b"topic" => topic = Topic::new(text(&value)?).ok(),
            b"kind" => sort = kind(&value),
            b"data" => data = Some(value),
            _ => {}
        }
    }
    let ((kind, clears), payload) = (sort?, Bytes::from(data?));
    let payload = Payload { kind, bytes: payload };
    let event = Event { place: place.clone(), epoch: epoch?, position: id.1, topic: topic?, time: Time(id.0), payload };
    Some((id, Arc::new(event), clears))
}

/// About how many bytes an entry is: those of its fields.
pub(super) fn size(entry: &Value) -> usize {
    match entry {
        Value::Array(parts) => parts.iter().map(size).sum(),
        Value::BulkString(bytes) => bytes.len(),
        _ => 0,
    }
}

/// A last value: `epoch position time kind`, a line break, the payload.
pub(super) fn read_value(topic: Value, value: Value, place: &Arc<Place>) -> Option<Arc<Event>> {
    let (topic, value) = (Topic::new(text(&bytes(topic)?)?).ok()?, Bytes::from(bytes(value)?));
    let end = memchr::memchr(b'\n', &value)?;
    let mut head = text(&value[..end])?.splitn(4, ' ');
    let mut number = || head.next()?.parse::<u64>().ok();
    let (epoch, position, time) = (Epoch(number()? as u32), number()?, Time(number()?));
    let (kind, _) = kind(head.next()?.as_bytes())?;
    let payload = Payload { kind, bytes: value.slice(end + 1..) };
    Some(Arc::new(Event { place: place.clone(), epoch, position, topic, time, payload }))
}

/// `time-position`.
pub(super) fn read_id(id: &[u8]) -> Option<(u64, u64)> {
    let (time, position) = text(id)?.split_once('-')?;
    Some((time.parse().ok()?, position.parse().ok()?))
}

pub(super) fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.into_bytes()),
        _ => None,
    }
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}
