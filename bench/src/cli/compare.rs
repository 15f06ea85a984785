//! `bench compare` and `bench instructions`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::anyhow;
use bench::compare::{Count, Tree, count, outcome};
use bench::machine::{Needs, missing};

use super::{Failure, Progress, Show, able};

/// Two trees side by side: `bench compare v1 HEAD`, `bench compare HEAD` (with the working tree).
#[derive(Debug, clap::Args)]
pub(crate) struct Compare {
    /// A commit, as git calls it; `.` is the working tree; a file is what `bench instructions --save` wrote
    #[arg(value_name = "A")]
    from: String,
    /// Another
    #[arg(value_name = "B", default_value = ".")]
    to: String,
    /// Fail if B takes so many percent more than A for a stage
    #[arg(long, value_name = "PERCENT")]
    at_most: Option<f64>,
    #[command(flatten)]
    what: What,
}

/// The working tree alone.
#[derive(Debug, clap::Args)]
pub(crate) struct Instructions {
    #[command(flatten)]
    what: What,
}

#[derive(Debug, clap::Args)]
struct What {
    /// Stages whose names begin so; `bench list` names all
    #[arg(value_name = "STAGE")]
    stages: Vec<String>,
    #[command(flatten)]
    show: Show,
}

impl Compare {
    pub(crate) fn carry_out(self) -> Result<(), Failure> {
        let trees = [tree(self.from), tree(self.to)];
        let counts = self.what.count("compare", &trees)?;
        match self.at_most {
            Some(percent) => Ok(hold(&counts, percent)?),
            None => Ok(()),
        }
    }
}

impl Instructions {
    pub(crate) fn carry_out(self) -> Result<(), Failure> {
        self.what.count("instructions", &[Tree::Working]).map(drop)
    }
}

fn tree(name: String) -> Tree {
    match name.as_str() {
        "." => Tree::Working,
        file if Path::new(file).is_file() || file.ends_with(".json") => {
            Tree::Record(PathBuf::from(name))
        }
        _ => Tree::Commit(name),
    }
}

/// Fails if a stage became dearer by more than that, or if none is in both trees.
fn hold(counts: &[Count], percent: f64) -> anyhow::Result<()> {
    let known = counts
        .iter()
        .filter_map(|count| Some((&count.stage, count.difference()?)));
    let dearer: Vec<String> = known
        .clone()
        .filter(|(_, more)| *more > percent)
        .map(|(stage, more)| format!("{stage} takes {more:.1} % more"))
        .collect();
    match (known.count(), dearer.is_empty()) {
        (0, _) => Err(anyhow!("the two have no stage in common")),
        (_, true) => Ok(()),
        (_, false) => Err(anyhow!(
            "more than {percent} % dearer: {}",
            dearer.join(", ")
        )),
    }
}

impl What {
    fn count(&self, name: &str, trees: &[Tree]) -> Result<Vec<Count>, Failure> {
        able(missing(Needs::default(), &["valgrind", "git", "cargo"]))?;
        let mut progress = Progress::new(name, 0, Duration::ZERO);
        let mut counts = Vec::new();
        // What else runs here makes it slower, and changes no count.
        self.show.around(&[], || {
            let done = count(trees, &self.stages, |what| progress.step(what), &mut counts);
            ((!counts.is_empty()).then(|| outcome(trees, &counts)), done)
        })?;
        Ok(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(stage: &str, instructions: [Option<f64>; 2]) -> Count {
        Count {
            stage: stage.to_owned(),
            instructions: instructions.to_vec(),
        }
    }

    #[test]
    fn what_became_dearer_fails() {
        let counts = [
            count("a", [Some(100.0), Some(104.0)]),
            count("b", [Some(100.0), Some(112.0)]),
            count("c", [None, Some(9.0)]),
        ];
        assert!(hold(&counts, 12.5).is_ok());
        let error = hold(&counts, 5.0).expect_err("b is dearer").to_string();
        assert_eq!(error, "more than 5 % dearer: b takes 12.0 % more");
        assert!(hold(&counts[2..], 5.0).is_err(), "nothing was compared");
    }

    #[test]
    fn trees_are_told_apart_by_their_names() {
        assert_eq!(tree(".".to_owned()), Tree::Working);
        assert_eq!(tree("HEAD~1".to_owned()), Tree::Commit("HEAD~1".to_owned()));
        assert_eq!(tree("a.json".to_owned()), Tree::Record("a.json".into()));
    }
}
