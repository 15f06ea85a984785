//! Instructions per frame of the pipeline's stages, counted by callgrind. They are repeatable on
//! any machine, so two commits can be compared, or a commit with an earlier record.
//!
//! Each is the difference of two runs of `frame-cost` of different length, minus the same for the
//! filling of the buffers: start-up and the harness do not count.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::command::{output, run};
use crate::interrupt;
use crate::report::{Outcome, Record, Table};
use crate::stages::{BURST, chosen};

/// The lengths of the two runs, in bursts.
const FEW: u64 = 100;
const MANY: u64 = 300;

/// A tree whose instructions are counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tree {
    /// The working tree with its changes.
    Working,
    /// A commit by any of its names.
    Commit(String),
    /// Earlier counts: a file that `bench instructions --save` wrote.
    Record(PathBuf),
}

impl Tree {
    fn name(&self) -> Cow<'_, str> {
        match self {
            Self::Working => "working tree".into(),
            Self::Commit(name) => name.into(),
            Self::Record(file) => file.to_string_lossy(),
        }
    }
}

/// The source of a tree's instructions.
enum Source {
    /// The workload and its stages.
    Program(PathBuf, Vec<String>),
    /// Earlier counts in their order.
    Known(Vec<(String, f64)>),
}

impl Source {
    fn stages(&self) -> Vec<&str> {
        match self {
            Self::Program(_, stages) => stages.iter().map(String::as_str).collect(),
            Self::Known(counts) => counts.iter().map(|(stage, _)| stage.as_str()).collect(),
        }
    }

    fn per_frame(&self, stage: &str) -> anyhow::Result<Option<f64>> {
        match self {
            Self::Program(program, stages) if stages.iter().any(|own| own == stage) => {
                per_frame(program, stage).map(Some)
            }
            Self::Program(..) => Ok(None),
            Self::Known(counts) => {
                let known = counts.iter().find(|(own, _)| own == stage);
                Ok(known.map(|(_, instructions)| *instructions))
            }
        }
    }
}

/// Counts the instructions per frame of the stages whose names begin with one of `only` (all if
/// `only` is empty), in each tree. The counts go into `counts`, even before an error.
///
/// # Errors
/// If a commit does not exist or cannot be built, a record cannot be read, or valgrind fails.
pub fn count(
    trees: &[Tree],
    only: &[String],
    mut progress: impl FnMut(&str),
    counts: &mut Vec<Count>,
) -> anyhow::Result<()> {
    let sources = trees.iter().map(|tree| {
        progress(&format!("preparing {}", tree.name()));
        source(tree)
    });
    let sources: Vec<Source> = sources.collect::<anyhow::Result<_>>()?;
    let mut stages: Vec<&str> = Vec::new();
    for stage in sources.iter().flat_map(Source::stages) {
        if !stages.contains(&stage) {
            stages.push(stage);
        }
    }
    let stages = chosen(stages, |stage| stage, only)?;
    let total = stages.len();
    for (number, stage) in stages.into_iter().enumerate() {
        progress(&format!("{stage} ({} of {total})", number + 1));
        let instructions = sources.iter().map(|source| source.per_frame(stage));
        counts.push(Count {
            instructions: instructions.collect::<anyhow::Result<_>>()?,
            stage: stage.to_owned(),
        });
    }
    Ok(())
}

/// The counts of one stage.
#[derive(Debug, Clone, PartialEq)]
pub struct Count {
    /// The stage's name.
    pub stage: String,
    /// Instructions per frame for each tree; `None` if the tree has no such stage.
    pub instructions: Vec<Option<f64>>,
}

impl Count {
    /// The increase from the first tree to the second in percent; `None` without both counts.
    pub fn difference(&self) -> Option<f64> {
        match self.instructions[..] {
            [Some(before), Some(after)] if before > 0.0 => Some((after / before - 1.0) * 100.0),
            _ => None,
        }
    }
}

/// The outcome of these counts.
pub fn outcome(trees: &[Tree], counts: &[Count]) -> Outcome {
    let compares = trees.len() == 2;
    let mut table = Table::new(
        "instructions per frame, in bursts of 32, of the pipeline alone (callgrind)",
        ["stage"],
    );
    match trees {
        [one] => table.columns.push(one.name().into_owned()),
        _ => {
            table
                .columns
                .extend(trees.iter().map(|tree| tree.name().into_owned()));
            table.columns.push("difference, %".to_owned());
        }
    }
    for count in counts {
        let mut row = vec![count.stage.clone()];
        let shown =
            |one: &Option<f64>| one.map_or_else(|| "–".to_owned(), |one| format!("{one:.2}"));
        row.extend(count.instructions.iter().map(shown));
        if compares {
            let absent = || match count.instructions[..] {
                [None, Some(_)] => "– (new)".to_owned(),
                [Some(_), None] => "– (gone)".to_owned(),
                _ => "–".to_owned(),
            };
            row.push(
                count
                    .difference()
                    .map_or_else(absent, |percent| format!("{percent:+.2}")),
            );
        }
        table.rows.push(row);
    }
    let pair = |count: &Count| -> Value {
        match (&trees, &count.instructions[..]) {
            ([one, other], [before, after]) => json!({
                "stage": count.stage, "from": one.name(), "to": other.name(),
                "from_instructions": before, "to_instructions": after,
                "difference_percent": count.difference(),
            }),
            _ => json!({"stage": count.stage, "ours_instructions": count.instructions.first()}),
        }
    };
    Outcome {
        scenario: if compares { "compare" } else { "instructions" }.to_owned(),
        pairs: counts.iter().map(pair).collect(),
        tables: vec![table],
        charts: Vec::new(),
        rules: Vec::new(),
    }
}

