//! What one session gets: its request held against what the endpoint allows. Pure.

use std::sync::Arc;
use std::time::Duration;

use super::endpoint::{Endpoint, PaceRule, Replay, Settings, WhereRule};
use crate::cursor::{self, Mark};
use crate::select::Where;
use crate::template::{Scope, Text};
use crate::topic::Pattern;
use crate::wire::form::Format;

/// The query of a subscriber, as far as every endpoint understands it.
#[derive(Debug, Default)]
pub struct Asked {
    /// `?topic=`, repeatable: topics, patterns or aliases.
    pub topics: Vec<String>,
    /// `Last-Event-ID`, else `?after=`.
    pub after: Option<String>,
    /// `?replay=20|retained`.
    pub replay: Option<String>,
    /// `?pace=5s`.
    pub pace: Option<String>,
    /// `?format=envelope`.
    pub format: Option<String>,
}

/// Where a session begins.
#[derive(Debug, Clone, PartialEq)]
pub enum Begin {
    /// Behind a cursor; `None` is one that could not be read.
    After(Option<Vec<Mark>>),
    /// New, with so much of the past.
    Fresh(Replay),
}

/// At most one event per topic in `every`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub struct Pacing {
    pub topics: Vec<Pattern>,
    pub every: Duration,
}

/// The outcome.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Terms {
    pub patterns: Vec<Pattern>,
    pub allow: Arc<[Pattern]>,
    pub select: Option<Arc<Where>>,
    pub pace: Option<Arc<[Pacing]>>,
    /// It asked for a pace of its own.
    pub own_pace: bool,
    pub begin: Begin,
    pub format: Format,
}

/// Why a request is not served: an HTTP status and a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Denied {
    pub status: u16,
    pub message: String,
}

fn denied<T>(status: u16, message: impl Into<String>) -> Result<T, Denied> {
    Err(Denied { status, message: message.into() })
}

/// Holds a request against its endpoint. `most` bounds the topics of one session, `replay` the events it may ask for.
pub fn terms(endpoint: &Endpoint, asked: &Asked, scope: &Scope<'_>, most: usize, replay: u64) -> Result<Terms, Denied> {
    let settings = &endpoint.settings;
    let allow = match &endpoint.allow {
        Some(allow) => allow.clone(),
        None => filled(&settings.allow, scope)?.into(),
    };
    let patterns = if asked.topics.is_empty() {
        filled(&settings.topics, scope)?
    } else {
        let topics = wanted(settings, &asked.topics).or_else(|e| denied(400, e))?;
        may(&allow, &topics).or_else(|e| denied(403, e))?;
        topics
    };
    if patterns.len() > most {
        return denied(400, format!("more than {most} topics (`topics_per_session`)"));
    }
    Ok(Terms {
        patterns: unique(patterns),
        allow,
        select: settings.select.as_ref().map(|rule| select(rule, scope)).transpose().or_else(|e| denied(400, e))?,
        pace: paces(settings, asked.pace.as_deref(), scope).or_else(|e| denied(400, e))?,
        own_pace: asked.pace.is_some(),
        begin: begin(settings, asked, replay)?,
        format: match asked.format.as_deref() {
            None => settings.format,
            Some("envelope") => Format::Envelope,
            Some("raw") => Format::Raw,
            Some(_) => return denied(400, "`format` is raw or envelope"),
        },
    })
}

fn filled(texts: &[Text], scope: &Scope<'_>) -> Result<Vec<Pattern>, Denied> {
    let mut patterns = Vec::new();
    for text in texts {
        patterns.extend(text.patterns(scope, false).or_else(|e| denied(400, e.0))?);
    }
    Ok(patterns)
}

/// Names as a session says them: an alias, or a topic or pattern.
pub fn wanted(settings: &Settings, names: &[String]) -> Result<Vec<Pattern>, String> {
    let one = |name: &String| match settings.alias.get(name) {
        Some(pattern) => Ok(pattern.clone()),
        None => Pattern::new(name).map_err(|e| e.0),
    };
    names.iter().map(one).collect()
}

