//! Framing, pings, reserved bits, opcodes, fragments, closing.

use std::slice::from_ref;

use super::machine::{BINARY, CLOSE, Case, Chop, End, Expected, PING, PONG, TEXT, frame};

const HELLO: &[u8] = b"Hello, relay";
/// The bit that says a frame is a message's last.
const LAST: u8 = 0x80;

/// A case whose frames are written in each of these ways.
pub fn cases(name: &str, chops: &[Chop], frames: &[Vec<u8>], expected: impl Fn() -> Expected) -> Vec<Case> {
    let case = |chop: &Chop| Case { name: name.into(), frames: frames.to_vec(), chop: *chop, expected: expected() };
    chops.iter().map(case).collect()
}

/// All at once, frame by frame, byte by byte.
pub const ALL_WAYS: &[Chop] = &[Chop::Whole, Chop::Frames, Chop::Bytes(1)];

pub fn text(payload: &[u8]) -> Vec<u8> {
    frame(LAST | TEXT, payload)
}

pub fn binary(payload: &[u8]) -> Vec<u8> {
    frame(LAST | BINARY, payload)
}

fn ping(payload: &[u8]) -> Vec<u8> {
    frame(LAST | PING, payload)
}

fn pong(payload: &[u8]) -> Vec<u8> {
    frame(LAST | PONG, payload)
}

fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(LAST | CLOSE, &[&code.to_be_bytes(), reason].concat())
}

/// The first fragment of a message, one in its middle, its last.
pub fn first(opcode: u8, payload: &[u8]) -> Vec<u8> {
    frame(opcode, payload)
}

pub fn middle(payload: &[u8]) -> Vec<u8> {
    frame(0, payload)
}

pub fn last(payload: &[u8]) -> Vec<u8> {
    frame(LAST, payload)
}

/// Nothing comes back, and all is well.
fn silence() -> Expected {
    Expected::default()
}

pub fn echoes(opcode: u8, payload: &[u8]) -> Expected {
    Expected { echoes: vec![(opcode, payload.to_vec())], ..Expected::default() }
}

fn pongs(payloads: &[&[u8]]) -> Expected {
    Expected { pongs: payloads.iter().map(|payload| payload.to_vec()).collect(), ..Expected::default() }
}

pub fn fails(code: u16) -> Expected {
    Expected { end: End::Failed(code), may_lack_echoes: true, ..Expected::default() }
}

fn fails_after(payload: &[u8]) -> Expected {
    Expected { echoes: vec![(TEXT, payload.to_vec())], ..fails(1002) }
}

fn closes(code: Option<u16>) -> Expected {
    Expected { end: End::Closed(code), ..Expected::default() }
}

/// Frames that do not wait for the answer to the handshake.
pub fn handshake() -> Vec<Case> {
    let early = &[Chop::WithHandshake(usize::MAX), Chop::WithHandshake(1), Chop::WithHandshake(8)];
    let all = [
        cases("0 handshake: a text with it", early, &[text(HELLO)], || echoes(TEXT, HELLO)),
        cases("0 handshake: a ping with it", early, &[ping(HELLO)], || pongs(&[HELLO])),
        cases("0 handshake: two binaries with it", early, &[binary(b"1"), binary(b"2")], || Expected {
            echoes: vec![(BINARY, b"1".to_vec()), (BINARY, b"2".to_vec())],
            ..Expected::default()
        }),
        cases("0 handshake: a close with it", early, &[close(1000, b"")], || closes(Some(1000))),
        cases("0 handshake: a fault with it", early, &[frame(0xf1, HELLO)], || fails(1002)),
    ];
    all.into_iter().flatten().collect()
}

pub fn framing() -> Vec<Case> {
    let mut all = Vec::new();
    let ways = &[Chop::Whole, Chop::Bytes(997)];
    for len in [0, 1, 125, 126, 127, 128, 65535, 65536] {
        let letters: Vec<u8> = (0..len).map(|at| b'a' + (at % 23) as u8).collect();
        let name = format!("1 framing: text of {len} bytes");
        all.extend(cases(&name, ways, &[text(&letters)], || echoes(TEXT, &letters)));
        let bytes: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
        let name = format!("1 framing: binary of {len} bytes");
        all.extend(cases(&name, ways, &[binary(&bytes)], || echoes(BINARY, &bytes)));
    }
    let mut faulty = |name: &str, bytes: Vec<u8>| {
        all.extend(cases(&format!("1 framing: {name}"), ALL_WAYS, &[bytes], || fails(1002)));
    };
    faulty("a text that is not masked", [&[0x81, HELLO.len() as u8], HELLO].concat());
    faulty("a ping that is not masked", vec![0x89, 0]);
    faulty("a short length in two bytes", [&[0x82, 0xfe, 0, 125, 0, 0, 0, 0][..], &[7; 125]].concat());
    faulty("a short length in eight bytes", [&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0, 1][..], &[0; 5]].concat());
    faulty("a length with its highest bit set", vec![0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0]);
    all
}

