//! The errors of a configuration: all of a file at once, each with its place and its key.

use std::cell::RefCell;
use std::fmt;

use serde::{Serialize, Serializer};

use crate::key::{At, KeyPath};
use crate::problem::Problem;

/// One error of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    pub(crate) file: String,
    pub(crate) place: Option<Place>,
    pub(crate) key: KeyPath,
    pub(crate) port: Option<String>,
    pub(crate) problem: Problem,
}

/// A line and a column, both from 1; columns are characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The character within the line.
    pub column: usize,
}

impl ConfigError {
    /// The file's name, as the caller gave it.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Where in the file, if the file could be read that far.
    pub fn place(&self) -> Option<Place> {
        self.place
    }

    /// The key, as in `port[1].mac`; empty for an error of the file as a whole.
    pub fn key(&self) -> String {
        self.key.to_string()
    }

    /// The name of the port that the key belongs to.
    pub fn port(&self) -> Option<&str> {
        self.port.as_deref()
    }

    /// The kind of error and its values.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.file)?;
        if let Some(Place { line, column }) = self.place {
            write!(out, ":{line}:{column}")?;
        }
        if !self.key.steps().is_empty() {
            write!(out, ": {}", self.key)?;
        }
        if let Some(port) = &self.port {
            write!(out, " (port {port:?})")?;
        }
        write!(out, ": {}", self.problem)
    }
}

impl std::error::Error for ConfigError {}

impl Serialize for ConfigError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Record<'a> {
            file: &'a str,
            line: Option<usize>,
            column: Option<usize>,
            key: &'a KeyPath,
            port: Option<&'a str>,
            message: String,
            #[serde(flatten)]
            problem: &'a Problem,
        }
        Record {
            file: &self.file,
            line: self.place.map(|place| place.line),
            column: self.place.map(|place| place.column),
            key: &self.key,
            port: self.port(),
            message: self.problem.to_string(),
            problem: &self.problem,
        }
        .serialize(serializer)
    }
}

/// All errors of one or more files, in the order of their places; never empty.
///
/// `Display` writes one line for each error, in a compiler's format. Serialised, it is an array of
/// objects with `file`, `line`, `column`, `key`, `port`, `message`, `kind` and the kind's values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// `errors` as one error, if there are any.
    pub(crate) fn check(errors: Vec<ConfigError>) -> Result<(), Self> {
        if errors.is_empty() {
            Ok(())
        } else {
            Err(Self(errors))
        }
    }

    /// The errors.
    pub fn as_slice(&self) -> &[ConfigError] {
        &self.0
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}

impl IntoIterator for ConfigErrors {
    type Item = ConfigError;
    type IntoIter = std::vec::IntoIter<ConfigError>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            write!(out, "{newline}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// The problems found so far in one file, at most [`Report::MOST`].
#[derive(Debug, Default)]
pub(crate) struct Report(RefCell<Vec<(KeyPath, Problem)>>);

impl Report {
    /// Bounds the memory of a running switch, which checks the configurations that it is sent.
    const MOST: usize = 1000;

    pub(crate) fn add(&self, key: &KeyPath, problem: impl Into<Problem>) {
        let mut problems = self.0.borrow_mut();
        if problems.len() < Self::MOST {
            problems.push((key.clone(), problem.into()));
        }
    }

    /// Reports a list of `count` elements if it is longer than `max`.
    pub(crate) fn bound(&self, key: &KeyPath, count: usize, max: usize) {
        if count > max {
            self.add(key, Problem::TooMany { count, max });
        }
    }

    /// Reports a list that is longer than `max`, at the first element beyond.
    pub(crate) fn bound_elements<T>(&self, list: &[At<T>], max: usize) {
        if let Some(first) = list.get(max) {
            self.bound(&first.key, list.len(), max);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    pub(crate) fn into_inner(self) -> Vec<(KeyPath, Problem)> {
        self.0.into_inner()
    }
}
