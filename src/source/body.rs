//! A webhook's body: of a type that its format takes, UTF-8, JSON that is not too deep. Reads no more than is needed:
//! a JSON value is built only for templates that look into it.

use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use memchr::memmem;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::webhook::{BAD_JSON, BAD_UTF8, BodyFormat, MEDIA_TYPE, Rejected, TOO_DEEP};

/// As deep as JSON may nest: what whoever reads the event later (a `where`, a template) can parse too.
pub const MAX_DEPTH: usize = 127;

/// The body as text, if its media type is one that the format takes.
pub fn text<'b>(format: BodyFormat, headers: &HeaderMap, body: &'b [u8]) -> Result<&'b str, Rejected> {
    check_encoding(headers)?;
    check_media_type(format, headers)?;
    simdutf8::compat::from_utf8(body)
        .map_err(|e| Rejected::new(BAD_UTF8, format!("the body is not UTF-8 (at byte {})", e.valid_up_to())))
}

/// Whether it is one JSON value, without building it.
pub fn check_json(text: &str) -> Result<(), Rejected> {
    check_depth(text)?;
    // The fast walk takes lone surrogates (`"\ud800"`), which nobody could parse later; so escapes in their range, which
    // are rare, go the slow way.
    if memmem::find_iter(text.as_bytes(), "\\u").any(|at| matches!(text.as_bytes().get(at + 2), Some(b'd' | b'D'))) {
        return parse_json(text).map(drop);
    }
    serde_json::from_str::<IgnoredAny>(text).map(drop).map_err(|e| bad_json(text, &e))
}

/// The JSON value.
pub fn parse_json(text: &str) -> Result<Value, Rejected> {
    check_depth(text)?;
    serde_json::from_str(text).map_err(|e| bad_json(text, &e))
}

fn bad_json(text: &str, error: &serde_json::Error) -> Rejected {
    let what = if text.is_empty() { "the body is empty".to_string() } else { format!("the body is not JSON: {error}") };
    Rejected::new(BAD_JSON, what)
}

/// Counts brackets outside strings. On what is no JSON the count means nothing, and either answer is a 400.
fn check_depth(text: &str) -> Result<(), Rejected> {
    // Few bodies have so many brackets at all, and counting those is cheap.
    if text.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count() <= MAX_DEPTH {
        return Ok(());
    }
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(Rejected::new(TOO_DEEP, format!("the JSON is nested deeper than {MAX_DEPTH}")));
        }
    }
    Ok(())
}

fn check_encoding(headers: &HeaderMap) -> Result<(), Rejected> {
    match headers.get(CONTENT_ENCODING) {
        Some(encoding) if encoding != "identity" => Err(Rejected::new(
            MEDIA_TYPE,
            format!("a Content-Encoding ({encoding:?}) is not taken: send the body plain"),
        )),
        _ => Ok(()),
    }
}

fn check_media_type(format: BodyFormat, headers: &HeaderMap) -> Result<(), Rejected> {
    let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(()) };
    let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let (fits, wanted) = match format {
        BodyFormat::Json | BodyFormat::Alertmanager => (may_be_json(&essence), "application/json"),
        BodyFormat::Text => (may_be_text(&essence), "text/plain"),
    };
    if fits {
        Ok(())
    } else {
        Err(Rejected::new(MEDIA_TYPE, format!("Content-Type {value:?} is not taken: send {wanted}")))
    }
}

/// JSON by name; and what senders say who do not think of it (`curl -d` a form, a browser's `fetch` of a string plain
/// text): the body will tell.
fn may_be_json(essence: &str) -> bool {
    is_json(essence) || matches!(essence, "" | "application/x-www-form-urlencoded" | "text/plain")
}

fn may_be_text(essence: &str) -> bool {
    essence.starts_with("text/")
        || is_json(essence)
        || essence.ends_with("+xml")
        || matches!(
            essence,
            "" | "application/octet-stream"
                | "application/x-www-form-urlencoded"
                | "application/x-ndjson"
                | "application/xml"
                | "application/yaml"
        )
}

fn is_json(essence: &str) -> bool {
    matches!(essence, "application/json" | "text/json")
        || (essence.starts_with("application/") && essence.ends_with("+json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(result: Result<impl Sized, Rejected>) -> &'static str {
        result.map_or_else(|rejected| rejected.reason, |_| "")
    }

    fn check_type(format: BodyFormat, content_type: &str, expected: &str) {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, content_type.parse().unwrap());
        assert_eq!(reason(text(format, &headers, b"{}")), expected, "{format:?} {content_type}");
    }

    #[test]
    fn media_types() {
        use BodyFormat::{Alertmanager, Json, Text};
        for fine in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/cloudevents+json",
            "text/json",
            "text/plain;charset=UTF-8",
            "application/x-www-form-urlencoded",
        ] {
            check_type(Json, fine, "");
            check_type(Alertmanager, fine, "");
            check_type(Text, fine, "");
        }
        for fine in ["text/csv", "application/xml", "application/octet-stream", "application/atom+xml"] {
            check_type(Text, fine, "");
            check_type(Json, fine, "media_type");
        }
        for bad in ["image/png", "image/x+json", "multipart/form-data; boundary=x", "application/zip", "nonsense"] {
            check_type(Text, bad, "media_type");
            check_type(Json, bad, "media_type");
            check_type(Alertmanager, bad, "media_type");
        }
        assert_eq!(reason(text(Json, &HeaderMap::new(), b"{}")), "");
    }

    #[test]
    fn an_encoded_body_is_refused() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, "gzip".parse().unwrap());
        assert_eq!(reason(text(BodyFormat::Text, &headers, b"")), "media_type");
        headers.insert(CONTENT_ENCODING, "identity".parse().unwrap());
        assert_eq!(reason(text(BodyFormat::Text, &headers, b"")), "");
    }

    #[test]
    fn utf8() {
        let rejected = text(BodyFormat::Text, &HeaderMap::new(), b"abc\xff").unwrap_err();
        assert_eq!((rejected.status, rejected.reason), (400, "bad_utf8"));
        assert_eq!(rejected.message, "the body is not UTF-8 (at byte 3)");
    }

    fn check_both(json: &str, expected: &str) {
        assert_eq!(reason(check_json(json)), expected, "checking {json:.60}");
        assert_eq!(reason(parse_json(json)), expected, "parsing {json:.60}");
    }

    #[test]
    fn json() {
        for fine in ["{}", " [1, 2.50, -0e9] ", "null", r#""\u00e9\ud83d\ude00""#, r#"{"a":"]]]","b":"\"["}"#, "1e999"]
        {
            check_both(fine, "");
        }
        for bad in
            ["", " ", "{", "a=b", "{}{}", "[1,]", "01", "'a'", r#""\x""#, r#""\ud800""#, r#""\uD83Dx""#, "\"a\nb\""]
        {
            check_both(bad, "bad_json");
        }
        assert_eq!(
            check_json("{\"a\":\n tru}").unwrap_err().message,
            "the body is not JSON: expected ident at line 2 column 5"
        );
        assert_eq!(check_json("").unwrap_err().message, "the body is empty");
    }

    #[test]
    fn depth() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        check_both(&nested(MAX_DEPTH), "");
        check_both(&nested(MAX_DEPTH + 1), "too_deep");
        check_both(&nested(500_000), "too_deep");
        check_both(&format!("[{}]", vec!["[]"; 1000].join(",")), "");
        check_both(&format!("\"{}\"", "[".repeat(1000)), "");
        check_both(&format!("\"\\\"{}\"", "[".repeat(1000)), "");
    }
}
