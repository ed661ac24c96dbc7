//! Paths of the file: `/ws/remediation`, `/hooks/{tenant}`, `/events/{topic...}`.

/// A path with captures: `{x}` is one segment, `{x...}` at the end any non-empty rest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PathPattern(String);

impl PathPattern {
    /// Checks and keeps it; the error is for the operator.
    pub fn parse(text: &str) -> Result<PathPattern, String> {
        let _ = text;
        todo!()
    }
    /// As written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// The names it captures, in order, and whether each is a rest.
    pub fn names(&self) -> Vec<(String, bool)> {
        todo!()
    }
    /// The captures of a request's path (raw, as sent), percent-decoded; `None` if it does not match or decodes to no UTF-8.
    pub fn captures(&self, path: &str) -> Option<Vec<(String, String)>> {
        let _ = path;
        todo!()
    }
}

/// `a=1&b=2` of a URL, percent-decoded, `+` as blank; at most 256 pairs are looked at.
pub fn query(raw: &str) -> Vec<(String, String)> {
    let _ = raw;
    todo!()
}
