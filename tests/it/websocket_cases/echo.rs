//! A plain echo over the relay's own reader, right or with one flaw: it shows that the table and the machine are right.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;

use relay::close::Close;
use relay::wire::websocket::{Input, Opcode, Reader, accept, close, close_answer, frame};

const MAX: usize = 16 << 20;

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Flaw {
    None,
    TextAsBinary,
    CutsTheEnd,
    EchoesTwice,
    FragmentsOutOfOrder,
    PongWithoutPayload,
    PongToPong,
    ClosesWith1000,
    AnswersWithOtherCode,
    TalksAfterClose,
    FaultsAreEndings,
}

/// Serves until the test process ends.
pub fn start(flaw: Flaw) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    let addr = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // What ends a connection early is seen by the client.
            thread::spawn(move || serve(&mut stream, flaw));
        }
    });
    addr
}

fn serve(stream: &mut TcpStream, flaw: Flaw) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut reader, mut buffer) = (Reader::default(), vec![0; 1 << 16]);
    let mut early = handshake(stream)?;
    let mut result = take(&mut reader, &mut early, flaw, stream)?;
    while result {
        let count = stream.read(&mut buffer)?;
        result = count > 0 && take(&mut reader, &mut buffer[..count], flaw, stream)?;
    }
    Ok(())
}

/// Answers what was read; false when the connection is over.
fn take(reader: &mut Reader, bytes: &mut [u8], flaw: Flaw, stream: &mut TcpStream) -> std::io::Result<bool> {
    let (mut out, mut open) = (Vec::new(), true);
    let result = reader.feed(bytes, MAX, &mut |input| {
        open &= answer(input, flaw, &mut out);
        true
    });
    if let Err(fault) = result {
        open = false;
        match flaw {
            Flaw::FaultsAreEndings => {}
            Flaw::ClosesWith1000 => close(1000, "", &mut out),
            _ => close(Close::from(fault).code(), Close::from(fault).reason(), &mut out),
        }
    }
    stream.write_all(&out)?;
    Ok(open)
}

fn answer(input: Input<'_>, flaw: Flaw, out: &mut Vec<u8>) -> bool {
    match (input, flaw) {
        (Input::Text(text), Flaw::TextAsBinary) => frame(Opcode::Binary, text.as_bytes(), out),
        (Input::Text(text), Flaw::CutsTheEnd) => frame(Opcode::Text, &text.as_bytes()[..text.len() / 2], out),
        (Input::Text(text), Flaw::FragmentsOutOfOrder) => {
            let reversed: Vec<u8> = text.bytes().rev().collect();
            frame(Opcode::Text, &reversed, out);
        }
        (Input::Text(text), _) => {
            for _ in 0..if flaw == Flaw::EchoesTwice { 2 } else { 1 } {
                frame(Opcode::Text, text.as_bytes(), out);
            }
        }
        (Input::Binary(bytes), _) => frame(Opcode::Binary, bytes, out),
        (Input::Ping(_), Flaw::PongWithoutPayload) => frame(Opcode::Pong, b"", out),
        (Input::Ping(bytes), _) => frame(Opcode::Pong, bytes, out),
        (Input::Pong(bytes), Flaw::PongToPong) => frame(Opcode::Pong, bytes, out),
        (Input::Pong(_), _) => {}
        (Input::Close(code), _) => {
            match flaw {
                Flaw::AnswersWithOtherCode => close(1000, "", out),
                _ => close_answer(code, out),
            }
            if flaw == Flaw::TalksAfterClose {
                frame(Opcode::Text, b"late", out);
            }
            return false;
        }
    }
    true
}

/// Accepts, and returns what came with the handshake.
fn handshake(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        let count = stream.read(&mut chunk)?;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&chunk[..count]);
    };
    let early = bytes.split_off(end);
    let head = String::from_utf8_lossy(&bytes);
    let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap_or_default();
    let accept = accept(key.as_bytes());
    write!(
        stream,
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-accept: {accept}\r\n\r\n"
    )?;
    Ok(early)
}
