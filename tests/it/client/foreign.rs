//! WebSocket clients that others wrote: they must find us as ordinary as any server.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

/// Connects with Python's `websockets`, says each text in turn and waits for an answer to each, then closes. What it was
/// told, one line each; the last line is the close code it saw.
pub fn python_websockets(address: SocketAddr, target: &str, say: &[&str]) -> Vec<String> {
    const SCRIPT: &str = r#"
import asyncio, sys, websockets
async def main(url, say):
    async with websockets.connect(url, open_timeout=30) as socket:
        for text in say:
            await socket.send(text)
            print(await asyncio.wait_for(socket.recv(), 30), flush=True)
    print(socket.close_code, flush=True)
asyncio.run(main(sys.argv[1], sys.argv[2:]))
"#;
    let output = Command::new("/usr/bin/python3")
        .args(["-c", SCRIPT, &format!("ws://{address}{target}")])
        .args(say)
        .stdin(Stdio::null())
        .output()
        .expect("python3 is installed (.ci/install)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8").lines().map(str::to_owned).collect()
}

/// The same with Rust's `tungstenite`.
pub fn tungstenite(address: SocketAddr, target: &str, say: &[&str]) -> Vec<String> {
    use tokio_tungstenite::tungstenite::{Message, connect, error::Error};
    let (mut socket, _) = connect(format!("ws://{address}{target}")).expect("a handshake it accepts");
    let mut told = Vec::new();
    for text in say {
        socket.send(Message::text(*text)).expect("it may speak");
        let answer = loop {
            match socket.read().expect("an answer it can read") {
                Message::Ping(_) | Message::Pong(_) => {}
                other => break other,
            }
        };
        told.push(answer.into_text().expect("UTF-8").to_string());
    }
    socket.close(None).expect("it may close");
    loop {
        match socket.read() {
            Ok(Message::Close(frame)) => {
                told.push(frame.map_or("none".to_owned(), |frame| u16::from(frame.code).to_string()));
            }
            Ok(_) => {}
            Err(Error::ConnectionClosed) => return told,
            Err(e) => panic!("{e} instead of a clean close; so far {told:?}"),
        }
    }
}
