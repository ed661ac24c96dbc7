//! What is wrong with a file: every mistake with its place, the line, and what to do.

use std::fmt;
use std::ops::Range;

/// A place in the file, with the line that stands there. Lines and columns count from 1, columns in characters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// 0: the file as a whole.
    pub line: usize,
    /// Where on the line.
    pub column: usize,
    /// How many characters of the line are meant.
    pub width: usize,
    /// The line. Secrets in it are blotted out.
    pub text: String,
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The key it is about, `server.drain`; empty if none.
    pub key: String,
    /// Where it is.
    pub place: Place,
    /// What is wrong.
    pub message: String,
    /// What to write instead; empty if the message says it.
    pub help: String,
}

/// All mistakes of a file, in its order. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes {
    /// The file's name.
    pub file: String,
    /// Each of them.
    pub all: Vec<Mistake>,
}

/// Why a value is refused, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    /// What is wrong.
    pub message: String,
    /// Empty if the message says it.
    pub help: String,
}

/// The file's text, by lines.
pub(super) struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl Wrong {
    /// Both said.
    pub fn new(message: impl Into<String>, help: impl Into<String>) -> Wrong {
        Wrong { message: message.into(), help: help.into() }
    }
}

impl From<String> for Wrong {
    fn from(message: String) -> Wrong {
        Wrong { message, help: String::new() }
    }
}

impl Mistakes {
    /// One mistake about the file as a whole.
    pub(super) fn whole(file: &str, message: String) -> Mistakes {
        let mistake = Mistake { key: String::new(), place: Place::default(), message, help: String::new() };
        Mistakes { file: file.to_owned(), all: vec![mistake] }
    }
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a str) -> Lines<'a> {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Lines { text, starts }
    }

    /// The line of a byte, from 1.
    pub(super) fn line(&self, at: usize) -> usize {
        self.starts.partition_point(|start| *start <= at).max(1)
    }

    /// Where a line ends.
    pub(super) fn end(&self, line: usize) -> usize {
        self.starts.get(line).copied().unwrap_or(self.text.len())
    }

    /// The place of a span of bytes; of several lines, the first. What lies in `secret` is shown as `*`.
    pub(super) fn place(&self, span: &Range<usize>, secret: &[Range<usize>]) -> Place {
        let line = self.line(span.start);
        let start = self.starts[line - 1];
        let text = self.text.get(start..).unwrap_or_default().lines().next().unwrap_or_default();
        let chars = |until: usize| text.char_indices().take_while(|(at, _)| start + at < until).count();
        let (before, through) = (chars(span.start), chars(span.end));
        let blot = |(at, c)| if secret.iter().any(|span| span.contains(&(start + at))) { '*' } else { c };
        Place {
            line,
            column: before + 1,
            width: through.saturating_sub(before).max(1),
            text: text.char_indices().map(blot).collect(),
        }
    }
}

impl Mistake {
    fn write(&self, file: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.as_str() {
            "" => writeln!(f, "error: {}", self.message)?,
            key => writeln!(f, "error: `{key}`: {}", self.message)?,
        }
        let Place { line, column, width, text } = &self.place;
        if *line == 0 {
            return writeln!(f, "  --> {file}");
        }
        let number = line.to_string();
        let margin = " ".repeat(number.len());
        // A tab is as wide above the caret as below it.
        let before: String = text.chars().take(column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        writeln!(f, "{margin} --> {file}:{line}:{column}")?;
        writeln!(f, "{margin} |")?;
        writeln!(f, "{number} | {text}")?;
        writeln!(f, "{margin} | {before}{}", "^".repeat(*width))?;
        if !self.help.is_empty() {
            writeln!(f, "{margin} = help: {}", self.help)?;
        }
        Ok(())
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for mistake in &self.all {
            mistake.write(&self.file, f)?;
            writeln!(f)?;
        }
        match self.all.len() {
            1 => write!(f, "1 mistake in {}", self.file),
            many => write!(f, "{many} mistakes in {}", self.file),
        }
    }
}

impl std::error::Error for Mistakes {}
