//! Rules of the house that a machine can keep: what may import what, how long things may be, what must not be left
//! lying about. Each rule is a function from a file to its faults, and each is shown here to find one.
//!
//! It leans on rustfmt: a function ends at the first `}` that stands as deep as its `fn`.

use std::path::{Path, PathBuf};

/// A screen.
const FUNCTION_LINES: usize = 70;
/// About four hundred is what a head holds; this is where it is refused.
const FILE_LINES: usize = 500;
/// Words without a meaning of their own, in a name.
const EMPTY_WORDS: [&str; 3] = ["manager", "helper", "util"];
/// Files that would be drawers for anything.
const DRAWERS: [&str; 4] = ["common", "constants", "types", "misc"];
/// Split so that this file does not find itself.
const LEFT_OVER: [&str; 7] = [
    concat!("db", "g!("),
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("#[ig", "nore"),
];

/// Who must not name what. A path that ends in `/` is a folder. `src/lib.rs` says the same in words.
const ABSENCES: [(&[&str], &[&str]); 8] = [
    // The core does no I/O and reads no clock.
    (
        &[
            "src/topic.rs",
            "src/select.rs",
            "src/cursor.rs",
            "src/template.rs",
            "src/template/",
            "src/wire/",
            "src/hub/index.rs",
        ],
        &["tokio", "std::net", "std::fs", "std::io", "Instant", "SystemTime", "std::thread", "mio::", "tracing::"],
    ),
    // An event enters the hub only by being read back from its stream.
    (&["src/source/"], &["crate::hub", "crate::session", "crate::http", "crate::app", "crate::wire"]),
    (&["src/stream/"], &["crate::hub", "crate::session", "crate::http", "crate::app", "crate::wire", "crate::source"]),
    // A link is a way to a server, whatever goes over it.
    (
        &["src/link/"],
        &[
            "crate::event",
            "crate::stream",
            "crate::source",
            "crate::hub",
            "crate::session",
            "crate::wire",
            "crate::gate",
            "crate::http",
            "crate::app",
        ],
    ),
    (&["src/wire/"], &["crate::hub", "crate::session", "crate::stream", "crate::http", "crate::gate", "crate::app"]),
    (&["src/gate/"], &["crate::hub", "crate::session", "crate::stream", "crate::source", "crate::app"]),
    (&["src/hub/"], &["crate::app", "crate::http", "webhook", "hyper", "warp"]),
    // Nothing below `app` reads the configuration file; its settings are handed down.
    (
        &[
            "src/event.rs",
            "src/secret.rs",
            "src/close.rs",
            "src/metrics.rs",
            "src/topic.rs",
            "src/cursor.rs",
            "src/link/",
            "src/source/",
            "src/stream/",
            "src/hub/",
            "src/session/",
            "src/wire/",
            "src/gate/",
            "src/http/",
        ],
        &["crate::config"],
    ),
];

/// A file of the repository, by its path from the root.
struct File {
    path: String,
    text: String,
    /// Its module is declared for tests only.
    only_tests: bool,
}

/// Finds the faults of a file.
type Rule = fn(&File) -> Vec<String>;

impl File {
    /// What is not compiled for tests only: a file's tests stand at its end.
    fn shipped(&self) -> &str {
        if self.only_tests || self.path.ends_with("tests.rs") || self.path.contains("/tests/") {
            return "";
        }
        let end =
            ["\n#[cfg(test)]\nmod ", "\n#[cfg(test)]\npub mod "].iter().filter_map(|cut| self.text.find(cut)).min();
        &self.text[..end.unwrap_or(self.text.len())]
    }

    /// Paths of the modules that this file declares for tests only.
    fn test_modules(&self) -> impl Iterator<Item = String> {
        let folder = self.path.trim_end_matches(".rs").trim_end_matches("/mod");
        let declared = self.text.split("#[cfg(test)]\nmod ").skip(1);
        declared.filter_map(move |rest| Some(format!("{folder}/{}.rs", rest.split_once(';')?.0)))
    }

    fn fault(&self, line: usize, what: impl std::fmt::Display) -> String {
        format!("{}:{}: {what}", self.path, line + 1)
    }

    /// A fault for each line of `text` (a beginning of the file) where there is one.
    fn each_line<F: Fn(&str) -> Option<String>>(&self, text: &str, fault: F) -> Vec<String> {
        let lines = text.lines().enumerate();
        lines.filter_map(|(number, line)| fault(line).map(|what| self.fault(number, what))).collect()
    }
}

