//! RFC 6455, the server's side, without I/O: bytes in, inputs out; frames out are never masked.

/// What came in, whole. Payloads live in the reader's buffer or in the assembled message.
#[derive(Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Input<'a> {
    Text(&'a str),
    Binary(&'a [u8]),
    Ping(&'a [u8]),
    Pong(&'a [u8]),
    /// A Close frame, checked (code and UTF-8 reason are valid); `None` without a code.
    Close(Option<u16>),
}

/// Why the input cannot go on: 1002, 1007, 1009.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Fault {
    Protocol(&'static str),
    BadText,
    TooBig,
}

/// The state between reads. At most 16 bytes while no frame or message is split; what is split lives on the heap and
/// grows with the bytes that came, never with the length a frame claims.
#[derive(Debug, Default)]
pub struct Reader(());

impl Reader {
    /// Takes what was read, unmasks in place, calls `each` for every whole input in order. `max` bounds one message (and
    /// one frame). `each` returns false to stop: the rest of `bytes` is dropped (the session is closing).
    pub fn feed(&mut self, bytes: &mut [u8], max: usize, each: &mut dyn FnMut(Input<'_>) -> bool) -> Result<(), Fault> {
        let _ = (bytes, max, each);
        todo!()
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
    let _ = (opcode, payload, out);
    todo!()
}

/// The value of `Sec-WebSocket-Accept` for a key.
pub fn accept(key: &[u8]) -> String {
    let _ = key;
    todo!()
}
