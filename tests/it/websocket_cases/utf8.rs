//! What is UTF-8 and what is not, whole and cut within characters.

use super::machine::{Case, Chop, Expected, TEXT};
use super::table::{self, echoes, fails, first, last, middle, text};

/// Greek, with characters of two and three bytes.
const GREEK: &[u8] = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5";

/// Texts that are UTF-8.
const GOOD: &[(&str, &[&[u8]])] = &[
    ("6.2 plain", &[b"", b"Hello-\xc2\xb5@\xc3\x9f\xc3\xb6\xc3\xa4\xc3\xbc\xc3\xa0\xc3\xa1-UTF-8!!", GREEK]),
    ("6.6 whole characters of a word", &[b"\xce\xba", GREEK.split_at(5).0, GREEK.split_at(7).0, GREEK.split_at(9).0]),
    ("6.7 the first of each length", &[b"\x00", b"\xc2\x80", b"\xe0\xa0\x80", b"\xf0\x90\x80\x80"]),
    ("6.9 the last of each length", &[b"\x7f", b"\xdf\xbf", b"\xef\xbf\xbf", b"\xf4\x8f\xbf\xbf"]),
    ("6.11 beside the surrogates", &[b"\xed\x9f\xbf", b"\xee\x80\x80", b"\xef\xbf\xbd"]),
    (
        "6.22 no characters, but UTF-8",
        &[
            b"\xef\xbf\xbe",
            b"\xf0\x9f\xbf\xbe",
            b"\xf0\x9f\xbf\xbf",
            b"\xf0\xaf\xbf\xbe",
            b"\xf0\xbf\xbf\xbf",
            b"\xf1\x8f\xbf\xbe",
            b"\xf1\xbf\xbf\xbf",
            b"\xf2\x8f\xbf\xbe",
            b"\xf2\xbf\xbf\xbf",
            b"\xf3\x8f\xbf\xbe",
            b"\xf3\xbf\xbf\xbf",
            b"\xf4\x8f\xbf\xbe",
        ],
    ),
    ("6.23 specials", &[b"\xef\xbf\xb9", b"\xef\xbf\xba", b"\xef\xbf\xbb", b"\xef\xbf\xbc", b"\xef\xbb\xbf"]),
];

