use proptest::prelude::*;

use super::*;

const MAX: usize = 1 << 20;

/// An input that outlives the reader's buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>),
}

fn seen(input: Input<'_>) -> Seen {
    match input {
        Input::Text(text) => Seen::Text(text.to_owned()),
        Input::Binary(bytes) => Seen::Binary(bytes.to_vec()),
        Input::Ping(bytes) => Seen::Ping(bytes.to_vec()),
        Input::Pong(bytes) => Seen::Pong(bytes.to_vec()),
        Input::Close(code) => Seen::Close(code),
    }
}

fn text(text: &str) -> Seen {
    Seen::Text(text.to_owned())
}

/// A client's frame, masked one byte at a time. `first` is its first byte: 0x81 is a whole text.
fn masked(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        len @ 0..=125 => out.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&mask);
    out.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
    out
}

fn sent(first: u8, payload: &[u8]) -> Vec<u8> {
    masked(first, payload, [0x37, 0xfa, 0x21, 0x3d])
}

/// All that a reader makes of `parts`, fed one after the other.
fn read(parts: &[&[u8]], max: usize) -> (Vec<Seen>, Result<(), Fault>) {
    let (mut reader, mut inputs) = (Reader::default(), Vec::new());
    for part in parts {
        let result = reader.feed(&mut part.to_vec(), max, &mut |input| {
            inputs.push(seen(input));
            true
        });
        if result.is_err() {
            return (inputs, result);
        }
    }
    (inputs, Ok(()))
}

/// The same inputs and the same end, whole, in single bytes, and cut in two at every offset.
fn check(bytes: &[u8], max: usize, inputs: &[Seen], end: Result<(), Fault>) {
    let expected = (inputs.to_vec(), end);
    assert_eq!(read(&[bytes], max), expected, "whole: {bytes:02x?}");
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(read(&single, max), expected, "in single bytes: {bytes:02x?}");
    for at in 0..=bytes.len() {
        assert_eq!(read(&[&bytes[..at], &bytes[at..]], max), expected, "cut at {at}: {bytes:02x?}");
    }
}

#[test]
fn whole_frames() {
    check(&[0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58], MAX, &[text("Hello")], Ok(()));
    check(&sent(0x81, b""), MAX, &[text("")], Ok(()));
    check(&sent(0x82, b""), MAX, &[Seen::Binary(vec![])], Ok(()));
    check(&sent(0x89, b"p"), MAX, &[Seen::Ping(b"p".to_vec())], Ok(()));
    check(&sent(0x89, &[7; 125]), MAX, &[Seen::Ping(vec![7; 125])], Ok(()));
    check(&sent(0x8a, b""), MAX, &[Seen::Pong(vec![])], Ok(()));
    for len in [125, 126, 127, 300] {
        check(&sent(0x82, &vec![9; len]), MAX, &[Seen::Binary(vec![9; len])], Ok(()));
    }
    for len in [65535, 65536, 65537] {
        let bytes = sent(0x82, &vec![9; len]);
        let expected = (vec![Seen::Binary(vec![9; len])], Ok(()));
        assert!(read(&[&bytes], MAX) == expected && read(&[&bytes[..9], &bytes[9..]], MAX) == expected, "{len}");
    }
}

#[test]
fn fragments_with_control_frames_between() {
    let parts = [sent(0x01, "a€".as_bytes()), sent(0x89, b"1"), sent(0x00, b""), sent(0x8a, b"2"), sent(0x80, b"b")];
    let inputs = [Seen::Ping(b"1".to_vec()), Seen::Pong(b"2".to_vec()), text("a€b")];
    check(&parts.concat(), MAX, &inputs, Ok(()));
    // Characters may be cut by fragments.
    let euro = "€".as_bytes();
    let parts = [sent(0x01, &euro[..1]), sent(0x00, &euro[1..2]), sent(0x89, b""), sent(0x80, &euro[2..])];
    check(&parts.concat(), MAX, &[Seen::Ping(vec![]), text("€")], Ok(()));
    // Empty fragments are fragments.
    check(&[sent(0x01, b""), sent(0x00, b""), sent(0x80, b"")].concat(), MAX, &[text("")], Ok(()));
    // The next message is a new one.
    let parts = [sent(0x01, b"a"), sent(0x80, b"b"), sent(0x82, &[0xff]), sent(0x01, b"c"), sent(0x80, b"d")];
    check(&parts.concat(), MAX, &[text("ab"), Seen::Binary(vec![0xff]), text("cd")], Ok(()));
}