pub fn pings() -> Vec<Case> {
    let bytes = &[0x00, 0xff, 0xfe, 0xfd, 0xfc, 0xfb, 0x00, 0xff][..];
    let ten: Vec<Vec<u8>> = (0..10).map(|at| format!("ping {at}").into_bytes()).collect();
    let ten: Vec<&[u8]> = ten.iter().map(Vec::as_slice).collect();
    let ten_frames: Vec<Vec<u8>> = ten.iter().map(|payload| ping(payload)).collect();
    let all = [
        cases("2 pings: empty", ALL_WAYS, &[ping(b"")], || pongs(&[b""])),
        cases("2 pings: with a text", ALL_WAYS, &[ping(HELLO)], || pongs(&[HELLO])),
        cases("2 pings: with bytes that are no text", ALL_WAYS, &[ping(bytes)], || pongs(&[bytes])),
        cases("2 pings: of 125 bytes", ALL_WAYS, &[ping(&[0xfe; 125])], || pongs(&[&[0xfe; 125]])),
        cases("2 pings: of 126 bytes", ALL_WAYS, &[ping(&[0xfe; 126])], || fails(1002)),
        cases("2 pings: an empty pong nobody asked for", ALL_WAYS, &[pong(b"")], silence),
        cases("2 pings: a pong nobody asked for", ALL_WAYS, &[pong(HELLO)], silence),
        cases("2 pings: a pong, then a ping", ALL_WAYS, &[pong(HELLO), ping(b"you?")], || pongs(&[b"you?"])),
        cases("2 pings: ten", ALL_WAYS, &ten_frames, || pongs(&ten)),
    ];
    all.into_iter().flatten().collect()
}

pub fn reserved_bits() -> Vec<Case> {
    let with = |bits: u8, mut frame: Vec<u8>| {
        frame[0] |= bits << 4;
        frame
    };
    let mut all = Vec::new();
    for bits in 1..=7 {
        for (what, whole) in [
            ("a text", text(HELLO)),
            ("a binary", binary(HELLO)),
            ("a ping", ping(HELLO)),
            ("a close", close(1000, b"")),
        ] {
            let bad = with(bits, whole);
            let name = format!("3 reserved bits: {bits} on {what}");
            all.extend(cases(&name, ALL_WAYS, from_ref(&bad), || fails(1002)));
            let name = format!("{name} after a text, with a ping behind it");
            all.extend(cases(&name, ALL_WAYS, &[text(HELLO), bad, ping(b"")], || fails_after(HELLO)));
        }
        let parts = [first(TEXT, b"a"), with(bits, last(b"b"))];
        all.extend(cases(&format!("3 reserved bits: {bits} on a fragment"), ALL_WAYS, &parts, || fails(1002)));
    }
    all
}

pub fn opcodes() -> Vec<Case> {
    let mut all = Vec::new();
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        for payload in [b"".as_slice(), HELLO] {
            let bad = frame(LAST | opcode, payload);
            let name = format!("4 opcodes: {opcode} with {} bytes", payload.len());
            all.extend(cases(&name, ALL_WAYS, from_ref(&bad), || fails(1002)));
            let name = format!("{name} after a text, with a ping behind it");
            all.extend(cases(&name, ALL_WAYS, &[text(HELLO), bad, ping(b"")], || fails_after(HELLO)));
        }
    }
    all
}

