//! A real Alertmanager sends real notifications.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::client::feed::{Feed, Item, Transport};
use crate::client::http;
use crate::harness::{EXEMPT, Relay, config, fresh_folder, until};

const HOOK: &str = r#"
[[stream]]
name   = "alerts"
topics = ["alerts/**"]
retain = 100
clear  = { ".status" = "resolved" }

[[source.webhook]]
path   = "/hooks/alertmanager"
format = "alertmanager"
topic  = "alerts/{.labels.severity|none}/{.fingerprint}"
verify = { bearer = "open sesame" }

[[endpoint]]
path   = "/ws/alerts"
topics = ["alerts/**"]
"#;

/// In the past, so that Alertmanager takes it as it is and does not wait for more of its group.
const STARTED: &str = "2020-01-01T00:00:00Z";

struct Alertmanager {
    child: Child,
    folder: PathBuf,
    api: SocketAddr,
}

impl Alertmanager {
    #[track_caller]
    fn start(webhook: &str) -> Alertmanager {
        let folder = fresh_folder();
        let file = folder.join("alertmanager.yml");
        std::fs::write(&file, route_to(webhook)).expect("a file can be written");
        let mut child = command(&folder, &file)
            .spawn()
            .unwrap_or_else(|e| panic!("{e}: this test needs the Debian package prometheus-alertmanager"));
        let mut log = BufReader::new(child.stderr.take().expect("piped"));
        let api = listening(&mut log);
        // Reads on, so that it never meets a full pipe.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        let alertmanager = Alertmanager { child, folder, api };
        until(|| http::get(api, "/-/ready").status() == 200, || "Alertmanager is not ready".to_owned());
        alertmanager
    }

    /// Tells it of an alert as Prometheus does; one with an end is resolved.
    #[track_caller]
    fn tell(&self, end: Option<&str>) {
        let mut alert = serde_json::json!({
            "labels": { "alertname": "DiskFull", "severity": "critical", "instance": "db-1:9100" },
            "annotations": { "summary": "Disk 97 % full" },
            "startsAt": STARTED,
        });
        if let Some(end) = end {
            alert["endsAt"] = end.into();
        }
        http::post_json(self.api, "/api/v2/alerts", format!("[{alert}]").as_bytes()).expect(200);
    }
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        // By its handle, so by its own pid.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn command(folder: &Path, file: &Path) -> Command {
    let mut command = Command::new("prometheus-alertmanager");
    command
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--storage.path={}", folder.join("data").display()))
        .args(["--web.listen-address=127.0.0.1:0", "--cluster.listen-address="])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

fn route_to(webhook: &str) -> String {
    format!(
        r#"
route:
  receiver: the.relay
  group_by: [alertname]
  group_wait: 1s
  group_interval: 1s
  repeat_interval: 1h
receivers:
  - name: the.relay
    webhook_configs:
      - url: {webhook}
        http_config:
          authorization:
            credentials: open sesame
"#
    )
}

/// Where it says that it listens.
#[track_caller]
fn listening(log: &mut impl BufRead) -> SocketAddr {
    let mut said = String::new();
    for line in log.lines().map_while(Result::ok) {
        if line.contains("Listening on") {
            let (_, address) = line.rsplit_once("address=").expect("it says where");
            return address.trim().parse().expect("an address");
        }
        said.push_str(&line);
        said.push('\n');
    }
    panic!("Alertmanager does not listen:\n{said}");
}

/// What a new session is given of the past.
#[track_caller]
fn retained(relay: &Relay) -> Vec<Item> {
    Feed::open(relay.public(), "/ws/alerts", Transport::Ndjson, "replay=retained", None).until_open().0
}

#[test]
fn a_real_notification_arrives_and_its_resolution_clears_it() {
    let relay = Relay::start(&config(&[EXEMPT, HOOK].concat()));
    let mut session = Feed::open(relay.public(), "/ws/alerts", Transport::WebSocket, "", None);
    session.until_open();
    let alertmanager = Alertmanager::start(&format!("http://{}/hooks/alertmanager", relay.public()));

    alertmanager.tell(None);
    let firing = session.events(1).remove(0);
    let Item::Event { topic, data, .. } = &firing else { unreachable!("events() gives events") };
    assert_eq!(*topic, format!("alerts/critical/{}", data["fingerprint"].as_str().expect("a fingerprint")));
    assert_eq!((&data["status"], &data["startsAt"]), (&"firing".into(), &STARTED.into()));
    assert_eq!(data["annotations"]["summary"], "Disk 97 % full");
    assert!(data.get("endsAt").is_none(), "{data}");
    assert_eq!(data["group"]["receiver"], "the.relay");
    let kept = retained(&relay);
    assert_eq!(kept.iter().map(Item::id).collect::<Vec<_>>(), [firing.id()]);

    alertmanager.tell(Some("2020-01-01T00:01:00Z"));
    let resolved = session.events(1).remove(0);
    assert_eq!(resolved.data()["status"], "resolved");
    assert_eq!(resolved.data()["endsAt"], "2020-01-01T00:01:00Z");
    assert_eq!(resolved.data()["fingerprint"], firing.data()["fingerprint"]);
    let kept = retained(&relay);
    assert!(kept.is_empty(), "{kept:?}");
}
