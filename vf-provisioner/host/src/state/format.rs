//! The format of the two files: its versions, and the step from each to the next.
//!
//! The files are read as JSON of the version that wrote them, brought to [`VERSION`] step by step,
//! and only then read into types, so no type knows an earlier version. To change the format: raise
//! [`VERSION`], append a step to [`STEPS`], and add a state and a journal of the new version to
//! `tests/golden`. A new key that earlier programs may ignore, and whose absence has a meaning,
//! needs no new version.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The version that is written.
pub(super) const VERSION: u32 = 4;

/// Brings a document from one version to the next. The document is
/// `{"tenants": {NAME: record}, "owned": [resource], "journal": [entry]}`: the entries are those of
/// the journal that the file `state.json` does not have yet.
type Step = fn(&mut Value) -> Result<(), String>;

/// The first leads from version 1 to version 2.
const STEPS: [Step; VERSION as usize - 1] = [to_2, to_3, to_4];

/// A journal begins with its version, and the state names the program that wrote it. All else is as
/// in version 1.
fn to_2(_document: &mut Value) -> Result<(), String> {
    Ok(())
}

/// A virtual function names its physical function by address instead of interface, and a physical
/// function has no interface: it may be renamed.
fn to_3(document: &mut Value) -> Result<(), String> {
    let mut pfs = BTreeMap::new();
    for_each_object(document, &mut |object| {
        if object.get("kind").and_then(Value::as_str) == Some("pf")
            && let Some(Value::String(interface)) = object.remove("interface")
        {
            pfs.insert(
                interface,
                object.get("address").cloned().unwrap_or_default(),
            );
        }
        Ok(())
    })?;
    for_each_object(document, &mut |object| {
        if object.get("kind").and_then(Value::as_str) != Some("vf") {
            return Ok(());
        }
        let vf = object.get("address").cloned().unwrap_or_default();
        // A key has the address only.
        let Some(pf) = object.get_mut("pf") else {
            return Ok(());
        };
        let interface = pf.as_str().unwrap_or_default();
        let address = pfs.get(interface);
        *pf = address
            .cloned()
            .ok_or_else(|| format!("no physical function {interface} of {vf}"))?;
        Ok(())
    })
}

/// A journal may have records of tenants, and a tenant an IKE daemon: an earlier program would run
/// its switch without one. All else is as in version 3.
fn to_4(_document: &mut Value) -> Result<(), String> {
    Ok(())
}

type Object = serde_json::Map<String, Value>;

/// Calls `visit` with every JSON object of the document, the outer ones first.
fn for_each_object(
    value: &mut Value,
    visit: &mut dyn FnMut(&mut Object) -> Result<(), String>,
) -> Result<(), String> {
    match value {
        Value::Object(object) => {
            visit(object)?;
            let mut all = object.values_mut();
            all.try_for_each(|value| for_each_object(value, visit))
        }
        Value::Array(list) => list
            .iter_mut()
            .try_for_each(|value| for_each_object(value, visit)),
        _ => Ok(()),
    }
}

/// The line of the journal that gives the version of the lines behind it. Lines before the first
/// such line are of version 1.
#[derive(Debug, Serialize)]
pub(super) struct Header {
    version: u32,
}

/// What a journal begins with.
pub(super) const HEADER: Header = Header { version: VERSION };

/// Why files cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FormatError {
    /// A file is of a version that this program does not know.
    Newer {
        /// Which file.
        file: &'static str,
        /// Its version.
        version: u64,
        /// The version of the program that wrote it, if the file says.
        written_by: Option<String>,
    },
    /// A file is not as its version says.
    Damaged {
        /// Which file.
        file: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

/// The file with the state.
pub(super) const STATE: &str = "state.json";
/// The file with what was done since.
pub(super) const JOURNAL: &str = "journal";

/// What the files hold, in the current version.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Content<T> {
    /// The state, without the journal.
    pub(super) state: T,
    /// The entries of the journal that the state does not have.
    pub(super) journal: Vec<Value>,
    /// Whether the state is of an earlier version.
    pub(super) is_old: bool,
    /// The version of a line that is appended to the journal; an empty one has none.
    pub(super) journal_version: Option<u32>,
    /// How long the journal is without what a crash cut off.
    pub(super) journal_len: usize,
}

