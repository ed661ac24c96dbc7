//! The running relay that `pub` and `sub` speak to: where it is, a request, its answer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use data_encoding::BASE64;
use http::header::{AUTHORIZATION, HOST, HeaderName, HeaderValue};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use relay::http::listen::Address;
use relay::secret::Secret;
use relay::source::verify::Verify;
use tokio::net::{TcpStream, UnixStream};

/// From the first byte sent to the head of the answer. (An append waits for nothing that takes longer.)
const PATIENCE: Duration = Duration::from_secs(10);

/// No answer but an event stream is longer.
const MAX_ANSWER: usize = 1 << 20;

/// Where a relay listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Server {
    /// `host:port`.
    Tcp(String),
    /// A socket of this machine.
    Unix(PathBuf),
}

/// A header that says who asks.
pub type Credential = Option<(HeaderName, HeaderValue)>;

impl Server {
    /// What `--url` says: the server, and a path if there is one.
    pub fn parse(url: &str) -> anyhow::Result<(Server, Option<String>)> {
        if let Some(path) = url.strip_prefix("unix:") {
            return Ok((Server::Unix(PathBuf::from(path)), None));
        }
        let uri: Uri = url.parse().with_context(|| format!("--url {url}"))?;
        if uri.scheme_str().is_some_and(|scheme| scheme != "http") || uri.query().is_some() {
            bail!("--url {url}: only http://host:port, with a path or without, and unix:/path are taken");
        }
        let authority = uri.authority().with_context(|| format!("--url {url}: no host in it"))?;
        let place = match authority.port() {
            Some(_) => authority.to_string(),
            None => format!("{authority}:80"),
        };
        let path = uri.path().trim_end_matches('/');
        Ok((Server::Tcp(place), (!path.is_empty()).then(|| path.to_string())))
    }

    /// The first of the file's addresses that says where it will be.
    pub fn of(listen: &[Address]) -> anyhow::Result<Server> {
        let place = listen.iter().find_map(|address| match address {
            Address::Tcp(at) if at.port() != 0 => Some(Server::Tcp(reachable(*at).to_string())),
            Address::Unix { path, .. } => Some(Server::Unix(path.clone())),
            _ => None,
        });
        place.context("[server] listen does not say where the relay is: say it with --url")
    }

    /// Asks, and waits for the head of the answer. The connection lives as long as the answer's body.
    pub async fn send(&self, mut request: Request<Full<Bytes>>) -> anyhow::Result<Response<Incoming>> {
        request.headers_mut().insert(HOST, self.host()?);
        let exchange = async {
            let mut connection = self.connect().await.with_context(|| format!("cannot connect to {self}"))?;
            connection.send_request(request).await.with_context(|| format!("no answer from {self}"))
        };
        match tokio::time::timeout(PATIENCE, exchange).await {
            Ok(answer) => answer,
            Err(_) => bail!("no answer from {self} within {PATIENCE:?}"),
        }
    }

    async fn connect(&self) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        match self {
            Server::Tcp(place) => open(TcpStream::connect(place).await?).await,
            Server::Unix(path) => open(UnixStream::connect(path).await?).await,
        }
    }

    fn host(&self) -> anyhow::Result<HeaderValue> {
        Ok(match self {
            Server::Tcp(place) => place.parse()?,
            Server::Unix(_) => HeaderValue::from_static("localhost"),
        })
    }
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Server::Tcp(place) => write!(f, "http://{place}"),
            Server::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What passes a webhook's `verify`: the token of the command line, else the first of the file's secrets.
pub fn credential(verify: &Verify, token: Option<&str>) -> anyhow::Result<Credential> {
    let chosen = |secrets: &[Secret]| token.or(secrets.first().map(Secret::reveal)).unwrap_or_default().to_string();
    match verify {
        Verify::None => token.map(bearer).transpose(),
        Verify::Bearer(tokens) => bearer(&chosen(tokens)).map(Some),
        Verify::Basic { user, password } => {
            let pair = format!("{user}:{}", chosen(password));
            sensitive(AUTHORIZATION, &format!("Basic {}", BASE64.encode(pair.as_bytes()))).map(Some)
        }
        Verify::Header { name, value } => sensitive(name.clone(), &chosen(value)).map(Some),
    }
}

