use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

fn config(sources: &str) -> Config {
    let text = format!("[server]\nlisten = [\"127.0.0.1:7\"]\n{sources}");
    relay::config::load(&text, "test").unwrap().config
}

const ANY_TOPIC: &str = r#"
[[source.webhook]]
path = "/hooks/one"
topic = "one"
verify = "none"

[[source.webhook]]
path = "/{tenant}/publish/{topic...}"
topic = "{path.topic}"
verify = "none"

[[source.webhook]]
path = "/short/{topic}"
topic = "{path.topic}"
verify = { header = { name = "X-Token", value = "short" } }
format = "text"

[[source.webhook]]
path = "/publish/{topic...}"
topic = "{path.topic}"
verify = { bearer = ["s1", "s2"] }
"#;

#[test]
fn the_first_webhook_for_any_topic_is_taken() {
    let config = config(ANY_TOPIC);
    let check = |topic: &str, path: &str, media_type: &str, credential: &str| {
        let route = Route::of(&config, topic, None, None).unwrap();
        assert_eq!((route.path.as_str(), route.media_type.unwrap()), (path, media_type));
        let (name, value) = route.credential.unwrap();
        assert_eq!(format!("{name}: {}", value.to_str().unwrap()), credential);
        assert_eq!(route.server.to_string(), "http://127.0.0.1:7");
    };
    check("a b", "/short/a%20b", "text/plain; charset=utf-8", "x-token: short");
    check("a/b.c:d", "/publish/a/b.c:d", "application/json", "authorization: Bearer s1");
}

#[test]
fn no_webhook_for_any_topic() {
    let config = config("[[source.webhook]]\npath = \"/x\"\ntopic = \"x\"\nverify = \"none\"\n");
    let error = Route::of(&config, "x", None, None).unwrap_err();
    assert!(error.to_string().contains("{path.topic}"), "{error}");
}

#[test]
fn the_quickstart_can_be_published_to() {
    let quickstart = crate::cli::load(None).unwrap().config;
    assert!(Route::of(&quickstart, "greetings", None, None).is_ok());
}

#[test]
fn a_url_with_a_path_needs_no_file() {
    let target = Target { url: Some("http://h:1/in".into()), token: Some("t".into()) };
    let route = Route::find(Some("/does/not/exist".into()), "a/b", &target).unwrap();
    assert_eq!((route.path.as_str(), route.media_type), ("/in/a/b", None));
    assert_eq!(route.credential.unwrap().1, "Bearer t");
}

/// Serves one request with this answer and gives the request back.
async fn answer_once(listener: TcpListener, answer: &str, until: &str) -> String {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut asked = Vec::new();
    while !String::from_utf8_lossy(&asked).ends_with(until) {
        assert_ne!(stream.read_buf(&mut asked).await.unwrap(), 0, "{}", String::from_utf8_lossy(&asked));
    }
    stream.write_all(answer.as_bytes()).await.unwrap();
    String::from_utf8(asked).unwrap()
}

fn exchange(status: &str, body: &str) -> (String, anyhow::Result<Vec<String>>) {
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    server::block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let route = Route {
            server: Server::Tcp(listener.local_addr()?.to_string()),
            path: "/publish/t".into(),
            media_type: Some("application/json"),
            credential: Some(server::bearer("s")?),
        };
        Ok(tokio::join!(answer_once(listener, &answer, "{\"a\":1}"), route.send(b"{\"a\":1}".to_vec())))
    })
    .unwrap()
}

#[test]
fn what_is_sent_and_what_comes_back() {
    let (asked, ids) = exchange("200 OK", r#"{"ids":["events-k3f9-1042"],"duplicates":0}"#);
    assert!(asked.starts_with("POST /publish/t HTTP/1.1\r\n"), "{asked}");
    for header in ["content-type: application/json", "authorization: Bearer s", "content-length: 7", "host: 127.0.0.1:"]
    {
        assert!(asked.contains(header), "{header} in {asked}");
    }
    assert_eq!(ids.unwrap(), ["events-k3f9-1042"]);
}

#[test]
fn a_refusal_says_what_the_relay_said() {
    let (_, refused) = exchange("422 Unprocessable Entity", "no topic\n");
    let error = refused.unwrap_err().to_string();
    assert!(error.contains("422") && error.ends_with("no topic"), "{error}");
    let (_, odd) = exchange("200 OK", "<html>");
    assert!(odd.unwrap_err().to_string().contains("<html>"));
}
