//! `[[endpoint]]`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use toml::de::DeValue;

use super::command::command;
use super::mistake::Wrong;
use super::reader::{Node, Reader, Table};
use super::source::path;
use super::stream::pattern;
use super::template::{Placeholders, json as template_json, patterns, scalar, text as template_text};
use super::units;
use super::value::{Kind, choice, duration, either, entries, integer, list, parsed, table, tables, unexpected};
use crate::gate::origin::Origins;
use crate::select::Field;
use crate::session::endpoint::{Command, OnSlow, PaceRule, Replay, Settings, When, WhereRule};
use crate::template::{Roots, Scope, Text};
use crate::topic::Pattern;
use crate::wire::form::{Format, Transport};

const TRANSPORTS: &[(&str, Transport)] = &[
    ("websocket", Transport::WebSocket),
    ("sse", Transport::Sse),
    ("ndjson", Transport::Ndjson),
    ("poll", Transport::Poll),
];
const FORMATS: &[(&str, Format)] = &[("raw", Format::Raw), ("envelope", Format::Envelope)];
const ON_SLOW: &[(&str, OnSlow)] =
    &[("disconnect", OnSlow::Disconnect), ("drop_oldest", OnSlow::DropOldest), ("latest", OnSlow::Latest)];
const ABSENT: &[(&str, bool)] = &[("drop", false), ("pass", true)];

