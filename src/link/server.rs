//! Where a Redis is, and how to get in, read from a URL.
//!
//! A URL has a password in it, and in a malformed one nobody can say where the password begins and ends. So no message
//! here repeats any of its text.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::time::Duration;

use data_encoding::HEXLOWER_PERMISSIVE;

use crate::secret::Secret;

/// Where a Redis listens if the URL does not say it.
const PORT: u16 = 6379;
/// The same for a Sentinel.
const SENTINEL_PORT: u16 = 26_379;
/// As long as an answer may take if the file does not say it.
const TIMEOUT: Duration = Duration::from_secs(2);

const SCHEMES: [(&str, Form, bool); 8] = [
    ("redis", Form::Single, false),
    ("rediss", Form::Single, true),
    ("unix", Form::Unix, false),
    ("redis+unix", Form::Unix, false),
    ("redis+cluster", Form::Cluster, false),
    ("rediss+cluster", Form::Cluster, true),
    ("redis+sentinel", Form::Sentinel, false),
    ("rediss+sentinel", Form::Sentinel, true),
];

/// Where a Redis is, and how to get in. Neither `Debug` nor `Display` shows a password; `Display` is for logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// What stands at the addresses.
    pub topology: Topology,
    /// At least one; of a single server exactly one. A Unix socket is always a single server.
    pub addresses: Vec<Address>,
    /// To Redis, and to the Sentinels as well.
    pub tls: bool,
    /// A PEM file with the authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// The ACL user; `None`: `default`.
    pub user: Option<String>,
    /// Its password. There is one whenever there is a user, if only an empty one.
    pub password: Option<Secret>,
    /// Always 0 in a Cluster.
    pub database: u32,
    /// How long connecting may take, and an answer.
    pub timeout: Duration,
}

/// What stands at the addresses of a [`Server`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topology {
    /// One Redis.
    Single,
    /// Some nodes of a Cluster, which know the others.
    Cluster,
    /// Sentinels, which know where the master called `name` is; `password` is their own.
    #[allow(missing_docs)]
    Sentinel { name: String, password: Option<Secret> },
}

/// Where to connect to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Address {
    /// A host's name or IP; IPv6 without brackets.
    Tcp {
        host: String,
        port: u16,
    },
    Unix(PathBuf),
}

/// How the rest of a URL reads.
#[derive(Clone, Copy)]
enum Form {
    Single,
    Cluster,
    Sentinel,
    Unix,
}

/// A URL behind its scheme: `user:password@hosts/path?query`.
struct Parts<'u> {
    login: Login,
    hosts: &'u str,
    /// Without the slash before it.
    path: &'u str,
    query: &'u str,
}

type Login = (Option<String>, Option<Secret>);

impl Server {
    /// Reads
    /// * `redis://[[USER]:PASSWORD@]HOST[:PORT][/DB]`
    /// * `unix:///PATH[?db=…&user=…&password=…]`, also `redis+unix`
    /// * `redis+cluster://[[USER]:PASSWORD@]HOST[:PORT],…`
    /// * `redis+sentinel://[[USER]:PASSWORD@]HOST[:PORT],…/NAME[/DB][?sentinel_password=…]`
    ///
    /// and the same over TLS with `rediss`. User, password, path and name may be percent-encoded; a `+` is a plus. The
    /// error says what is wrong and what to write, and repeats nothing of the URL.
    pub fn parse(url: &str) -> Result<Server, String> {
        let unknown = || {
            let schemes: Vec<String> = SCHEMES.iter().map(|(scheme, ..)| format!("{scheme}://")).collect();
            format!("the URL begins with none of {}", schemes.join(", "))
        };
        let (scheme, rest) = url.split_once(':').ok_or_else(unknown)?;
        let known = SCHEMES.iter().find(|(known, ..)| scheme.eq_ignore_ascii_case(known));
        let (_, form, tls) = known.ok_or_else(unknown)?;
        let server = match form {
            Form::Unix => unix(rest),
            form => over_tcp(*form, rest.strip_prefix("//").ok_or_else(unknown)?),
        };
        Ok(Server { tls: *tls, ..server? })
    }

