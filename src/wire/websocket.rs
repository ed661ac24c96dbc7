//! RFC 6455, the server's side, without I/O: bytes in, inputs out; frames out are never masked.
//!
//! A frame that lies whole in the bytes just read is unmasked there and handed out from there. Only what is split, by
//! the network or by its sender, goes to the heap, and leaves it with the message.

use data_encoding::BASE64;

use crate::close::Close;

/// What a handshake's key is hashed with (RFC 6455, section 1.3).
const HANDSHAKE: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The longest payload of a control frame.
const CONTROL_MAX: usize = 125;

/// What came in, whole. Payloads live in the reader's buffer or in the assembled message.
#[derive(Debug, PartialEq, Eq)]
pub enum Input<'a> {
    /// A text, of one frame or many.
    Text(&'a str),
    /// Bytes, of one frame or many.
    Binary(&'a [u8]),
    /// To be answered by a Pong with the same payload.
    Ping(&'a [u8]),
    /// The answer to a Ping, or unasked.
    Pong(&'a [u8]),
    /// A Close frame, checked (code and UTF-8 reason are valid); `None` without a code. Nothing is read after it.
    Close(Option<u16>),
}

/// Why the input cannot go on: 1002, 1007, 1009.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The rule that was broken.
    Protocol(&'static str),
    /// A text or a close reason that is not UTF-8.
    BadText,
    /// A message longer than it may be, by what it announces or by what came.
    TooBig,
}

impl From<Fault> for Close {
    fn from(fault: Fault) -> Close {
        match fault {
            Fault::Protocol(_) => Close::Protocol,
            Fault::BadText => Close::BadText,
            Fault::TooBig => Close::TooBig,
        }
    }
}

/// The state between reads. At most 16 bytes while no frame or message is split; what is split lives on the heap and
/// grows with the bytes that came, never with the length a frame claims.
#[derive(Debug, Default)]
pub struct Reader(State);

#[derive(Debug, Default)]
enum State {
    #[default]
    Idle,
    Split(Box<Split>),
    /// After a Close, a fault, or when told to stop: whatever comes is dropped.
    Done,
}

/// What is begun and not ended. At most one of `carry` and `frame` is in use.
#[derive(Debug, Default)]
struct Split {
    /// The bytes, as they came, of a head or control frame that is not all there.
    carry: Vec<u8>,
    /// The message whose last frame has not ended.
    message: Option<Message>,
    /// Its frame whose payload is not all there.
    frame: Option<Rest>,
}

#[derive(Debug)]
struct Message {
    text: bool,
    bytes: Vec<u8>,
    /// Up to here it is UTF-8; the up to three bytes after it may become so.
    checked: usize,
}

/// The rest of a data frame's payload.
#[derive(Debug)]
struct Rest {
    last: bool,
    left: usize,
    /// Turned so that it begins with the next byte.
    mask: [u8; 4],
}

/// A frame's head, checked against all that can be known of it.
#[derive(Debug, Clone, Copy)]
struct Head {
    last: bool,
    opcode: u8,
    mask: [u8; 4],
    /// Of the head itself.
    size: usize,
    /// Of the payload.
    len: usize,
}

/// Whether to go on after an input.
type Each<'e> = &'e mut dyn FnMut(Input<'_>) -> bool;

impl Reader {
    /// Takes what was read, unmasks in place, calls `each` for every whole input in order. `max` bounds one message (and
    /// one frame). `each` returns false to stop: the rest of `bytes` is dropped (the session is closing), and so is
    /// whatever is fed after a stop, a Close or a fault.
    pub fn feed(&mut self, bytes: &mut [u8], max: usize, each: &mut dyn FnMut(Input<'_>) -> bool) -> Result<(), Fault> {
        let split = match std::mem::replace(&mut self.0, State::Done) {
            State::Idle => Split::default(),
            State::Split(split) => *split,
            State::Done => return Ok(()),
        };
        if let Some(split) = split.run(bytes, max, each)? {
            self.0 = if split.is_idle() { State::Idle } else { State::Split(Box::new(split)) };
        }
        Ok(())
    }
}

impl Split {
    fn is_idle(&self) -> bool {
        self.carry.is_empty() && self.message.is_none() && self.frame.is_none()
    }

    /// Reads on from here; `None` when nothing more is to be read.
    fn run(mut self, mut bytes: &mut [u8], max: usize, each: Each) -> Result<Option<Split>, Fault> {
        while !bytes.is_empty() {
            let taken = if self.frame.is_some() {
                self.payload(bytes, each)?
            } else if !self.carry.is_empty() {
                self.carried(bytes, max, each)?
            } else {
                self.frame(bytes, max, each)?
            };
            let Some(taken) = taken else { return Ok(None) };
            bytes = &mut bytes[taken..];
        }
        Ok(Some(self))
    }

    /// A frame that begins where `bytes` begin. Like its two sisters it returns how many bytes it took, or `None` when
    /// nothing more is to be read.
    fn frame(&mut self, bytes: &mut [u8], max: usize, each: Each) -> Result<Option<usize>, Fault> {
        let Some(head) = Head::read(bytes, self.begun(), max)? else { return Ok(self.carry(bytes)) };
        let end = head.size + head.len;
        if bytes.len() < end && head.is_control() {
            return Ok(self.carry(bytes));
        }
        if head.is_control() || (bytes.len() >= end && head.last && self.message.is_none()) {
            let payload = &mut bytes[head.size..end];
            unmask(payload, head.mask);
            return Ok(head.whole(payload, each)?.then_some(end));
        }
        self.begin(head);
        let taken = self.payload(&mut bytes[head.size..], each)?;
        Ok(taken.map(|taken| head.size + taken))
    }

    /// The rest of a head or control frame that came in parts.
    fn carried(&mut self, bytes: &mut [u8], max: usize, each: Each) -> Result<Option<usize>, Fault> {
        for (at, byte) in bytes.iter().enumerate() {
            self.carry.push(*byte);
            let Some(head) = Head::read(&self.carry, self.begun(), max)? else { continue };
            if !head.is_control() {
                self.carry = Vec::new();
                self.begin(head);
                let taken = self.payload(&mut bytes[at + 1..], each)?;
                return Ok(taken.map(|taken| at + 1 + taken));
            }
            if self.carry.len() == head.size + head.len {
                let mut whole = std::mem::take(&mut self.carry);
                let payload = &mut whole[head.size..];
                unmask(payload, head.mask);
                return Ok(head.whole(payload, each)?.then_some(at + 1));
            }
        }
        Ok(Some(bytes.len()))
    }

    /// What came of the data frame under way.
    fn payload(&mut self, bytes: &mut [u8], each: Each) -> Result<Option<usize>, Fault> {
        let (Some(rest), Some(message)) = (&mut self.frame, &mut self.message) else { return Ok(Some(0)) };
        let taken = rest.left.min(bytes.len());
        unmask(&mut bytes[..taken], rest.mask);
        message.push(&bytes[..taken])?;
        rest.mask.rotate_left(taken % 4);
        rest.left -= taken;
        if rest.left > 0 {
            return Ok(Some(taken));
        }
        let last = rest.last;
        self.frame = None;
        if !last {
            return Ok(Some(taken));
        }
        let message = self.message.take().expect("a frame under way belongs to a message");
        Ok(hand_out(message.text, &message.bytes, each)?.then_some(taken))
    }

    fn carry(&mut self, bytes: &[u8]) -> Option<usize> {
        self.carry.extend_from_slice(bytes);
        Some(bytes.len())
    }

    fn begun(&self) -> Option<usize> {
        self.message.as_ref().map(|message| message.bytes.len())
    }

    fn begin(&mut self, head: Head) {
        let text = head.opcode == Opcode::Text as u8;
        self.message.get_or_insert(Message { text, bytes: Vec::new(), checked: 0 });
        self.frame = Some(Rest { last: head.last, left: head.len, mask: head.mask });
    }
}

impl Message {
    /// Appends, and refuses as early as it can be known that this is no UTF-8.
    fn push(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.bytes.extend_from_slice(bytes);
        if !self.text {
            return Ok(());
        }
        match simdutf8::compat::from_utf8(&self.bytes[self.checked..]) {
            Ok(_) => self.checked = self.bytes.len(),
            Err(error) if error.error_len().is_none() => self.checked += error.valid_up_to(),
            Err(_) => return Err(Fault::BadText),
        }
        Ok(())
    }
}

impl Head {
    /// Reads a head where `bytes` begin, with `begun` bytes of a message before it; `None` while it is not all there.
    /// Each rule is applied as soon as its byte has come.
    fn read(bytes: &[u8], begun: Option<usize>, max: usize) -> Result<Option<Head>, Fault> {
        let Some(&first) = bytes.first() else { return Ok(None) };
        check_first(first, begun.is_some())?;
        let control = first & 8 != 0;
        let Some(&second) = bytes.get(1) else { return Ok(None) };
        if second & 0x80 == 0 {
            return Err(Fault::Protocol("a frame from a client must be masked"));
        }
        if control && usize::from(second & 0x7f) > CONTROL_MAX {
            return Err(Fault::Protocol("a control frame is longer than 125 bytes"));
        }
        let Some((len, size)) = length(bytes, second & 0x7f)? else { return Ok(None) };
        let room = max.saturating_sub(begun.unwrap_or(0));
        let len = usize::try_from(len).ok().filter(|len| control || *len <= room).ok_or(Fault::TooBig)?;
        let Some(mask) = bytes[size..].first_chunk::<4>() else { return Ok(None) };
        Ok(Some(Head { last: first & 0x80 != 0, opcode: first & 0x0f, mask: *mask, size: size + 4, len }))
    }

    fn is_control(&self) -> bool {
        self.opcode & 8 != 0
    }

    /// Hands out a frame that is an input by itself; false to stop.
    fn whole(&self, payload: &[u8], each: Each) -> Result<bool, Fault> {
        match self.opcode {
            8 => {
                let code = close_code(payload)?;
                each(Input::Close(code));
                Ok(false)
            }
            9 => Ok(each(Input::Ping(payload))),
            10 => Ok(each(Input::Pong(payload))),
            opcode => hand_out(opcode == Opcode::Text as u8, payload, each),
        }
    }
}

/// What the first byte of a frame can break. `begun`: a message waits for its next fragment.
fn check_first(first: u8, begun: bool) -> Result<(), Fault> {
    let (last, opcode) = (first & 0x80 != 0, first & 0x0f);
    if first & 0x70 != 0 {
        return Err(Fault::Protocol("a reserved bit is set"));
    }
    match opcode {
        0 if !begun => Err(Fault::Protocol("a continuation of nothing")),
        1 | 2 if begun => Err(Fault::Protocol("a new message inside a fragmented one")),
        8..=10 if !last => Err(Fault::Protocol("a fragmented control frame")),
        0..=2 | 8..=10 => Ok(()),
        _ => Err(Fault::Protocol("a reserved opcode")),
    }
}

/// The payload's length and where the mask stands. `short` is the length's seven bits in the second byte.
fn length(bytes: &[u8], short: u8) -> Result<Option<(u64, usize)>, Fault> {
    let (len, size, least) = match short {
        126 => match bytes[2..].first_chunk::<2>() {
            Some(long) => (u64::from(u16::from_be_bytes(*long)), 4, 126),
            None => return Ok(None),
        },
        127 => match bytes[2..].first_chunk::<8>() {
            Some(long) => (u64::from_be_bytes(*long), 10, 1 << 16),
            None => return Ok(None),
        },
        short => (u64::from(short), 2, 0),
    };
    if len < least {
        return Err(Fault::Protocol("a length in more bytes than it needs"));
    }
    if len >> 63 != 0 {
        return Err(Fault::Protocol("a length with its highest bit set"));
    }
    Ok(Some((len, size)))
}

/// The code of a Close frame, if the frame is well-formed.
fn close_code(payload: &[u8]) -> Result<Option<u16>, Fault> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return if payload.is_empty() { Ok(None) } else { Err(Fault::Protocol("half a close code")) };
    };
    let code = u16::from_be_bytes(*code);
    // 1004 to 1006 and 1015 are never sent; the others here are not (or not yet) registered.
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Fault::Protocol("a close code that must not be sent"));
    }
    simdutf8::basic::from_utf8(reason).map_err(|_| Fault::BadText)?;
    Ok(Some(code))
}

/// Hands out a whole text or binary; false to stop.
fn hand_out(text: bool, bytes: &[u8], each: Each) -> Result<bool, Fault> {
    if !text {
        return Ok(each(Input::Binary(bytes)));
    }
    let text = simdutf8::basic::from_utf8(bytes).map_err(|_| Fault::BadText)?;
    Ok(each(Input::Text(text)))
}

/// Eight bytes at a time, which the compiler widens further.
fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let word = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (eights, tail) = bytes.as_chunks_mut::<8>();
    for eight in eights {
        *eight = (u64::from_ne_bytes(*eight) ^ word).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= key;
    }
}

