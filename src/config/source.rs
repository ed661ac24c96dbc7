//! `[[source.webhook]]` and its `verify`.

use std::rc::Rc;

use serde_json::json;

use super::mistake::Wrong;
use super::reader::{Node, Reader, Table};
use super::secret::{hide, secrets};
use super::template::{Placeholders, json as template_json, text as template_text, topic};
use super::value::{Kind, choice, duration, either, parsed, size, table, text};
use crate::http::path::PathPattern;
use crate::source::verify::Verify;
use crate::source::webhook::{BodyFormat, Settings};
use crate::template::Roots;

const FORMATS: &[(&str, BodyFormat)] =
    &[("json", BodyFormat::Json), ("text", BodyFormat::Text), ("alertmanager", BodyFormat::Alertmanager)];

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
        if !matches!(node.get_ref(), toml::de::DeValue::String(text) if text == "none") {
            hide(reader, node);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

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
