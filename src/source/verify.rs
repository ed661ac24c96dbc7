//! Whether a webhook's sender is who it must be. The answer is yes or no and never why: the caller says 401 to all.

use std::hint::black_box;

use data_encoding::BASE64;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName};

use crate::secret::Secret;

/// `verify = …`; each secret may be a list (rotation).
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Verify {
    None,
    Bearer(Vec<Secret>),
    Basic { user: String, password: Vec<Secret> },
    Header { name: HeaderName, value: Vec<Secret> },
}

/// Whether the request passes; compares in constant time.
pub fn verified(verify: &Verify, headers: &HeaderMap) -> bool {
    match verify {
        Verify::None => true,
        Verify::Bearer(tokens) => credentials(headers, "bearer").is_some_and(|token| any_is(tokens, token.as_bytes())),
        Verify::Basic { user, password } => {
            credentials(headers, "basic").is_some_and(|pair| basic(user, password, pair))
        }
        Verify::Header { name, value } => only(headers, name).is_some_and(|given| any_is(value, given)),
    }
}

/// The value of a header that stands exactly once. Two of them are refused: which one counts would be a guess, and a
/// proxy in front may have guessed otherwise.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h [u8]> {
    let mut all = headers.get_all(name).iter();
    let first = all.next()?;
    all.next().is_none().then(|| first.as_bytes())
}

/// What follows the scheme in `Authorization`.
fn credentials<'h>(headers: &'h HeaderMap, scheme: &str) -> Option<&'h str> {
    let value = std::str::from_utf8(only(headers, &AUTHORIZATION)?).ok()?;
    let (given, rest) = value.split_once(' ')?;
    given.eq_ignore_ascii_case(scheme).then(|| rest.trim())
}

fn basic(user: &str, passwords: &[Secret], pair: &str) -> bool {
    let Ok(pair) = BASE64.decode(pair.as_bytes()) else { return false };
    let Some(colon) = pair.iter().position(|byte| *byte == b':') else { return false };
    // `&`, not `&&`: a wrong user must take as long as a wrong password.
    same(&pair[..colon], user.as_bytes()) & any_is(passwords, &pair[colon + 1..])
}

/// Whether one of the secrets is `given`. Looks at all of them, so that time does not say which one it was.
fn any_is(secrets: &[Secret], given: &[u8]) -> bool {
    // An empty secret is one that was forgotten, and would let everybody in.
    let all = secrets.iter().map(Secret::reveal);
    all.fold(false, |found, secret| found | (!secret.is_empty() & same(given, secret.as_bytes())))
}

/// Equality whose time depends on the longer of the two lengths and on nothing else: not on where the first difference
/// is, which is what lets an attacker find a secret byte by byte.
fn same(given: &[u8], secret: &[u8]) -> bool {
    let mut difference = given.len() ^ secret.len();
    for i in 0..given.len().max(secret.len()) {
        let (a, b) = (given.get(i).copied().unwrap_or(0), secret.get(i).copied().unwrap_or(0));
        difference |= usize::from(black_box(a ^ b));
    }
    black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(texts: &[&str]) -> Vec<Secret> {
        texts.iter().map(|text| Secret::new(text.to_string())).collect()
    }

    fn check(verify: &Verify, headers: &[(&str, &str)], expected: bool) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        assert_eq!(verified(verify, &map), expected, "{verify:?} {headers:?}");
    }

    #[test]
    fn bearer() {
        let verify = Verify::Bearer(secrets(&["new", "old"]));
        check(&verify, &[("authorization", "Bearer new")], true);
        check(&verify, &[("authorization", "bearer old")], true);
        check(&verify, &[("authorization", "Bearer  old ")], true);
        for bad in ["Bearer ne", "Bearer newx", "Bearer ", "Bearer", "new", "Basic new", "Bearer NEW", "Bearer new old"]
        {
            check(&verify, &[("authorization", bad)], false);
        }
        check(&verify, &[], false);
        check(&verify, &[("authorization", "Bearer new"), ("authorization", "Bearer new")], false);
    }

    #[test]
    fn basic_pairs() {
        let verify = Verify::Basic { user: "am".into(), password: secrets(&["p:w", "next"]) };
        let pair = |text: &str| format!("Basic {}", BASE64.encode(text.as_bytes()));
        check(&verify, &[("authorization", &pair("am:p:w"))], true);
        check(&verify, &[("authorization", &pair("am:next"))], true);
        for bad in ["am:p", "an:p:w", "am", ":p:w", "am:", ""] {
            check(&verify, &[("authorization", &pair(bad))], false);
        }
        check(&verify, &[("authorization", "Basic %%%")], false);
        check(&verify, &[("authorization", "Bearer next")], false);
    }

    #[test]
    fn header() {
        let verify = Verify::Header { name: HeaderName::from_static("x-token"), value: secrets(&["a", "b"]) };
        check(&verify, &[("X-Token", "a")], true);
        check(&verify, &[("x-token", "b")], true);
        check(&verify, &[("x-token", "c")], false);
        check(&verify, &[("x-token", "a"), ("x-token", "a")], false);
        check(&verify, &[("authorization", "a")], false);
    }

    #[test]
    fn none_lets_in_and_an_empty_secret_does_not() {
        check(&Verify::None, &[], true);
        check(
            &Verify::Header { name: HeaderName::from_static("x-token"), value: secrets(&[""]) },
            &[("x-token", "")],
            false,
        );
        check(&Verify::Basic { user: "u".into(), password: secrets(&[""]) }, &[("authorization", "Basic dTo=")], false);
        check(&Verify::Bearer(Vec::new()), &[("authorization", "Bearer x")], false);
    }

    #[test]
    fn same_is_equality() {
        for a in ["", "a", "b", "ab", "a\0"] {
            for b in ["", "a", "b", "ab", "a\0"] {
                assert_eq!(same(a.as_bytes(), b.as_bytes()), a == b, "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn debug_hides() {
        let shown = format!("{:?}", Verify::Bearer(secrets(&["tell-nobody"])));
        assert!(shown.contains("***") && !shown.contains("tell-nobody"), "{shown}");
    }
}