pub fn fragments() -> Vec<Case> {
    let good = |name: &str, frames: &[Vec<u8>], expected: &dyn Fn() -> Expected| {
        cases(&format!("5 fragments: {name}"), ALL_WAYS, frames, expected)
    };
    let one = |name: &str, frames: &[Vec<u8>], echo: &[u8], answers: &[&[u8]]| {
        good(name, frames, &|| Expected { pongs: pongs(answers).pongs, ..echoes(TEXT, echo) })
    };
    let bad = |name: &str, frames: &[Vec<u8>]| good(name, frames, &|| fails(1002));
    let two = [first(TEXT, b"one"), last(b"two")];
    let five =
        [first(TEXT, b"1"), middle(b"2"), ping(b"first"), middle(b"3"), middle(b"4"), ping(b"second"), last(b"5")];
    let twice = [&five[..], &five[..]].concat();
    let many: Vec<Vec<u8>> = (0..1000).map(|_| middle(b"x")).collect();
    let thousand = [vec![first(TEXT, b"")], many, vec![last(b"")]].concat();
    let all = [
        bad("a ping in two", &[frame(PING, b"one"), last(b"two")]),
        bad("a pong in two", &[frame(PONG, b"one"), last(b"two")]),
        bad("a close in two", &[frame(CLOSE, &[3]), last(&[0xe8])]),
        one("two", &two, b"onetwo", &[]),
        good("two of a binary", &[first(BINARY, &[0xff]), last(&[0xfe])], &|| echoes(BINARY, &[0xff, 0xfe])),
        one("a ping between two", &[two[0].clone(), ping(HELLO), two[1].clone()], b"onetwo", &[HELLO]),
        one("a pong between two", &[two[0].clone(), pong(HELLO), two[1].clone()], b"onetwo", &[]),
        bad("a last one of nothing", &[last(b"what"), text(HELLO)]),
        bad("an empty last one of nothing", &[last(b"")]),
        bad("a middle one of nothing", &[middle(b"what"), text(HELLO)]),
        good("a middle one after the last", &[two[0].clone(), two[1].clone(), middle(b"x"), text(HELLO)], &|| {
            fails_after(b"onetwo")
        }),
        bad("nothing begun, twice", &[middle(b"x"), first(TEXT, b"y"), last(b"z"), middle(b"x")]),
        bad("a last one of nothing before a whole message", &[last(b"x"), first(TEXT, b"y"), last(b"z")]),
        bad("a text inside a text", &[first(TEXT, b"one"), text(b"two")]),
        bad("a binary begun inside a text", &[first(TEXT, b"one"), first(BINARY, b"two")]),
        one("five and two pings", &five, b"12345", &[b"first", b"second"]),
        good("five and two pings, twice", &twice, &|| Expected {
            echoes: vec![(TEXT, b"12345".to_vec()), (TEXT, b"12345".to_vec())],
            ..pongs(&[b"first", b"second", b"first", b"second"])
        }),
        one("a thousand, empty at both ends", &thousand, &[b'x'; 1000], &[]),
    ];
    all.into_iter().flatten().collect()
}

pub fn closing() -> Vec<Case> {
    let bye = close(1000, b"");
    let made = |name: &str, frames: &[Vec<u8>], expected: &dyn Fn() -> Expected| {
        cases(&format!("7 closing: {name}"), ALL_WAYS, frames, expected)
    };
    let normal = || closes(Some(1000));
    let after_echo = || Expected { echoes: echoes(TEXT, HELLO).echoes, ..closes(Some(1000)) };
    let large = vec![b'*'; 256 << 10];
    let mut all = [
        made("a text before it", &[text(HELLO), bye.clone()], &after_echo),
        cases("7 closing: after an echo", &[Chop::Answered], &[text(HELLO), bye.clone()], after_echo),
        made("two", &[bye.clone(), bye.clone()], &normal),
        made("a ping after a close", &[bye.clone(), ping(b"")], &normal),
        made("a text after a close", &[bye.clone(), text(HELLO)], &normal),
        made("nonsense after a close", &[bye.clone(), vec![0xff; 40]], &normal),
        made("within a message", &[first(TEXT, b"one"), bye.clone(), last(b"two")], &normal),
        cases("7 closing: a large text before it", &[Chop::Whole], &[text(&large), bye, ping(b"")], || Expected {
            may_lack_echoes: true,
            echoes: echoes(TEXT, &large).echoes,
            ..normal()
        }),
        made("no code", &[frame(LAST | CLOSE, b"")], &|| closes(None)),
        made("half a code", &[frame(LAST | CLOSE, &[3])], &|| fails(1002)),
        made("a reason", &[close(1000, "tschüß".as_bytes())], &normal),
        made("the longest reason", &[close(1000, &[b'x'; 123])], &normal),
        made("too long a reason", &[close(1000, &[b'x'; 124])], &|| fails(1002)),
        made("a reason that is not UTF-8", &[close(1000, b"\xce\xba\xed\xa0\x80x")], &|| fails(1007)),
        made("a reason cut within a character", &[close(1000, b"\xce")], &|| fails(1007)),
    ]
    .into_iter()
    .flatten()
    .collect::<Vec<Case>>();
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999] {
        all.extend(made(&format!("code {code}"), &[close(code, b"")], &|| closes(Some(code))));
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
        all.extend(made(&format!("code {code}"), &[close(code, b"")], &|| fails(1002)));
        all.extend(made(&format!("code {code} with a reason"), &[close(code, b"why")], &|| fails(1002)));
    }
    all
}