#[test]
fn a_close_ends_the_reading() {
    for (payload, code) in [
        (&b""[..], None),
        (&[0x03, 0xe8][..], Some(1000)),
        (b"\x03\xe9gone", Some(1001)),
        (b"\x0b\xb8\xe2\x82\xac", Some(3000)),
        (&[0x13, 0x87], Some(4999)),
    ] {
        let mut bytes = sent(0x88, payload);
        bytes.extend(sent(0x81, b"late"));
        bytes.extend([0xff; 20]);
        check(&bytes, MAX, &[Seen::Close(code)], Ok(()));
    }
}

#[test]
fn close_codes() {
    for code in 0..=u16::MAX {
        let valid = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
        let expected = match valid {
            true => (vec![Seen::Close(Some(code))], Ok(())),
            false => (vec![], Err(Fault::Protocol("a close code that must not be sent"))),
        };
        assert_eq!(read(&[&sent(0x88, &code.to_be_bytes())], MAX), expected, "{code}");
    }
    check(&sent(0x88, &[3]), MAX, &[], Err(Fault::Protocol("half a close code")));
    check(&sent(0x88, b"\x03\xe8\xce"), MAX, &[], Err(Fault::BadText));
    check(&sent(0x88, &[b"\x03\xe8".as_slice(), &[b'x'; 123]].concat()), MAX, &[Seen::Close(Some(1000))], Ok(()));
}

#[test]
fn what_breaks_the_protocol() {
    let fault = |bytes: &[u8], inputs: &[Seen], why| check(bytes, MAX, inputs, Err(Fault::Protocol(why)));
    for bits in [0x10, 0x20, 0x40, 0x70] {
        fault(&sent(0x81 | bits, b"x"), &[], "a reserved bit is set");
        fault(&sent(0x89 | bits, b""), &[], "a reserved bit is set");
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        let bytes = [sent(0x81, b"a"), sent(0x80 | opcode, b"x")].concat();
        fault(&bytes, &[text("a")], "a reserved opcode");
    }
    for opcode in [8, 9, 10] {
        fault(&sent(opcode, b""), &[], "a fragmented control frame");
        fault(&sent(0x80 | opcode, &[b'x'; 126]), &[], "a control frame is longer than 125 bytes");
    }
    fault(&[0x81, 0x01, b'x'], &[], "a frame from a client must be masked");
    fault(&[0x89, 0x00], &[], "a frame from a client must be masked");
    fault(&sent(0x80, b"x"), &[], "a continuation of nothing");
    fault(&sent(0x00, b"x"), &[], "a continuation of nothing");
    fault(&[sent(0x01, b"a"), sent(0x81, b"b")].concat(), &[], "a new message inside a fragmented one");
    fault(&[sent(0x01, b"a"), sent(0x02, b"b")].concat(), &[], "a new message inside a fragmented one");
    let ended = [sent(0x01, b"a"), sent(0x80, b"b"), sent(0x80, b"c")].concat();
    fault(&ended, &[text("ab")], "a continuation of nothing");
}

#[test]
fn lengths_must_be_minimal_and_below_two_to_the_63() {
    let with = |length: &[u8]| [&[0x82][..], length, &[0; 4 + 126]].concat();
    let long = "a length in more bytes than it needs";
    check(&with(&[0xfe, 0, 125]), MAX, &[], Err(Fault::Protocol(long)));
    check(&with(&[0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff]), MAX, &[], Err(Fault::Protocol(long)));
    check(&with(&[0xfe, 0, 126]), MAX, &[Seen::Binary(vec![0; 126])], Ok(()));
    let high = "a length with its highest bit set";
    check(&with(&[0xff, 0x80, 0, 0, 0, 0, 0, 0, 0]), usize::MAX, &[], Err(Fault::Protocol(high)));
}

#[test]
fn too_big_is_known_by_the_announcement() {
    check(&sent(0x82, &[1; 10]), 10, &[Seen::Binary(vec![1; 10])], Ok(()));
    // No mask and no payload were needed to refuse.
    check(&[0x82, 0x8b], 10, &[], Err(Fault::TooBig));
    check(&[0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], MAX, &[], Err(Fault::TooBig));
    let fragments = [sent(0x02, &[1; 6]), sent(0x00, &[1; 4])].concat();
    check(&[&fragments[..], &sent(0x80, b"")].concat(), 10, &[Seen::Binary(vec![1; 10])], Ok(()));
    check(&[&fragments[..], &[0x80, 0x81]].concat(), 10, &[], Err(Fault::TooBig));
    // Control frames have a bound of their own, and do not count.
    let bytes = [sent(0x02, &[1; 10]), sent(0x89, &[2; 125]), sent(0x80, b"")].concat();
    check(&bytes, 10, &[Seen::Ping(vec![2; 125]), Seen::Binary(vec![1; 10])], Ok(()));
}

