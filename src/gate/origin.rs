//! Which pages may connect.

/// `origins` of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    /// Host and port of `Origin` equal `Host` (or a trusted proxy's `X-Forwarded-Host`).
    Same,
    /// `"*"`, said.
    Any,
    /// These (scheme, host, port), and the same origin.
    Listed(Vec<String>),
}

/// What an `Origin` consists of; a port that the scheme implies is filled in.
#[derive(PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: String,
    port: Option<u16>,
}

/// Whether a request with this `Origin` (None: not a browser, allowed) may use an address called `host`.
pub fn allowed(origins: &Origins, origin: Option<&str>, host: Option<&str>) -> bool {
    let Some(origin) = origin else { return true };
    if *origins == Origins::Any {
        return true;
    }
    // `null`, which sandboxed pages send, is nobody's origin.
    let Some(origin) = Origin::parse(origin) else { return false };
    let listed = match origins {
        Origins::Listed(list) => list.iter().any(|one| Origin::parse(one).is_some_and(|one| one == origin)),
        Origins::Same | Origins::Any => false,
    };
    listed || host.is_some_and(|host| origin.is_at(host))
}

/// Checks one of `origins`; the error is for the operator.
pub fn check(text: &str) -> Result<(), String> {
    let example = "write scheme, host and port as a browser sends them, `https://app.example.com`";
    Origin::parse(text).map(drop).ok_or_else(|| format!("`{text}` is no origin; {example}"))
}

impl Origin {
    fn parse(text: &str) -> Option<Origin> {
        let (scheme, authority) = text.split_once("://").filter(|(scheme, _)| !scheme.is_empty())?;
        let scheme = scheme.to_ascii_lowercase();
        let (host, port) = host_and_port(authority)?;
        let port = port.or_else(|| implied_port(&scheme));
        Some(Origin { scheme, host, port })
    }

    /// Whether `Host` names the same host and port. `Host` has no scheme: what its missing port means, the page's tells.
    fn is_at(&self, host: &str) -> bool {
        host_and_port(host)
            .is_some_and(|(host, port)| host == self.host && port.or_else(|| implied_port(&self.scheme)) == self.port)
    }
}

fn implied_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    }
}

/// `app.example.com:8443`, `[::1]:8080`; nothing with user, path, blanks or wildcards.
fn host_and_port(authority: &str) -> Option<(String, Option<u16>)> {
    let end = match authority.strip_prefix('[') {
        Some(inner) => inner.find(']')? + 2,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, after) = authority.split_at(end);
    let port = match after {
        "" => None,
        _ => Some(port(after.strip_prefix(':')?)?),
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~[]:".contains(&b);
    (!host.is_empty() && host.bytes().all(plain)).then(|| (host.to_ascii_lowercase(), port))
}

fn port(text: &str) -> Option<u16> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(list: &[&str]) -> Origins {
        Origins::Listed(list.iter().map(|one| String::from(*one)).collect())
    }

    fn verdict(expected: bool, origins: &Origins, origin: &str, host: &str) {
        assert_eq!(allowed(origins, Some(origin), Some(host)), expected, "{origin} at {host} with {origins:?}");
    }

    #[test]
    fn the_same_host_and_port_are_the_same_origin() {
        let same = [
            ("https://a.example", "a.example"),
            ("https://a.example", "a.example:443"),
            ("https://a.example:443", "a.example"),
            ("http://a.example", "a.example:80"),
            ("http://A.example:8080", "a.EXAMPLE:8080"),
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("http://[::1]:8080", "[::1]:8080"),
            ("http://[::1]", "[::1]"),
        ];
        for (origin, host) in same {
            verdict(true, &Origins::Same, origin, host);
            verdict(true, &listed(&["https://other.example"]), origin, host);
        }
    }

    #[test]
    fn others_are_foreign() {
        let foreign = [
            ("https://evil.example", "a.example"),
            ("https://a.example.evil", "a.example"),
            ("https://a.example:8443", "a.example"),
            ("https://a.example", "a.example:80"),
            ("http://a.example", "a.example:443"),
            ("http://a.example:8080", "a.example:8081"),
            ("null", "null"),
            ("", ""),
            ("https://", ""),
            ("a.example", "a.example"),
            ("https://a.example/", "a.example"),
            ("https://a.example@evil", "a.example@evil"),
            ("https://user@a.example", "a.example"),
            ("https://a.example:x", "a.example:x"),
            ("https://a.example:", "a.example"),
            ("https://a.example:+443", "a.example"),
            ("https://a.example:70000", "a.example:70000"),
            ("https://[::1", "[::1"),
            ("https://[::1]x", "[::1]x"),
            ("https://a.example,b", "a.example,b"),
        ];
        for (origin, host) in foreign {
            verdict(false, &Origins::Same, origin, host);
            verdict(true, &Origins::Any, origin, host);
        }
    }

    #[test]
    fn a_listed_origin_needs_scheme_host_and_port() {
        let origins = listed(&["https://App.example", "http://localhost:3000", "capacitor://localhost"]);
        verdict(true, &origins, "https://app.example", "relay.example");
        verdict(true, &origins, "https://app.example:443", "relay.example");
        verdict(true, &origins, "http://localhost:3000", "relay.example");
        verdict(true, &origins, "capacitor://localhost", "relay.example");
        verdict(false, &origins, "http://app.example", "relay.example");
        verdict(false, &origins, "https://app.example:8443", "relay.example");
        verdict(false, &origins, "http://localhost", "relay.example");
        verdict(false, &origins, "https://sub.app.example", "relay.example");
        verdict(false, &origins, "null", "relay.example");
    }

    #[test]
    fn without_an_origin_it_is_no_browser() {
        assert!(allowed(&Origins::Same, None, Some("a.example")));
        assert!(allowed(&listed(&[]), None, None));
        assert!(!allowed(&Origins::Same, Some("https://a.example"), None));
    }

    #[test]
    fn checks_what_the_file_lists() {
        for good in ["https://app.example.com", "http://localhost:3000", "http://[::1]:3000", "app://x"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in ["app.example.com", "https://app.example.com/", "https://*.example.com", "null", "https://", "*"] {
            assert!(check(bad).is_err_and(|e| e.contains(bad)), "{bad}");
        }
    }
}
