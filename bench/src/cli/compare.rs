//! `bench compare` and `bench instructions`.

use std::time::Duration;

use bench::compare::{Tree, count, outcome};
use bench::machine::{Needs, missing};

use super::{Failure, Progress, Show, able};

/// Two trees side by side: `bench compare v1 HEAD`, `bench compare HEAD` (with the working tree).
#[derive(Debug, clap::Args)]
pub(crate) struct Compare {
    /// A commit, as git calls it; `.` is the working tree
    #[arg(value_name = "A")]
    from: String,
    /// Another
    #[arg(value_name = "B", default_value = ".")]
    to: String,
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
        self.what
            .count("compare", &[tree(self.from), tree(self.to)])
    }
}

impl Instructions {
    pub(crate) fn carry_out(self) -> Result<(), Failure> {
        self.what.count("instructions", &[Tree::Working])
    }
}

fn tree(name: String) -> Tree {
    match name.as_str() {
        "." => Tree::Working,
        _ => Tree::Commit(name),
    }
}

impl What {
    fn count(&self, name: &str, trees: &[Tree]) -> Result<(), Failure> {
        able(missing(Needs::default(), &["valgrind", "git", "cargo"]))?;
        let mut progress = Progress::new(name, 0, Duration::ZERO);
        // What else runs here makes it slower, and changes no count.
        self.show.around(&[], || {
            let mut counts = Vec::new();
            let done = count(trees, &self.stages, |what| progress.step(what), &mut counts);
            ((!counts.is_empty()).then(|| outcome(trees, &counts)), done)
        })
    }
}