/// A token as most expect it.
pub fn bearer(token: &str) -> anyhow::Result<(HeaderName, HeaderValue)> {
    sensitive(AUTHORIZATION, &format!("Bearer {token}"))
}

/// The whole answer, as text for a person.
pub async fn text(answer: Response<Incoming>) -> String {
    let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
    let bytes = body.map(|body| body.to_bytes()).unwrap_or_default();
    String::from_utf8_lossy(&bytes).trim_end().to_string()
}

/// For a path (`/` stays) or a query's value.
pub fn percent_encoded(text: &str, is_path: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || (is_path && b"/:".contains(&byte));
        match plain {
            true => out.push(char::from(byte)),
            false => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// All commands are one connection at a time.
pub fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

fn sensitive(name: HeaderName, value: &str) -> anyhow::Result<(HeaderName, HeaderValue)> {
    let mut value = HeaderValue::from_str(value).context("the secret cannot stand in a header")?;
    value.set_sensitive(true);
    Ok((name, value))
}

/// Who listens on all addresses is reached on loopback.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

async fn open<S>(stream: S) -> anyhow::Result<SendRequest<Full<Bytes>>>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Its error reaches whoever reads the answer.
    tokio::spawn(connection);
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let check = |url: &str, place: &str, path: Option<&str>| {
            let (server, found) = Server::parse(url).unwrap();
            assert_eq!((server.to_string().as_str(), found.as_deref()), (place, path), "{url}");
        };
        check("http://h:8080", "http://h:8080", None);
        check("http://h:8080/", "http://h:8080", None);
        check("h:8080", "http://h:8080", None);
        check("http://h", "http://h:80", None);
        check("http://[::1]:9/a/b/", "http://[::1]:9", Some("/a/b"));
        check("unix:/run/relay.sock", "unix:/run/relay.sock", None);
        for bad in ["https://h", "http://h/?a=b", "/path", "", "http://"] {
            assert!(Server::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses() {
        let tcp = |at: &str| Address::Tcp(at.parse().unwrap());
        let check = |listen: &[Address], expected: &str| assert_eq!(Server::of(listen).unwrap().to_string(), expected);
        check(&[tcp("10.0.0.1:80")], "http://10.0.0.1:80");
        check(&[tcp("0.0.0.0:80")], "http://127.0.0.1:80");
        check(&[tcp("[::]:80")], "http://[::1]:80");
        let unix = Address::Unix { path: "/x".into(), mode: None };
        check(&[Address::Systemd, tcp("127.0.0.1:0"), unix], "unix:/x");
        assert!(Server::of(&[Address::Systemd]).is_err());
    }

    #[test]
    fn credentials() {
        let check = |verify: &Verify, token: Option<&str>, expected: &str| {
            let shown = credential(verify, token).unwrap().map(|(name, value)| {
                assert!(value.is_sensitive());
                format!("{name}: {}", value.to_str().unwrap())
            });
            assert_eq!(shown.unwrap_or_default(), expected);
        };
        let secrets = || vec![Secret::new("s1".into()), Secret::new("s2".into())];
        check(&Verify::None, None, "");
        check(&Verify::None, Some("t"), "authorization: Bearer t");
        check(&Verify::Bearer(secrets()), None, "authorization: Bearer s1");
        check(&Verify::Bearer(secrets()), Some("t"), "authorization: Bearer t");
        check(&Verify::Basic { user: "u".into(), password: secrets() }, None, "authorization: Basic dTpzMQ==");
        let header = Verify::Header { name: HeaderName::from_static("x-token"), value: secrets() };
        check(&header, None, "x-token: s1");
        check(&header, Some("t"), "x-token: t");
        assert!(credential(&Verify::None, Some("a\nb")).is_err());
    }

    #[test]
    fn percent() {
        assert_eq!(percent_encoded("a/b c:ü*?", true), "a/b%20c:%C3%BC%2A%3F");
        assert_eq!(percent_encoded("a/**&x", false), "a%2F%2A%2A%26x");
    }
}
