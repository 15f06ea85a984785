//! `bench compare` and `bench instructions`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::anyhow;
use bench::compare::{Count, Tree, count, outcome};
use bench::machine::{Needs, missing};

use super::{Failure, Progress, Show, require_nothing};

/// Two trees side by side: `bench compare v1 HEAD`, `bench compare HEAD` (with the working tree).
#[derive(Debug, clap::Args)]
pub(crate) struct Compare {
    /// A commit by any of its names; `.` is the working tree; a file is one that
    /// `bench instructions --save` wrote
    #[arg(value_name = "A")]
    from: String,
    /// Another, to compare with A
    #[arg(value_name = "B", default_value = ".")]
    to: String,
    /// Fail if B takes more than this many percent more than A for a stage
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
    /// Stages whose names begin with this; `bench list` shows all names
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
            Some(percent) => Ok(check_limit(&counts, percent)?),
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

/// Fails if a stage became more expensive by more than that, or if the trees have no stage in
/// common.
fn check_limit(counts: &[Count], percent: f64) -> anyhow::Result<()> {
    let known = counts
        .iter()
        .filter_map(|count| Some((&count.stage, count.difference()?)));
    let above: Vec<String> = known
        .clone()
        .filter(|(_, more)| *more > percent)
        .map(|(stage, more)| format!("{stage} takes {more:.1} % more"))
        .collect();
    match (known.count(), above.is_empty()) {
        (0, _) => Err(anyhow!("the two have no stage in common")),
        (_, true) => Ok(()),
        (_, false) => Err(anyhow!(
            "above the limit of {percent} %: {}",
            above.join(", ")
        )),
    }
}

impl What {
    fn count(&self, name: &str, trees: &[Tree]) -> Result<Vec<Count>, Failure> {
        require_nothing(missing(Needs::default(), &["valgrind", "git", "cargo"]))?;
        let mut progress = Progress::new(name, 0, Duration::ZERO);
        let mut counts = Vec::new();
        // Other programs slow the count down, but do not change it.
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
    fn stage_above_the_limit_fails() {
        let counts = [
            count("a", [Some(100.0), Some(104.0)]),
            count("b", [Some(100.0), Some(112.0)]),
            count("c", [None, Some(9.0)]),
        ];
        assert!(check_limit(&counts, 12.5).is_ok());
        let error = check_limit(&counts, 5.0)
            .expect_err("b is above")
            .to_string();
        assert_eq!(error, "above the limit of 5 %: b takes 12.0 % more");
        assert!(
            check_limit(&counts[2..], 5.0).is_err(),
            "nothing was compared"
        );
    }

    #[test]
    fn argument_names_working_tree_commit_or_record() {
        assert_eq!(tree(".".to_owned()), Tree::Working);
        assert_eq!(tree("HEAD~1".to_owned()), Tree::Commit("HEAD~1".to_owned()));
        assert_eq!(tree("a.json".to_owned()), Tree::Record("a.json".into()));
    }
}
