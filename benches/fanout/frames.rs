//! What a subscriber reads: response heads, WebSocket frames, SSE chunks. Only what is whole is taken; the caller keeps
//! the rest. Frames are walked, not decoded: the load generator must cost less than what it measures.

use memchr::memmem;

/// One thing that came.
#[derive(Debug, PartialEq, Eq)]
pub enum Unit<'a> {
    /// An event, with its wrapping.
    Event(&'a [u8]),
    /// `relay.open`, `relay.gap`, … or an SSE chunk without an event.
    Control(&'a [u8]),
    /// A Ping frame, whose payload a Pong repeats.
    Ping(&'a [u8]),
    /// The end, announced.
    Close,
}

/// The status of a response and the length of its head.
pub fn head(bytes: &[u8]) -> Option<(u16, usize)> {
    let length = memmem::find(bytes, b"\r\n\r\n")? + 4;
    let status = std::str::from_utf8(bytes.get(9..12)?).ok()?.parse().ok()?;
    Some((status, length))
}

/// `Content-Length` of a head; 0 without one.
pub fn content_length(head: &[u8]) -> usize {
    let lines = head.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
    let mut fields = lines.filter_map(|line| line.split_once(':'));
    let length = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    length.and_then(|(_, value)| value.trim().parse().ok()).unwrap_or(0)
}

/// The first frame and its length on the wire.
pub fn websocket(bytes: &[u8]) -> Option<(Unit<'_>, usize)> {
    let (start, length): (usize, usize) = match *bytes.get(1)? {
        126 => (4, usize::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?))),
        127 => (10, usize::try_from(u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?)).ok()?),
        short => (2, usize::from(short)),
    };
    let payload = bytes.get(start..start.checked_add(length)?)?;
    let unit = match bytes[0] & 0x0f {
        8 => Unit::Close,
        9 => Unit::Ping(payload),
        10 => Unit::Control(payload),
        _ if payload.starts_with(b"{\"type\":\"relay.") => Unit::Control(payload),
        _ => Unit::Event(payload),
    };
    Some((unit, start + length))
}

/// The first chunk and its length on the wire. The relay writes each event as a chunk of its own.
pub fn sse(bytes: &[u8]) -> Option<(Unit<'_>, usize)> {
    let digits = memchr::memchr(b'\r', bytes)?;
    let length = usize::from_str_radix(std::str::from_utf8(&bytes[..digits]).ok()?, 16).ok()?;
    let start = digits + 2;
    let chunk = bytes.get(start..start + length)?;
    bytes.get(start + length + 1)?;
    let unit = if length == 0 {
        Unit::Close
    } else if !chunk.starts_with(b"event: relay.") && has_data(chunk) {
        Unit::Event(chunk)
    } else {
        Unit::Control(chunk)
    };
    Some((unit, start + length + 2))
}

fn has_data(chunk: &[u8]) -> bool {
    chunk.starts_with(b"data:") || memmem::find(chunk, b"\ndata:").is_some()
}

/// The number that the publisher put into a payload.
pub fn number(event: &[u8]) -> Option<u32> {
    let at = memmem::find(event, NUMBER_KEY)? + NUMBER_KEY.len();
    let digits = event.get(at..at + NUMBER_DIGITS)?;
    digits.iter().try_fold(0u32, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + u32::from(digit - b'0')))
}

/// The cursor in a control object or an SSE chunk.
pub fn cursor(control: &[u8]) -> Option<String> {
    let (before, end) = if control.starts_with(b"{") { (&b"\"cursor\":\""[..], b'"') } else { (&b"id:"[..], b'\n') };
    let rest = &control[memmem::find(control, before)? + before.len()..];
    let token = &rest[..memchr::memchr(end, rest)?];
    Some(String::from_utf8_lossy(token).trim().to_owned())
}

/// What stands before the number in a payload; a text, so that it may have leading zeros and a fixed place.
pub const NUMBER_KEY: &[u8] = b"\"n\":\"";
/// How many digits it has.
pub const NUMBER_DIGITS: usize = 8;

/// A JSON payload of exactly `size` bytes with the number 0.
pub fn payload(size: usize) -> Vec<u8> {
    let mut payload = b"{\"n\":\"00000000\",\"p\":\"".to_vec();
    payload.resize(size - 2, b'x');
    payload.extend_from_slice(b"\"}");
    payload
}

/// A small one with this number.
pub fn numbered_payload(number: u32) -> Vec<u8> {
    let mut payload = payload(64);
    set_number(&mut payload, 1 + NUMBER_KEY.len(), number);
    payload
}

/// Writes `number` over the digits at `at`.
pub fn set_number(bytes: &mut [u8], at: usize, number: u32) {
    let digits = format!("{number:0NUMBER_DIGITS$}");
    bytes[at..at + NUMBER_DIGITS].copy_from_slice(digits.as_bytes());
}
