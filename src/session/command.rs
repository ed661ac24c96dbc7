//! What a session says, understood: the built-in protocol, or the endpoint's own commands. Pure.

use std::sync::Arc;

use serde_json::{Value, json};

use super::endpoint::{Command, Endpoint, Replay, When};
use super::terms::{self, Pacing};
use crate::cursor::{self, Mark};
use crate::event::{Kind, Payload};
use crate::select::Where;
use crate::stream::Draft;
use crate::template::{Scope, Text};
use crate::topic::Pattern;

/// What is to be done, in this order.
#[derive(Debug)]
pub enum Deed {
    /// Add these; with a cursor (`Some(None)`: one that could not be read) catch up on them first.
    Subscribe(Vec<Pattern>, Option<Option<Vec<Mark>>>),
    /// Take these away.
    Unsubscribe(Vec<Pattern>),
    /// Only events that pass, from now on.
    Where(Arc<Where>),
    /// Another pace.
    Pace(Option<Arc<[Pacing]>>),
    /// Some of the past again.
    Replay(Replay),
    /// A source like any other.
    Publish(Draft),
    /// To this session alone.
    Say(Vec<u8>),
}

/// What became of an input.
#[derive(Debug)]
pub enum Understood {
    /// Do this.
    Deeds(Vec<Deed>),
    /// No command of the endpoint applies: nothing, counted.
    Ignored,
    /// Nonsense, or something that is not allowed: say so.
    Wrong(String),
}

/// The session, as far as a command looks at it.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Speaker<'a> {
    pub endpoint: &'a Endpoint,
    pub allow: &'a [Pattern],
    /// What it hears now.
    pub patterns: &'a [Pattern],
    /// How many it may hear.
    pub topics: usize,
    /// How many events `replay` may ask for.
    pub replay: u64,
}

impl Speaker<'_> {
    /// Whether it may hear these as well.
    fn may(&self, more: &[Pattern]) -> Result<(), String> {
        terms::may(self.allow, more)?;
        let all = terms::unique(self.patterns.iter().chain(more).cloned().collect());
        self.few(all.len())
    }

    fn few(&self, count: usize) -> Result<(), String> {
        let most = self.topics;
        if count > most { Err(format!("more than {most} topics (`topics_per_session`)")) } else { Ok(()) }
    }
}

/// An error as every session understands it.
pub fn error(message: &str) -> Vec<u8> {
    json!({"type": "error", "message": message}).to_string().into_bytes()
}

/// Understands one input. `scope` has everything but the payload.
pub fn understand(speaker: &Speaker<'_>, input: &Payload, scope: &Scope<'_>) -> Understood {
    let value = match input.kind {
        Kind::Binary => None,
        _ => serde_json::from_slice::<Value>(&input.bytes).ok(),
    };
    let commands = &speaker.endpoint.settings.commands;
    if commands.is_empty() {
        return builtin(speaker, value.as_ref(), scope).map_or_else(Understood::Wrong, Understood::Deeds);
    }
    let text = std::str::from_utf8(&input.bytes).ok().filter(|_| input.kind != Kind::Binary);
    match commands.iter().find(|c| applies(&c.when, text, value.as_ref())) {
        None => Understood::Ignored,
        Some(command) => {
            let kind = if value.is_some() { Kind::Json } else { input.kind };
            let raw = Payload { kind, bytes: input.bytes.clone() };
            let plain = text.map(|t| Value::String(t.to_owned()));
            let scope = Scope { payload: value.as_ref().or(plain.as_ref()), raw: Some(&raw), ..*scope };
            own(speaker, command, &scope).map_or_else(Understood::Wrong, Understood::Deeds)
        }
    }
}

fn applies(when: &When, text: Option<&str>, value: Option<&Value>) -> bool {
    match when {
        When::Always => true,
        When::Text(want) => text == Some(want.as_str()),
        When::Fields(fields) => value.is_some_and(|v| v.is_object() && fields.hold(v)),
    }
}

