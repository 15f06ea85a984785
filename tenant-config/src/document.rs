//! A tenant's TOML, walked so that every error is found and keeps its place. Nothing here knows what
//! a tenant is.

use std::cell::RefCell;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{ConfigError, ConfigErrors, KeyPath, Place, Problem, Step};
use crate::rules::At;

/// The errors found so far. Shared by all who look at one file.
#[derive(Debug, Default)]
pub(crate) struct Report(RefCell<Vec<(KeyPath, Problem)>>);

impl Report {
    /// Takes note of a problem.
    pub(crate) fn add(&self, key: &KeyPath, problem: Problem) {
        self.0.borrow_mut().push((key.clone(), problem));
    }

    pub(crate) fn into_inner(self) -> Vec<(KeyPath, Problem)> {
        self.0.into_inner()
    }
}

/// A parsed file.
#[derive(Debug)]
pub(crate) struct Document<'d> {
    name: &'d str,
    text: &'d str,
    root: DeTable<'d>,
}

impl<'d> Document<'d> {
    /// Parses `text`; all errors of syntax at once.
    pub(crate) fn parse(name: &'d str, text: &'d str) -> Result<Self, ConfigErrors> {
        let (root, errors) = DeTable::parse_recoverable(text);
        let document = Self {
            name,
            text,
            root: root.into_inner(),
        };
        let errors = errors
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
        ConfigErrors::check(errors)?;
        Ok(document)
    }

    /// The file's top level.
    pub(crate) fn section<'s>(&'s self, report: &'s Report) -> Section<'s> {
        Section {
            path: KeyPath::default(),
            table: &self.root,
            known: Vec::new(),
            report,
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
        let at_key = matches!(problem, Problem::UnknownKey { .. });
        let port_name = |port: KeyPath| match self.find(&port.key("name"))? {
            (_, Some(DeValue::String(name))) => Some(name.clone().into_owned()),
            _ => None,
        };
        ConfigError {
            file: self.name.to_owned(),
            place: Some(self.place(self.offset(&key, at_key))),
            port: key.port().and_then(port_name),
            key,
            problem,
        }
    }

    /// Follows `path` as far as the file has it.
    fn walk(&self, path: &KeyPath) -> Vec<(usize, &Spanned<DeValue<'d>>)> {
        let mut found: Vec<(usize, &Spanned<DeValue<'d>>)> = Vec::new();
        for step in path.steps() {
            let next = match (found.last().map(|(_, value)| value.get_ref()), step) {
                (None, Step::Key(key)) => self.root.get_key_value(key.as_str()),
                (Some(DeValue::Table(table)), Step::Key(key)) => table.get_key_value(key.as_str()),
                (Some(DeValue::Array(array)), Step::Index(index)) => {
                    let Some(value) = array.get(*index) else {
                        break;
                    };
                    found.push((value.span().start, value));
                    continue;
                }
                _ => None,
            };
            let Some((key, value)) = next else { break };
            found.push((key.span().start, value));
        }
        found
    }

    fn find(&self, path: &KeyPath) -> Option<(usize, Option<&DeValue<'d>>)> {
        let found = self.walk(path);
        (found.len() == path.steps().len())
            .then(|| found.last().map(|(at, value)| (*at, Some(value.get_ref()))))
            .flatten()
    }

    /// Where `path` is written, or else the nearest table that lacks it.
    fn offset(&self, path: &KeyPath, at_key: bool) -> usize {
        self.walk(path).last().map_or(
            0,
            |(key, value)| {
                if at_key { *key } else { value.span().start }
            },
        )
    }

    fn place(&self, offset: usize) -> Place {
        let before = &self.text[..offset.min(self.text.len())];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Place {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

/// A table being read. What is not asked for by [`Section::finish`] is unknown.
#[derive(Debug)]
pub(crate) struct Section<'d> {
    pub(crate) path: KeyPath,
    table: &'d DeTable<'d>,
    known: Vec<&'static str>,
    report: &'d Report,
}

impl<'d> Section<'d> {
    /// The value of an optional key.
    pub(crate) fn get(&mut self, key: &'static str) -> Option<Node<'d>> {
        self.known.push(key);
        Some(Node {
            path: self.path.key(key),
            value: self.table.get(key)?.get_ref(),
            report: self.report,
        })
    }

    /// Whether the key is there.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// The value of a key that must be there.
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

    /// Reports every key that nobody asked for.
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

/// Helps someone who wrote `key` where `known` are accepted.
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
}

impl<'d> Node<'d> {
    /// Reports a problem of this value.
    pub(crate) fn fail<T>(&self, problem: Problem) -> Option<T> {
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

    /// The text, if it is one; no error otherwise.
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
        parse(text).map_or_else(|problem| self.fail(problem.into()), Some)
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
            Ok(number) => parse(number).map_or_else(|problem| self.fail(problem.into()), Some),
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

    /// What `read` makes of the value, with its key.
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
        })
    }
}