/// The repository of the working directory.
fn repository() -> anyhow::Result<PathBuf> {
    let top = output(&mut git(Path::new("."), &["rev-parse", "--show-toplevel"]))
        .context("commits can only be compared within a checkout of this repository")?;
    Ok(PathBuf::from(top.trim()))
}

fn git(place: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("git");
    command.arg("-C").arg(place).args(arguments);
    command
}

/// Reads the record, or builds the workload and lists its stages.
fn source(tree: &Tree) -> anyhow::Result<Source> {
    let program = match tree {
        Tree::Record(file) => return recorded(file).map(Source::Known),
        Tree::Working => cargo(&repository()?, None)?,
        Tree::Commit(name) => build(&repository()?, name)?,
    };
    let listed = output(&mut Command::new(&program))?;
    let stages = listed.lines().map(str::to_owned).collect();
    Ok(Source::Program(program, stages))
}

/// Reads the counts of one tree that [`outcome`] wrote.
fn recorded(file: &Path) -> anyhow::Result<Vec<(String, f64)>> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let record: Record = serde_json::from_str(&text).with_context(|| {
        format!(
            "{} was not written by bench instructions --save",
            file.display()
        )
    })?;
    let count = |pair: &Value| -> Option<(String, f64)> {
        let stage = pair["stage"].as_str()?.to_owned();
        Some((stage, pair["ours_instructions"].as_f64()?))
    };
    let counts: Vec<_> = record.outcome.pairs.iter().filter_map(count).collect();
    if counts.is_empty() {
        bail!("{} has no instructions of one tree", file.display());
    }
    Ok(counts)
}

/// Builds the workload of a commit; the program stays below the build directory.
fn build(repository: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let commit = output(&mut git(
        repository,
        &[
            "rev-parse",
            "--verify",
            "--quiet",
            "--end-of-options",
            &format!("{name}^{{commit}}"),
        ],
    ))
    .with_context(|| format!("there is no commit {name}"))?;
    let target = repository.join("target/compare").join(commit.trim());
    let built = target.join("release/frame-cost");
    // A commit never changes.
    if built.is_file() {
        return Ok(built);
    }
    let checkout = Checkout::add(repository, commit.trim())?;
    cargo(&checkout.place, Some(&target)).with_context(|| format!("cannot build {name}"))
}

/// A worktree of a commit, removed when dropped.
struct Checkout {
    repository: PathBuf,
    place: PathBuf,
    _directory: TempDir,
}

impl Checkout {
    fn add(repository: &Path, commit: &str) -> anyhow::Result<Self> {
        interrupt::check()?;
        let directory = tempfile::Builder::new().prefix("bench-").tempdir()?;
        let checkout = Self {
            repository: repository.to_owned(),
            place: directory.path().join("tree"),
            _directory: directory,
        };
        let mut command = git(repository, &["worktree", "add", "--quiet", "--detach"]);
        run(command.arg(&checkout.place).arg(commit))?;
        Ok(checkout)
    }
}

impl Drop for Checkout {
    fn drop(&mut self) {
        let mut command = git(&self.repository, &["worktree", "remove", "--force"]);
        let _ = command.arg(&self.place).output();
    }
}

/// Builds the workload in a checkout and returns its path, as cargo reports it.
fn cargo(place: &Path, target: Option<&Path>) -> anyhow::Result<PathBuf> {
    let mut command = Command::new("cargo");
    command.current_dir(place).stderr(Stdio::inherit()).args([
        "build",
        "--release",
        "--quiet",
        "--locked",
        "--package",
        "bench",
        "--bin",
        "frame-cost",
        "--message-format",
        "json-render-diagnostics",
    ]);
    if let Some(target) = target {
        command.env("CARGO_TARGET_DIR", target);
    }
    let output = command
        .output()
        .context("cannot run cargo: scripts/setup installs it")?;
    interrupt::check()?;
    if !output.status.success() {
        bail!("cargo build failed: see the lines above");
    }
    executable(&String::from_utf8_lossy(&output.stdout))
        .context("cargo does not report the path of frame-cost")
}

/// The last program in cargo's messages.
fn executable(messages: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .next_back()
}

