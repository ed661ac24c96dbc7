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

/// Whether a request with this `Origin` (None: not a browser, allowed) may use an address called `host`.
pub fn allowed(origins: &Origins, origin: Option<&str>, host: Option<&str>) -> bool {
    let _ = (origins, origin, host);
    todo!()
}