/// Reads the files; `T` reads `{"tenants", "owned"}`.
pub(super) fn read<T: DeserializeOwned>(
    state: Option<&[u8]>,
    journal: &[u8],
) -> Result<Content<T>, FormatError> {
    read_with(state, journal, &STEPS)
}

fn read_with<T: DeserializeOwned>(
    state: Option<&[u8]>,
    journal: &[u8],
    steps: &[Step],
) -> Result<Content<T>, FormatError> {
    let newest = steps.len() as u32 + 1;
    let lines = Lines::read(journal, newest)?;
    let first = lines.entries.first().map(|(version, _)| *version);
    let empty = br#"{"tenants": {}, "owned": []}"#;
    let (text, version) = match state {
        Some(text) => (text, version_of(text, newest)?),
        None => (&empty[..], first.unwrap_or(newest)),
    };
    let (state, journal) = if version == newest {
        let lines = lines.entries.into_iter().filter(|(of, _)| *of == newest);
        (parse(text)?, lines.map(|(_, entry)| entry).collect())
    } else {
        migrate(parse(text)?, &lines.entries, version, steps)?
    };
    Ok(Content {
        state,
        journal,
        is_old: version < newest,
        journal_version: lines.version,
        journal_len: lines.len,
    })
}

fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, FormatError> {
    serde_json::from_slice(text).map_err(|error| damaged(STATE, error.to_string()))
}

fn damaged(file: &'static str, reason: String) -> FormatError {
    FormatError::Damaged { file, reason }
}

/// Takes the steps from `version` on; the state and the journal that they lead to.
fn migrate<T: DeserializeOwned>(
    mut document: Value,
    lines: &[(u32, Value)],
    version: u32,
    steps: &[Step],
) -> Result<(T, Vec<Value>), FormatError> {
    let mut journal = Vec::new();
    for current in version..=steps.len() as u32 + 1 {
        // A program that wrote a later version of the state had read the lines of earlier ones.
        let lines = lines.iter().filter(|(of, _)| *of == current);
        journal.extend(lines.map(|(_, entry)| entry.clone()));
        if let Some(step) = steps.get(current as usize - 1) {
            document["journal"] = Value::Array(journal);
            step(&mut document).map_err(|reason| {
                damaged(
                    STATE,
                    format!("from version {current} to {}: {reason}", current + 1),
                )
            })?;
            journal = match document["journal"].take() {
                Value::Array(entries) => entries,
                _ => Vec::new(),
            };
        }
    }
    let state = serde_json::from_value(document);
    let state = state.map_err(|error| damaged(STATE, error.to_string()))?;
    Ok((state, journal))
}

/// What a state of any version says of its format.
#[derive(Deserialize)]
struct Format {
    version: Option<u64>,
    #[serde(default)]
    written_by: Option<String>,
}

fn version_of(text: &[u8], newest: u32) -> Result<u32, FormatError> {
    let format: Format = parse(text)?;
    let version = format
        .version
        .ok_or_else(|| damaged(STATE, "it has no version".to_owned()))?;
    known(STATE, version, newest, format.written_by)
}

fn known(
    file: &'static str,
    version: u64,
    newest: u32,
    written_by: Option<String>,
) -> Result<u32, FormatError> {
    match u32::try_from(version) {
        Ok(0) => Err(damaged(file, "there is no version 0".to_owned())),
        Ok(version) if version <= newest => Ok(version),
        _ => Err(FormatError::Newer {
            file,
            version,
            written_by,
        }),
    }
}

/// The lines of a journal.
struct Lines {
    /// Each with its version, which never decreases.
    entries: Vec<(u32, Value)>,
    /// See [`Content::journal_version`].
    version: Option<u32>,
    /// See [`Content::journal_len`].
    len: usize,
}

