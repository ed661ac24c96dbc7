//! The ways in: what a publisher writes for one event, and what comes back.

use anyhow::{Result, bail, ensure};

use crate::{frames, resp};

/// How events are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To the relay's webhook.
    Http,
    /// Through Redis, on a channel that has the name of the topic.
    Publish,
    /// Through Redis, into the application's stream that has the name of the topic.
    Xadd,
    /// To the floor: a byte for a byte.
    Trigger,
}

/// What an answer says of the oldest event in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Taken,
    /// It is passing: the same event is sent again.
    Refused,
}

/// The bytes that publish an event to one topic, with a place for the event's number.
pub struct Request {
    bytes: Vec<u8>,
    number_at: Option<usize>,
}

impl Way {
    /// Whether it goes through Redis.
    pub fn is_redis(self) -> bool {
        matches!(self, Way::Publish | Way::Xadd)
    }

    /// How many connections, with how many events in flight on each. HTTP is asked and answered in turn; commands to
    /// Redis are pipelined, as by an application that has much to say.
    pub fn lanes(self, in_flight: usize) -> (usize, usize) {
        if self.is_redis() { (1, in_flight) } else { (in_flight, 1) }
    }

    /// The first answer in `input` and its length, once it is whole.
    pub fn answer(self, input: &[u8]) -> Result<Option<(Answer, usize)>> {
        match self {
            Way::Trigger => Ok((!input.is_empty()).then_some((Answer::Taken, 1))),
            Way::Http => http_answer(input),
            Way::Publish | Way::Xadd => match resp::answer(input) {
                None => Ok(None),
                Some((resp::Answer::Number(0), _)) => bail!("LOST: an event was published and nobody listened"),
                Some((resp::Answer::Error(error), _)) => bail!("Redis: {}", String::from_utf8_lossy(error)),
                Some((_, length)) => Ok(Some((Answer::Taken, length))),
            },
        }
    }
}

fn http_answer(input: &[u8]) -> Result<Option<(Answer, usize)>> {
    let Some((status, head)) = frames::head(input) else { return Ok(None) };
    let whole = head + frames::content_length(&input[..head]);
    if input.len() < whole {
        return Ok(None);
    }
    ensure!(status == 200 || status == 503, "a publish was answered with {status}");
    Ok(Some((if status == 200 { Answer::Taken } else { Answer::Refused }, whole)))
}

impl Request {
    pub fn new(way: Way, topic: &str, payload: usize) -> Request {
        let payload = frames::payload(payload);
        let bytes = match way {
            Way::Trigger => return Request { bytes: b"!".to_vec(), number_at: None },
            Way::Http => post(topic, &payload),
            Way::Publish => resp::command(&[b"PUBLISH", topic.as_bytes(), &payload]),
            // Bounded, as a stream of an application is, and above what a row can have on its way.
            Way::Xadd => {
                let (topic, most) = (topic.as_bytes(), &b"10000"[..]);
                resp::command(&[b"XADD", topic, b"MAXLEN", b"~", most, b"*", b"data", &payload])
            }
        };
        let key = memchr::memmem::find(&bytes, frames::NUMBER_KEY);
        Request { number_at: key.map(|at| at + frames::NUMBER_KEY.len()), bytes }
    }

    /// The request for the event of this number.
    pub fn numbered(&mut self, number: u32) -> &[u8] {
        if let Some(at) = self.number_at {
            frames::set_number(&mut self.bytes, at, number);
        }
        &self.bytes
    }
}

fn post(topic: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /publish/{topic} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        payload.len()
    );
    [head.as_bytes(), payload].concat()
}