/// The slope between the two lengths, minus that of the filling of the buffers.
fn per_frame(program: &Path, stage: &str) -> anyhow::Result<f64> {
    let slope = |baseline: &[&str]| -> anyhow::Result<i64> {
        let few = collected(program, stage, FEW, baseline)?;
        let many = collected(program, stage, MANY, baseline)?;
        Ok(many as i64 - few as i64)
    };
    let instructions = slope(&[])? - slope(&["baseline"])?;
    Ok(instructions as f64 / ((MANY - FEW) as usize * BURST) as f64)
}

/// The instructions of one run.
fn collected(program: &Path, stage: &str, bursts: u64, more: &[&str]) -> anyhow::Result<u64> {
    interrupt::check()?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args([stage, &bursts.to_string()])
        .args(more)
        .output()
        .context("cannot run valgrind: scripts/setup --for bench installs it")?;
    interrupt::check()?;
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{stage}: {}", text.trim());
    }
    parse_collected(&text)
        .with_context(|| format!("callgrind reports no instructions of {stage}: {text}"))
}

/// `==7== Collected : 12345`.
fn parse_collected(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.contains("Collected :"))?;
    line.rsplit_once(':')?
        .1
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callgrind_output_parses_to_instructions() {
        let text = "==71== Callgrind, a call-graph generating cache profiler\n\
            ==71== For interactive control, run 'callgrind_control -h'.\n\
            ==71== \n==71== Events    : Ir\n==71== Collected : 128840021\n==71== \n\
            ==71== I   refs:      128,840,021\n";
        assert_eq!(parse_collected(text), Some(128_840_021));
        assert_eq!(parse_collected("==71== Events    : Ir\n"), None);
        assert_eq!(parse_collected("==71== Collected : \n"), None);
    }

    #[test]
    fn cargo_messages_yield_the_program() {
        let text = "{\"reason\":\"compiler-artifact\",\"executable\":null}\n\
            {\"reason\":\"compiler-artifact\",\"executable\":\"/t/release/frame-cost\"}\n\
            {\"reason\":\"build-finished\",\"success\":true}\n";
        assert_eq!(
            executable(text),
            Some(PathBuf::from("/t/release/frame-cost"))
        );
        assert_eq!(executable(""), None);
    }

    fn count(stage: &str, instructions: &[Option<f64>]) -> Count {
        Count {
            stage: stage.to_owned(),
            instructions: instructions.to_vec(),
        }
    }

    #[test]
    fn two_trees_become_two_columns_and_a_difference() {
        let trees = [Tree::Commit("v1".to_owned()), Tree::Working];
        let counts = [
            count("a", &[Some(200.0), Some(150.0)]),
            count("b", &[None, Some(31.5)]),
            count("c", &[Some(20.0), None]),
        ];
        let outcome = outcome(&trees, &counts);
        assert_eq!(outcome.scenario, "compare");
        assert_eq!(
            outcome.tables[0].columns,
            ["stage", "v1", "working tree", "difference, %"]
        );
        assert_eq!(
            outcome.tables[0].rows,
            [
                ["a", "200.00", "150.00", "-25.00"],
                ["b", "–", "31.50", "– (new)"],
                ["c", "20.00", "–", "– (gone)"],
            ]
        );
        assert_eq!(
            outcome.pairs[0],
            json!({"stage": "a", "from": "v1", "to": "working tree", "from_instructions": 200.0,
                "to_instructions": 150.0, "difference_percent": -25.0})
        );
        assert_eq!(outcome.pairs[1]["from_instructions"], Value::Null);
    }

    #[test]
    fn record_of_one_tree_reads_back() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("counted.json");
        let write = |trees: &[Tree], counts: &[Count]| {
            let record = Record {
                outcome: outcome(trees, counts),
                machine: crate::machine::Machine::inspect(),
                warnings: Vec::new(),
                partial: None,
            };
            std::fs::write(&file, record.to_json().expect("it is JSON")).expect("it is written");
        };
        write(
            &[Tree::Working],
            &[count("a", &[Some(154.0)]), count("b", &[Some(31.5)])],
        );
        let known = recorded(&file).expect("it is read");
        assert_eq!(known, [("a".to_owned(), 154.0), ("b".to_owned(), 31.5)]);
        // Two trees are ambiguous.
        let two = [Tree::Commit("v1".to_owned()), Tree::Working];
        write(&two, &[count("a", &[Some(1.0), Some(2.0)])]);
        let error = recorded(&file).expect_err("it holds two trees").to_string();
        assert!(
            error.ends_with("counted.json has no instructions of one tree"),
            "{error}"
        );
    }

    #[test]
    fn one_tree_becomes_one_column() {
        let outcome = outcome(&[Tree::Working], &[count("a", &[Some(154.03)])]);
        assert_eq!(outcome.scenario, "instructions");
        assert_eq!(outcome.tables[0].columns, ["stage", "working tree"]);
        assert_eq!(outcome.tables[0].rows, [["a", "154.03"]]);
        assert_eq!(
            outcome.pairs,
            [json!({"stage": "a", "ours_instructions": 154.03})]
        );
    }
}