#[test]
fn the_house_is_tidy() {
    let files = files();
    let rules: [Rule; 8] =
        [absences, long_functions, long_file, left_over, unwraps, commented_out, empty_words, house_attributes];
    let faults: Vec<String> = files.iter().flat_map(|file| rules.iter().flat_map(|rule| rule(file))).collect();
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn it_looks_at_files_that_are_there() {
    let files = files();
    assert!(files.len() > 40, "only {} files were found", files.len());
    for (paths, _) in ABSENCES {
        for path in paths.iter().filter(|path| !path.starts_with("src/template")) {
            assert!(files.iter().any(|file| file.path.starts_with(path)), "{path} is gone: change the rule");
        }
    }
    assert!(files.iter().any(|file| file.path.starts_with("src/template")), "templates are gone");
    assert!(files.iter().any(|file| file.only_tests && file.shipped().is_empty()), "no module is for tests only");
}

#[test]
fn each_rule_finds_its_fault() {
    let long = format!("fn long() {{\n{}}}\n", "    one();\n".repeat(FUNCTION_LINES - 1));
    let cases: [(Rule, &str, &str); 15] = [
        (absences, "src/wire/form.rs", "use tokio::net::TcpStream;\n"),
        (absences, "src/source/webhook.rs", "use crate::hub::Hub;\n"),
        (absences, "src/link/connect.rs", "use crate::stream::Streams;\n"),
        (absences, "src/hub/shard.rs", "fn f(c: &crate::config::Config) {}\n"),
        (long_functions, "src/a.rs", &long),
        (long_file, "src/a.rs", &"\n".repeat(FILE_LINES + 1)),
        (left_over, "tests/it/a.rs", concat!("// TO", "DO later\n")),
        (left_over, "src/a.rs", concat!("    to", "do!()\n")),
        (unwraps, "src/a.rs", "    let a = b.unwrap();\n"),
        (commented_out, "src/a.rs", "    // let a = 1;\n"),
        (commented_out, "src/a.rs", "    // if a {\n"),
        (empty_words, "src/a.rs", "pub struct SessionManager;\n"),
        (empty_words, "src/utils.rs", "\n"),
        (empty_words, "src/common.rs", "\n"),
        (house_attributes, "src/lib.rs", "//! No attributes.\n"),
    ];
    for (rule, path, text) in cases {
        let file = File { path: path.into(), text: text.into(), only_tests: false };
        assert_eq!(rule(&file).len(), 1, "in {path}: {text}");
    }
    let fine =
        "// Why: an `unwrap()` here would hide it.\nfn a() -> Util {}\n#[cfg(test)]\nmod tests {\n a.unwrap();\n}\n";
    let fine = File { path: "src/a.rs".into(), text: fine.into(), only_tests: false };
    for rule in [absences, long_functions, long_file, left_over, unwraps, commented_out, empty_words] {
        assert_eq!(rule(&fine), Vec::<String>::new());
    }
}

fn absences(file: &File) -> Vec<String> {
    let concerns = |paths: &[&str]| paths.iter().any(|path| file.path.starts_with(path));
    let forbidden = ABSENCES.iter().filter(|(paths, _)| concerns(paths)).flat_map(|(_, names)| names.iter());
    let fault = |name: &str| {
        let found = |line: &str| (!is_comment(line) && names(line, name)).then(|| format!("must not know `{name}`"));
        file.each_line(file.shipped(), found)
    };
    forbidden.flat_map(|name| fault(name)).collect()
}

/// Whether a line has this name as words of its own, not as a part of longer ones.
fn names(line: &str, name: &str) -> bool {
    let part_of_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(name).any(|(at, _)| {
        let (before, after) = (line[..at].chars().next_back(), line[at + name.len()..].chars().next());
        !part_of_word(before) && (name.ends_with(':') || !part_of_word(after))
    })
}

fn long_functions(file: &File) -> Vec<String> {
    let lines: Vec<&str> = file.text.lines().collect();
    let starts = lines.iter().enumerate().filter(|(_, line)| is_function(line));
    let too_long = starts.filter_map(|(start, line)| {
        let end = format!("{}}}", &line[..line.len() - line.trim_start().len()]);
        let length = lines[start..].iter().position(|line| *line == end)? + 1;
        (length > FUNCTION_LINES).then(|| file.fault(start, format!("a function of {length} lines")))
    });
    too_long.collect()
}

fn is_function(line: &str) -> bool {
    let words = line.split_whitespace().take_while(|word| !word.contains('"') && !word.starts_with("//"));
    let mut words = words.skip_while(|word| word.starts_with("pub") || ["const", "async"].contains(word));
    // `fn a();` in a trait and `fn a() {}` end where they begin.
    words.next() == Some("fn") && !line.ends_with(';') && !line.ends_with('}')
}

fn long_file(file: &File) -> Vec<String> {
    let length = file.text.lines().count();
    if length > FILE_LINES { vec![file.fault(0, format!("a file of {length} lines"))] } else { vec![] }
}

fn left_over(file: &File) -> Vec<String> {
    let found =
        |line: &str| LEFT_OVER.iter().find(|word| line.contains(*word)).map(|word| format!("left over: {word}"));
    file.each_line(&file.text, found)
}

fn unwraps(file: &File) -> Vec<String> {
    if !file.path.starts_with("src/") {
        return vec![];
    }
    let found = |line: &str| {
        let hides = line.contains(".unwrap()") || line.contains(".expect(\"\")");
        (!is_comment(line) && hides).then(|| "an `expect` states why it cannot fail".to_owned())
    };
    file.each_line(file.shipped(), found)
}

fn commented_out(file: &File) -> Vec<String> {
    let found = |line: &str| {
        let comment = line.trim_start().strip_prefix("// ")?.trim();
        let starts = ["let ", "fn ", "use ", "pub ", "mod ", "#[", "return ", "assert"];
        let code = (comment.ends_with(';') && starts.iter().any(|start| comment.starts_with(start)))
            || (comment.ends_with('{') && !comment.contains('`'))
            || comment.ends_with(");")
            || comment == "}";
        code.then(|| "code in a comment: delete it".to_owned())
    };
    file.each_line(&file.text, found)
}

fn empty_words(file: &File) -> Vec<String> {
    let stem = Path::new(&file.path).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let drawer = DRAWERS.contains(&stem).then(|| "a drawer, not a place".to_owned());
    let mut faults: Vec<String> = empty_word(stem).or(drawer).map(|fault| file.fault(0, fault)).into_iter().collect();
    faults.extend(file.each_line(&file.text, |line| empty_word(defined_name(line)?)));
    faults
}

fn empty_word(name: &str) -> Option<String> {
    let name = name.to_lowercase().replace("alertmanager", "");
    EMPTY_WORDS.iter().find(|word| name.contains(*word)).map(|word| format!("`{name}`: {word} says nothing"))
}

/// The name that a line defines, if it does.
fn defined_name(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace().skip_while(|word| word.starts_with("pub") || *word == "async");
    let kinds = ["fn", "struct", "enum", "trait", "mod", "type", "const", "static", "let"];
    let defines = kinds.contains(&words.next()?);
    let name = words.next().filter(|_| defines)?;
    name.split(|c: char| !c.is_alphanumeric() && c != '_').next()
}

/// Attributes that hold for the whole crate.
fn house_attributes(file: &File) -> Vec<String> {
    let root = ["src/lib.rs", "src/main.rs", "tests/it/main.rs"].contains(&file.path.as_str());
    let missing = root && !file.text.contains("#![forbid(unsafe_code)]");
    if missing { vec![file.fault(0, "no `#![forbid(unsafe_code)]`")] } else { vec![] }
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

/// All Rust files of the repository.
fn files() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    for folder in ["src", "tests", "benches"] {
        walk(&root.join(folder), &mut paths);
    }
    let file = |path: PathBuf| File {
        text: std::fs::read_to_string(&path).expect("a readable file"),
        path: path.strip_prefix(root).expect("below the root").to_string_lossy().into_owned(),
        only_tests: false,
    };
    let rust = paths.into_iter().filter(|path| path.extension().is_some_and(|end| end == "rs"));
    let mut files: Vec<File> = rust.map(file).collect();
    let only_tests: Vec<String> = files.iter().flat_map(File::test_modules).collect();
    files.iter_mut().for_each(|file| file.only_tests = only_tests.contains(&file.path));
    files
}

fn walk(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { walk(&path, out) } else { out.push(path) }
    }
}
