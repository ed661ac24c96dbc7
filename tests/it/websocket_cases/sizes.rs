//! Sizes up to the limit of 16 MiB, and one byte more.

use super::machine::{BINARY, Case, Chop, Expected, TEXT, frame, head};
use super::table::{cases, echoes, fails, first, last, middle, text};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const LIMIT: usize = 16 * MIB;

/// Such that no part of it can be taken for another.
fn payload(len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(len + 8);
    let mut at = 0u32;
    while out.len() < len {
        // Eight letters that count: cheap to make, and a text.
        out.extend((0..8).map(|digit| b'a' + (at >> (4 * (7 - digit)) & 0xf) as u8));
        at += 1;
    }
    out.truncate(len);
    out
}

/// What is too large is refused by what it announces, before it comes.
pub fn limits() -> Vec<Case> {
    let chops = &[Chop::Whole, Chop::Bytes(1)];
    let begun = first(BINARY, b"begun");
    let all = [
        cases("9 limits: one byte more is announced", chops, &[head(0x82, LIMIT as u64 + 1)], || fails(1009)),
        cases("9 limits: all there can be is announced", chops, &[head(0x81, u64::MAX >> 1)], || fails(1009)),
        cases("9 limits: a fragment too much is announced", chops, &[begun, head(0x00, LIMIT as u64)], || fails(1009)),
        cases("9 limits: after a text, a length without an end", chops, &[text(b"a"), head(0x82, 1 << 62)], || {
            Expected { echoes: vec![(TEXT, b"a".to_vec())], ..fails(1009) }
        }),
    ];
    all.into_iter().flatten().collect()
}

/// One frame each.
pub fn whole() -> Vec<Case> {
    let mut all = Vec::new();
    for len in [64 * KIB, 256 * KIB, MIB, 4 * MIB, 8 * MIB, LIMIT] {
        let payload = payload(len);
        for opcode in [TEXT, BINARY] {
            let name = format!("9 sizes: {} of {len} bytes", word(opcode));
            all.extend(cases(&name, &[Chop::Whole], &[frame(0x80 | opcode, &payload)], || echoes(opcode, &payload)));
        }
    }
    all
}

/// One message in many fragments, one frame in many writes, and 64 KiB in fragments of 1,300 bytes.
pub fn in_parts() -> Vec<Case> {
    let mut all = Vec::new();
    let mut message = |opcode, len: usize, part: usize, chop| {
        let payload = payload(len);
        let frames = if part >= len { vec![frame(0x80 | opcode, &payload)] } else { fragments(opcode, &payload, part) };
        let name = format!("9 parts: {} of {len} bytes, {part} each", word(opcode));
        all.extend(cases(&name, &[chop], &frames, || echoes(opcode, &payload)));
    };
    for opcode in [TEXT, BINARY] {
        for part in [64, 256, KIB, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB] {
            message(opcode, 4 * MIB, part, Chop::Whole);
        }
        for write in [64, 128, 256, 512, 1024, 2048] {
            message(opcode, MIB, MIB, Chop::Bytes(write));
        }
        message(opcode, 64 * KIB, 1300, Chop::Frames);
    }
    all
}

/// A thousand messages, one after the other and all at once.
pub fn many() -> Vec<Case> {
    let mut all = Vec::new();
    for opcode in [TEXT, BINARY] {
        for len in [0, 16, 64, 256, 1024, 4096] {
            let payload = payload(len);
            let frames = vec![frame(0x80 | opcode, &payload); 1000];
            let name = format!("9 many: {} of {len} bytes", word(opcode));
            let expected = || Expected { echoes: vec![(opcode, payload.clone()); 1000], ..Expected::default() };
            all.extend(cases(&name, &[Chop::Whole, Chop::Answered], &frames, expected));
        }
    }
    all
}

fn fragments(opcode: u8, payload: &[u8], part: usize) -> Vec<Vec<u8>> {
    let parts: Vec<&[u8]> = payload.chunks(part).collect();
    let frame = |(at, bytes): (usize, &&[u8])| match at {
        0 => first(opcode, bytes),
        at if at + 1 == parts.len() => last(bytes),
        _ => middle(bytes),
    };
    parts.iter().enumerate().map(frame).collect()
}

fn word(opcode: u8) -> &'static str {
    if opcode == TEXT { "text" } else { "binary" }
}
