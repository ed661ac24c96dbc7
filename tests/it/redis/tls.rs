//! A certificate authority of a test's own, and a certificate for loopback that it has signed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub struct Tls {
    pub ca: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// Said in full, so that nothing depends on the machine's own configuration of OpenSSL.
const CONFIG: &str = "\
[req]
distinguished_name = name
[name]
[ca]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical,CA:FALSE
subjectAltName = IP:127.0.0.1,DNS:localhost
extendedKeyUsage = serverAuth,clientAuth
";

impl Tls {
    /// Makes both in this folder.
    pub fn make(folder: &Path) -> Tls {
        let file = |name: &str| folder.join(name);
        std::fs::write(file("openssl.conf"), CONFIG).expect("a file can be written");
        openssl(folder, &["-subj", "/CN=test authority", "-extensions", "ca"], "ca", &[]);
        let signed_by = ["-CA", "ca.pem", "-CAkey", "ca.key"];
        openssl(folder, &["-subj", "/CN=localhost", "-extensions", "server"], "server", &signed_by);
        Tls { ca: file("ca.pem"), cert: file("server.pem"), key: file("server.key") }
    }
}

fn openssl(folder: &Path, subject: &[&str], name: &str, signed_by: &[&str]) {
    let output = Command::new("openssl")
        .current_dir(folder)
        .args(["req", "-x509", "-config", "openssl.conf", "-days", "30", "-nodes"])
        .args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.pem")])
        .args(subject)
        .args(signed_by)
        .stdin(Stdio::null())
        .output()
        .expect("openssl is installed (.ci/install)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