/// `most` is what `[limits]` allows one address.
pub fn endpoint(table: &mut Table<'_>, most: u32) -> Option<Settings> {
    let doc =
        "where subscribers connect; one or several, the first is its name. \"/events/{topic...}\" gives {path.topic}";
    let paths = table.required("path", list(path("endpoint")).filled("path"), doc);
    let placeholders = Placeholders::new(Roots::QUERY | Roots::HEADER | Roots::SESSION, paths.as_deref());
    let (topics, allow) = topics(table, &placeholders);
    let transports = table.or(
        "transports",
        r#"["websocket", "sse", "ndjson", "poll"]"#,
        list(choice(TRANSPORTS)).filled("transport"),
        "the ways out that it offers",
    );
    let hello = template_json(&placeholders.and(Roots::NOW));
    let settings = Settings {
        origins: table.or(
            "origins",
            r#""same""#,
            origins(),
            "pages of these origins, and its own, may connect; \"*\": of any",
        ),
        format: table.or("format", r#""envelope""#, choice(FORMATS), "raw: the payload as published"),
        replay: table.or(
            "replay",
            "0",
            replay(),
            "for a new session: so many of the newest events, or \"retained\": the last of each topic",
        ),
        pace: table.or(
            "pace",
            "[]",
            pace(&placeholders),
            "at most one event per topic in so long, the newest: \"10s\", or tables",
        ),
        select: table.optional(
            "where",
            filter(&placeholders),
            "only events with one of these values in one of these fields",
        ),
        on_slow: table.or(
            "on_slow",
            r#""disconnect""#,
            choice(ON_SLOW),
            "when the queue is full; latest: per topic, the newest",
        ),
        ping: table.or(
            "ping",
            r#""25s""#,
            duration("100ms", "1h"),
            "a session that is idle so long is pinged, and must answer",
        ),
        connections_per_ip: table.optional(
            "connections_per_ip",
            integer(1..=10_000_000),
            "from one address, below what [limits] allow",
        ),
        alias: table.or("alias", "{}", aliases(), "names a session may use for patterns"),
        hello: table.optional("hello", hello, "what a session is told first: a JSON template"),
        commands: commands(table, &placeholders, &transports),
        paths: paths?,
        topics: topics?,
        allow: allow?,
        transports,
    };
    check_limit(table, settings.connections_per_ip, most);
    Some(settings)
}

fn check_limit(table: &mut Table<'_>, own: Option<u32>, most: u32) {
    if own.is_some_and(|own| own > most) {
        let wrong = Wrong::new(
            format!("[limits] allows {most} already"),
            "an endpoint's own can only be lower; raise `limits.connections_per_ip`",
        );
        table.wrong("connections_per_ip", wrong);
    }
}

/// `topics`, and `allow`, which is `topics` unless it is said.
fn topics(table: &mut Table<'_>, placeholders: &Placeholders) -> (Option<Vec<Text>>, Option<Vec<Text>>) {
    let one = || patterns("orders/**", placeholders);
    let topics = table.required(
        "topics",
        list(one()),
        "what a session hears if it asks for nothing: [\"**\"]; [] if it begins with nothing",
    );
    let allow = table.optional("allow", list(one()), "what a session may ask for; if absent, topics");
    let (Some(known), false) = (&topics, allow.is_none() && table.has("allow")) else { return (topics, None) };
    let allowed = allow.unwrap_or_else(|| known.clone());
    if allowed.is_empty() {
        let key = if table.has("allow") { "allow" } else { "topics" };
        table.wrong(key, Wrong::new("a session could never hear anything", "name at least one pattern"));
    }
    let reachable: Vec<Pattern> = allowed.iter().map(Text::shape).collect();
    for topic in known.iter().filter(|topic| topic.is_constant()).map(Text::shape) {
        if !allowed.is_empty() && !reachable.iter().any(|pattern| pattern.covers(&topic)) {
            let wrong = Wrong::new(
                format!("`{topic}` is not within `allow`, so no session could have it"),
                "add it to `allow`",
            );
            table.wrong("topics", wrong);
        }
    }
    (topics, Some(allowed))
}

fn commands(table: &mut Table<'_>, placeholders: &Placeholders, transports: &[Transport]) -> Vec<Arc<Command>> {
    let all = placeholders.and(Roots::NOW | Roots::PAYLOAD);
    let kind = tables("[[endpoint.command]]", move |table| command(table, &all));
    let doc = "what a session may say; with none, the built-in subscribe, unsubscribe, ping and pace";
    let commands = table.or("command", "[]", kind, doc);
    if !commands.is_empty() && !transports.contains(&Transport::WebSocket) {
        table.wrong("command", Wrong::new("nobody can say anything here", "add \"websocket\" to `transports`"));
    }
    for (index, command) in commands.iter().enumerate() {
        if commands[..index].iter().any(|earlier| earlier.when == When::Always || earlier.when == command.when) {
            let wrong = Wrong::new(
                format!("the command number {} never applies: one above it takes all it would take", index + 1),
                "the first that matches wins: put the narrower one first",
            );
            table.wrong("command", wrong);
        }
    }
    commands.into_iter().map(Arc::new).collect()
}

fn origins() -> Kind<Origins> {
    let one = parsed("https://app.example.com", |text| match text {
        "same" => Ok(Origins::Same),
        "*" => Ok(Origins::Any),
        _ if is_origin(text) => Ok(Origins::Listed(vec![text.to_owned()])),
        _ => Err(Wrong::new(
            format!("{text:?} is no origin"),
            "write \"https://app.example.com\", without a path; \"same\"; or \"*\" for all",
        )),
    });
    list(one).filled("origin").then(|all| {
        if all.contains(&Origins::Any) {
            return Ok(Origins::Any);
        }
        let listed = all.into_iter().flat_map(|one| if let Origins::Listed(one) = one { one } else { Vec::new() });
        let listed: Vec<String> = listed.collect();
        Ok(if listed.is_empty() { Origins::Same } else { Origins::Listed(listed) })
    })
}

/// Scheme, host, perhaps a port, as browsers send it.
fn is_origin(text: &str) -> bool {
    let Some((scheme, host)) = text.split_once("://") else { return false };
    let scheme_is_good = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte));
    let authority = host.parse::<http::uri::Authority>();
    let host_is_good = authority.is_ok_and(|authority| {
        let port_is_good = !host.ends_with(':') && (authority.port().is_none() || authority.port_u16().is_some());
        !host.contains('@') && !authority.host().is_empty() && port_is_good
    });
    scheme_is_good && host_is_good
}

