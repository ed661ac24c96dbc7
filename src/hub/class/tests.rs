use bytes::Bytes;

use super::*;
use crate::event::{Epoch, Kind, Payload, Place, Time};
use crate::topic::Topic;
use crate::wire::form::{Format, Transport};

fn event(position: u64) -> Event {
    Event {
        place: Place::new("s".into(), 0, false).into(),
        epoch: Epoch(1),
        position,
        topic: Topic::new("t").unwrap(),
        time: Time(0),
        payload: Payload { kind: Kind::Json, bytes: Bytes::from(format!("{position}")) },
    }
}

fn form(transport: Transport) -> Form {
    Form { transport, format: Format::Raw, chunked: false }
}

fn marks(position: u64) -> Vec<Mark> {
    [1, 2].map(|partition| Mark { partition, epoch: Epoch(1), position }).to_vec()
}

#[test]
fn an_event_is_encoded_once_for_each_class() {
    let mut classes = Classes::default();
    let reach: Arc<[u32]> = [1].into();
    let one = classes.enter(form(Transport::Ndjson), &reach);
    assert_eq!(classes.enter(form(Transport::Ndjson), &[1].into()), one, "the same form and reach");
    assert_ne!(classes.enter(form(Transport::Ndjson), &[1, 2].into()), one);
    let other = classes.enter(form(Transport::Sse), &reach);
    let first = classes.encode(one, 0, &event(1), &marks(1));
    assert_eq!(classes.encode(one, 0, &event(1), &marks(1)), first);
    let third = classes.encode(one, 2, &event(3), &marks(3));
    classes.encode(other, 2, &event(3), &marks(3));
    classes.seal();
    assert_eq!((first, third), ((0, 2), (2, 4)));
    assert_eq!(&classes.block(one)[..], b"1\n3\n");
    let mut cursor = Vec::new();
    crate::cursor::write(&marks(3)[..1], &mut cursor);
    let expected = format!("id: {}\ndata: 3\n\n", String::from_utf8(cursor).unwrap());
    assert_eq!(&classes.block(other)[..], expected.as_bytes(), "with a cursor of its reach alone");
}

#[test]
fn a_batch_leaves_nothing_to_the_next() {
    let mut classes = Classes::default();
    let one = classes.enter(form(Transport::Ndjson), &[1].into());
    classes.encode(one, 0, &event(1), &marks(1));
    classes.seal();
    classes.settle();
    assert!(classes.block(one).is_empty());
    assert_eq!(classes.encode(one, 0, &event(2), &marks(2)), (0, 2));
    classes.seal();
    assert_eq!(&classes.block(one)[..], b"2\n");
    classes.leave(one);
    classes.settle();
    assert!(classes.slab.is_empty());
}
