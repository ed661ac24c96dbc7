//! An entry of an application's Redis Stream: what Redis says of it, and the payload that is in it. Pure.

use bytes::Bytes;
use data_encoding::BASE64;
use redis::Value;
use serde_json::Map;

use super::draft;
use super::tail::Info;
use crate::event::{Kind, Payload};
use crate::stream::Name;

/// The field that is the payload.
const DATA: &[u8] = b"data";

/// An entry, as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub id: Name,
    /// In their order; a name may be there twice.
    pub fields: Vec<(Bytes, Bytes)>,
}

impl Entry {
    /// The field `data`, or the only field; else the whole entry as an object of texts, in which the value of a field that
    /// is no UTF-8 stands in base64, as `NAME_base64`.
    pub fn payload(&self) -> Payload {
        let data = self.fields.iter().find(|(name, _)| name == DATA);
        let only = if let [only] = &self.fields[..] { Some(only) } else { None };
        if let Some((_, value)) = data.or(only) {
            return draft::payload(value.clone());
        }
        let field = |(name, value): &(Bytes, Bytes)| {
            let name = String::from_utf8_lossy(name).into_owned();
            match std::str::from_utf8(value) {
                Ok(text) => (name, text.into()),
                Err(_) => (name + "_base64", BASE64.encode(value).into()),
            }
        };
        let object: Map<String, serde_json::Value> = self.fields.iter().map(field).collect();
        Payload { kind: Kind::Json, bytes: serde_json::Value::Object(object).to_string().into() }
    }
}

/// Of an answer of `XRANGE`. None: it is none.
pub fn entries(answer: Value) -> Option<Vec<Entry>> {
    list(answer)?.into_iter().map(entry).collect()
}

/// Of an answer of `XINFO STREAM`.
pub fn info(answer: Value) -> Option<Info> {
    let pairs = match answer {
        Value::Map(pairs) => pairs,
        other => {
            let mut flat = list(other)?.into_iter();
            std::iter::from_fn(|| flat.next().zip(flat.next())).collect()
        }
    };
    let mut info = Info::default();
    for (name, value) in pairs {
        match &bytes(name)?[..] {
            b"length" => info.length = number(&value)?,
            b"last-generated-id" => info.last = Some(id(&bytes(value)?)?),
            b"entries-added" => info.added = number(&value),
            b"max-deleted-entry-id" => info.deleted = Some(id(&bytes(value)?)?).filter(|id| *id > Name(0, 0)),
            b"first-entry" => info.first = entry(value).map(|entry| entry.id),
            _ => {}
        }
    }
    Some(info)
}

fn entry(answer: Value) -> Option<Entry> {
    let mut parts = list(answer)?.into_iter();
    let id = id(&bytes(parts.next()?)?)?;
    let mut flat = match parts.next()? {
        Value::Nil => Vec::new().into_iter(),
        fields => list(fields)?.into_iter(),
    };
    let pairs = std::iter::from_fn(|| flat.next().zip(flat.next()));
    Some(Entry { id, fields: pairs.map(|(name, value)| bytes(name).zip(bytes(value))).collect::<Option<_>>()? })
}

/// `<ms>-<number>`.
fn id(text: &[u8]) -> Option<Name> {
    let (ms, number) = std::str::from_utf8(text).ok()?.split_once('-')?;
    Some(Name(ms.parse().ok()?, number.parse().ok()?))
}

fn list(value: Value) -> Option<Vec<Value>> {
    if let Value::Array(values) = value { Some(values) } else { None }
}

fn bytes(value: Value) -> Option<Bytes> {
    match value {
        Value::BulkString(bytes) => Some(bytes.into()),
        Value::SimpleString(text) => Some(text.into()),
        _ => None,
    }
}

fn number(value: &Value) -> Option<u64> {
    if let Value::Int(number) = value { u64::try_from(*number).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn raw(id: &str, fields: &[&str]) -> Value {
        Value::Array(vec![bulk(id), Value::Array(fields.iter().map(|text| bulk(text)).collect())])
    }

    #[test]
    fn the_payload_is_data_or_the_only_field_or_the_entry() {
        let check = |fields: &[(&str, &[u8])], kind, expected: &[u8]| {
            let field = |(name, value): &(&str, &[u8])| (Bytes::from(name.to_string()), Bytes::copy_from_slice(value));
            let payload = Entry { id: Name(1, 1), fields: fields.iter().map(field).collect() }.payload();
            assert_eq!((payload.kind, &payload.bytes[..]), (kind, expected), "{fields:?}");
        };
        check(&[("a", b"1"), ("data", b"{\"b\":2}"), ("c", b"3")], Kind::Json, b"{\"b\":2}");
        check(&[("event", b"text")], Kind::Text, b"text");
        check(&[("event", b"\xff")], Kind::Binary, b"\xff");
        check(&[("b", b"1"), ("a", b"{}")], Kind::Json, br#"{"b":"1","a":"{}"}"#);
        check(&[("b", b"\xff\x00"), ("a", b"x")], Kind::Json, br#"{"b_base64":"/wA=","a":"x"}"#);
        check(&[("a", b"1"), ("a", b"2")], Kind::Json, br#"{"a":"2"}"#);
    }

    #[test]
    fn answers_are_read() {
        let two = Value::Array(vec![raw("5-0", &["a", "b"]), raw("5-1", &["c", "d", "e", "f"])]);
        let read = entries(two).unwrap();
        assert_eq!((read[0].id, read[1].id, read[1].fields.len()), (Name(5, 0), Name(5, 1), 2));
        for bad in [Value::Nil, Value::Array(vec![bulk("5-0")]), Value::Array(vec![raw("5", &[])])] {
            assert_eq!(entries(bad), None);
        }
        let pairs = vec![
            (bulk("length"), Value::Int(2)),
            (bulk("last-generated-id"), bulk("9-1")),
            (bulk("max-deleted-entry-id"), bulk("0-0")),
            (bulk("entries-added"), Value::Int(7)),
            (bulk("groups"), Value::Int(0)),
            (bulk("first-entry"), raw("5-0", &["a", "b"])),
        ];
        let expected =
            Info { length: 2, first: Some(Name(5, 0)), last: Some(Name(9, 1)), added: Some(7), deleted: None };
        let flat = pairs.iter().cloned().flat_map(|(name, value)| [name, value]).collect();
        for answer in [Value::Map(pairs), Value::Array(flat)] {
            assert_eq!(info(answer), Some(expected.clone()));
        }
        let empty = vec![(bulk("length"), Value::Int(0)), (bulk("first-entry"), Value::Nil)];
        assert_eq!(info(Value::Map(empty)), Some(Info::default()));
    }
}