#[test]
fn text_that_is_no_utf8() {
    for bad in [&b"\xff"[..], b"a\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xf8\x88\x80\x80\x80", b"\xe2\x82"]
    {
        check(&sent(0x81, bad), MAX, &[], Err(Fault::BadText));
        check(&[sent(0x01, bad), sent(0x80, b"")].concat(), MAX, &[], Err(Fault::BadText));
        check(&sent(0x82, bad), MAX, &[Seen::Binary(bad.to_vec())], Ok(()));
    }
    // What the first fragment leaves open is not closed by the second.
    check(&[sent(0x01, b"\xe2\x82"), sent(0x80, b"a")].concat(), MAX, &[], Err(Fault::BadText));
}

/// The frame says it goes on, but what has come can never become UTF-8.
#[test]
fn bad_text_fails_at_the_first_bad_byte() {
    let mut bytes = sent(0x81, &[b"ok\xce\xba\xf4\x90".as_slice(), &[b'x'; 50]].concat());
    bytes.truncate(6 + 6);
    assert_eq!(read(&[&bytes], MAX).1, Err(Fault::BadText));
    assert_eq!(read(&[&bytes[..11]], MAX).1, Ok(()));
    assert_eq!(read(&[&bytes[..11], &bytes[11..]], MAX).1, Err(Fault::BadText));
    let open = sent(0x01, b"\xed\xa0");
    assert_eq!(read(&[&open], MAX).1, Err(Fault::BadText));
}

#[test]
fn feed_stops_when_told() {
    let bytes = [sent(0x81, b"a"), sent(0x89, b"b"), sent(0x81, b"c")].concat();
    for cut in 0..=bytes.len() {
        let (mut reader, mut inputs) = (Reader::default(), Vec::new());
        for part in [&bytes[..cut], &bytes[cut..]] {
            let mut each = |input: Input<'_>| {
                inputs.push(seen(input));
                inputs.len() < 2
            };
            assert_eq!(reader.feed(&mut part.to_vec(), MAX, &mut each), Ok(()));
        }
        assert_eq!(inputs, [text("a"), Seen::Ping(b"b".to_vec())], "cut at {cut}");
    }
}

#[test]
fn nothing_is_read_after_a_fault() {
    let mut reader = Reader::default();
    let mut none = |input: Input<'_>| panic!("{input:?}");
    assert!(reader.feed(&mut [0x83, 0x80], MAX, &mut none).is_err());
    assert_eq!(reader.feed(&mut sent(0x81, b"a"), MAX, &mut none), Ok(()));
}

/// What the reader holds on the heap.
fn held(reader: &Reader) -> usize {
    match &reader.0 {
        State::Idle | State::Done => 0,
        State::Split(split) => {
            split.carry.capacity() + split.message.as_ref().map_or(0, |message| message.bytes.capacity())
        }
    }
}

#[test]
fn memory_follows_what_came_and_goes_with_it() {
    assert!(size_of::<Reader>() <= 16);
    let mut reader = Reader::default();
    let mut feed = |bytes: &[u8]| {
        reader.feed(&mut bytes.to_vec(), usize::MAX, &mut |_| true).unwrap();
        (held(&reader), matches!(reader.0, State::Idle))
    };
    assert_eq!(feed(&sent(0x82, &[1; 5000])), (0, true));
    // A terabyte is announced, seven bytes come.
    let mut lie = vec![0x02, 0xff, 0, 0, 1, 0, 0, 0, 0, 0, 1, 2, 3, 4];
    lie.extend([9; 7]);
    let (bytes, _) = feed(&lie);
    assert!((7..=64).contains(&bytes), "{bytes}");

    let mut reader = Reader::default();
    let bytes = [sent(0x02, &[1; 3000]), sent(0x89, b"ping"), sent(0x80, &[1; 3000])].concat();
    for part in bytes.chunks(100) {
        reader.feed(&mut part.to_vec(), MAX, &mut |_| true).unwrap();
        assert!(held(&reader) <= 2 * 6000 + 256);
    }
    assert!(matches!(reader.0, State::Idle));
}

