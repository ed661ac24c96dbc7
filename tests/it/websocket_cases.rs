//! What a WebSocket server must do with every kind of frame: the case list of the public conformance suite (framing,
//! pings, reserved bits, opcodes, fragments, UTF-8, closing, sizes), as data, in our own words.
//!
//! The server under test is an echo. Echoes come in the order of what was sent, and so do pongs; an echo goes a longer
//! way than a pong, so nothing is said about the order between them.

mod echo;
mod machine;
mod sizes;
mod table;
mod utf8;

use std::net::SocketAddr;
use std::time::Duration;

use self::machine::Case;

/// How long a right server may take for one answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// So many wrong cases say enough: each may have cost all the patience.
const ENOUGH: usize = 20;

/// An echo for text and binary frames up to 16 MiB.
const ECHO: &str = r#"
[limits]
exempt               = ["127.0.0.0/8"]
frame                = "16MiB"
queue                = "64MiB"
commands_per_session = "100000/s burst 100000"

[[endpoint]]
path   = "/echo"
topics = ["echo/{session.id}"]
format = "raw"

[[endpoint.command]]
publish = { topic = "echo/{session.id}", body = "{.}" }
"#;

/// Built group by group, since some are large.
const GROUPS: [fn() -> Vec<Case>; 12] = [
    table::handshake,
    table::framing,
    table::pings,
    table::reserved_bits,
    table::opcodes,
    table::fragments,
    utf8::cases,
    table::closing,
    sizes::limits,
    sizes::whole,
    sizes::in_parts,
    sizes::many,
];

/// Drives all cases against an echo at `path`, and fails with the list of those that went wrong.
pub fn run_all(addr: SocketAddr, path: &str) {
    let (mut count, mut wrong) = (0, Vec::new());
    for group in GROUPS {
        for case in group() {
            count += 1;
            wrong.extend(machine::run(addr, path, &case, PATIENCE).err());
            assert!(wrong.len() < ENOUGH, "after {count} cases:\n{}", wrong.join("\n"));
        }
    }
    assert!(count > 1100, "the list is not whole: {count}");
    assert!(wrong.is_empty(), "{} of {count} cases went wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn the_relay_keeps_to_rfc_6455() {
    let relay = crate::harness::Relay::start(&crate::harness::config(ECHO));
    run_all(relay.public(), "/echo");
}

/// The table is right if a plain echo over the reader passes it.
#[test]
fn a_plain_echo_keeps_to_rfc_6455() {
    run_all(echo::start(echo::Flaw::None), "/");
}

/// The machine is right if it finds what is wrong, and only there.
#[test]
fn a_flawed_echo_is_found_out() {
    use echo::Flaw;
    for (flaw, finds) in [
        (Flaw::TextAsBinary, "1 framing: text of 125 bytes"),
        (Flaw::CutsTheEnd, "1 framing: text of 125 bytes"),
        (Flaw::EchoesTwice, "1 framing: text of 125 bytes"),
        (Flaw::FragmentsOutOfOrder, "5 fragments: two"),
        (Flaw::PongWithoutPayload, "2 pings: with a text"),
        (Flaw::PongToPong, "2 pings: a pong nobody asked for"),
        (Flaw::ClosesWith1000, "3 reserved bits: 1 on a text"),
        (Flaw::AnswersWithOtherCode, "7 closing: code 1001"),
        (Flaw::TalksAfterClose, "7 closing: a text after a close"),
        (Flaw::FaultsAreEndings, "6 UTF-8: 6.3 a surrogate in the middle, whole"),
    ] {
        let addr = echo::start(flaw);
        let cases = GROUPS[..8].iter().flat_map(|group| group()).collect::<Vec<Case>>();
        let case = cases.iter().find(|case| case.name.starts_with(finds)).unwrap_or_else(|| panic!("no case {finds}"));
        let result = machine::run(addr, "/", case, PATIENCE);
        assert!(result.is_err(), "{flaw:?} was not found by {finds}");
        let sound = machine::run(echo::start(Flaw::None), "/", case, PATIENCE);
        assert_eq!(sound, Ok(()), "{finds}");
    }
}
