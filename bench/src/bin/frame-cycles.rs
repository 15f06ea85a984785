//! Cycles of the time stamp counter per frame, of the pipeline alone, scenario by scenario in one run.
//!
//! Each scenario's bursts alternate with the filling of its buffers, which is subtracted. The medians of the rounds
//! are printed, and how far apart the rounds' quartiles were.
//!
//! `frame-cycles [PREFIX...]` takes the scenarios whose names begin so, or all.

use bench::stages::scenarios;

const ROUNDS: usize = 41;
fn main() {
    let prefixes: Vec<String> = std::env::args().skip(1).collect();
    let chosen = |name: &str| {
        prefixes.is_empty()
            || prefixes
                .iter()
                .any(|prefix| name.starts_with(prefix.as_str()))
    };
    println!(
        "{:<44} {:>8} {:>8} {:>8}",
        "scenario", "cycles", "25 %", "75 %"
    );
    for scenario in scenarios().iter().filter(|scenario| chosen(&scenario.name)) {
        let mut run = scenario.start();
        let mut costs: Vec<f64> = (0..ROUNDS).map(|_| run.cycles_per_frame()).collect();
        costs.sort_by(f64::total_cmp);
        let [low, median, high] = [ROUNDS / 4, ROUNDS / 2, ROUNDS * 3 / 4].map(|at| costs[at]);
        println!("{:<44} {median:>8.1} {low:>8.1} {high:>8.1}", scenario.name);
    }
}
