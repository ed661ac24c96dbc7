//! The public address: webhooks in, subscribers out.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Buf;
use http::{HeaderMap, Method};
use tokio_stream::Stream;
use warp::Filter;
use warp::path::FullPath;

use super::answer::{self, Reply};
use super::connection::Visit;
use super::{Site, path, subscribe, webhook};
use crate::gate::peer::{self, Peer};
use crate::metrics::Refused;

/// A request, as warp's filters took it apart.
pub struct Call {
    /// How.
    pub method: Method,
    /// Where, as sent.
    pub path: FullPath,
    /// `a=b&c`, as sent.
    pub query: String,
    /// With what.
    pub headers: HeaderMap,
    /// From where.
    pub visit: Visit,
}

/// Everything the public address serves.
pub fn routes(site: Arc<Site>) -> impl Filter<Extract = (Reply,), Error = Infallible> + Clone {
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    let head =
        warp::method().and(warp::path::full()).and(query).and(warp::header::headers_cloned()).and(warp::ext::get());
    head.map(|method, path, query, headers, visit| Call { method, path, query, headers, visit })
        .and(warp::body::stream())
        .then(move |call, body| {
            let site = site.clone();
            async move { serve(&site, call, body).await }
        })
        .recover(|_| async { Ok::<_, Infallible>(answer::error(400, "this request cannot be read")) })
        .unify()
}

async fn serve<S, B>(site: &Arc<Site>, call: Call, body: S) -> Reply
where
    S: Stream<Item = Result<B, warp::Error>> + Send,
    B: Buf + Send,
{
    let routes = site.routes.load();
    let path = call.path.as_str();
    let hook =
        routes.webhooks.iter().find_map(|(p, hook)| Some((p.as_str().to_owned(), hook.clone(), p.captures(path)?)));
    let hook = hook.filter(|_| call.method != Method::GET);
    if let Some((name, hook, captures)) = hook {
        let peer = peer_of(site, &routes, &call);
        drop(routes);
        return webhook::receive(site, webhook::Hook { name, settings: &hook, captures, peer }, &call, body).await;
    }
    let endpoint = routes.endpoints.iter().find_map(|(p, endpoint)| Some((endpoint.clone(), p.captures(path)?)));
    let Some((endpoint, captures)) = endpoint else {
        return not_here(site, &routes, path);
    };
    if call.method != Method::GET {
        return wrong_method(site, "GET");
    }
    let peer = peer_of(site, &routes, &call);
    let visitor = subscribe::Visitor { routes: (*routes).clone(), peer, captures, query: path::query(&call.query) };
    drop(routes);
    subscribe::admit(site, &endpoint, visitor, call).await
}

fn not_here(site: &Site, routes: &super::Routes, path: &str) -> Reply {
    if routes.webhooks.iter().any(|(p, _)| p.captures(path).is_some()) {
        return wrong_method(site, "POST");
    }
    site.metrics.refused(Refused::BadPath);
    answer::error(404, "nothing is served at this path")
}

/// 405, with the method that works.
pub fn wrong_method(site: &Site, allow: &'static str) -> Reply {
    site.metrics.refused(Refused::Method);
    let mut response = answer::error(405, &format!("use {allow} here"));
    response.headers_mut().insert(http::header::ALLOW, http::HeaderValue::from_static(allow));
    response
}

/// Who this is, behind trusted proxies.
fn peer_of(site: &Site, routes: &super::Routes, call: &Call) -> Peer {
    let (peer, untrusted) = peer::resolve(call.visit.remote, &call.headers, &routes.trusted);
    if untrusted {
        site.metrics.refused(Refused::UntrustedForwarded);
        if !site.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                remote = ?call.visit.remote,
                "a request came with X-Forwarded-For or Forwarded from an address that is not in [server] \
                 trusted_proxies: its limits count by the address itself; if that is your proxy, list it there"
            );
        }
    }
    peer
}
