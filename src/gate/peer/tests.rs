use http::HeaderValue;
use proptest::prelude::*;

use super::*;

const TRUSTED: [&str; 4] = ["127.0.0.1", "10.0.0.0/8", "::1", "fd00::/8"];

fn network(text: &str) -> Network {
    Network::parse(text).unwrap()
}

fn remote(text: &str) -> Remote {
    match text {
        "unix" => Remote::Unix,
        ip => Remote::Ip(ip.parse().unwrap()),
    }
}

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    lines
        .iter()
        .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap()))
        .collect()
}

fn peer(from: &str, lines: &[(&'static str, &str)]) -> String {
    let trusted = TRUSTED.map(network);
    let (peer, untrusted) = resolve(remote(from), &headers(lines), &trusted);
    let untrusted = if untrusted { " untrusted" } else { "" };
    peer.0.map_or("none".to_owned(), |ip| ip.to_string()) + untrusted
}

/// Lines of one header, in the order of the request.
fn check(name: &'static str, from: &str, lines: &[&str], expected: &str) {
    let lines: Vec<_> = lines.iter().map(|value| (name, *value)).collect();
    assert_eq!(peer(from, &lines), expected, "{from} {lines:?}");
}

#[test]
fn reads_networks() {
    let cases = [
        ("10.0.0.0/8", "10.255.0.1", true),
        ("10.0.0.0/8", "11.0.0.1", false),
        ("10.0.0.0/8", "::ffff:10.1.2.3", true),
        ("::ffff:10.0.0.0/104", "10.1.2.3", true),
        ("192.168.1.7", "192.168.1.7", true),
        ("192.168.1.7", "192.168.1.6", false),
        ("0.0.0.0/0", "203.0.113.1", true),
        ("0.0.0.0/0", "2001:db8::1", false),
        ("::/0", "2001:db8::1", true),
        ("::/0", "203.0.113.1", false),
        ("::1", "::1", true),
        ("2001:db8:1::/48", "2001:db8:1:ffff::7", true),
        ("2001:db8:1::/48", "2001:db8:2::7", false),
        ("2001:db8:1::/49", "2001:db8:1:8000::", false),
    ];
    for (text, ip, expected) in cases {
        assert_eq!(network(text).contains(ip.parse().unwrap()), expected, "{ip} in {text}");
    }
}

#[test]
fn tells_what_is_wrong_with_a_network() {
    let cases = [
        ("", "is no network"),
        ("localhost", "is no network"),
        ("10.0.0.0/", "is no network"),
        ("10.0.0.0/+8", "is no network"),
        ("10.0.0.0/x", "is no network"),
        ("10.0.0.0/8/8", "is no network"),
        ("10.0.0/8", "is no network"),
        ("10.0.0.0/33", "at most 32"),
        ("::/129", "at most 128"),
        ("10.0.0.7/8", "is `10.0.0.0/8` or `10.0.0.7` meant?"),
    ];
    for (text, part) in cases {
        let error = Network::parse(text).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn keys_group_ipv6_by_its_64() {
    let key = |ip: &str| Peer(Some(ip.parse().unwrap())).key().unwrap().to_string();
    assert_eq!(key("203.0.113.7"), "203.0.113.7");
    assert_eq!(key("::ffff:203.0.113.7"), "203.0.113.7");
    assert_eq!(key("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    assert_eq!(key("2001:db8:1:2:ffff::"), key("2001:db8:1:2::1"));
    assert_eq!(Peer(None).key(), None);
}

#[test]
fn without_a_header_the_remote_counts() {
    assert_eq!(peer("203.0.113.9", &[]), "203.0.113.9");
    assert_eq!(peer("::ffff:203.0.113.9", &[]), "203.0.113.9");
    assert_eq!(peer("127.0.0.1", &[]), "127.0.0.1");
    assert_eq!(peer("unix", &[]), "none");
}

#[test]
fn a_stranger_is_not_believed() {
    check("x-forwarded-for", "203.0.113.9", &["192.0.2.1"], "203.0.113.9 untrusted");
    check("forwarded", "203.0.113.9", &["for=192.0.2.1"], "203.0.113.9 untrusted");
    check("x-forwarded-for", "2001:db8::9", &["192.0.2.1"], "2001:db8::9 untrusted");
}

#[test]
fn x_forwarded_for_is_read_from_the_right() {
    let cases: [(&str, &[&str], &str); 22] = [
        ("127.0.0.1", &["192.0.2.1"], "192.0.2.1"),
        ("unix", &["192.0.2.1"], "192.0.2.1"),
        ("::ffff:127.0.0.1", &["192.0.2.1"], "192.0.2.1"),
        ("127.0.0.1", &["192.0.2.1:4711"], "192.0.2.1"),
        ("127.0.0.1", &["2001:db8::7"], "2001:db8::7"),
        ("127.0.0.1", &["[2001:db8::7]"], "2001:db8::7"),
        ("127.0.0.1", &["[2001:db8::7]:443"], "2001:db8::7"),
        ("127.0.0.1", &["::ffff:192.0.2.1"], "192.0.2.1"),
        // A client made up what stands on the left.
        ("127.0.0.1", &["6.6.6.6, 192.0.2.1"], "192.0.2.1"),
        ("127.0.0.1", &["127.0.0.1, 192.0.2.1"], "192.0.2.1"),
        ("127.0.0.1", &["6.6.6.6", "192.0.2.1"], "192.0.2.1"),
        // Trusted hops are skipped, also across lines, until all are trusted.
        ("127.0.0.1", &["6.6.6.6, 192.0.2.1, 10.1.1.1", "10.2.2.2:80 ,fd00::1"], "192.0.2.1"),
        ("127.0.0.1", &["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
        // What is no address ends the reading; the last good one counts.
        ("127.0.0.1", &["192.0.2.1, unknown, 10.1.1.1"], "10.1.1.1"),
        ("127.0.0.1", &["192.0.2.1, 10.1.1.1:http"], "127.0.0.1"),
        ("127.0.0.1", &["192.0.2.1, 10.1.1.1:"], "127.0.0.1"),
        ("127.0.0.1", &["192.0.2.1, 1.2.3.4.5"], "127.0.0.1"),
        ("127.0.0.1", &["192.0.2.1, [::1]80"], "127.0.0.1"),
        ("127.0.0.1", &["192.0.2.1, é"], "127.0.0.1"),
        ("unix", &["192.0.2.1, garbage"], "none"),
        // Empty elements are none (RFC 9110, lists).
        ("127.0.0.1", &["192.0.2.1,, ,", ""], "192.0.2.1"),
        ("127.0.0.1", &[""], "127.0.0.1"),
    ];
    for (from, lines, expected) in cases {
        check("x-forwarded-for", from, lines, expected);
    }
}

#[test]
fn forwarded_is_read_from_the_right() {
    let cases: [(&str, &[&str], &str); 26] = [
        ("127.0.0.1", &["for=192.0.2.1"], "192.0.2.1"),
        ("unix", &["For=192.0.2.1;proto=https;by=10.0.0.1"], "192.0.2.1"),
        ("127.0.0.1", &["proto=https; for=\"192.0.2.1:4711\" ; host=\"a.example\""], "192.0.2.1"),
        ("127.0.0.1", &["for=192.0.2.1:4711"], "192.0.2.1"),
        ("127.0.0.1", &["for=\"[2001:db8:cafe::17]:4711\""], "2001:db8:cafe::17"),
        ("127.0.0.1", &["FOR=\"[2001:db8:cafe::17]\""], "2001:db8:cafe::17"),
        ("127.0.0.1", &["for=\"192.0.2.1:_hidden\""], "192.0.2.1"),
        ("127.0.0.1", &["for=192.0.2.1;host=\"a;b=\\\"c\\\"\""], "192.0.2.1"),
        ("127.0.0.1", &["for=6.6.6.6, for=192.0.2.1"], "192.0.2.1"),
        ("127.0.0.1", &["for=6.6.6.6", "for=192.0.2.1, for=10.1.1.1"], "192.0.2.1"),
        ("127.0.0.1", &["for=10.1.1.1, for=\"[fd00::1]\""], "10.1.1.1"),
        // Hidden and unknown nodes, elements without one, or with two.
        ("127.0.0.1", &["for=192.0.2.1, for=_proxy, for=10.1.1.1"], "10.1.1.1"),
        ("127.0.0.1", &["for=192.0.2.1, for=unknown"], "127.0.0.1"),
        ("127.0.0.1", &["for=192.0.2.1, proto=https"], "127.0.0.1"),
        ("127.0.0.1", &["for=6.6.6.6;for=192.0.2.1"], "127.0.0.1"),
        ("127.0.0.1", &["192.0.2.1"], "127.0.0.1"),
        ("127.0.0.1", &["for="], "127.0.0.1"),
        ("127.0.0.1", &["for=\"192.0.2.1\"x"], "127.0.0.1"),
        ("127.0.0.1", &["for=192.0.2.1;;"], "127.0.0.1"),
        // A quote left open on the left swallows nothing.
        ("127.0.0.1", &["for=6.6.6.6;x=\", for=192.0.2.1"], "192.0.2.1"),
        ("127.0.0.1", &["for=\"6.6.6.6, for=192.0.2.1"], "192.0.2.1"),
        // What the client put into a Host that its proxy quotes is no hop.
        ("127.0.0.1", &["for=192.0.2.1;host=\"x,for=6.6.6.6\""], "127.0.0.1"),
        ("127.0.0.1", &["for=192.0.2.1;host=\"x,for=6.6.6.6;y=\""], "127.0.0.1"),
        ("127.0.0.1", &["for=192.0.2.1;host=\"x,for=6.6.6.6;y=\\\"\""], "127.0.0.1"),
        ("127.0.0.1", &["for=192.0.2.1;host=\"x,for=6.6.6.6;y=\";proto=\"https\""], "127.0.0.1"),
        ("127.0.0.1", &["for=192.0.2.1;host=\"x,y\";proto=https;for=6.6.6.6"], "127.0.0.1"),
    ];
    for (from, lines, expected) in cases {
        check("forwarded", from, lines, expected);
    }
}

#[test]
fn a_forwarded_beside_x_forwarded_for_was_made_up_by_the_client() {
    assert_eq!(peer("127.0.0.1", &[("forwarded", "for=6.6.6.6"), ("x-forwarded-for", "192.0.2.1")]), "192.0.2.1");
}

#[test]
fn reads_no_more_than_32_hops() {
    let hops = ["192.0.2.1"].into_iter().chain(["10.1.1.1"; MAX_HOPS]).collect::<Vec<_>>().join(",");
    check("x-forwarded-for", "127.0.0.1", &[&hops], "10.1.1.1");
    check("x-forwarded-for", "127.0.0.1", &[hops.strip_suffix(",10.1.1.1").unwrap()], "192.0.2.1");
}

#[test]
fn only_a_trusted_proxy_names_the_host() {
    let check = |trusted, lines: &[(&'static str, &str)], expected| {
        assert_eq!(forwarded_host(trusted, &headers(lines)), expected, "{lines:?}");
    };
    check(true, &[("x-forwarded-host", "app.example:8443")], Some("app.example:8443"));
    check(true, &[("x-forwarded-host", " app.example , inner")], Some("app.example"));
    check(false, &[("x-forwarded-host", "app.example")], None);
    check(true, &[("x-forwarded-host", "")], None);
    check(true, &[("host", "app.example")], None);
}

proptest! {
    #[test]
    fn what_the_proxy_appended_counts_whatever_stands_before(made_up in "[ -~]{0,60}") {
        let plain = format!("{made_up}, 192.0.2.1");
        prop_assert_eq!(peer("127.0.0.1", &[("x-forwarded-for", &plain)]), "192.0.2.1");
        let forwarded = format!("{made_up}, for=192.0.2.1;proto=https");
        prop_assert_eq!(peer("127.0.0.1", &[("forwarded", &forwarded)]), "192.0.2.1");
    }

    #[test]
    fn a_network_contains_what_it_masks(bits: u128, prefix in 0_u8..=128) {
        let ip = IpAddr::V6(bits.into());
        let network = Network { address: masked(ip, prefix), prefix };
        prop_assert!(network.contains(ip));
        let shown = format!("{}/{prefix}", network.address);
        prop_assert!(Network::parse(&shown).unwrap().contains(ip));
    }
}
