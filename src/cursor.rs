//! Cursors: how far a session has read, as a short opaque token.

use data_encoding::BASE64URL_NOPAD;

use crate::event::Epoch;

/// The first byte. Another layout gets another number, and an old token is then a foreign one: a gap, not an error.
const VERSION: u8 = 1;

/// Longer tokens are none: no instance writes them, and a stranger must not buy work with them.
const MAX_TOKEN: usize = 4096;

/// How many marks certainly fit in a token that [`parse`] still reads: each is at most 18 bytes.
pub const MAX_MARKS: usize = 170;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// How far in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// The partition, by the hash of its name.
    pub partition: u32,
    /// Whose numbering.
    pub epoch: Epoch,
    /// The last position read; 0 is before the first.
    pub position: u64,
}

/// Bytes on their way into base64, three at a time, so that a cursor needs no buffer between.
struct Encoder<'a> {
    group: u32,
    held: usize,
    out: &'a mut Vec<u8>,
}

impl Encoder<'_> {
    fn push(&mut self, byte: u8) {
        self.group |= u32::from(byte) << (16 - 8 * self.held);
        self.held += 1;
        if self.held == 3 {
            self.flush();
        }
    }

    /// `n` held bytes are `n + 1` characters; none are none.
    fn flush(&mut self) {
        let sextet = |shift: u32| ALPHABET[(self.group >> shift & 63) as usize];
        let text = [sextet(18), sextet(12), sextet(6), sextet(0)];
        if self.held > 0 {
            self.out.extend_from_slice(&text[..=self.held]);
        }
        self.group = 0;
        self.held = 0;
    }
}

/// Encodes marks (sorted by partition, as the caller keeps them) as URL-safe text, appended to `out`: a version, then
/// for each partition hash, epoch, position. Under 64 bytes for three partitions with positions below 2^42.
pub fn write(marks: &[Mark], out: &mut Vec<u8>) {
    debug_assert!(marks.is_sorted_by(|a, b| a.partition < b.partition), "marks are sorted, each partition once");
    let mut encoder = Encoder { group: 0, held: 0, out };
    encoder.push(VERSION);
    for mark in marks {
        mark.partition.to_be_bytes().into_iter().for_each(|byte| encoder.push(byte));
        mark.epoch.0.to_be_bytes().into_iter().for_each(|byte| encoder.push(byte));
        let mut rest = mark.position;
        while rest >= 0x80 {
            encoder.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        encoder.push(rest as u8);
    }
    encoder.flush();
}

/// Reads a token back; `None` for whatever is not a well-formed one (bounded work for any input). Marks come sorted,
/// each partition once, and there is one token for the same marks.
pub fn parse(token: &str) -> Option<Vec<Mark>> {
    if token.len() > MAX_TOKEN {
        return None;
    }
    let bytes = BASE64URL_NOPAD.decode(token.as_bytes()).ok()?;
    let (&VERSION, mut rest) = bytes.split_first()? else { return None };
    let mut marks: Vec<Mark> = Vec::new();
    while !rest.is_empty() {
        let mark = read_mark(&mut rest)?;
        if marks.last().is_some_and(|last| last.partition >= mark.partition) {
            return None;
        }
        marks.push(mark);
    }
    Some(marks)
}

fn read_mark(rest: &mut &[u8]) -> Option<Mark> {
    let partition = u32::from_be_bytes(*rest.split_off(..4)?.as_array()?);
    let epoch = Epoch(u32::from_be_bytes(*rest.split_off(..4)?.as_array()?));
    Some(Mark { partition, epoch, position: read_varint(rest)? })
}

/// Seven bits a byte, low ones first; a last byte of 0 would be a second way to write the same number.
fn read_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *rest.split_off_first()?;
        let bits = u64::from(byte & 0x7f);
        if (bits << shift) >> shift != bits {
            return None;
        }
        number |= bits << shift;
        if byte < 0x80 {
            return (byte != 0 || shift == 0).then_some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn token(marks: &[Mark]) -> String {
        let mut out = Vec::new();
        write(marks, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn mark(partition: u32, epoch: u32, position: u64) -> Mark {
        Mark { partition, epoch: Epoch(epoch), position }
    }

    fn marks() -> impl Strategy<Value = Vec<Mark>> {
        let positions = prop_oneof![Just(0), 0..1000u64, any::<u64>(), Just(u64::MAX)];
        proptest::collection::btree_map(any::<u32>(), (any::<u32>(), positions), 0..20).prop_map(|marks| {
            marks.into_iter().map(|(partition, (epoch, position))| mark(partition, epoch, position)).collect()
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(marks in marks()) {
            prop_assert_eq!(parse(&token(&marks)), Some(marks));
        }

        #[test]
        fn what_reads_is_the_only_token_for_its_marks(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let text = BASE64URL_NOPAD.encode(&[&[VERSION][..], &bytes].concat());
            if let Some(marks) = parse(&text) {
                prop_assert_eq!(token(&marks), text);
            }
        }

        #[test]
        fn no_text_panics(text in ".{0,80}", bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            parse(&text);
            parse(&String::from_utf8_lossy(&bytes));
            parse(&BASE64URL_NOPAD.encode(&bytes));
        }
    }

    #[test]
    fn three_partitions_take_under_64_bytes() {
        let marks = [1, 2, 3].map(|partition| mark(partition, u32::MAX, (1 << 42) - 1));
        assert_eq!(token(&marks).len(), 58);
    }

    #[test]
    fn as_many_as_promised_read_back() {
        let marks: Vec<Mark> = (0..MAX_MARKS as u32).map(|partition| mark(partition, 7, u64::MAX)).collect();
        assert_eq!(parse(&token(&marks)), Some(marks));
    }

    #[test]
    fn the_token_is_appended() {
        let mut out = b"id: ".to_vec();
        write(&[mark(0x0102_0304, 5, 300)], &mut out);
        assert_eq!(out, b"id: AQECAwQAAAAFrAI");
    }

    #[test]
    fn what_no_instance_wrote_is_none() {
        let with = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
        let body = |partition: u8, position: &[u8]| [&[0, 0, 0, partition, 0, 0, 0, 9][..], position].concat();
        for (why, token) in [
            ("empty", String::new()),
            ("another version", with(&[2])),
            ("cut in the hash", with(&[1, 0, 0])),
            ("cut in the epoch", with(&[1, 0, 0, 0, 1, 0])),
            ("without a position", with(&[1, 0, 0, 0, 1, 0, 0, 0, 9])),
            ("position cut", with(&[&[1], &body(1, &[0x80])[..]].concat())),
            ("position too long", with(&[&[1], &body(1, &[0x80, 0])[..]].concat())),
            ("position too large", with(&[&[1], &body(1, &[0xff; 9])[..], &[2]].concat())),
            ("position without end", with(&[&[1], &body(1, &[0xff; 12])[..]].concat())),
            ("one partition twice", with(&[&[1], &body(1, &[1])[..], &body(1, &[2])].concat())),
            ("not sorted", with(&[&[1], &body(2, &[1])[..], &body(1, &[1])].concat())),
            ("padded", "AQ==".into()),
            ("the other alphabet", "AQ+/".into()),
            ("bits left over", "AR".into()),
            ("an event id", "alerts-k3f9-1042".into()),
            ("well-formed, but too long", token(&(0..400).map(|partition| mark(partition, 0, 0)).collect::<Vec<_>>())),
        ] {
            assert_eq!(parse(&token), None, "{why}");
        }
        assert_eq!(parse("AQ"), Some(vec![]));
    }
}
