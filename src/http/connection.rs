//! One connection while HTTP is spoken on it: hyper with deadlines of our own, until it closes or a subscriber's request
//! takes the socket over. The filter that understood such a request leaves a [`Takeover`] and never answers; the
//! connection then stops hyper, before it wrote anything, and hands the bare socket to the hub.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, sleep};

use super::Site;
use super::listen::Stream;
use crate::gate::limits::ConnectionPermit;
use crate::gate::peer::Remote;
use crate::hub::mail::Opening;
use crate::hub::seat::Line;
use crate::metrics::Refused;

/// A head must be complete within this time of its first byte.
const HEAD: Duration = Duration::from_secs(10);
/// A new connection must begin to speak within this time. Browsers and pools open some ahead of need.
const FIRST: Duration = Duration::from_secs(30);
/// A kept-alive connection may rest for this long: above the 60 s for which proxies keep theirs, so that they close first.
const REST: Duration = Duration::from_secs(75);
/// The largest head. hyper answers a larger one with 431.
const HEAD_BYTES: usize = 16 * 1024;

/// A session that only lacks its socket.
pub struct Takeover {
    /// All but the line, the early bytes and the connection's slot.
    pub opening: Opening,
}

/// What a connection and its requests tell each other.
#[derive(Default)]
pub struct Shared {
    /// A request is being answered.
    busy: AtomicBool,
    /// The first byte of a head came and the head is not complete.
    head: AtomicBool,
    answered: AtomicU32,
    /// Something that hyper wrote has not reached the socket.
    unflushed: AtomicBool,
    takeover: Mutex<Option<Takeover>>,
}

/// A request's way back to its connection, and where it comes from.
#[derive(Clone)]
pub struct Visit {
    /// The other end of the socket.
    pub remote: Remote,
    /// Only this machine can reach the address it came in by.
    pub local: bool,
    /// HTTP/1.1 without a body: the socket can be taken over.
    pub plain: bool,
    shared: Arc<Shared>,
}

impl Visit {
    /// Leaves the session for the connection to hand over. The caller must then never answer.
    pub fn take_over(&self, takeover: Takeover) {
        *self.shared.takeover.lock().unwrap_or_else(PoisonError::into_inner) = Some(takeover);
    }
}

/// How a connection ended.
#[expect(clippy::large_enum_variant, reason = "one for each connection, on its way to be taken apart")]
enum End {
    Closed(hyper::Result<()>),
    Late { head: bool },
    Takeover(Takeover),
}

/// Serves one connection. `service` is warp's.
pub async fn serve<S, B>(stream: Stream, visit: Visit, permit: Option<ConnectionPermit>, site: Arc<Site>, service: S)
where
    S: tower_service::Service<hyper::Request<hyper::body::Incoming>, Response = hyper::Response<B>> + Clone + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: hyper::body::Body + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let shared = visit.shared.clone();
    let io = TokioIo::new(Watched { stream, shared: shared.clone() });
    let answer = service_fn(|mut request: hyper::Request<hyper::body::Incoming>| {
        let (mut service, shared, site) = (service.clone(), visit.shared.clone(), site.clone());
        shared.busy.store(true, Ordering::Relaxed);
        let body = hyper::body::Body::is_end_stream(request.body());
        let visit = Visit { plain: body && request.version() == hyper::Version::HTTP_11, ..visit.clone() };
        request.extensions_mut().insert(visit);
        site.requests.fetch_add(1, Ordering::Relaxed);
        let answering = Answering { site, shared };
        Box::pin(async move {
            let response = service.call(request).await?;
            Ok::<_, S::Error>(response.map(|body| Answer { body, _answering: answering }))
        })
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(HEAD_BYTES);
    let mut connection = Box::pin(http.serve_connection(io, answer));
    let end = run(connection.as_mut(), &shared).await;
    match end {
        End::Closed(Ok(())) => {}
        End::Closed(Err(error)) => {
            if error.is_parse_too_large() {
                site.metrics.refused(Refused::HeadTooLarge);
            }
            tracing::debug!(%error, "a connection ended");
        }
        End::Late { head } => {
            site.metrics.refused(Refused::HeadTimeout);
            // Nothing of this request was answered yet, so the socket is at the start of a response.
            let parts = unboxed(connection);
            if head {
                let _ = late(parts.io.into_inner().stream).await;
            }
        }
        End::Takeover(Takeover { opening }) => {
            let parts = unboxed(connection);
            // A copy: the slice would keep all of hyper's read buffer alive for as long as the session lives.
            let early = Bytes::copy_from_slice(&parts.read_buf);
            match parts.io.into_inner().stream.into_socket() {
                Ok(socket) => {
                    let (_, session) = opening.permits;
                    let line = Line::Socket(socket);
                    site.hub.open(Opening { line, early, permits: (permit, session), ..opening });
                }
                Err(error) => tracing::warn!(%error, "a socket could not be handed to its shard"),
            }
        }
    }
}

type Connection<S> = http1::Connection<TokioIo<Watched>, S>;

fn unboxed<S, B>(connection: Pin<Box<Connection<S>>>) -> http1::Parts<TokioIo<Watched>, S>
where
    S: hyper::service::HttpService<hyper::body::Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::Future: Unpin,
    S: Unpin,
    B: hyper::body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    (*Pin::into_inner(connection)).into_parts()
}

