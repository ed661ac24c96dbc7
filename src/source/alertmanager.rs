//! Alertmanager's webhook, version 4: one notification, one event per alert.
//!
//! An event's payload is the alert, with the rest of the notification under `group`. Unknown fields pass through: newer
//! versions add some. Two oddities of the sender end here: the receiver's name comes quoted as a regular expression, and
//! an alert that still fires says that it ended in the year 1.

use serde_json::{Map, Value};

use super::body;
use super::webhook::{BAD_NOTIFICATION, BAD_VERSION, Rejected, TOO_LARGE};

/// All events of a notification together may be so many times as large as a body may be. The group is repeated in each,
/// so without a bound a small body of many tiny alerts and one large group would become gigabytes.
const EXPANSION: usize = 16;

/// What Go writes for "no time".
const ZERO_TIME: &str = "0001-01-01T00:00:00";

/// A notification: the alerts of one group.
#[derive(Debug)]
pub struct Notification {
    alerts: Vec<Value>,
    group: Value,
}

impl Notification {
    /// Reads it. `max_body` bounds what becomes of it.
    pub fn read(text: &str, max_body: usize) -> Result<Notification, Rejected> {
        let Value::Object(mut group) = body::parse_json(text)? else {
            return Err(malformed("the body is no object"));
        };
        check_version(&group)?;
        let Some(Value::Array(alerts)) = group.shift_remove("alerts") else {
            return Err(malformed("`alerts` is no list"));
        };
        if !alerts.iter().all(Value::is_object) {
            return Err(malformed("an element of `alerts` is no object"));
        }
        if let Some(Value::String(receiver)) = group.get_mut("receiver") {
            *receiver = unquote(receiver);
        }
        let notification = Notification { alerts, group: Value::Object(group) };
        notification.check_size(text.len(), max_body)?;
        notification.warn_if_truncated();
        Ok(notification)
    }

    /// The payload of each event, in the notification's order.
    pub fn events(self) -> impl Iterator<Item = Value> {
        let Notification { alerts, group } = self;
        alerts.into_iter().map(move |mut alert| {
            let fields = alert.as_object_mut().expect("read() took objects only");
            if fields.get("endsAt").and_then(Value::as_str).is_some_and(|at| at.starts_with(ZERO_TIME)) {
                fields.shift_remove("endsAt");
            }
            fields.insert("group".to_string(), group.clone());
            alert
        })
    }

    fn check_size(&self, body: usize, max_body: usize) -> Result<(), Rejected> {
        let events = body + self.alerts.len() * self.group.to_string().len();
        let most = max_body.saturating_mul(EXPANSION);
        if events <= most {
            return Ok(());
        }
        let message = format!(
            "{} alerts, each with its group, would be {events} bytes of events, above {most}: set `max_alerts` in \
             Alertmanager, or raise `max_body` here",
            self.alerts.len()
        );
        Err(Rejected::new(TOO_LARGE, message))
    }

    /// Subscribers see it in each event's `group`; the operator, who can change `max_alerts`, sees it here.
    fn warn_if_truncated(&self) {
        let missing = self.group["truncatedAlerts"].as_u64().unwrap_or(0);
        if missing > 0 {
            let group = self.group["groupKey"].as_str().unwrap_or_default();
            tracing::warn!(group, missing, "Alertmanager left out alerts of a group: raise its `max_alerts`");
        }
    }
}

/// What makes an event of an alert the same event when it is sent again: by a retry, by another Alertmanager of a
/// cluster, or because something else in its group changed. Annotations count, since they often carry the value.
pub fn dedupe_parts(event: &Value) -> [String; 5] {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    // Whoever sends a notification by hand may have left out the fingerprint: the labels are what it is made of.
    let identity =
        if event["fingerprint"].is_string() { text(&event["fingerprint"]) } else { event["labels"].to_string() };
    [
        text(&event["group"]["groupKey"]),
        identity,
        text(&event["status"]),
        text(&event["startsAt"]),
        event["annotations"].to_string(),
    ]
}

fn check_version(group: &Map<String, Value>) -> Result<(), Rejected> {
    let problem = match group.get("version") {
        Some(Value::String(version)) if version == "4" => return Ok(()),
        Some(version) => format!("version {version} of Alertmanager's webhook is not known here, only \"4\""),
        None => "no `version`: this is not what Alertmanager's webhook sends (a receiver with a `payload` of its own \
                 needs format = \"json\" here)"
            .to_string(),
    };
    Err(Rejected::new(BAD_VERSION, problem))
}

fn malformed(what: &str) -> Rejected {
    Rejected::new(BAD_NOTIFICATION, format!("not a notification of Alertmanager: {what}"))
}

/// Undoes Go's `regexp.QuoteMeta`, so that a template sees the receiver's name as the operator wrote it.
fn unquote(quoted: &str) -> String {
    let mut name = String::with_capacity(quoted.len());
    let mut rest = quoted.chars().peekable();
    while let Some(c) = rest.next() {
        match rest.peek() {
            Some(&next) if c == '\\' && r"\.+*?()|[]{}^$".contains(next) => {
                name.push(next);
                rest.next();
            }
            _ => name.push(c),
        }
    }
    name
}

#[cfg(test)]
mod tests;