/// Whether each pattern is wholly covered by one that is allowed.
pub fn may(allow: &[Pattern], patterns: &[Pattern]) -> Result<(), String> {
    match patterns.iter().find(|p| !allow.iter().any(|a| a.covers(p))) {
        Some(pattern) => Err(format!("`{pattern}` is not allowed here")),
        None => Ok(()),
    }
}

/// Sorted and without repetition, so that equal wishes make equal audiences.
pub fn unique(mut patterns: Vec<Pattern>) -> Vec<Pattern> {
    patterns.sort();
    patterns.dedup();
    patterns
}

/// Fills a `where` rule.
pub fn select(rule: &WhereRule, scope: &Scope<'_>) -> Result<Arc<Where>, String> {
    /// A list may come from the session itself, and each event is held against all of it.
    const MOST: usize = 1000;
    let mut values = Vec::new();
    for value in &rule.values {
        match value.value(scope).map_err(|e| e.0)? {
            serde_json::Value::Array(list) => values.extend(list),
            serde_json::Value::Null => return Err("`where` has no values".into()),
            value => values.push(value),
        }
    }
    if values.len() > MOST {
        return Err(format!("`where` with more than {MOST} values"));
    }
    Ok(Arc::new(Where::new(rule.any.clone(), values, rule.absent_passes)))
}

/// The pace of a session: what it asks for (for all its topics), else the endpoint's rules.
pub fn paces(settings: &Settings, asked: Option<&str>, scope: &Scope<'_>) -> Result<Option<Arc<[Pacing]>>, String> {
    let mut paces = Vec::new();
    for rule in &settings.pace {
        paces.push(Pacing { topics: rule.topics.clone(), every: every(rule, scope)? });
    }
    if let Some(asked) = asked {
        let asked = bounded(duration(asked)?, Some(Duration::from_millis(100)), Some(Duration::from_secs(3600)))?;
        let slower = paces.iter().map(|p| p.every).max().unwrap_or_default().max(asked);
        paces = vec![Pacing { topics: vec![Pattern::all()], every: slower }];
    }
    Ok((!paces.is_empty()).then(|| paces.into()))
}

fn every(rule: &PaceRule, scope: &Scope<'_>) -> Result<Duration, String> {
    bounded(duration(&rule.every.text(scope).map_err(|e| e.0)?)?, rule.min, rule.max)
}

fn bounded(value: Duration, min: Option<Duration>, max: Option<Duration>) -> Result<Duration, String> {
    match (min, max) {
        (Some(min), _) if value < min => Err(format!("a pace of {value:?} is below {min:?}")),
        (_, Some(max)) if value > max => Err(format!("a pace of {value:?} is above {max:?}")),
        _ => Ok(value),
    }
}

/// `10s`, `500ms`, `1m`, `2h`: what a subscriber may write. A plain number is seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| format!("`{text}` is no duration; write 10s"))?;
    let millis = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(format!("`{text}` is no duration; write 10s")),
    };
    number.checked_mul(millis).map(Duration::from_millis).ok_or_else(|| format!("`{text}` is too long"))
}

fn begin(settings: &Settings, asked: &Asked, most: u64) -> Result<Begin, Denied> {
    if let Some(after) = &asked.after {
        return Ok(Begin::After(cursor::parse(after)));
    }
    Ok(Begin::Fresh(match asked.replay.as_deref() {
        None => settings.replay,
        Some("retained") => Replay::Retained,
        Some(number) => match number.parse() {
            Ok(0) => Replay::None,
            Ok(n) => Replay::Newest(std::cmp::min(n, most)),
            Err(_) => return denied(400, "`replay` is a number or `retained`"),
        },
    }))
}

#[cfg(test)]
pub(crate) mod tests;
