//! A TOML document, read so that every error is found and has its place. Nothing here knows what a
//! tenant is.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use crate::error::{ConfigError, ConfigErrors, Place, Report};
use crate::key::{At, KeyPath, Step};
use crate::problem::Problem;

/// A parsed file.
/// The file that a document was read from, for the files that it names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin<'d> {
    /// Its directory, from which relative paths lead.
    pub(crate) directory: &'d Path,
    /// The user that it belongs to.
    pub(crate) owner: u32,
}

#[derive(Debug)]
pub(crate) struct Document<'d> {
    name: &'d str,
    text: &'d str,
    /// The offsets at which the lines begin, except the first.
    lines: Vec<usize>,
    root: DeTable<'d>,
    /// Without it, no file that it names is read.
    origin: Option<Origin<'d>>,
}

impl<'d> Document<'d> {
    /// Parses `text`; returns all syntax errors at once.
    pub(crate) fn parse(name: &'d str, text: &'d str) -> Result<Self, ConfigErrors> {
        let (root, errors) = DeTable::parse_recoverable(text);
        let document = Self {
            name,
            text,
            lines: text
                .match_indices('\n')
                .map(|(newline, _)| newline + 1)
                .collect(),
            root: root.into_inner(),
            origin: None,
        };
        let mut errors: Vec<_> = errors
            .into_iter()
            .map(|error| ConfigError {
                file: name.to_owned(),
                place: error.span().map(|span| document.place(span.start)),
                key: KeyPath::default(),
                port: None,
                problem: Problem::Syntax {
                    reason: format!("not TOML: {}", error.message().replace('\n', "; ")),
                },
            })
            .collect();
        errors.sort_by_key(|error| error.place);
        ConfigErrors::check(errors)?;
        Ok(document)
    }

    /// The same, read from that file.
    pub(crate) fn read_from(self, origin: Option<Origin<'d>>) -> Self {
        Self { origin, ..self }
    }

    /// The file's top level.
    pub(crate) fn section<'s>(&'s self, report: &'s Report) -> Section<'s> {
        Section {
            path: KeyPath::default(),
            table: &self.root,
            known: Vec::new(),
            report,
            origin: self.origin,
        }
    }

    /// The errors of `report` with their places, in the order of the file.
    pub(crate) fn errors(&self, report: Report) -> Vec<ConfigError> {
        let mut errors: Vec<_> = report
            .into_inner()
            .into_iter()
            .map(|(key, problem)| self.error(key, problem))
            .collect();
        errors.sort_by_key(|error| error.place);
        errors
    }

    /// One error with its place.
    pub(crate) fn error(&self, key: KeyPath, problem: Problem) -> ConfigError {
        let (written, value) = self.nearest(&key);
        let offset = match problem {
            Problem::UnknownKey { .. } => written,
            _ => value,
        };
        ConfigError {
            file: self.name.to_owned(),
            place: Some(self.place(offset)),
            port: key.port_index().and_then(|index| self.port_name(index)),
            key,
            problem,
        }
    }

    fn port_name(&self, index: usize) -> Option<String> {
        let name = self
            .root
            .get("port")?
            .get_ref()
            .get(index)?
            .get_ref()
            .get("name")?;
        Some(name.get_ref().as_str()?.to_owned())
    }

    /// Follows `path` as far as the file has it. Returns the offsets of the last key that is there
    /// and of its value.
    fn nearest(&self, path: &KeyPath) -> (usize, usize) {
        let mut place = (0, 0);
        let mut table = Some(&self.root);
        let mut array = None;
        for step in path.steps() {
            let found = match step {
                Step::Key(key) => table
                    .and_then(|table| table.get_key_value(key.as_str()))
                    .map(|(key, value)| (key.span(), value)),
                Step::Index(index) => array
                    .and_then(|array: &DeArray<'d>| array.get(*index))
                    .map(|value| (value.span(), value)),
            };
            let Some((key, value)) = found else { break };
            place = (key.start, value.span().start);
            (table, array) = (value.get_ref().as_table(), value.get_ref().as_array());
        }
        place
    }

    fn place(&self, offset: usize) -> Place {
        let offset = offset.min(self.text.len());
        let before = self.lines.partition_point(|start| *start <= offset);
        let line_start = before.checked_sub(1).map_or(0, |last| self.lines[last]);
        Place {
            line: before + 1,
            column: self.text[line_start..offset].chars().count() + 1,
        }
    }
}

/// A table being read. Keys that were not requested before [`Section::finish`] are unknown.
#[derive(Debug)]
pub(crate) struct Section<'d> {
    pub(crate) path: KeyPath,
    table: &'d DeTable<'d>,
    known: Vec<&'static str>,
    report: &'d Report,
    origin: Option<Origin<'d>>,
}

impl<'d> Section<'d> {
    /// The value of an optional key.
    pub(crate) fn get(&mut self, key: &'static str) -> Option<Node<'d>> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        Some(Node {
            path: self.path.key(key),
            value: self.table.get(key)?.get_ref(),
            report: self.report,
            origin: self.origin,
        })
    }

