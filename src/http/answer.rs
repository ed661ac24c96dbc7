//! Answers in words: JSON with a sentence, a status, and how long to wait where waiting helps.

use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Response, StatusCode};

/// warp's response.
pub type Reply = warp::reply::Response;

/// A JSON body.
pub fn json(status: u16, body: Vec<u8>) -> Reply {
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Why not.
pub fn error(status: u16, message: &str) -> Reply {
    json(status, serde_json::json!({ "error": message }).to_string().into_bytes())
}

/// Why not now, and when again: jittered, so that a crowd does not return in one second.
pub fn later(status: u16, message: &str, seconds: u64) -> Reply {
    let mut response = error(status, message);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(fastrand::u64(seconds..=seconds * 2)));
    response
}

/// Plain text.
pub fn text(content_type: &'static str, body: String) -> Reply {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A header's value, if it is text.
pub fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
