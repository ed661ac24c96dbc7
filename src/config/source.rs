//! `[[source.webhook]]`, its `verify`, and secrets.

use std::ffi::OsString;
use std::path::Path;
use std::rc::Rc;

use serde_json::json;
use toml::de::DeValue;

use super::mistake::Wrong;
use super::reader::{Node, Reader, Table};
use super::template::{Placeholders, json as template_json, text as template_text, topic};
use super::value::{Kind, choice, duration, either, list, parsed, size, table, text, unexpected};
use crate::http::path::PathPattern;
use crate::secret::Secret;
use crate::source::verify::Verify;
use crate::source::webhook::{BodyFormat, Settings};
use crate::template::Roots;

const FORMATS: &[(&str, BodyFormat)] =
    &[("json", BodyFormat::Json), ("text", BodyFormat::Text), ("alertmanager", BodyFormat::Alertmanager)];

/// Longer than any credential, and short enough that a wrong file does no harm.
const MAX_SECRET_FILE: u64 = 64 * 1024;

/// `[[source.webhook]]`.
pub fn webhook(table: &mut Table<'_>) -> Option<(PathPattern, Settings)> {
    let path =
        table.required("path", path("webhook"), "where it is POSTed to: \"/hooks/billing\", \"/publish/{topic...}\"");
    let request = Roots::PAYLOAD | Roots::QUERY | Roots::HEADER;
    let placeholders = Placeholders::new(request, path.as_ref().map(std::slice::from_ref));
    let topic = table.required(
        "topic",
        topic("alerts/{.labels.severity|none}", &placeholders.and(Roots::NOW)),
        "the topic of its events: \"orders\", \"{path.topic}\", \"alerts/{.labels.severity|none}\"",
    );
    let verify = table.required(
        "verify",
        verify(),
        "say how senders prove themselves: { bearer = \"env:TOKEN\" }, basic, header; if they need no secret, \"none\"",
    );
    let dedupe = table.optional(
        "dedupe",
        template_text("{.id}", &placeholders.and(Roots::TOPIC)),
        "a key; the same key within dedupe_window is one event. Without it: Idempotency-Key, webhook-id, \
         X-GitHub-Delivery, or what identifies an alert",
    );
    let window = duration("1s", "30d");
    let dedupe_window = table.or("dedupe_window", r#""10m""#, window, "how long a dedupe key is remembered");
    let body = template_json(&placeholders.and(Roots::TOPIC | Roots::NOW));
    let body = table.optional("body", body, "reshapes the payload: a JSON template");
    let format =
        table.or("format", r#""json""#, choice(FORMATS), "what a body is read as; alertmanager: one event per alert");
    let max_body = table.or("max_body", r#""1MiB""#, size("1B", "256MiB"), "the largest body");
    let settings = Settings { format, topic: topic?, verify: verify?, dedupe, dedupe_window, body, max_body };
    Some((path?, settings))
}

/// A path that no other of its kind has.
pub fn path(of: &'static str) -> Kind<PathPattern> {
    let path = parsed("/events/{topic...}", PathPattern::parse);
    let once = move |reader: &Reader, node: Node<'_>| {
        let path = path.read(reader, node)?;
        if !reader.claim(of, nameless(&path)) {
            reader.wrong(node.span(), Wrong::from(format!("another {of} has the path `{}` already", path.as_str())));
        }
        Some(path)
    };
    Kind::new(|| json!({ "type": "string" }), once).matching("^/")
}

/// What captures are called makes no path a different one.
fn nameless(path: &PathPattern) -> String {
    let segment = |segment: &str| match segment {
        capture if capture.ends_with("...}") => "{...}".to_owned(),
        capture if capture.starts_with('{') => "{}".to_owned(),
        literal => literal.to_owned(),
    };
    path.as_str().split('/').map(segment).collect::<Vec<_>>().join("/")
}

fn verify() -> Kind<Verify> {
    let none = parsed("none", |text| match text {
        "none" => Ok(Verify::None),
        _ => {
            Err(Wrong::new("the only word here is \"none\"", "a secret stands in a table: { bearer = \"env:TOKEN\" }"))
        }
    });
    let kind = Rc::new(either(none, table("`verify`", credentials)));
    let described = Rc::clone(&kind);
    let read = move |reader: &Reader, node: Node<'_>| {
        hide(reader, node);
        kind.read(reader, node)
    };
    Kind::new(move || described.schema(), read)
}

fn credentials(table: &mut Table<'_>) -> Option<Verify> {
    let bearer = table.optional("bearer", secrets().then(|all| Ok(Verify::Bearer(all))), "Authorization: Bearer …");
    let basic = table.optional("basic", self::table("`basic`", basic), "Authorization: Basic …");
    let header = table.optional("header", self::table("`header`", header), "a header of your own");
    let mut given = [bearer, basic, header].into_iter().flatten();
    let one = given.next();
    if given.next().is_some() || one.is_none() && table.is_empty() {
        table.wrong_whole(Wrong::new("exactly one way to verify is needed", "bearer, basic or header"));
    }
    one
}

fn basic(table: &mut Table<'_>) -> Option<Verify> {
    let user = table.required("user", text("alertmanager"), "user = \"…\"");
    let password = table.required("password", secrets(), "password = \"env:NAME\"; a list to rotate");
    Some(Verify::Basic { user: user?, password: password? })
}

fn header(table: &mut Table<'_>) -> Option<Verify> {
    let name = parsed("X-Token", |text| {
        text.parse::<http::HeaderName>().map_err(|_| Wrong::from(format!("{text:?} is no name of a header")))
    });
    let name = table.required("name", name, "name = \"X-Token\"");
    let value = table.required("value", secrets(), "value = \"env:NAME\"; a list to rotate");
    Some(Verify::Header { name: name?, value: value? })
}

/// Keeps everything under `verify` out of what is shown, also under a misspelled key.
fn hide(reader: &Reader, node: Node<'_>) {
    match node.get_ref() {
        DeValue::String(text) if is_reference(text) || text == "none" => {}
        DeValue::Array(nodes) => nodes.iter().for_each(|node| hide(reader, node)),
        DeValue::Table(table) => table.values().for_each(|node| hide(reader, node)),
        _ => reader.secret(node.span()),
    }
}

fn is_reference(text: &str) -> bool {
    ["env:", "file:", "credential:"].iter().any(|prefix| text.starts_with(prefix))
}

fn secrets() -> Kind<Vec<Secret>> {
    let one = Kind::new(
        || json!({ "type": "string", "examples": ["env:NAME", "file:/path", "credential:name"] }),
        |reader, node| match node.get_ref() {
            DeValue::String(text) => {
                let secret = secret(text, |name| std::env::var_os(name));
                secret.map_err(|wrong| reader.wrong(node.span(), wrong)).ok()
            }
            _ => unexpected(reader, node, "a string, such as \"env:NAME\""),
        },
    );
    list(one).filled("secret")
}

/// The text itself, or what it refers to. A mistake never says what the secret is.
fn secret(text: &str, env: impl Fn(&str) -> Option<OsString>) -> Result<Secret, Wrong> {
    let found = match text.split_once(':') {
        Some(("env", name)) => {
            let value = env(name).ok_or_else(|| Wrong::from(format!("the environment has no variable `{name}`")))?;
            value.into_string().map_err(|_| Wrong::from(format!("the variable `{name}` is not UTF-8")))?
        }
        Some(("file", path)) => read_secret(Path::new(path))?,
        Some(("credential", name)) => {
            if name.is_empty() || name.contains('/') || name == ".." {
                return Err(Wrong::from(format!("`{name}` is no name of a credential")));
            }
            let help = "pass it with LoadCredential= in the unit of systemd";
            let directory = env("CREDENTIALS_DIRECTORY");
            let directory =
                directory.ok_or_else(|| Wrong::new("there are no credentials in this environment", help))?;
            read_secret(&Path::new(&directory).join(name))?
        }
        _ => text.to_owned(),
    };
    match found.is_empty() {
        true => Err(Wrong::new("the secret is empty", "everybody could send; say verify = \"none\" if that is meant")),
        false => Ok(Secret::new(found)),
    }
}

/// A file's text, without the line break that editors leave at the end.
fn read_secret(path: &Path) -> Result<String, Wrong> {
    let failed = |e: std::io::Error| Wrong::from(format!("cannot read the secret in {}: {e}", path.display()));
    let size = std::fs::metadata(path).map_err(failed)?.len();
    if size > MAX_SECRET_FILE {
        return Err(Wrong::from(format!("{} is too large for a secret", path.display())));
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_found_where_they_are_kept() {
        let directory = std::env::temp_dir().join(format!("relay-secrets-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("token"), "from a file\r\n").unwrap();
        std::fs::write(directory.join("blank"), "\n").unwrap();
        let env = |name: &str| match name {
            "TOKEN" => Some(OsString::from("from the environment")),
            "CREDENTIALS_DIRECTORY" => Some(directory.clone().into_os_string()),
            _ => None,
        };
        let check = |text: &str, expected: Result<&str, &str>| match (secret(text, env), expected) {
            (Ok(secret), Ok(expected)) => assert_eq!(secret.reveal(), expected, "{text}"),
            (Err(wrong), Err(expected)) => assert!(wrong.message.contains(expected), "{text}: {}", wrong.message),
            (found, _) => panic!("{text}: {found:?}"),
        };
        let file = |name: &str| format!("file:{}", directory.join(name).display());
        check("plain", Ok("plain"));
        check("with:colon", Ok("with:colon"));
        check("env:TOKEN", Ok("from the environment"));
        check(&file("token"), Ok("from a file"));
        check("credential:token", Ok("from a file"));
        check("", Err("the secret is empty"));
        check(&file("blank"), Err("the secret is empty"));
        check(&file("none"), Err("cannot read the secret"));
        check("env:NONE", Err("no variable `NONE`"));
        check("credential:../token", Err("no name of a credential"));
        let nowhere = secret("credential:token", |_| None).unwrap_err();
        assert!(nowhere.help.contains("LoadCredential="), "{nowhere:?}");
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn captures_have_no_name() {
        let check = |a: &str, b: &str, same| {
            let [a, b] = [a, b].map(|text| nameless(&PathPattern::parse(text).unwrap()));
            assert_eq!(a == b, same, "{a} {b}");
        };
        check("/a/{x}", "/a/{y}", true);
        check("/a/{x...}", "/a/{y...}", true);
        check("/a/{x}", "/a/{x...}", false);
        check("/a/x", "/a/{x}", false);
    }
}
