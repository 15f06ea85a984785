//! Writes every mutant of a list into one copy of the sources, each behind a question to
//! `mutant_switch::active`, so that one build has them all.
//!
//! Reads a [`Task`] from standard input, as JSON, and prints a [`Fate`] for each mutant. What
//! `cargo mutants --list --json` prints is the list; a mutant's number is its place there, from 1
//! on. A mutant is the text that cargo-mutants would compile: an operator's replacement is parsed
//! again with all that surrounds it, since it may bind otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::list::Mutant;
use crate::rewrite::Rewriting;

mod list;
mod rewrite;

/// What is to be done.
#[derive(Deserialize)]
struct Task {
    /// The directory with the sources.
    from: PathBuf,
    /// The directory that gets them, with the mutants.
    to: PathBuf,
    mutants: Vec<Mutant>,
    /// The numbers of those that the compiler has refused.
    refused: BTreeSet<u32>,
    /// Names of functions that are called in constants, and so have to stay `const`.
    constant: BTreeSet<String>,
}

/// What became of a mutant.
#[derive(Serialize)]
#[serde(tag = "fate", rename_all = "snake_case")]
enum Fate {
    /// It is in the copy, at these places.
    Written { places: Vec<Place> },
    /// It cannot compile.
    Unviable { why: &'static str },
    /// No switch can choose it when the program runs.
    Unwritten { why: &'static str },
}

/// Bytes of a file of the copy.
#[derive(Serialize)]
struct Place {
    begin: usize,
    end: usize,
}

fn main() -> Result<()> {
    let task: Task = serde_json::from_reader(io::stdin()).context("the task cannot be read")?;
    let mut of_file: BTreeMap<&str, Vec<(u32, &Mutant)>> = BTreeMap::new();
    for (number, mutant) in (1..).zip(&task.mutants) {
        of_file
            .entry(&mutant.file)
            .or_default()
            .push((number, mutant));
    }
    let mut fates = BTreeMap::new();
    for (file, mutants) in of_file {
        let text = std::fs::read_to_string(task.from.join(file))
            .with_context(|| format!("{file} cannot be read"))?;
        let rewriting = Rewriting::new(&text, &mutants, &task.refused, &task.constant)
            .with_context(|| format!("{file} cannot be parsed"))?;
        let (text, its_fates) = rewriting.finish();
        let path = task.to.join(file);
        // An unchanged file is not compiled again.
        if std::fs::read_to_string(&path).ok().as_ref() != Some(&text) {
            std::fs::write(&path, text).with_context(|| format!("{file} cannot be written"))?;
        }
        fates.extend(its_fates);
    }
    serde_json::to_writer(io::stdout(), &fates).context("the fates cannot be written")
}
