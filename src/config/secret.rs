//! What nobody may see: secrets, wherever they are kept, and URLs, for the passwords in them.

use std::ffi::OsString;
use std::path::Path;

use serde_json::json;
use toml::de::{DeTable, DeValue};

use super::mistake::Wrong;
use super::reader::{Node, Reader};
use super::value::{Kind, list, unexpected};
use crate::secret::Secret;

/// Longer than any credential, and short enough that a wrong file does no harm.
const MAX_SECRET_FILE: u64 = 64 * 1024;

/// Keeps what looks like a URL with a password out of what is shown, whatever key it was put under by mistake.
pub fn hide_urls(reader: &Reader, table: &DeTable<'_>) {
    table.values().for_each(|node| hide_url(reader, node));
}

fn hide_url(reader: &Reader, node: Node<'_>) {
    match node.get_ref() {
        DeValue::String(text) if may_have_password(text) => reader.secret(node.span()),
        DeValue::Array(nodes) => nodes.iter().for_each(|node| hide_url(reader, node)),
        DeValue::Table(table) => hide_urls(reader, table),
        _ => {}
    }
}

/// Whether it looks like a URL that lets somebody in.
pub fn may_have_password(text: &str) -> bool {
    text.contains("://") && (text.starts_with("redis") || text.contains('@')) || text.contains("password=")
}

/// Keeps all of a value out of what is shown, also what is under a misspelled key. Where a secret is kept is none.
pub fn hide(reader: &Reader, node: Node<'_>) {
    match node.get_ref() {
        DeValue::String(text) if is_reference(text) => {}
        DeValue::Array(nodes) => nodes.iter().for_each(|node| hide(reader, node)),
        DeValue::Table(table) => table.values().for_each(|node| hide(reader, node)),
        _ => reader.secret(node.span()),
    }
}

/// Whether a text says where a secret is kept, and is none itself.
pub fn is_reference(text: &str) -> bool {
    ["env:", "file:", "credential:"].iter().any(|prefix| text.starts_with(prefix))
}

/// One or several.
pub fn secrets() -> Kind<Vec<Secret>> {
    let one = kept(&["env:NAME", "file:/path", "credential:name"]).then(|found| match found.is_empty() {
        true => Err(Wrong::new("the secret is empty", "everybody could send; say verify = \"none\" if that is meant")),
        false => Ok(Secret::new(found)),
    });
    list(one).filled("secret")
}

/// A text that may be kept elsewhere.
pub fn kept(examples: &'static [&'static str]) -> Kind<String> {
    let read = |reader: &Reader, node: Node<'_>| {
        hide(reader, node);
        match node.get_ref() {
            DeValue::String(text) => {
                let found = find(text, |name| std::env::var_os(name));
                found.map_err(|wrong| reader.wrong(node.span(), wrong)).ok()
            }
            _ => unexpected(reader, node, "a string, such as \"env:NAME\""),
        }
    };
    Kind::new(move || json!({ "type": "string", "examples": examples }), read)
}

/// The text itself, or what it refers to. A mistake never says what the secret is.
fn find(text: &str, env: impl Fn(&str) -> Option<OsString>) -> Result<String, Wrong> {
    Ok(match text.split_once(':') {
        Some(("env", name)) => {
            let value = env(name).ok_or_else(|| Wrong::from(format!("the environment has no variable `{name}`")))?;
            value.into_string().map_err(|_| Wrong::from(format!("the variable `{name}` is not UTF-8")))?
        }
        Some(("file", path)) => read_secret(Path::new(path))?,
        Some(("credential", name)) => {
            if name.is_empty() || name.contains('/') || name == ".." {
                return Err(Wrong::from(format!("`{name}` is no name of a credential")));
            }
            let help = "pass it with LoadCredential= in the unit of systemd";
            let directory = env("CREDENTIALS_DIRECTORY");
            let directory =
                directory.ok_or_else(|| Wrong::new("there are no credentials in this environment", help))?;
            read_secret(&Path::new(&directory).join(name))?
        }
        _ => text.to_owned(),
    })
}

/// A file's text, without the line break that editors leave at the end.
fn read_secret(path: &Path) -> Result<String, Wrong> {
    let failed = |e: std::io::Error| Wrong::from(format!("cannot read the secret in {}: {e}", path.display()));
    let size = std::fs::metadata(path).map_err(failed)?.len();
    if size > MAX_SECRET_FILE {
        return Err(Wrong::from(format!("{} is too large for a secret", path.display())));
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_found_where_they_are_kept() {
        let directory = std::env::temp_dir().join(format!("relay-secrets-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("token"), "from a file\r\n").unwrap();
        std::fs::write(directory.join("blank"), "\n").unwrap();
        let env = |name: &str| match name {
            "TOKEN" => Some(OsString::from("from the environment")),
            "CREDENTIALS_DIRECTORY" => Some(directory.clone().into_os_string()),
            _ => None,
        };
        let check = |text: &str, expected: Result<&str, &str>| match (find(text, env), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{text}"),
            (Err(wrong), Err(expected)) => assert!(wrong.message.contains(expected), "{text}: {}", wrong.message),
            (found, _) => panic!("{text}: {found:?}"),
        };
        let file = |name: &str| format!("file:{}", directory.join(name).display());
        check("plain", Ok("plain"));
        check("with:colon", Ok("with:colon"));
        check("env:TOKEN", Ok("from the environment"));
        check(&file("token"), Ok("from a file"));
        check("credential:token", Ok("from a file"));
        check(&file("blank"), Ok(""));
        check(&file("none"), Err("cannot read the secret"));
        check("env:NONE", Err("no variable `NONE`"));
        check("credential:../token", Err("no name of a credential"));
        let nowhere = find("credential:token", |_| None).unwrap_err();
        assert!(nowhere.help.contains("LoadCredential="), "{nowhere:?}");
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
