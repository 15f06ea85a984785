//! An XML document as a tree, read from untrusted text.
//!
//! A document type declaration is refused, so there are no entities to expand or to fetch. Size,
//! depth and the number of an element's attributes are bounded.

use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};

use crate::{ImportError, printable};

/// The most bytes of a document. A description of a virtual machine has some ten thousand.
pub const MAX_BYTES: usize = 1 << 20;
const MAX_DEPTH: usize = 64;
const MAX_ATTRIBUTES: usize = 64;

/// One element. Names are without their prefixes: every document chooses its own.
#[derive(Debug, Default)]
pub(crate) struct Element {
    pub(crate) name: String,
    /// Where the element begins, from 1.
    pub(crate) line: usize,
    attributes: Vec<(String, String)>,
    pub(crate) children: Vec<Element>,
    text: String,
}

impl Element {
    /// The root of a document.
    pub(crate) fn parse(text: &str) -> Result<Self, ImportError> {
        let text = text.trim_start_matches('\u{feff}');
        if text.len() > MAX_BYTES {
            return Err(ImportError::TooLarge);
        }
        let mut document = Document {
            lines: Lines {
                text,
                at: 0,
                line: 1,
            },
            open: vec![Self::default()],
        };
        let mut reader = Reader::from_str(text);
        loop {
            let begin = reader.buffer_position();
            let event = reader.read_event();
            let line = document.lines.number(begin);
            let event = event.map_err(|error| syntax(line, error))?;
            if matches!(event, Event::Eof) {
                return document.root(line);
            }
            document.take(event, line)?;
        }
    }

    pub(crate) fn attribute(&self, name: &str) -> Option<&str> {
        let mut attributes = self.attributes.iter();
        let found = attributes.find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The children of that name.
    pub(crate) fn all<'e>(&'e self, name: &'e str) -> impl Iterator<Item = &'e Self> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// The first child of that name.
    pub(crate) fn first(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The element's own text, without white space around it.
    pub(crate) fn text(&self) -> &str {
        self.text.trim()
    }

    /// The text of the first child of that name, unless it is empty.
    pub(crate) fn text_of(&self, name: &str) -> Option<&str> {
        let text = self.first(name)?.text();
        (!text.is_empty()).then_some(text)
    }

    /// The elements of that name at any depth, in the order of the document.
    pub(crate) fn descendants<'e>(&'e self, name: &str, found: &mut Vec<&'e Self>) {
        for child in &self.children {
            if child.name == name {
                found.push(child);
            }
            child.descendants(name, found);
        }
    }
}

/// The elements that were read so far.
struct Document<'t> {
    lines: Lines<'t>,
    /// The elements that are not closed yet; the first stands for the document.
    open: Vec<Element>,
}

impl Document<'_> {
    fn take(&mut self, event: Event<'_>, line: usize) -> Result<(), ImportError> {
        match event {
            Event::Start(tag) => {
                if self.open.len() > MAX_DEPTH {
                    return Err(syntax(line, format!("more than {MAX_DEPTH} elements deep")));
                }
                self.open.push(element(&tag, line)?);
            }
            Event::Empty(tag) => self.top().children.push(element(&tag, line)?),
            // The reader has compared the names of start and end.
            Event::End(_) => {
                if let Some(closed) = self.open.pop() {
                    self.top().children.push(closed);
                }
            }
            Event::Text(text) => self.top().text.push_str(&text),
            Event::CData(text) => self.top().text.push_str(&text),
            Event::GeneralRef(reference) => {
                let character = match reference.resolve_char_ref() {
                    Ok(None) => predefined(&reference),
                    Ok(some) => some,
                    Err(error) => return Err(syntax(line, error)),
                };
                let unknown = || syntax(line, format!("unknown entity &{};", &*reference));
                self.top().text.push(character.ok_or_else(unknown)?);
            }
            Event::DocType(_) => {
                return Err(syntax(
                    line,
                    "a document type declaration, which is refused",
                ));
            }
            Event::Decl(_) | Event::PI(_) | Event::Comment(_) | Event::Eof => {}
        }
        Ok(())
    }

    fn top(&mut self) -> &mut Element {
        self.open.last_mut().expect("the document is never closed")
    }

    fn root(mut self, line: usize) -> Result<Element, ImportError> {
        if let [_, .., open] = &self.open[..] {
            return Err(syntax(line, format!("<{}> is not closed", open.name)));
        }
        let document = self.top();
        if !document.text().is_empty() {
            return Err(syntax(line, "text outside the root element"));
        }
        match document.children.len() {
            1 => Ok(document.children.remove(0)),
            count => Err(syntax(
                line,
                format!("{count} root elements instead of one"),
            )),
        }
    }
}

fn element(tag: &BytesStart<'_>, line: usize) -> Result<Element, ImportError> {
    let mut attributes = Vec::new();
    for attribute in tag.attributes() {
        let attribute = attribute.map_err(|error| syntax(line, error))?;
        if attributes.len() == MAX_ATTRIBUTES {
            let reason = format!("an element with more than {MAX_ATTRIBUTES} attributes");
            return Err(syntax(line, reason));
        }
        let value = attribute.normalized_value(XmlVersion::Implicit1_0);
        let value = value.map_err(|error| syntax(line, error))?.into_owned();
        attributes.push((attribute.key.local_name().as_ref().to_owned(), value));
    }
    Ok(Element {
        name: tag.local_name().as_ref().to_owned(),
        line,
        attributes,
        ..Element::default()
    })
}

/// The character of an entity that XML itself defines.
fn predefined(name: &str) -> Option<char> {
    Some(match name {
        "amp" => '&',
        "apos" => '\'',
        "gt" => '>',
        "lt" => '<',
        "quot" => '"',
        _ => return None,
    })
}

fn syntax(line: usize, reason: impl ToString) -> ImportError {
    let reason = printable(&reason.to_string());
    ImportError::Syntax { line, reason }
}

/// Line numbers of positions that only grow.
struct Lines<'t> {
    text: &'t str,
    at: usize,
    line: usize,
}

impl Lines<'_> {
    fn number(&mut self, position: u64) -> usize {
        let position = usize::try_from(position).map_or(self.text.len(), |position| {
            position.clamp(self.at, self.text.len())
        });
        let passed = &self.text.as_bytes()[self.at..position];
        self.line += passed.iter().filter(|byte| **byte == b'\n').count();
        self.at = position;
        self.line
    }
}
