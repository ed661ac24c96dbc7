use proptest::prelude::*;

use super::*;

/// The URL as it is shown, and who gets in.
fn check(url: &str, shown: &str, user: Option<&str>, password: Option<&str>) -> Server {
    let server = Server::parse(url).unwrap_or_else(|wrong| panic!("{url}: {wrong}"));
    let found = (server.user.as_deref(), server.password.as_ref().map(Secret::reveal));
    assert_eq!((server.to_string().as_str(), found), (shown, (user, password)), "{url}");
    assert_eq!((server.timeout, &server.ca), (Duration::from_secs(2), &None));
    server
}

#[test]
fn single_servers() {
    let server = check("redis://localhost", "redis://localhost:6379", None, None);
    assert_eq!((server.topology, server.tls, server.database), (Topology::Single, false, 0));
    assert_eq!(server.addresses, [Address::Tcp { host: "localhost".into(), port: 6379 }]);
    let server = check(
        "rediss://app:s3cr%2Ft@redis.example.com:6380/3",
        "rediss://redis.example.com:6380/3",
        Some("app"),
        Some("s3cr/t"),
    );
    assert_eq!((server.tls, server.database), (true, 3));
    check("REDIS://10.0.0.1:1/", "redis://10.0.0.1:1", None, None);
    check("redis://:p%40:%25@h/0", "redis://h:6379", None, Some("p@:%"));
    check("redis://:p@ss@h", "redis://h:6379", None, Some("p@ss"));
    check("redis://:a+b@h", "redis://h:6379", None, Some("a+b"));
    check("redis://%C3%BC:%C3%B6@h", "redis://h:6379", Some("ü"), Some("ö"));
    check("redis://nopass:@h_1", "redis://h_1:6379", Some("nopass"), Some(""));
    let server = check("redis://u:p@[::1]:7000/1", "redis://[::1]:7000/1", Some("u"), Some("p"));
    assert_eq!(server.addresses, [Address::Tcp { host: "::1".into(), port: 7000 }]);
    check("redis://[fe80::1]", "redis://[fe80::1]:6379", None, None);
}

#[test]
fn sockets() {
    let server = check("unix:///run/redis.sock", "unix:///run/redis.sock", None, None);
    assert_eq!((server.topology, server.addresses), (Topology::Single, vec![Address::Unix("/run/redis.sock".into())]));
    // As [server] listen writes it.
    check("unix:/run/redis.sock", "unix:///run/redis.sock", None, None);
    check("redis+unix:///run/r@1%20.sock?db=2", "unix:///run/r@1 .sock?db=2", None, None);
    check("unix:///r?user=app&password=p%26+w&db=0", "unix:///r", Some("app"), Some("p&+w"));
    check("unix:///r?password=p=w", "unix:///r", None, Some("p=w"));
}

#[test]
fn clusters_and_sentinels() {
    let server = check("redis+cluster://a,b:7001,[::1]", "redis+cluster://a:6379,b:7001,[::1]:6379", None, None);
    assert_eq!((server.topology, server.addresses.len(), server.tls), (Topology::Cluster, 3, false));
    assert!(check("rediss+cluster://u:p@a/0", "rediss+cluster://a:6379", Some("u"), Some("p")).tls);
    let server = check(
        "redis+sentinel://:pw@a,b:5/main/4?sentinel_password=other",
        "redis+sentinel://a:26379,b:5/main/4",
        None,
        Some("pw"),
    );
    let other = Some(Secret::new("other".into()));
    assert_eq!(server.topology, Topology::Sentinel { name: "main".into(), password: other });
    let server = check("rediss+sentinel://a/my%2Fmain", "rediss+sentinel://a:26379/my/main", None, None);
    assert_eq!(server.topology, Topology::Sentinel { name: "my/main".into(), password: None });
}

/// A word that stands in for a password in most of these.
const HUNTER: &str = "hunter2";