fn own(speaker: &Speaker<'_>, command: &Command, scope: &Scope<'_>) -> Result<Vec<Deed>, String> {
    let mut deeds = Vec::new();
    if !command.subscribe.is_empty() {
        let patterns = named(speaker, &command.subscribe, scope)?;
        speaker.may(&patterns)?;
        deeds.push(Deed::Subscribe(patterns, None));
    }
    if !command.unsubscribe.is_empty() {
        deeds.push(Deed::Unsubscribe(named(speaker, &command.unsubscribe, scope)?));
    }
    if let Some(rule) = &command.select {
        deeds.push(Deed::Where(terms::select(rule, scope)?));
    }
    if let Some(replay) = command.replay {
        deeds.push(Deed::Replay(capped(replay, speaker.replay)));
    }
    if let Some(publish) = &command.publish {
        let topic = publish.topic.topic(scope).map_err(|e| e.0)?;
        let payload = publish.body.payload(scope).map_err(|e| e.0)?;
        deeds.push(Deed::Publish(Draft { topic, payload, dedupe: None, name: None }));
    }
    if let Some(reply) = &command.reply {
        deeds.push(Deed::Say(reply.reply(scope).map_err(|e| e.0)?));
    }
    Ok(deeds)
}

/// Patterns of a command: its own text, or what the session names (aliases included), which `allow` then judges.
fn named(speaker: &Speaker<'_>, texts: &[Text], scope: &Scope<'_>) -> Result<Vec<Pattern>, String> {
    let mut patterns = Vec::new();
    for text in texts {
        patterns.extend(text.patterns(scope, true).map_err(|e| e.0)?);
    }
    speaker.few(patterns.len())?;
    let alias = &speaker.endpoint.settings.alias;
    Ok(patterns.into_iter().map(|p| alias.get(p.as_str()).cloned().unwrap_or(p)).collect())
}

fn capped(replay: Replay, most: u64) -> Replay {
    match replay {
        Replay::Newest(n) => Replay::Newest(n.min(most)),
        other => other,
    }
}

fn builtin(speaker: &Speaker<'_>, value: Option<&Value>, scope: &Scope<'_>) -> Result<Vec<Deed>, String> {
    const USAGE: &str = "expected {\"type\":\"subscribe\"|\"unsubscribe\"|\"ping\"|\"pace\", …}";
    let value = value.ok_or(USAGE)?;
    match value.get("type").and_then(Value::as_str) {
        Some("ping") => Ok(vec![say(json!({"type": "pong"}))]),
        Some("subscribe") => {
            let (names, patterns) = topics(speaker, value)?;
            speaker.may(&patterns)?;
            let after = match value.get("after") {
                None | Some(Value::Null) => None,
                Some(after) => Some(after.as_str().and_then(cursor::parse)),
            };
            let answer = say(json!({"type": "subscribed", "topics": names}));
            Ok(vec![answer, Deed::Subscribe(patterns, after)])
        }
        Some("unsubscribe") => {
            let (names, patterns) = topics(speaker, value)?;
            Ok(vec![Deed::Unsubscribe(patterns), say(json!({"type": "unsubscribed", "topics": names}))])
        }
        Some("pace") => {
            let every = value.get("every").and_then(Value::as_str);
            let pace = terms::paces(&speaker.endpoint.settings, every, scope)?;
            Ok(vec![Deed::Pace(pace), say(json!({"type": "paced", "every": every}))])
        }
        _ => Err(USAGE.into()),
    }
}

fn say(value: Value) -> Deed {
    Deed::Say(value.to_string().into_bytes())
}

fn topics(speaker: &Speaker<'_>, value: &Value) -> Result<(Vec<String>, Vec<Pattern>), String> {
    let wrong = || "`topics` is a list of names".to_owned();
    let list = value.get("topics").and_then(Value::as_array).ok_or_else(wrong)?;
    speaker.few(list.len())?;
    let names: Vec<String> =
        list.iter().map(|v| v.as_str().map(str::to_owned)).collect::<Option<_>>().ok_or_else(wrong)?;
    let patterns = terms::wanted(&speaker.endpoint.settings, &names)?;
    Ok((names, patterns))
}

#[cfg(test)]
mod tests;
