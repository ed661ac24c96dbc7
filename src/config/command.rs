//! `[[endpoint.command]]`.

use super::endpoint::{filter, replay};
use super::reader::Table;
use super::stream::fields;
use super::template::{Placeholders, json, patterns, topic};
use super::value::{Kind, either, list, table, text};
use crate::session::endpoint::{Command, Publish, When};

/// `[[endpoint.command]]`.
pub fn command(table: &mut Table<'_>, placeholders: &Placeholders) -> Option<Command> {
    let some = || list(patterns("{.topics}", placeholders));
    let when = table.optional(
        "when",
        when(),
        "fields that must match, \"ping\" for a bare text; absent: anything. The first match wins",
    );
    Some(Command {
        when: when.unwrap_or(When::Always),
        subscribe: table.or("subscribe", "[]", some(), "patterns to hear from now on: \"{.topics}\""),
        unsubscribe: table.or("unsubscribe", "[]", some(), "patterns to hear no more"),
        select: table.optional("where", filter(placeholders), "replaces the endpoint's where for this session"),
        replay: table.optional("replay", replay(), "what to send again: so many of the newest events, or \"retained\""),
        publish: table.optional("publish", publish(placeholders), "makes an event of it"),
        reply: table.optional("reply", json(placeholders), "the answer: a JSON template"),
    })
}

/// Fields, or a bare text.
fn when() -> Kind<When> {
    let fields = fields(true).then(|fields| Ok(When::Fields(fields)));
    either(text("ping").then(|text| Ok(When::Text(text))), fields)
}

fn publish(placeholders: &Placeholders) -> Kind<Publish> {
    let placeholders = placeholders.clone();
    table("`publish`", move |table| {
        let topic = table.required("topic", topic("acks/{session.id}", &placeholders), "topic = \"acks/{session.id}\"");
        let body = table.required("body", json(&placeholders), "body = \"{.}\": a JSON template");
        Some(Publish { topic: topic?, body: body? })
    })
}