/// Opcodes we send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Opcode {
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

/// Appends one unfragmented frame.
pub fn frame(opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
    let (head, size) = head(opcode, payload.len());
    out.reserve(size + payload.len());
    out.extend_from_slice(&head[..size]);
    out.extend_from_slice(payload);
}

/// Appends a Close frame of ours. `reason` has at most 123 bytes.
pub fn close(code: u16, reason: &str, out: &mut Vec<u8>) {
    debug_assert!(reason.len() <= CONTROL_MAX - 2, "{reason}");
    out.extend_from_slice(&[0x80 | Opcode::Close as u8, 2 + reason.len() as u8]);
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(reason.as_bytes());
}

/// Appends the answer to a subscriber's Close: its own code, or none as it had none.
pub fn close_answer(code: Option<u16>, out: &mut Vec<u8>) {
    match code {
        Some(code) => close(code, "", out),
        None => frame(Opcode::Close, &[], out),
    }
}

/// The head of a frame of ours with so long a payload, and its size.
pub(super) fn head(opcode: Opcode, len: usize) -> ([u8; 10], usize) {
    let mut head = [0; 10];
    head[0] = 0x80 | opcode as u8;
    let size = if len <= CONTROL_MAX {
        head[1] = len as u8;
        2
    } else if let Ok(len) = u16::try_from(len) {
        head[1] = 126;
        head[2..4].copy_from_slice(&len.to_be_bytes());
        4
    } else {
        head[1] = 127;
        head[2..].copy_from_slice(&(len as u64).to_be_bytes());
        10
    };
    (head, size)
}

/// The value of `Sec-WebSocket-Accept` for a key.
pub fn accept(key: &[u8]) -> String {
    let mut hash = sha1_smol::Sha1::new();
    hash.update(key);
    hash.update(HANDSHAKE);
    BASE64.encode(&hash.digest().bytes())
}

#[cfg(test)]
mod tests;
