//! RESP2, as much of it as the bench speaks: commands are lists of byte strings, answers are walked, not kept.

/// One answer of Redis. Lists are not asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// A simple or a bulk string; nothing is an empty one.
    Text(&'a [u8]),
    Number(i64),
    Error(&'a [u8]),
}

pub fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut command = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        command.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        command.extend_from_slice(word);
        command.extend_from_slice(b"\r\n");
    }
    command
}

/// The first answer and its length on the wire, if all of it is there.
pub fn answer(bytes: &[u8]) -> Option<(Answer<'_>, usize)> {
    let end = memchr::memchr(b'\n', bytes)?;
    let line = bytes.get(1..end.checked_sub(1)?)?;
    let number = || std::str::from_utf8(line).ok()?.parse::<i64>().ok();
    match bytes[0] {
        b':' => Some((Answer::Number(number()?), end + 1)),
        b'-' => Some((Answer::Error(line), end + 1)),
        b'$' => {
            let Ok(length) = usize::try_from(number()?) else { return Some((Answer::Text(b""), end + 1)) };
            let text = bytes.get(end + 1..end + 1 + length)?;
            bytes.get(end + length + 2)?;
            Some((Answer::Text(text), end + length + 3))
        }
        _ => Some((Answer::Text(line), end + 1)),
    }
}