#[test]
fn mistakes_say_what_is_wrong_and_what_to_write() {
    let check = |url: &str, expected: &str| {
        let wrong = Server::parse(url).expect_err(url);
        assert!(wrong.contains(expected), "{url}: {wrong}");
        assert!(!wrong.contains(HUNTER), "{url}: {wrong}");
    };
    for url in ["", "localhost", "localhost:6379", "http://h", "hunter2", "hunter2://h", "redis:h", "redis:/h"] {
        check(url, "begins with none of redis://, rediss://, unix://");
    }
    for url in
        ["redis://", "redis:///0", "redis://:hunter2@", "redis://:6379", "redis://:hunter2", "redis+cluster://a,,b"]
    {
        check(url, "a host is missing");
    }
    for url in ["redis://h:", "redis://h:x", "redis://h:0", "redis://h:65536", "redis://h:+1", "redis://u:hunter2"] {
        check(url, "from 1 to 65535");
    }
    check("redis://h hunter2", "no host has");
    check("redis://::1", "stands in brackets");
    check("redis://::1:6379", "stands in brackets");
    for url in ["redis://[::1", "redis://[hunter2]", "redis://[::1]6379", "redis://[127.0.0.1]"] {
        check(url, "no IPv6 address");
    }
    check("redis://a,b", "redis+cluster://");
    check("redis://h/hunter2", "the database is no number");
    check("redis://h/+1", "the database is no number");
    check("redis://h/4294967296", "the database is no number");
    check("redis://h/0/", "the database is no number");
    check("redis+cluster://h/1", "no databases but 0");
    for url in ["redis+sentinel://h", "redis+sentinel://h/", "redis+sentinel://h//1"] {
        check(url, "is not named");
    }
    check("redis+sentinel://h/m/hunter2", "the database is no number");
    check("redis+sentinel://h/m?password=hunter2", "there are: sentinel_password");
    check("redis+sentinel://h/m?sentinel_password=hunter2&sentinel_password=x", "`sentinel_password` is there twice");
    check("redis://h?hunter2", "mean nothing here");
    check("redis+cluster://h?db=0", "mean nothing here");
    check("unix:///r?pasword=hunter2", "there are: db, user, password");
    for url in ["unix:", "unix://", "unix:///run/", "unix://u:hunter2@/r", "unix://run/r", "unix:///%00hunter2"] {
        check(url, "no path of a socket");
    }
    for url in ["redis://hunter2@h", "unix:///r?user=hunter2"] {
        check(url, "a user without a password");
    }
    for url in ["redis://:@h", "unix:///r?password="] {
        check(url, "the password is empty");
    }
    for url in ["redis://:hunter2/x@h", "redis://u:hunter2?x@h", "redis://:x#hunter2@h", "redis+sentinel://h/m@x"] {
        check(url, "an `@` behind the first");
    }
    for url in ["redis://h/0#hunter2", "unix:///r#hunter2"] {
        check(url, "write it as %23");
    }
    for url in ["redis://:hunter2%@h", "redis://:%zzhunter2@h", "redis://:%4@h", "unix:///%4", "redis://:%é@h"] {
        check(url, "without two hexadecimal digits");
    }
    check("redis://:hunter2%ff@h", "not UTF-8");
}

proptest! {
    #[test]
    fn no_text_is_too_strange(scheme in 0..SCHEMES.len(), text in "[a-c0-9%@:/?#\\[\\],=&é]{0,30}", any in any::<String>()) {
        for rest in [&text, &any] {
            let _ = Server::parse(rest);
            if let Ok(server) = Server::parse(&format!("{}://{rest}", SCHEMES[scheme].0)) {
                prop_assert!(!server.addresses.is_empty());
                prop_assert!(server.user.is_none() || server.password.is_some());
            }
        }
    }

    /// Wherever a password stands, encoded or not, and whatever else is wrong.
    #[test]
    fn no_password_is_shown(
        scheme in 0..SCHEMES.len(),
        (before, after) in ("[ab:@/?#%]{0,4}", "[ab:@/?#%,]{0,8}"),
        place in 0..4,
    ) {
        let password = format!("{before}{HUNTER}");
        let encoded: String = password.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let scheme = SCHEMES[scheme].0;
        let url = match place {
            0 => format!("{scheme}://:{password}@{after}"),
            1 => format!("{scheme}://u:{encoded}@h{after}"),
            2 => format!("{scheme}:///{after}?password={encoded}&db=1"),
            _ => format!("{scheme}://h/m{after}?sentinel_password={password}"),
        };
        match Server::parse(&url) {
            Ok(server) => prop_assert!(!format!("{server} {server:?}").contains(HUNTER), "{url}"),
            Err(wrong) => prop_assert!(!wrong.contains(HUNTER), "{url}: {wrong}"),
        }
    }
}