/// Texts that are not.
const BAD: &[(&str, &[&[u8]])] = &[
    ("6.3 a surrogate in the middle", &[b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited"]),
    ("6.6 cut characters of a word", &[b"\xce", b"\xce\xba\xe1", b"\xce\xba\xe1\xbd", GREEK.split_at(6).0]),
    ("6.8 five and six bytes", &[b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80"]),
    ("6.10 beyond the last", &[b"\xf7\xbf\xbf\xbf", b"\xfb\xbf\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf\xbf"]),
    ("6.11 the first beyond", &[b"\xf4\x90\x80\x80"]),
    (
        "6.12 continuations of nothing",
        &[b"\x80", b"\xbf", b"\x80\xbf", b"\x80\xbf\x80", b"\x80\xbf\x80\xbf", b"\x80\xbf\x80\xbf\x80\xbf", b"a\x81b"],
    ),
    (
        "6.13 starts that are not continued",
        &[b"\xc2 \xdf ", b"\xe0 \xef ", b"\xf0 \xf4 ", b"\xf8 \xfb ", b"\xfc \xfd ", b"\xc3\xc3\xa4"],
    ),
    (
        "6.14 the last byte is missing",
        &[
            b"\xc2",
            b"\xe0\x80",
            b"\xe0\xa0",
            b"\xf0\x80\x80",
            b"\xf0\x90\x80",
            b"\xf8\x80\x80\x80",
            b"\xdf",
            b"\xef\xbf",
        ],
    ),
    (
        "6.15 several of these",
        &[b"\xc0\xe0\x80\xf0\x80\x80\xf8\x80\x80\x80\xfc\x80\x80\x80\x80\xdf\xef\xbf\xf7\xbf\xbf"],
    ),
    ("6.16 bytes that never stand in UTF-8", &[b"\xfe", b"\xff", b"\xfe\xfe\xff\xff"]),
    (
        "6.17 a slash in too many bytes",
        &[b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf", b"\xf8\x80\x80\x80\xaf", b"\xfc\x80\x80\x80\x80\xaf"],
    ),
    (
        "6.18 the last in too many bytes",
        &[b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xf0\x8f\xbf\xbf", b"\xf8\x87\xbf\xbf\xbf", b"\xfc\x83\xbf\xbf\xbf\xbf"],
    ),
    (
        "6.19 zero in too many bytes",
        &[b"\xc0\x80", b"\xe0\x80\x80", b"\xf0\x80\x80\x80", b"\xf8\x80\x80\x80\x80", b"\xfc\x80\x80\x80\x80\x80"],
    ),
    (
        "6.20 surrogates",
        &[
            b"\xed\xa0\x80",
            b"\xed\xad\xbf",
            b"\xed\xae\x80",
            b"\xed\xaf\xbf",
            b"\xed\xb0\x80",
            b"\xed\xbe\x80",
            b"\xed\xbf\xbf",
        ],
    ),
    (
        "6.21 pairs of surrogates",
        &[
            b"\xed\xa0\x80\xed\xb0\x80",
            b"\xed\xa0\x80\xed\xbf\xbf",
            b"\xed\xad\xbf\xed\xb0\x80",
            b"\xed\xad\xbf\xed\xbf\xbf",
            b"\xed\xae\x80\xed\xb0\x80",
            b"\xed\xae\x80\xed\xbf\xbf",
            b"\xed\xaf\xbf\xed\xb0\x80",
            b"\xed\xaf\xbf\xed\xbf\xbf",
        ],
    ),
];

/// A first fragment, or the start of a frame that says it is longer: what comes can never become UTF-8, and the rest
/// does not come. A server that waits for it is found here.
const HOPELESS: &[&[u8]] = &[
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90",
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80",
    b"\xed\xa0",
    b"a\xff",
    b"\xc0",
];

pub fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for empty in [&b""[..], b"middle"] {
        let frames = [first(TEXT, b""), middle(empty), last(b"")];
        all.extend(table::cases("6 UTF-8: 6.1 empty fragments", table::ALL_WAYS, &frames, || echoes(TEXT, empty)));
    }
    for (name, texts) in GOOD {
        all.extend(texts.iter().flat_map(|bytes| both(name, bytes, || echoes(TEXT, bytes))));
    }
    for (name, texts) in BAD {
        all.extend(texts.iter().flat_map(|bytes| both(name, bytes, || fails(1007))));
    }
    for bytes in HOPELESS {
        let mut cut = text(&[bytes, &b"never sent"[..]].concat());
        cut.truncate(cut.len() - b"never sent".len());
        for (place, frame) in [("a first fragment", first(TEXT, bytes)), ("a frame that is not all there", cut)] {
            let name = format!("6 UTF-8: 6.4 hopeless in {place}: {}", bytes.escape_ascii());
            all.extend(table::cases(&name, table::ALL_WAYS, &[frame], || fails(1007)));
        }
    }
    all
}

/// As one frame, and with each byte a fragment of its own.
fn both(name: &str, bytes: &[u8], expected: impl Fn() -> Expected) -> Vec<Case> {
    let shown = bytes.escape_ascii();
    let frames: Vec<Vec<u8>> = bytes.iter().map(|byte| middle(&[*byte])).collect();
    let frames = [vec![first(TEXT, b"")], frames, vec![last(b"")]].concat();
    let whole = format!("6 UTF-8: {name}, whole: {shown}");
    let split = format!("6 UTF-8: {name}, in fragments: {shown}");
    let mut all = table::cases(&whole, &[Chop::Whole, Chop::Bytes(1)], &[text(bytes)], &expected);
    all.extend(table::cases(&split, &[Chop::Whole, Chop::Frames], &frames, &expected));
    all
}
