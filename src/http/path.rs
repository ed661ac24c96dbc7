//! Paths of the file: `/ws/remediation`, `/hooks/{tenant}`, `/events/{topic...}`.

use std::borrow::Cow;

/// More pairs than any honest query has; what follows them is not looked at.
const MAX_PAIRS: usize = 256;

/// A path with captures: `{x}` is one segment, `{x...}` at the end any non-empty rest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PathPattern {
    text: String,
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Segment {
    Literal(String),
    One(String),
    Rest(String),
}

impl PathPattern {
    /// Checks and keeps it; the error is for the operator.
    pub fn parse(text: &str) -> Result<PathPattern, String> {
        let Some(inner) = text.strip_prefix('/') else {
            return Err(format!("the path `{text}` must begin with `/`"));
        };
        let parts: Vec<&str> = inner.split('/').collect();
        let last = parts.len() - 1;
        let mut segments = Vec::with_capacity(parts.len());
        for (i, part) in parts.into_iter().enumerate() {
            let segment = Segment::parse(part, i == last).map_err(|why| format!("the path `{text}` {why}"))?;
            if let Some((name, _)) = segment.name()
                && segments.iter().filter_map(Segment::name).any(|(other, _)| other == name)
            {
                return Err(format!("the path `{text}` captures `{name}` twice"));
            }
            segments.push(segment);
        }
        Ok(PathPattern { text: text.to_owned(), segments })
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The names it captures, in order, and whether each is a rest.
    pub fn names(&self) -> Vec<(String, bool)> {
        let names = self.segments.iter().filter_map(Segment::name);
        names.map(|(name, rest)| (name.to_owned(), rest)).collect()
    }

    /// The captures of a request's path (raw, as sent), percent-decoded; `None` if it does not match or decodes to no UTF-8.
    pub fn captures(&self, path: &str) -> Option<Vec<(String, String)>> {
        let mut left = Some(path.strip_prefix('/')?);
        let mut captures = Vec::new();
        for segment in &self.segments {
            let here = left?;
            let (part, after) = match here.split_once('/') {
                Some((part, after)) if !matches!(segment, Segment::Rest(_)) => (part, Some(after)),
                _ => (here, None),
            };
            let value = decoded(part)?;
            match segment {
                Segment::Literal(text) if *text == value => {}
                Segment::One(name) | Segment::Rest(name) if !value.is_empty() => {
                    captures.push((name.clone(), value.into_owned()));
                }
                _ => return None,
            }
            left = after;
        }
        left.is_none().then_some(captures)
    }
}

impl Segment {
    fn parse(part: &str, last: bool) -> Result<Segment, String> {
        let Some(inside) = part.strip_prefix('{').and_then(|p| p.strip_suffix('}')) else {
            return Segment::literal(part, last);
        };
        let (name, rest) = match inside.strip_suffix("...") {
            Some(name) => (name, true),
            None => (inside, false),
        };
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(format!("has the capture `{part}`; a name is letters, digits and `_`"));
        }
        match (rest, last) {
            (true, false) => Err(format!("has `{part}` before its end; a rest can only come last")),
            (true, true) => Ok(Segment::Rest(name.to_owned())),
            (false, _) => Ok(Segment::One(name.to_owned())),
        }
    }

    fn literal(part: &str, last: bool) -> Result<Segment, String> {
        let bad = |b: char| b.is_control() || b.is_whitespace() || "?#%{}*\\".contains(b);
        match part {
            "" if !last => Err("has an empty segment".to_owned()),
            "." | ".." => Err(format!("has the segment `{part}`, which browsers resolve before they send it")),
            _ if part.contains(['{', '}']) => {
                Err(format!("has `{part}`; a capture is a whole segment: `{{name}}`, or `{{name...}}` at the end"))
            }
            _ => match part.chars().find(|c| bad(*c)) {
                Some(c) => Err(format!("contains {c:?}; write it decoded, without query, blanks or wildcards")),
                None => Ok(Segment::Literal(part.to_owned())),
            },
        }
    }

    fn name(&self) -> Option<(&str, bool)> {
        match self {
            Segment::Literal(_) => None,
            Segment::One(name) => Some((name, false)),
            Segment::Rest(name) => Some((name, true)),
        }
    }
}

/// `a=1&b=2` of a URL, percent-decoded, `+` as blank; at most 256 pairs are looked at.
pub fn query(raw: &str) -> Vec<(String, String)> {
    let pairs = raw.split('&').take(MAX_PAIRS).filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (form_decoded(name), form_decoded(value))
        })
        .collect()
}

/// A part of a path. What is not well encoded names nothing here.
fn decoded(raw: &str) -> Option<Cow<'_, str>> {
    if !raw.contains('%') {
        return Some(Cow::Borrowed(raw));
    }
    let bytes = percent_decoded(raw.as_bytes(), |_| None)?;
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

/// A part of a query, read as browsers write it: a stray `%` is itself, what is not UTF-8 becomes U+FFFD.
fn form_decoded(raw: &str) -> String {
    let raw = raw.replace('+', " ");
    let bytes = percent_decoded(raw.as_bytes(), Some).unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

/// `stray` decides about a `%` without two hex digits.
fn percent_decoded(raw: &[u8], stray: fn(u8) -> Option<u8>) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(raw.len());
    let mut left = raw;
    loop {
        left = match left {
            [] => return Some(out),
            [b'%', high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                out.push(hex(*high) << 4 | hex(*low));
                after
            }
            [b'%', after @ ..] => {
                out.push(stray(b'%')?);
                after
            }
            [plain, after @ ..] => {
                out.push(*plain);
                after
            }
        };
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests;
