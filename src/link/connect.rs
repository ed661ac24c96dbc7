//! One attempt to connect: to an address, or to the master that the Sentinels name; what it is that answers there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ErrorKind, IntoConnectionInfo, ProtocolVersion, PushInfo, PushKind,
    RedisConnectionInfo, RedisError, TlsCertificates,
};

use super::server::{Address, Server, Topology};
use super::{Down, Wire};
use crate::secret::Secret;

/// Where what Redis says unasked goes. It must not block.
pub type Push = Arc<dyn Fn(PushInfo) + Send + Sync>;

/// Who answers.
struct Answering {
    run_id: Arc<str>,
    /// What it is, if not a master.
    replica: Option<String>,
    /// Its policy, if it may evict.
    evicts: Option<String>,
}

/// Connects, and looks who answers. All of it within the server's `timeout`.
pub(super) async fn connect(
    server: &Server,
    address: &Address,
    push: Option<Push>,
    patience: Duration,
) -> Result<Wire, Down> {
    let work = async {
        let found = match &server.topology {
            Topology::Sentinel { name, password } => master(server, name, password.as_ref()).await?,
            Topology::Single | Topology::Cluster => address.clone(),
        };
        let (wire, answering) = meet(server, address, &found, push, patience).await?;
        if let Some(role) = answering.replica {
            return Err(Down(format!("{server}: READONLY: it is a {role}; name the master, or the Sentinels")));
        }
        if let Some(policy) = answering.evicts {
            warn_of_eviction(server, &policy);
        }
        Ok(wire)
    };
    let late = |_| Err(Down(format!("{server}: no answer within {:?}", server.timeout)));
    tokio::time::timeout(server.timeout, work).await.unwrap_or_else(late)
}

/// The same, whether it may be written to or not.
pub(super) async fn connect_to_any(server: &Server, address: &Address, patience: Duration) -> Result<Wire, Down> {
    let late = |_| Err(Down(format!("{server}: no answer within {patience:?}")));
    let met = tokio::time::timeout(patience, meet(server, address, address, None, patience)).await;
    met.unwrap_or_else(late).map(|(wire, _)| wire)
}

/// Connects to `found`, which is known as `address`.
async fn meet(
    server: &Server,
    address: &Address,
    found: &Address,
    push: Option<Push>,
    patience: Duration,
) -> Result<(Wire, Answering), Down> {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    let login = (server.user.as_deref(), server.password.as_ref(), server.database);
    let closed = Arc::new(AtomicBool::new(false));
    let mut connection = open(server, found, login, watched(push, &closed), patience).await?;
    let answering = look(server, &mut connection).await?;
    let (run_id, number) = (answering.run_id.clone(), NUMBER.fetch_add(1, Relaxed));
    let (address, found) = (address.clone(), found.clone());
    Ok((Wire { connection, run_id, address, found, number, closed }, answering))
}

/// Sees the end of a connection, which comes as a push.
fn watched(push: Option<Push>, closed: &Arc<AtomicBool>) -> Push {
    let closed = closed.clone();
    Arc::new(move |info: PushInfo| {
        if info.kind == PushKind::Disconnection {
            closed.store(true, Relaxed);
        }
        if let Some(push) = &push {
            push(info);
        }
    })
}

/// An error as people read it, with what could be done about it. The crate's errors hold no password.
pub(super) fn down(server: &Server, error: &RedisError) -> Down {
    let help = match (error.kind(), error.code()) {
        (ErrorKind::AuthenticationFailed, _) | (_, Some("NOAUTH" | "WRONGPASS")) => {
            "; look at user and password in the `url`"
        }
        (_, Some("NOPERM")) => "; the ACL user needs more rights, see the README",
        _ if server.tls && error.to_string().contains("certificate") => {
            "; `ca` must have signed its certificate, or the system's authorities if there is no `ca`, and its host must \
             be named in it"
        }
        (_, Some("OOM")) => "; raise `maxmemory` or lower `max_events` and `max_age`",
        _ => "",
    };
    Down(format!("{server}: {error}{help}"))
}