    /// The value of a required key.
    pub(crate) fn require(
        &mut self,
        key: &'static str,
        expected: &'static str,
    ) -> Option<Node<'d>> {
        let node = self.get(key);
        if node.is_none() {
            let problem = Problem::MissingKey { expected };
            self.report.add(&self.path.key(key), problem);
        }
        node
    }

    /// The value of a key that is `true` or `false`, and `false` if it is absent.
    pub(crate) fn flag(&mut self, key: &'static str) -> bool {
        self.get(key).and_then(|node| node.flag()).unwrap_or(false)
    }

    /// Reports every key that was not requested.
    pub(crate) fn finish(self) {
        for key in self.table.keys() {
            let key = key.get_ref().as_ref();
            if !self.known.contains(&key) {
                let hint = hint(key, &self.known);
                self.report
                    .add(&self.path.key(key), Problem::UnknownKey { hint });
            }
        }
    }
}

/// A hint for `key`, written where `known` are accepted.
fn hint(key: &str, known: &[&'static str]) -> String {
    let nearest = known
        .iter()
        .map(|known| (strsim::damerau_levenshtein(key, known), known))
        .min()
        .filter(|(distance, known)| *distance <= 1 + known.len() / 4);
    match nearest {
        Some((_, nearest)) => format!("did you mean `{nearest}`?"),
        None => format!("the keys here are {}", known.join(", ")),
    }
}

/// One value.
#[derive(Debug)]
pub(crate) struct Node<'d> {
    pub(crate) path: KeyPath,
    value: &'d DeValue<'d>,
    report: &'d Report,
    origin: Option<Origin<'d>>,
}

impl<'d> Node<'d> {
    /// The file that it was read from.
    pub(crate) fn origin(&self) -> Option<Origin<'d>> {
        self.origin
    }

    /// Reports a problem of this value.
    pub(crate) fn fail<T>(&self, problem: impl Into<Problem>) -> Option<T> {
        self.report.add(&self.path, problem);
        None
    }

    /// Reports a value of another type than `expected`.
    fn wrong_type<T>(&self, expected: &'static str) -> Option<T> {
        let found = match self.value {
            DeValue::String(text) => format!("the text {text:?}"),
            DeValue::Integer(number) => format!("the integer {number}"),
            DeValue::Float(number) => format!("the number {number}"),
            DeValue::Boolean(flag) => format!("{flag}"),
            DeValue::Datetime(time) => format!("the date {time}"),
            DeValue::Array(_) => "an array".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
        };
        self.fail(Problem::WrongType { found, expected })
    }

    /// The text, if the value is one; no error otherwise.
    pub(crate) fn as_text(&self) -> Option<&'d str> {
        self.value.as_str()
    }

    /// A text that `parse` accepts.
    pub(crate) fn text<T, E: Into<Problem>>(
        &self,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let Some(text) = self.value.as_str() else {
            return self.wrong_type("a text in quotes");
        };
        parse(text).map_or_else(|problem| self.fail(problem), Some)
    }

    /// An integer that `parse` accepts.
    pub(crate) fn integer<T, E: Into<Problem>>(
        &self,
        parse: impl FnOnce(i64) -> Result<T, E>,
    ) -> Option<T> {
        let DeValue::Integer(number) = self.value else {
            return self.wrong_type("an integer");
        };
        match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => parse(number).map_or_else(|problem| self.fail(problem), Some),
            Err(_) => self.fail(Problem::Invalid {
                value: number.to_string(),
                expected: "an integer of 64 bits",
            }),
        }
    }

    /// `true` or `false`.
    pub(crate) fn flag(&self) -> Option<bool> {
        self.value
            .as_bool()
            .or_else(|| self.wrong_type("true or false"))
    }

    /// The value as `read` returns it, with its key.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&Self) -> Option<T>) -> Option<At<T>> {
        Some(At {
            key: self.path.clone(),
            value: read(self)?,
        })
    }

    /// The elements of an array.
    pub(crate) fn items(&self, expected: &'static str) -> Option<Vec<Node<'d>>> {
        let DeValue::Array(array) = self.value else {
            return self.wrong_type(expected);
        };
        let item = |(index, value): (usize, &'d Spanned<DeValue<'d>>)| Node {
            path: self.path.index(index),
            value: value.get_ref(),
            report: self.report,
            origin: self.origin,
        };
        Some(array.iter().enumerate().map(item).collect())
    }

    /// The elements of an array that `read` accepts.
    pub(crate) fn list<T>(
        &self,
        expected: &'static str,
        read: impl Fn(&Self) -> Option<T>,
    ) -> Vec<At<T>> {
        let items = self.items(expected).unwrap_or_default();
        items.iter().filter_map(|item| item.read(&read)).collect()
    }

    /// A table.
    pub(crate) fn section(&self) -> Option<Section<'d>> {
        let DeValue::Table(table) = self.value else {
            return self.wrong_type("a table");
        };
        Some(Section {
            path: self.path.clone(),
            table,
            known: Vec::new(),
            report: self.report,
            origin: self.origin,
        })
    }
}