impl Lines {
    fn read(journal: &[u8], newest: u32) -> Result<Self, FormatError> {
        let damaged =
            |line: usize, reason| damaged(JOURNAL, format!("line {}: {reason}", line + 1));
        // The action of a line that a crash cut off was never executed: it follows the flush.
        let end = journal.iter().rposition(|byte| *byte == b'\n');
        let whole = &journal[..end.map_or(0, |end| end + 1)];
        let (mut entries, mut last) = (Vec::new(), None);
        for (number, line) in whole.split_inclusive(|byte| *byte == b'\n').enumerate() {
            let value: Value =
                serde_json::from_slice(line).map_err(|error| damaged(number, error.to_string()))?;
            if let Some(version) = value.get("version") {
                let version = version.as_u64().unwrap_or_default();
                let version = known(JOURNAL, version, newest, None)?;
                if last.is_some_and(|last| version < last) {
                    return Err(damaged(
                        number,
                        format!("version {version} follows a later one"),
                    ));
                }
                last = Some(version);
            } else {
                entries.push((*last.get_or_insert(1), value));
            }
        }
        Ok(Self {
            entries,
            version: last,
            len: whole.len(),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Numbers the version in which each part was met.
    fn visit(document: &mut Value, version: u32) {
        for part in ["owned", "journal"] {
            for item in document[part].as_array_mut().into_iter().flatten() {
                item["seen"] = json!(format!("{}{version}", item["seen"].as_str().unwrap_or("")));
            }
        }
    }

    const THREE: [Step; 2] = [
        |document| {
            visit(document, 1);
            Ok(())
        },
        |document| {
            visit(document, 2);
            match document["owned"][0]["bad"].as_bool() {
                Some(true) => Err("owned[0].bad cannot be true".to_owned()),
                _ => Ok(()),
            }
        },
    ];

    fn content(state: Option<&str>, journal: &str) -> Result<Content<Value>, FormatError> {
        read_with(state.map(str::as_bytes), journal.as_bytes(), &THREE)
    }

    #[test]
    fn each_part_takes_the_steps_from_its_own_version() {
        let state = r#"{"version": 1, "tenants": {}, "owned": [{}]}"#;
        let journal = "{\"n\":1}\n{\"version\":2}\n{\"n\":2}\n{\"version\":3}\n{\"n\":3}\n{\"n\"";
        let wanted = Content {
            state: json!({
                "version": 1, "tenants": {}, "owned": [{"seen": "12"}], "journal": null,
            }),
            journal: vec![
                json!({"n": 1, "seen": "12"}),
                json!({"n": 2, "seen": "2"}),
                json!({"n": 3}),
            ],
            is_old: true,
            journal_version: Some(3),
            journal_len: journal.len() - 4,
        };
        assert_eq!(content(Some(state), journal), Ok(wanted));
    }

    #[test]
    fn lines_that_a_later_state_has_are_not_read_again() {
        let state = r#"{"version": 3, "written_by": "0.3.0", "tenants": {}, "owned": [{}]}"#;
        let wanted = Content {
            state: serde_json::from_str(state).expect("it is JSON"),
            journal: vec![],
            is_old: false,
            journal_version: Some(1),
            journal_len: 8,
        };
        assert_eq!(content(Some(state), "{\"n\":1}\n"), Ok(wanted));
    }

    #[test]
    fn journal_without_a_state_takes_the_steps_too() {
        let content = content(None, "{\"n\":1}\n").expect("it is read");
        assert_eq!(content.journal, [json!({"n": 1, "seen": "12"})]);
        assert!(content.is_old);
    }

    #[test]
    fn unknown_versions_and_damaged_files_are_refused() {
        let newer = |file, version, written_by: Option<&str>| FormatError::Newer {
            file,
            version,
            written_by: written_by.map(str::to_owned),
        };
        let damaged = |file, reason: &str| FormatError::Damaged {
            file,
            reason: reason.to_owned(),
        };
        let state = |version: &str| format!(r#"{{"version": {version}, "written_by": "9.0"}}"#);
        let cases = [
            (state("4"), "", newer(STATE, 4, Some("9.0"))),
            (
                state("4294967297"),
                "",
                newer(STATE, 4_294_967_297, Some("9.0")),
            ),
            (state("0"), "", damaged(STATE, "there is no version 0")),
            (state("null"), "", damaged(STATE, "it has no version")),
            (state("3"), "{\"version\":4}\n", newer(JOURNAL, 4, None)),
            (
                state("3"),
                "{}\n}\n",
                damaged(JOURNAL, "line 2: expected value at line 1 column 1"),
            ),
            (
                state("3"),
                "{\"version\":2}\n{\"version\":1}\n",
                damaged(JOURNAL, "line 2: version 1 follows a later one"),
            ),
            (
                r#"{"version": 1, "owned": [{"bad": true}]}"#.to_owned(),
                "",
                damaged(STATE, "from version 2 to 3: owned[0].bad cannot be true"),
            ),
        ];
        for (state, journal, wanted) in cases {
            assert_eq!(
                content(Some(&state), journal),
                Err(wanted),
                "{state} {journal}"
            );
        }
    }
}
