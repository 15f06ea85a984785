//! `stages`: cycles per frame of the pipeline alone, one kind of frame after the other.

use serde_json::json;

use crate::interrupt;
use crate::report::{Outcome, Table, figure};
use crate::stages::{Scenario, chosen, scenarios};

/// Measures each kind of frame: bursts in turn with the filling of their buffers, which is
/// subtracted.
#[derive(Debug, Clone)]
pub struct Stages {
    /// The beginnings of the stages' names; empty for all.
    pub only: Vec<String>,
    /// The number of rounds for each median.
    pub rounds: usize,
}

impl Stages {
    /// The chosen scenarios in order.
    ///
    /// # Errors
    /// If there is none.
    pub fn chosen(&self) -> anyhow::Result<Vec<Scenario>> {
        chosen(scenarios(), |scenario| &scenario.name, &self.only)
    }

    /// Measures on this thread; `progress` gets each next step. The costs go into `costs`, even
    /// before an error.
    ///
    /// # Errors
    /// If no scenario is chosen, or a signal has arrived.
    pub fn run(&self, mut progress: impl FnMut(&str), costs: &mut Vec<Cost>) -> anyhow::Result<()> {
        for scenario in self.chosen()? {
            interrupt::check()?;
            progress(&scenario.name);
            costs.push(self.cost(&scenario));
        }
        Ok(())
    }

    fn cost(&self, scenario: &Scenario) -> Cost {
        let mut run = scenario.start();
        let mut rounds: Vec<f64> = (0..self.rounds.max(1))
            .map(|_| run.cycles_per_frame())
            .collect();
        rounds.sort_by(f64::total_cmp);
        let quarter = |quarters: usize| rounds[rounds.len() * quarters / 4];
        Cost {
            stage: scenario.name.clone(),
            cycles: quarter(2),
            quartiles: [quarter(1), quarter(3)],
            rounds: rounds.len(),
        }
    }
}

/// Cycles of the time stamp counter per frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Cost {
    /// The stage's name.
    pub stage: String,
    /// The median of the rounds.
    pub cycles: f64,
    /// The first and third quartile of the rounds.
    pub quartiles: [f64; 2],
    /// The number of rounds.
    pub rounds: usize,
}

/// The outcome of these costs.
pub fn outcome(costs: &[Cost]) -> Outcome {
    let mut table = Table::new(
        "stages: TSC cycles per frame, in bursts of 32, in the pipeline alone",
        ["stage", "cycles", "25 %", "75 %"],
    );
    let shown = |cost: &Cost| {
        let [low, high] = cost.quartiles.map(figure);
        vec![cost.stage.clone(), figure(cost.cycles), low, high]
    };
    table.rows = costs.iter().map(shown).collect();
    Outcome {
        scenario: "stages".to_owned(),
        pairs: costs
            .iter()
            .map(|cost| {
                json!({"stage": cost.stage, "ours_cycles": cost.cycles,
                    "ours_cycles_quartiles": cost.quartiles, "rounds": cost.rounds})
            })
            .collect(),
        tables: vec![table],
        charts: Vec::new(),
        rules: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_choose_stages() {
        let stages = |only: &[&str]| Stages {
            only: only.iter().map(|&prefix| prefix.to_owned()).collect(),
            rounds: 1,
        };
        let chosen = stages(&["arp", "drop/src-mac-"])
            .chosen()
            .expect("some are");
        let names: Vec<_> = chosen
            .iter()
            .map(|scenario| scenario.name.as_str())
            .collect();
        assert_eq!(
            names,
            ["arp-answered/2-ports-1-addresses", "drop/src-mac-group"]
        );
        assert!(stages(&["nothing"]).chosen().is_err());
        assert_eq!(
            stages(&[]).chosen().expect("all are").len(),
            scenarios().len()
        );
    }

    #[test]
    fn costs_become_rows_and_pairs() {
        let outcome = outcome(&[Cost {
            stage: "drop/src-mac".to_owned(),
            cycles: 28.46,
            quartiles: [27.0, 31.25],
            rounds: 41,
        }]);
        assert_eq!(
            outcome.tables[0].rows,
            [["drop/src-mac", "28.5", "27.0", "31.2"]]
        );
        assert_eq!(
            outcome.pairs,
            [json!({"stage": "drop/src-mac", "ours_cycles": 28.46,
                "ours_cycles_quartiles": [27.0, 31.25], "rounds": 41})]
        );
    }
}