    /// To be filled; not a server yet.
    fn blank() -> Server {
        Server {
            topology: Topology::Single,
            addresses: Vec::new(),
            tls: false,
            ca: None,
            user: None,
            password: None,
            database: 0,
            timeout: TIMEOUT,
        }
    }
}

fn over_tcp(form: Form, rest: &str) -> Result<Server, String> {
    let Parts { login: (user, password), hosts, path, query } = split(rest)?;
    let port = if matches!(form, Form::Sentinel) { SENTINEL_PORT } else { PORT };
    let addresses = hosts.split(',').map(|text| address(text, port)).collect::<Result<Vec<_>, _>>()?;
    let (topology, database) = match form {
        Form::Sentinel => {
            let [password] = parameters(query, ["sentinel_password"])?;
            let (name, database) = path.split_once('/').unwrap_or((path, ""));
            let name = Some(decoded(name)?).filter(|name| !name.is_empty()).ok_or(
                "the master that the Sentinels watch is not named: write redis+sentinel://HOST,HOST/NAME".to_owned(),
            )?;
            (Topology::Sentinel { name, password: password.map(Secret::new) }, database)
        }
        _ => {
            let [] = parameters(query, [])?;
            (if matches!(form, Form::Cluster) { Topology::Cluster } else { Topology::Single }, path)
        }
    };
    let database = number_of_database(database)?;
    match topology {
        Topology::Single if addresses.len() > 1 => {
            Err("several hosts: say what they are, with redis+cluster:// or redis+sentinel://HOST,HOST/NAME".into())
        }
        Topology::Cluster if database != 0 => {
            Err("a Cluster has no databases but 0: leave out what follows the hosts".into())
        }
        topology => Ok(Server { topology, addresses, user, password, database, ..Server::blank() }),
    }
}

fn unix(rest: &str) -> Result<Server, String> {
    let path = rest.strip_prefix("//").unwrap_or(rest);
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    if rest.contains('#') {
        return Err("a `#` in the URL: write it as %23".into());
    }
    let path = decoded(path)?;
    if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
        return Err("no path of a socket: write the whole of it, without a host, as in \
                    unix:///run/redis.sock?user=NAME&password=PASSWORD"
            .into());
    }
    let [database, user, password] = parameters(query, ["db", "user", "password"])?;
    let (user, password) = login(user.filter(|user| !user.is_empty()), password)?;
    let database = number_of_database(&database.unwrap_or_default())?;
    Ok(Server { addresses: vec![Address::Unix(path.into())], user, password, database, ..Server::blank() })
}

/// Takes apart what follows `//`.
fn split(rest: &str) -> Result<Parts<'_>, String> {
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    if rest.contains('@') {
        return Err(
            "an `@` behind the first `/`, `?` or `#`: within a user, a password or a name write these as %40, \
                    %2F, %3F and %23"
                .into(),
        );
    }
    if rest.contains('#') {
        return Err("a `#` in the URL: write it as %23".into());
    }
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    // The last one, because those before it can only be a password's.
    let (login, hosts) = match authority.rsplit_once('@') {
        Some((login, hosts)) => (both(login)?, hosts),
        None => ((None, None), authority),
    };
    Ok(Parts { login, hosts, path: path.strip_prefix('/').unwrap_or(path), query })
}

/// `USER:PASSWORD`.
fn both(text: &str) -> Result<Login, String> {
    let (user, password) = match text.split_once(':') {
        Some((user, password)) => (user, Some(decoded(password)?)),
        None => (text, None),
    };
    login(Some(decoded(user)?).filter(|user| !user.is_empty()), password)
}

