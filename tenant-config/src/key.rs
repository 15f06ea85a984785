//! Keys: the path of a value within its file.

use std::fmt;

use serde::{Serialize, Serializer};

/// The path of a value within its file, as in `port[1].mac`. Indices count from 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct KeyPath(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Key(String),
    Index(usize),
}

impl KeyPath {
    /// The path of a key of the file's top level.
    pub(crate) fn of(key: &str) -> Self {
        Self::default().key(key)
    }

    /// The path of a table's key.
    pub(crate) fn key(&self, key: &str) -> Self {
        self.with(Step::Key(key.to_owned()))
    }

    /// The path of an array's element.
    pub(crate) fn index(&self, index: usize) -> Self {
        self.with(Step::Index(index))
    }

    fn with(&self, step: Step) -> Self {
        Self(self.0.iter().cloned().chain([step]).collect())
    }

    pub(crate) fn steps(&self) -> &[Step] {
        &self.0
    }

    /// The port that the value belongs to, by its place in the file.
    pub(crate) fn port_index(&self) -> Option<usize> {
        match &self.0[..] {
            [Step::Key(ports), Step::Index(index), ..] if matches!(&**ports, "port" | "ports") => {
                Some(*index)
            }
            _ => None,
        }
    }
}

/// A file may have any text for a key, so what a terminal would obey is escaped.
impl fmt::Display for KeyPath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (depth, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if depth == 0 => write!(out, "{}", key.escape_debug())?,
                Step::Key(key) => write!(out, ".{}", key.escape_debug())?,
                Step::Index(index) => write!(out, "[{index}]")?,
            }
        }
        Ok(())
    }
}

impl Serialize for KeyPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A value and its key.
#[derive(Debug, Clone)]
pub(crate) struct At<T> {
    pub(crate) key: KeyPath,
    pub(crate) value: T,
}

impl<T> At<T> {
    pub(crate) fn new(key: KeyPath, value: T) -> Self {
        Self { key, value }
    }
}

/// The elements of an array, each with its key.
pub(crate) fn elements<T: Copy>(array: &KeyPath, values: &[T]) -> Vec<At<T>> {
    let keyed = values.iter().enumerate();
    keyed
        .map(|(index, value)| At::new(array.index(index), *value))
        .collect()
}

/// The values without their keys.
pub(crate) fn values<T: Clone>(list: &[At<T>]) -> Vec<T> {
    list.iter().map(|element| element.value.clone()).collect()
}
