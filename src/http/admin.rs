//! The admin address: health, metrics, stats. What tells more than numbers stays on this machine.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::json;
use warp::Filter;

use super::Site;
use super::answer::{self, Reply};
use super::connection::Visit;

/// Everything the admin address serves.
pub fn routes(site: Arc<Site>) -> impl Filter<Extract = (Reply,), Error = Infallible> + Clone {
    let here = warp::any().map(move || site.clone());
    let health = warp::path!("healthz").map(|| answer::json(200, b"{\"status\":\"ok\"}".to_vec()));
    let ready = warp::path!("readyz").and(here.clone()).map(|site: Arc<Site>| ready(&site));
    let metrics = warp::path!("metrics").and(here.clone()).map(|site: Arc<Site>| {
        answer::text("text/plain; version=0.0.4; charset=utf-8", site.observe(|o| site.metrics.render(o)))
    });
    let host = warp::header::optional("host");
    let stats = warp::path!("stats").and(here).and(warp::ext::get()).and(host).map(stats);
    warp::get()
        .and(health.or(ready).unify().or(metrics).unify().or(stats).unify())
        .or(warp::any().map(|| answer::error(404, "here are /healthz, /readyz, /metrics and /stats")))
        .unify()
}

fn ready(site: &Site) -> Reply {
    let reasons = site.troubles();
    let status = if reasons.is_empty() { 200 } else { 503 };
    answer::json(status, json!({"ready": reasons.is_empty(), "reasons": reasons}).to_string().into_bytes())
}

fn stats(site: Arc<Site>, visit: Visit, host: Option<String>) -> Reply {
    if !visit.local {
        return answer::error(403, "/stats is served on loopback and Unix sockets only");
    }
    if !host.as_deref().is_none_or(is_address) {
        return answer::error(403, "ask for this address by number, or as localhost");
    }
    answer::json(200, site.observe(|o| site.metrics.snapshot(o)).to_string().into_bytes())
}

/// A name may have been pointed here by a page that wants to read what only this machine may: numbers cannot.
fn is_address(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let is_ip = |text: &str| text.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    name == "localhost" || is_ip(name) || is_ip(host)
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_numbers_and_localhost_are_addresses() {
        for (host, expected) in [
            ("localhost:9090", true),
            ("127.0.0.1:9090", true),
            ("[::1]:9090", true),
            ("::1", true),
            ("relay.example", false),
            ("localhost.evil.example:9090", false),
            ("127.0.0.1.evil.example", false),
        ] {
            assert_eq!(super::is_address(host), expected, "{host}");
        }
    }
}