/// A user alone is refused: other programs take such a word for the password, and here it would be shown as a name.
fn login(user: Option<String>, password: Option<String>) -> Result<Login, String> {
    match (&user, &password) {
        (Some(_), None) => Err("a user without a password: write USER:PASSWORD, USER: for a user that needs none, or \
                                :PASSWORD for a password alone"
            .into()),
        (None, Some(password)) if password.is_empty() => {
            Err("the password is empty: leave it out if none is needed".into())
        }
        _ => Ok((user, password.map(Secret::new))),
    }
}

fn address(text: &str, default: u16) -> Result<Address, String> {
    let bracketed = |rest: &str| {
        let (host, port) = rest.split_once(']')?;
        host.parse::<Ipv6Addr>().ok()?;
        let port = if port.is_empty() { None } else { Some(port.strip_prefix(':')?.to_owned()) };
        Some((host.to_owned(), port))
    };
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => bracketed(rest).ok_or("no IPv6 address in the brackets: write [::1] or [::1]:6379")?,
        None => match text.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return Err("too many colons in a host: an IPv6 address stands in brackets, [::1]:6379".into());
            }
            Some((host, port)) => (host.to_owned(), Some(port.to_owned())),
            None => (text.to_owned(), None),
        },
    };
    if host.is_empty() {
        return Err("a host is missing: write redis://HOST or redis://HOST:PORT".into());
    }
    let in_a_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
    if !host.bytes().all(in_a_host) {
        return Err("a host has characters that no host has: it is letters, digits, `.`, `-`, `_`".into());
    }
    let number = |port: String| digits(&port).and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
    let port = port.map(|port| number(port).ok_or("a port is no number from 1 to 65535"));
    Ok(Address::Tcp { host, port: port.transpose()?.unwrap_or(default) })
}

fn number_of_database(text: &str) -> Result<u32, String> {
    match text {
        "" => Ok(0),
        text => digits(text).ok_or_else(|| "the database is no number: write it as in redis://HOST/0".into()),
    }
}

/// Digits and nothing else (`u32::from_str` takes a plus sign too).
fn digits(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// The values of the parameters that are known, in their order.
fn parameters<const N: usize>(query: &str, known: [&str; N]) -> Result<[Option<String>; N], String> {
    let mut found = [const { None }; N];
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let index = known.iter().position(|known| *known == name).ok_or_else(|| match known.as_slice() {
            [] => "parameters behind a `?`, which mean nothing here: leave them out".to_owned(),
            known => format!("a parameter behind the `?` is none of those there are: {}", known.join(", ")),
        })?;
        if found[index].replace(decoded(value)?).is_some() {
            return Err(format!("the parameter `{}` is there twice", known[index]));
        }
    }
    Ok(found)
}

fn decoded(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut pieces = text.split('%');
    bytes.extend_from_slice(pieces.next().unwrap_or_default().as_bytes());
    for piece in pieces {
        let piece = piece.as_bytes();
        let byte = piece.get(..2).and_then(|digits| HEXLOWER_PERMISSIVE.decode(digits).ok());
        bytes.extend(byte.ok_or("a `%` without two hexadecimal digits behind it: write a `%` itself as %25")?);
        bytes.extend_from_slice(&piece[2..]);
    }
    String::from_utf8(bytes).map_err(|_| "what is percent-encoded is not UTF-8".into())
}

/// The URL without what is needed to get in.
impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses = self.addresses.iter().map(Address::to_string).collect::<Vec<_>>().join(",");
        let redis = if self.tls { "rediss" } else { "redis" };
        let is_unix = matches!(self.addresses[..], [Address::Unix(_)]);
        match &self.topology {
            Topology::Single if is_unix => write!(f, "unix://{addresses}")?,
            Topology::Single => write!(f, "{redis}://{addresses}")?,
            Topology::Cluster => write!(f, "{redis}+cluster://{addresses}")?,
            Topology::Sentinel { name, .. } => write!(f, "{redis}+sentinel://{addresses}/{name}")?,
        }
        match self.database {
            0 => Ok(()),
            database if is_unix => write!(f, "?db={database}"),
            database => write!(f, "/{database}"),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp { host, port } => write!(f, "{host}:{port}"),
            Address::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests;
