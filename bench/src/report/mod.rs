//! What a scenario came to, in the form that it is shown in.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The result of one scenario. It is what `--json` prints and what a report is made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// As it is called on the command line.
    pub scenario: String,
    /// One object for each comparison, in the scenario's own words: `peer`, what was varied, `ours_…`, `peer_…`, `ratio`.
    pub pairs: Vec<Value>,
    /// The same for people.
    pub tables: Vec<Table>,
    /// The same to look at.
    pub charts: Vec<Chart>,
    /// What each peer was told to do, by its name.
    pub rules: Vec<(String, String)>,
}

/// Rows of text under a title. All rows have as many cells as there are columns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// What it is about, with the unit.
    pub title: String,
    /// The columns' heads.
    pub columns: Vec<String>,
    /// The rows.
    pub rows: Vec<Vec<String>>,
}

/// Groups of bars.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Chart {
    /// What it is about.
    pub title: String,
    /// Of the values.
    pub unit: String,
    /// One colour each, as a switch's name.
    pub series: Vec<String>,
    /// A label, and a bar for each of the series.
    pub groups: Vec<(String, Vec<Option<Bar>>)>,
}

/// One bar, and the least and the most of what it is the median of.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bar {
    /// Its height.
    pub value: f64,
    /// The least.
    pub low: f64,
    /// The most.
    pub high: f64,
}

impl Bar {
    /// A bar that is the median of nothing but itself.
    pub const fn exact(value: f64) -> Self {
        Self {
            value,
            low: value,
            high: value,
        }
    }
}
