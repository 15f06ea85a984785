//! `scale`: the cost of a frame in the pipeline by the size of the switch's configuration.

use serde::Serialize;

use super::{Settings, extremes, median};
use crate::report::{Bar, Chart, Outcome, Table};
use crate::stages::{self, Run, Scale};

/// The result for one size.
#[derive(Debug, Clone, Serialize)]
struct Row {
    dimension: &'static str,
    count: u32,
    /// Cycles of the time stamp counter per frame in a burst of 32, without the harness.
    cycles: f64,
    low: f64,
    high: f64,
    /// The cycles divided by those of the smallest size.
    ratio: f64,
    rounds: usize,
}

/// Measures all sizes in turn, so that a disturbance affects all of them.
///
/// # Errors
/// If a result cannot be written as JSON.
pub fn run(settings: &Settings, progress: &mut dyn FnMut(&str)) -> anyhow::Result<Outcome> {
    /// Measurements of each size in a round.
    const REPEATS: u32 = 7;
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
        for _ in 0..REPEATS {
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
        let [low, high] = extremes(costs.iter().copied());
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
            "dimension",
            "size",
            "cycles",
            "min–max",
            "relative to smallest",
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
    fn ratio_is_relative_to_the_smallest_size_of_the_dimension() {
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