#[test]
fn whole_frames_are_not_copied() {
    let mut bytes = [sent(0x81, b"Hello"), sent(0x82, b"World")].concat();
    let span = bytes.as_ptr_range();
    let mut count = 0;
    let result = Reader::default().feed(&mut bytes, MAX, &mut |input| {
        let place = match input {
            Input::Text(text) => text.as_ptr(),
            Input::Binary(bytes) => bytes.as_ptr(),
            other => panic!("{other:?}"),
        };
        count += 1;
        span.contains(&place)
    });
    assert_eq!((result, count), (Ok(()), 2));
}

#[test]
fn frames_of_ours() {
    let framed = |opcode, payload: &[u8]| {
        let mut out = Vec::new();
        frame(opcode, payload, &mut out);
        out
    };
    assert_eq!(framed(Opcode::Text, b"Hello"), b"\x81\x05Hello");
    assert_eq!(framed(Opcode::Binary, b""), b"\x82\x00");
    assert_eq!(framed(Opcode::Ping, b""), b"\x89\x00");
    assert_eq!(framed(Opcode::Pong, b"x"), b"\x8a\x01x");
    for (len, head) in [
        (125, &[0x82, 125][..]),
        (126, &[0x82, 126, 0, 126]),
        (65535, &[0x82, 126, 0xff, 0xff]),
        (65536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
    ] {
        let out = framed(Opcode::Binary, &vec![7; len]);
        assert!(out[..head.len()] == *head && out[head.len()..] == vec![7; len], "{len}");
    }
    let closed = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        write(&mut out);
        out
    };
    assert_eq!(closed(&|out| close(1013, "slow", out)), b"\x88\x06\x03\xf5slow");
    assert_eq!(closed(&|out| close_answer(Some(4000), out)), b"\x88\x02\x0f\xa0");
    assert_eq!(closed(&|out| close_answer(None, out)), b"\x88\x00");
}

/// The example of RFC 6455, section 1.3.
#[test]
fn the_handshake_is_accepted() {
    assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

#[test]
fn faults_have_their_close() {
    let codes = [Fault::Protocol(""), Fault::BadText, Fault::TooBig].map(|fault| Close::from(fault).code());
    assert_eq!(codes, [1002, 1007, 1009]);
}

/// What a well-behaved client sends, and what must be read from it.
fn session() -> impl Strategy<Value = (Vec<u8>, Vec<Seen>)> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..300);
    let control = prop::collection::vec(any::<u8>(), 0..126);
    let one = prop_oneof![
        "\\PC{0,80}".prop_map(Seen::Text),
        bytes().prop_map(Seen::Binary),
        control.clone().prop_map(Seen::Ping),
        control.prop_map(Seen::Pong),
    ];
    let part = (one, prop::collection::vec(any::<prop::sample::Index>(), 0..4), any::<[u8; 4]>());
    prop::collection::vec(part, 0..6).prop_map(|parts| {
        let mut out = Vec::new();
        for (input, cuts, mask) in &parts {
            out.extend(fragments(input, cuts, *mask));
        }
        (out, parts.into_iter().map(|(input, ..)| input).collect())
    })
}

fn fragments(input: &Seen, cuts: &[prop::sample::Index], mask: [u8; 4]) -> Vec<u8> {
    let (opcode, bytes) = match input {
        Seen::Text(text) => (1, text.as_bytes()),
        Seen::Binary(bytes) => (2, &bytes[..]),
        Seen::Ping(bytes) => return masked(0x89, bytes, mask),
        Seen::Pong(bytes) => return masked(0x8a, bytes, mask),
        Seen::Close(_) => unreachable!("not generated"),
    };
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    let count = places.len() - 1;
    let parts = places.windows(2).enumerate().map(|(at, span)| {
        let opcode = if at == 0 { opcode } else { 0 };
        let last = if at + 1 == count { 0x80 } else { 0 };
        masked(last | opcode, &bytes[span[0]..span[1]], mask)
    });
    parts.collect::<Vec<_>>().concat()
}

proptest! {
    #[test]
    fn what_is_sent_is_read((bytes, inputs) in session(), step in 1usize..700) {
        let parts: Vec<&[u8]> = bytes.chunks(step).collect();
        prop_assert_eq!(read(&parts, MAX), (inputs, Ok(())));
    }

    #[test]
    fn broken_bytes_read_the_same_however_cut(
        (mut bytes, _) in session(),
        (at, flip) in (any::<prop::sample::Index>(), 1u8..),
        step in 1usize..50,
    ) {
        prop_assume!(!bytes.is_empty());
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let parts: Vec<&[u8]> = bytes.chunks(step).collect();
        let (cut, whole) = (read(&parts, 250), read(&[&bytes], 250));
        prop_assert_eq!(cut, whole);
    }
}