async fn late(mut stream: Stream) -> io::Result<()> {
    stream.write_all(b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await?;
    stream.shutdown().await
}

/// Drives hyper until the connection ends one way or another.
async fn run<F: Future<Output = hyper::Result<()>>>(mut connection: Pin<&mut F>, shared: &Shared) -> End {
    let mut clock = pin!(sleep(FIRST));
    let mut phase = shared.phase();
    poll_fn(|cx| {
        if let Poll::Ready(result) = connection.as_mut().poll(cx) {
            return Poll::Ready(End::Closed(result));
        }
        if !shared.unflushed.load(Ordering::Relaxed)
            && let Some(takeover) = shared.takeover.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            return Poll::Ready(End::Takeover(takeover));
        }
        let next = shared.phase();
        if next != phase {
            phase = next;
            clock.as_mut().reset(Instant::now() + phase.patience().unwrap_or(REST));
        }
        if phase.patience().is_some() {
            ready!(clock.as_mut().poll(cx));
            return Poll::Ready(End::Late { head: phase.head });
        }
        Poll::Pending
    })
    .await
}

/// What a connection is doing, as far as deadlines care: each change starts the clock anew.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Phase {
    busy: bool,
    head: bool,
    /// Requests answered: several may pass between two looks.
    answered: u32,
}

impl Phase {
    /// How long it may last.
    fn patience(self) -> Option<Duration> {
        match self {
            Phase { busy: true, .. } => None,
            Phase { head: true, .. } => Some(HEAD),
            Phase { answered: 0, .. } => Some(FIRST),
            Phase { .. } => Some(REST),
        }
    }
}

impl Shared {
    fn phase(&self) -> Phase {
        Phase {
            busy: self.busy.load(Ordering::Relaxed),
            head: self.head.load(Ordering::Relaxed),
            answered: self.answered.load(Ordering::Relaxed),
        }
    }
}

/// A request is being answered for as long as this lives.
struct Answering {
    site: Arc<Site>,
    shared: Arc<Shared>,
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.site.requests.fetch_sub(1, Ordering::Relaxed);
        self.shared.head.store(false, Ordering::Relaxed);
        self.shared.answered.fetch_add(1, Ordering::Relaxed);
        self.shared.busy.store(false, Ordering::Relaxed);
    }
}

/// A response's body. Until hyper has taken all of it, and be that for hours, the request is being answered.
struct Answer<B> {
    body: B,
    _answering: Answering,
}

impl<B: hyper::body::Body + Unpin> hyper::body::Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}

/// A visit of a connection whose requests are yet to come.
pub fn visit(remote: Remote, local: bool) -> Visit {
    Visit { remote, local, plain: false, shared: Arc::default() }
}

/// The socket, with an eye on what passes.
struct Watched {
    stream: Stream,
    shared: Arc<Shared>,
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if !buf.filled().is_empty() {
            self.shared.head.store(true, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.shared.unflushed.store(true, Ordering::Relaxed);
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.shared.unflushed.store(true, Ordering::Relaxed);
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// hyper flushes when its own buffer is empty: only then is nothing of an earlier response left.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.shared.unflushed.store(false, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