/// `20`, `"retained"`.
pub fn replay() -> Kind<Replay> {
    let newest =
        integer(0..=100_000_000).then(|count| Ok(if count == 0 { Replay::None } else { Replay::Newest(count) }));
    either(choice(&[("retained", Replay::Retained)]), newest)
}

/// `{ any = [".severity"], in = ["high"], absent = "drop" }`.
pub fn filter(placeholders: &Placeholders) -> Kind<WhereRule> {
    let placeholders = placeholders.clone();
    table("`where`", move |table| {
        let field = parsed(".severity", |text| Field::parse(text, false));
        let any = table.required("any", list(field).filled("field"), "any = [\".severity\"]: the fields looked at");
        let value = scalar("high", &placeholders);
        let values = table.required("in", list(value).filled("value"), "in = [\"high\"]: the values wanted");
        let doc = "pass: also events that have none of the fields";
        let absent_passes = table.or("absent", r#""drop""#, choice(ABSENT), doc);
        Some(WhereRule { any: any?, values: values?, absent_passes })
    })
}

fn pace(placeholders: &Placeholders) -> Kind<Vec<PaceRule>> {
    let all = |every| Ok(vec![PaceRule { topics: vec![Pattern::all()], every, min: None, max: None }]);
    let all = every(placeholders).then(all);
    let placeholders = placeholders.clone();
    either(all, tables("[[endpoint.pace]]", move |table| pace_rule(table, &placeholders)))
}

fn pace_rule(table: &mut Table<'_>, placeholders: &Placeholders) -> Option<PaceRule> {
    let topics = table.or("topics", r#""**""#, list(pattern()).filled("pattern"), "for these topics");
    let every =
        table.required("every", every(placeholders), "every = \"10s\", or with placeholders: \"{query.interval|10}s\"");
    let min = table.optional("min", duration("1ms", "1d"), "a shorter one is refused");
    let max = table.optional("max", duration("1ms", "1d"), "a longer one is refused");
    let outside = |every: Duration| min.is_some_and(|min| every < min) || max.is_some_and(|max| every > max);
    if min.zip(max).is_some_and(|(min, max)| min > max) {
        table.wrong("min", Wrong::from("is above `max`".to_owned()));
    } else if every.as_ref().and_then(unasked).is_some_and(outside) {
        table.wrong("every", Wrong::from("is not between `min` and `max` of its own table".to_owned()));
    }
    Some(PaceRule { topics, every: every?, min, max })
}

/// A duration, perhaps with placeholders. What it is without a request must be one.
fn every(placeholders: &Placeholders) -> Kind<Text> {
    template_text("{query.interval|10}s", placeholders).then(|template| {
        let unasked = template.text(&Scope::default()).map_or(Ok(None), |text| units::duration(&text).map(Some))?;
        match unasked {
            Some(Duration::ZERO) => Err(Wrong::from("must be longer than nothing".to_owned())),
            _ => Ok(template),
        }
    })
}

/// What a session gets that does not ask for another pace.
fn unasked(every: &Text) -> Option<Duration> {
    units::duration(&every.text(&Scope::default()).ok()?).ok()
}

fn aliases() -> Kind<BTreeMap<String, Pattern>> {
    let read = |reader: &Reader, node: Node<'_>| {
        if !matches!(node.get_ref(), DeValue::Table(_)) {
            return unexpected(reader, node, "a table of names and patterns");
        }
        let pattern = pattern();
        let one = |key: &str, value| Some((key.to_owned(), pattern.read(reader, value)?));
        let all: Vec<_> = entries(node).into_iter().map(|(key, value)| one(key.get_ref(), value)).collect();
        all.into_iter().collect()
    };
    Kind::new(|| json!({ "type": "object", "additionalProperties": { "type": "string" } }), read).free()
}