async fn open(
    server: &Server,
    address: &Address,
    (user, password, database): (Option<&str>, Option<&Secret>, u32),
    push: Push,
    patience: Duration,
) -> Result<MultiplexedConnection, Down> {
    let mut login = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3).set_db(i64::from(database));
    if let Some(user) = user {
        login = login.set_username(user);
    }
    if let Some(password) = password {
        login = login.set_password(password.reveal());
    }
    let alive = socket2::TcpKeepalive::new().with_time(Duration::from_secs(5)).with_interval(Duration::from_secs(2));
    let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(alive).set_user_timeout(server.timeout * 2);
    let failed = |error: RedisError| down(server, &error);
    let info = target(server, address).into_connection_info().map_err(failed)?;
    let info = info.set_redis_settings(login).set_tcp_settings(tcp);
    let opened = match server.tls && matches!(address, Address::Tcp { .. }) {
        true => Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert: authorities(server)? }),
        false => Client::open(info),
    };
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(server.timeout))
        .set_response_timeout(Some(server.timeout))
        .set_push_sender(move |info| {
            push(info);
            Ok::<(), std::convert::Infallible>(())
        });
    let connected = opened.map_err(failed)?.get_multiplexed_async_connection_with_config(&config).await;
    let mut connection = connected.map_err(failed)?;
    connection.set_response_timeout(patience);
    Ok(connection)
}

fn target(server: &Server, address: &Address) -> ConnectionAddr {
    match address {
        Address::Unix(path) => ConnectionAddr::Unix(path.clone()),
        Address::Tcp { host, port } if server.tls => {
            ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure: false, tls_params: None }
        }
        Address::Tcp { host, port } => ConnectionAddr::Tcp(host.clone(), *port),
    }
}

fn authorities(server: &Server) -> Result<Option<Vec<u8>>, Down> {
    let Some(path) = &server.ca else { return Ok(None) };
    let failed = |error| Down(format!("{server}: `ca` {} cannot be read: {error}", path.display()));
    std::fs::read(path).map(Some).map_err(failed)
}

/// Which process it is, and what.
async fn look(server: &Server, connection: &mut MultiplexedConnection) -> Result<Answering, Down> {
    let failed = |error: RedisError| down(server, &error);
    let info: String = redis::cmd("INFO").query_async(connection).await.map_err(failed)?;
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    if field("loading") == Some("1") {
        return Err(Down(format!("{server}: LOADING: Redis reads its data; it will be there when it has")));
    }
    let replica = field("role").filter(|role| *role != "master").map(str::to_owned);
    let run_id = field("run_id").ok_or_else(|| Down(format!("{server}: INFO does not say which process this is")))?;
    let limited = field("maxmemory").is_some_and(|limit| limit != "0");
    let evicts = field("maxmemory_policy").filter(|policy| limited && *policy != "noeviction").map(str::to_owned);
    Ok(Answering { run_id: run_id.into(), replica, evicts })
}

fn warn_of_eviction(server: &Server, policy: &str) {
    use std::sync::Once;
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing::warn!(%server, policy, "this Redis may evict events (`maxmemory-policy`); set it to noeviction");
    });
}

/// Who is the master now, if there are Sentinels, and they answer.
pub(super) async fn master_now(server: &Server) -> Option<Address> {
    let Topology::Sentinel { name, password } = &server.topology else { return None };
    let found = tokio::time::timeout(server.timeout, master(server, name, password.as_ref())).await;
    found.ok()?.ok()
}

/// Asks one Sentinel after the other where the master is.
async fn master(server: &Server, name: &str, password: Option<&Secret>) -> Result<Address, Down> {
    let mut last = Down(format!("{server}: no Sentinel answers"));
    for sentinel in &server.addresses {
        match ask(server, sentinel, name, password).await {
            Ok(address) => return Ok(address),
            Err(down) => last = down,
        }
    }
    Err(last)
}

async fn ask(server: &Server, sentinel: &Address, name: &str, password: Option<&Secret>) -> Result<Address, Down> {
    // The share of one of them, so that one that is silent leaves time for the others.
    let patience = server.timeout / (server.addresses.len() as u32 + 1);
    let work = async {
        let mut connection = open(server, sentinel, (None, password, 0), Arc::new(|_| ()), patience).await?;
        let command = redis::cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(name).to_owned();
        let answer: Option<(String, u16)> =
            command.query_async(&mut connection).await.map_err(|error| down(server, &error))?;
        let (host, port) = answer.ok_or_else(|| Down(format!("{server}: no Sentinel knows a master `{name}`")))?;
        Ok(Address::Tcp { host, port })
    };
    let late = |_| Err(Down(format!("{server}: a Sentinel does not answer")));
    tokio::time::timeout(patience, work).await.unwrap_or_else(late)
}
