//! `relay pub`: one event over a webhook of the file.

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, StatusCode};
use http_body_util::Full;
use relay::config::Config;
use relay::http::path::PathPattern;
use relay::source::webhook::BodyFormat;
use relay::template::{Roots, Text};
use serde_json::Value;

use super::Target;
use super::server::{self, Credential, Server};

/// Where an event is sent, and as what.
#[derive(Debug)]
struct Route {
    server: Server,
    path: String,
    media_type: Option<&'static str>,
    credential: Credential,
}

/// Publishes and prints the event's id.
pub fn publish(
    config: Option<PathBuf>,
    topic: &str,
    data: Option<String>,
    target: &Target,
) -> anyhow::Result<ExitCode> {
    let route = Route::find(config, topic, target)?;
    let data = match data {
        Some(text) => text.into_bytes(),
        None => standard_input()?,
    };
    super::say(&server::block_on(route.send(data))?.join("\n"))
}

impl Route {
    fn find(config: Option<PathBuf>, topic: &str, target: &Target) -> anyhow::Result<Route> {
        let given = target.url.as_deref().map(Server::parse).transpose()?;
        if let Some((server, Some(path))) = given {
            let path = format!("{path}/{}", server::percent_encoded(topic, true));
            let credential = target.token.as_deref().map(server::bearer).transpose()?;
            return Ok(Route { server, path, media_type: None, credential });
        }
        let file = super::chosen(config);
        let loaded = super::load(file.as_deref())?;
        Route::of(&loaded.config, topic, given.map(|(server, _)| server), target.token.as_deref())
    }

    /// By the first webhook that publishes to whatever topic its path says.
    fn of(config: &Config, topic: &str, server: Option<Server>, token: Option<&str>) -> anyhow::Result<Route> {
        let found = config.webhooks.iter().find_map(|(path, webhook)| {
            let media_type = match webhook.format {
                BodyFormat::Json => "application/json",
                BodyFormat::Text => "text/plain; charset=utf-8",
                BodyFormat::Alertmanager => return None,
            };
            let path = filled(path, topic).filter(|_| publishes_to_any_topic(path, &webhook.topic))?;
            Some((path, media_type, &webhook.verify))
        });
        let (path, media_type, verify) = found.context(
            "the file has no [[source.webhook]] for any topic (path = \"/publish/{topic...}\", topic = \"{path.topic}\")",
        )?;
        let server = server.map_or_else(|| Server::of(&config.server.listen), Ok)?;
        Ok(Route { server, path, media_type: Some(media_type), credential: server::credential(verify, token)? })
    }

    async fn send(self, data: Vec<u8>) -> anyhow::Result<Vec<String>> {
        let mut request = Request::post(&self.path);
        if let Some(media_type) = self.media_type {
            request = request.header(CONTENT_TYPE, media_type);
        }
        if let Some((name, value)) = self.credential {
            request = request.header(name, value);
        }
        let answer = self.server.send(request.body(Full::new(Bytes::from(data)))?).await?;
        let status = answer.status();
        let text = server::text(answer).await;
        if status != StatusCode::OK {
            bail!("{}{} says {status}: {text}", self.server, self.path);
        }
        let answer: Value = serde_json::from_str(&text).with_context(|| format!("not an answer of a relay: {text}"))?;
        let ids = answer["ids"].as_array().with_context(|| format!("not an answer of a relay: {text}"))?;
        Ok(ids.iter().filter_map(Value::as_str).map(String::from).collect())
    }
}

fn publishes_to_any_topic(path: &PathPattern, topic: &Text) -> bool {
    let mut any = Text::parse("{path.topic}", Roots::PATH).expect("a template");
    any.bind_path(&path.names()).is_ok() && *topic == any
}

/// The path that publishes to this topic: only a rest can hold each of them, a single segment those without separators.
fn filled(path: &PathPattern, topic: &str) -> Option<String> {
    let names = path.names();
    match names.as_slice() {
        [(name, true)] if name == "topic" => {
            Some(path.as_str().replace("{topic...}", &server::percent_encoded(topic, true)))
        }
        [(name, false)] if name == "topic" && !topic.contains(['/', '.', ':']) => {
            Some(path.as_str().replace("{topic}", &server::percent_encoded(topic, true)))
        }
        _ => None,
    }
}

fn standard_input() -> anyhow::Result<Vec<u8>> {
    let mut data = Vec::new();
    std::io::stdin().read_to_end(&mut data).context("standard input")?;
    Ok(data)
}

#[cfg(test)]
mod tests;
