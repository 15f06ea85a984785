//! `scale`: what a frame costs in the pipeline, the more its switch has to know.

use serde::Serialize;

use super::{Settings, ends, median};
use crate::report::{Bar, Chart, Outcome, Table};
use crate::stages::{self, Run, Scale};

/// One size.
#[derive(Debug, Clone, Serialize)]
struct Row {
    dimension: &'static str,
    count: u32,
    /// Of the time stamp counter, for each frame in a burst of 32; the harness's own are taken off.
    cycles: f64,
    low: f64,
    high: f64,
    /// By the smallest size's.
    ratio: f64,
    rounds: usize,
}

/// Measures all sizes by turns, so that what disturbs disturbs all.
///
/// # Errors
/// None as yet.
pub fn run(settings: &Settings, progress: &mut dyn FnMut(&str)) -> anyhow::Result<Outcome> {
    /// Looks at each size in a round.
    const LOOKS: u32 = 7;
    let sizes = stages::scale();
    let mut runs: Vec<Run> = Vec::new();
    for (nth, size) in sizes.iter().enumerate() {
        progress(&format!(
            "building {} of {}: {} {}",
            nth + 1,
            sizes.len(),
            size.count,
            size.dimension
        ));
        runs.push(size.scenario.start());
    }
    let mut costs = vec![Vec::new(); sizes.len()];
    for round in 1..=settings.rounds {
        progress(&format!("round {round} of {}", settings.rounds));
        for _ in 0..LOOKS {
            for (run, costs) in runs.iter_mut().zip(&mut costs) {
                costs.push(run.cycles_per_frame());
            }
        }
    }
    let rows: Vec<Row> = rows(&sizes, &costs);
    outcome(&rows)
}

fn rows(sizes: &[Scale], costs: &[Vec<f64>]) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for (size, costs) in sizes.iter().zip(costs) {
        let cycles = median(costs.iter().copied()).unwrap_or(f64::NAN);
        let smallest = rows
            .iter()
            .find(|row| row.dimension == size.dimension)
            .map_or(cycles, |row| row.cycles);
        let [low, high] = ends(costs.iter().copied());
        rows.push(Row {
            dimension: size.dimension,
            count: size.count,
            cycles,
            low,
            high,
            ratio: cycles / smallest,
            rounds: costs.len(),
        });
    }
    rows
}

fn outcome(rows: &[Row]) -> anyhow::Result<Outcome> {
    let row = |row: &Row| {
        vec![
            row.dimension.to_owned(),
            row.count.to_string(),
            format!("{:.1}", row.cycles),
            format!("{:.1}–{:.1}", row.low, row.high),
            format!("{:.2}", row.ratio),
        ]
    };
    let table = Table::new(
        "Cycles per frame in the pipeline: filter, route, tunnel",
        [
            "of what",
            "how many",
            "cycles",
            "least–most",
            "by the smallest",
        ],
    );
    let bar = |row: &Row| {
        let Row {
            cycles: value,
            low,
            high,
            ..
        } = *row;
        (row.count.to_string(), vec![Some(Bar { value, low, high })])
    };
    let of_dimension = |rows: &[Row]| Chart {
        title: format!(
            "Cost by the number of {}, less is better",
            rows[0].dimension
        ),
        unit: "cycles per frame".to_owned(),
        series: vec!["ours".to_owned()],
        groups: rows.iter().map(bar).collect(),
    };
    let charts = rows
        .chunk_by(|one, next| one.dimension == next.dimension)
        .map(of_dimension)
        .collect();
    Outcome::new("scale", rows, table.with(rows.iter().map(row)), charts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_dimension_is_held_against_its_own_smallest() {
        let sizes = stages::scale();
        let costs: Vec<Vec<f64>> = (1..=sizes.len())
            .map(|nth| vec![nth as f64, nth as f64 * 3.0, nth as f64 * 2.0])
            .collect();
        let rows = rows(&sizes, &costs);
        assert_eq!((rows[0].dimension, rows[0].count), ("ports", 1));
        assert_eq!((rows[1].cycles, rows[1].low, rows[1].high), (4.0, 2.0, 6.0));
        assert_eq!(rows[1].ratio, 2.0);
        let first = rows
            .iter()
            .find(|row| row.dimension == "routes")
            .expect("there are routes");
        assert_eq!(first.ratio, 1.0);
    }
}
