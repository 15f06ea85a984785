//! The results of scenarios: JSON, tables, charts, pages.

mod page;
mod svg;

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use vswitch_api::table::{self, left, right};

use crate::machine::Machine;

pub use page::{html, markdown};
pub use svg::svg;

/// The result of one scenario, as `--json` prints it and a report shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The scenario's name on the command line.
    pub scenario: String,
    /// One object for each comparison, with the scenario's own keys: `peer`, the varied quantities,
    /// `ours_…`, `peer_…`, `ratio`.
    pub pairs: Vec<Value>,
    /// The same as tables.
    pub tables: Vec<Table>,
    /// The same as charts.
    pub charts: Vec<Chart>,
    /// The configuration of each switch, by its name.
    pub rules: Vec<(String, String)>,
}

impl Outcome {
    /// The outcome of these pairs.
    ///
    /// # Errors
    /// If a pair cannot be written as JSON.
    pub fn new(
        scenario: impl Into<String>,
        pairs: &[impl Serialize],
        table: Table,
        charts: Vec<Chart>,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            scenario: scenario.into(),
            pairs: pairs
                .iter()
                .map(serde_json::to_value)
                .collect::<Result<_, _>>()?,
            tables: vec![table],
            charts,
            rules: Vec::new(),
        })
    }

    /// Appends another outcome of the same scenario: tables and charts with the same title are
    /// joined.
    pub fn append(&mut self, other: Self) {
        self.pairs.extend(other.pairs);
        for table in other.tables {
            let same = |own: &&mut Table| own.title == table.title && own.columns == table.columns;
            match self.tables.iter_mut().find(same) {
                Some(own) => own.rows.extend(table.rows),
                None => self.tables.push(table),
            }
        }
        for chart in other.charts {
            let same = |own: &&mut Chart| own.title == chart.title && own.series == chart.series;
            match self.charts.iter_mut().find(same) {
                Some(own) => own.groups.extend(chart.groups),
                None => self.charts.push(chart),
            }
        }
        for rules in other.rules {
            if !self.rules.contains(&rules) {
                self.rules.push(rules);
            }
        }
    }
}

/// An outcome with its circumstances: `--json` prints it, `--save` writes it and `bench report`
/// reads it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The outcome.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// The machine.
    pub machine: Machine,
    /// What may have distorted the measurement.
    pub warnings: Vec<String>,
    /// The reason of an early end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partial: Option<String>,
}

impl Record {
    /// One object on one line, with figures of four digits.
    ///
    /// # Errors
    /// If it cannot be written as JSON.
    pub fn to_json(&self) -> anyhow::Result<String> {
        Ok(rounded(serde_json::to_value(self)?).to_string())
    }
}

/// The tables, the machine and the warnings.
impl fmt::Display for Record {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(why) = &self.partial {
            writeln!(out, "PARTIAL RESULTS: {why}\n")?;
        }
        for table in &self.outcome.tables {
            writeln!(out, "{table}")?;
        }
        writeln!(out, "{}", self.machine)?;
        for warning in &self.warnings {
            writeln!(out, "warning: {warning}")?;
        }
        Ok(())
    }
}

/// Rows of text under a title. Each row has as many cells as there are columns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// The title, with the unit.
    pub title: String,
    /// The heads of the columns.
    pub columns: Vec<String>,
    /// The rows.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new<const N: usize>(title: impl Into<String>, columns: [&str; N]) -> Self {
        Self {
            title: title.into(),
            columns: columns.map(str::to_owned).to_vec(),
            rows: Vec::new(),
        }
    }

    /// The same table with these rows added.
    pub fn with(mut self, rows: impl IntoIterator<Item = Vec<String>>) -> Self {
        self.rows.extend(rows);
        self
    }

    /// Whether a column holds figures, which are aligned to the right.
    fn is_numeric(&self, column: usize) -> bool {
        let numeric = |cell: &String| {
            cell.starts_with(|first: char| first.is_ascii_digit() || "+-–".contains(first))
        };
        let cells = || self.rows.iter().filter_map(|row| row.get(column));
        cells().all(|cell| cell.is_empty() || numeric(cell)) && cells().any(|cell| !cell.is_empty())
    }
}

/// For a terminal.
impl fmt::Display for Table {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.columns.iter().zip(0..).map(|(head, column)| {
            let align = if self.is_numeric(column) { right } else { left };
            align(head)
        });
        writeln!(out, "{}", self.title)?;
        let table = table::Table::new(columns).with(self.rows.iter().cloned());
        for line in table.to_string().lines() {
            writeln!(out, "  {line}")?;
        }
        Ok(())
    }
}

/// Groups of bars.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Chart {
    /// The title, and whether more or less is better.
    pub title: String,
    /// The unit of the values.
    pub unit: String,
    /// The names of the series, each with a colour.
    pub series: Vec<String>,
    /// Labels, each with a bar for each of the series.
    pub groups: Vec<(String, Vec<Option<Bar>>)>,
}

impl Chart {
    /// Pairs of our value and a peer's, each under a label. A value that is not finite has no bar.
    pub fn beside(
        title: impl Into<String>,
        unit: impl Into<String>,
        groups: impl IntoIterator<Item = (String, [f64; 2])>,
    ) -> Self {
        let bar = |value: f64| value.is_finite().then(|| Bar::exact(value));
        let bars = |values: [f64; 2]| values.map(bar).to_vec();
        Self {
            title: title.into(),
            unit: unit.into(),
            series: ["ours", "peer"].map(str::to_owned).to_vec(),
            groups: groups
                .into_iter()
                .map(|(label, values)| (label, bars(values)))
                .collect(),
        }
    }
}

/// A bar: a median with the minimum and maximum of its values.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bar {
    /// The height.
    pub value: f64,
    /// The minimum.
    pub low: f64,
    /// The maximum.
    pub high: f64,
}

impl Bar {
    /// A bar of a single value.
    pub const fn exact(value: f64) -> Self {
        Self {
            value,
            low: value,
            high: value,
        }
    }
}

/// A figure for a table: three digits, or all digits before the point.
pub fn figure(value: f64) -> String {
    match value.abs() {
        size if !size.is_finite() => "–".to_owned(),
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        size if size >= 0.0995 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// The same for a figure that may be missing.
pub fn figure_or_none(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), figure)
}

/// A median with the minimum and maximum.
pub fn spread(value: f64, [low, high]: [f64; 2]) -> String {
    format!("{} ({}–{})", figure(value), figure(low), figure(high))
}

/// The same value with all fractions rounded to four digits; the others are noise.
fn rounded(value: Value) -> Value {
    match value {
        Value::Number(number) if number.is_f64() => {
            let exact = number.as_f64().unwrap_or(f64::NAN);
            let short = format!("{exact:.3e}").parse::<f64>().unwrap_or(exact);
            Value::from(short)
        }
        Value::Array(values) => values.into_iter().map(rounded).collect(),
        Value::Object(members) => members
            .into_iter()
            .map(|(key, value)| (key, rounded(value)))
            .collect(),
        other => other,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    pub(crate) fn record() -> Record {
        let bar = |value| Bar {
            value,
            low: value - 0.5,
            high: value + 0.25,
        };
        Record {
            outcome: Outcome {
                scenario: "p2p".to_owned(),
                pairs: vec![json!({"peer": "testpmd", "frame": 64, "flows": 1,
                    "ours_mpps": 3.123456, "peer_mpps": 3.5, "ratio": 0.8924, "rounds": 3,
                    "lost_wrong": 0})],
                tables: vec![Table {
                    title: "p2p, Mpps".to_owned(),
                    columns: ["peer", "frame", "ratio"].map(str::to_owned).to_vec(),
                    rows: vec![
                        ["testpmd", "64", "0.89 (0.80–0.95)"]
                            .map(str::to_owned)
                            .to_vec(),
                        ["a <b> & \"c\" | d", "1500", "12.00"]
                            .map(str::to_owned)
                            .to_vec(),
                    ],
                }],
                charts: vec![Chart {
                    title: "p2p <frames> & more".to_owned(),
                    unit: "Mpps".to_owned(),
                    series: vec!["vswitch".to_owned(), "testpmd".to_owned()],
                    groups: vec![
                        ("64 B".to_owned(), vec![Some(bar(3.12)), Some(bar(3.5))]),
                        ("1500 B".to_owned(), vec![Some(bar(2.0)), None]),
                    ],
                }],
                rules: vec![("testpmd".to_owned(), "dpdk-testpmd --a <b>".to_owned())],
            },
            machine: crate::machine::tests::machine(),
            warnings: vec!["the load average is 1.51".to_owned()],
            partial: None,
        }
    }

    #[test]
    fn figures_align_right_and_words_left() {
        assert_eq!(
            record().outcome.tables[0].to_string(),
            "p2p, Mpps\n\
             \x20 peer             frame             ratio\n\
             \x20 testpmd             64  0.89 (0.80–0.95)\n\
             \x20 a <b> & \"c\" | d   1500             12.00\n"
        );
    }

    #[test]
    fn table_without_rows_prints_title_and_heads() {
        let table = Table::new("nothing", ["a", "b"]);
        assert_eq!(table.to_string(), "nothing\n  a  b\n");
    }

    #[test]
    fn figure_has_three_digits() {
        let shown = [0.0, 0.01234, 0.8924, 3.123_456, 12.345, 1234.5, f64::NAN].map(figure);
        assert_eq!(
            shown,
            ["0.00", "0.0123", "0.89", "3.12", "12.3", "1234", "–"].map(str::to_owned)
        );
        assert_eq!(figure_or_none(None), "–");
        assert_eq!(spread(0.9, [0.8, 1.0]), "0.90 (0.80–1.00)");
    }

    #[test]
    fn record_reads_back_from_one_line_of_json() {
        let text = record().to_json().expect("it is JSON");
        assert_eq!(text.lines().count(), 1);
        let value: Value = serde_json::from_str(&text).expect("it is JSON");
        assert_eq!(value["scenario"], "p2p");
        assert_eq!(
            value["pairs"][0],
            json!({"peer": "testpmd", "frame": 64, "flows": 1, "ours_mpps": 3.123,
                "peer_mpps": 3.5, "ratio": 0.8924, "rounds": 3, "lost_wrong": 0})
        );
        assert_eq!(value["machine"]["cpus"], 2);
        assert_eq!(value["warnings"], json!(["the load average is 1.51"]));
        assert_eq!(value.get("partial"), None);
        let mut expected = record();
        expected.outcome.pairs[0]["ours_mpps"] = json!(3.123);
        let again: Record = serde_json::from_str(&text).expect("it is a record");
        assert_eq!(again, expected);
    }

    #[test]
    fn append_joins_tables_and_charts_of_one_title() {
        let mut both = record().outcome;
        let mut other = record().outcome;
        other.tables.push(Table::new("another", ["a"]));
        both.append(other);
        assert_eq!(both.pairs.len(), 2);
        let rows: Vec<_> = both
            .tables
            .iter()
            .map(|table| (table.title.as_str(), table.rows.len()))
            .collect();
        assert_eq!(rows, [("p2p, Mpps", 4), ("another", 0)]);
        assert_eq!((both.charts.len(), both.charts[0].groups.len()), (1, 4));
        assert_eq!(both.rules, record().outcome.rules);
    }

    #[test]
    fn partial_record_says_so_on_its_first_line() {
        let mut record = record();
        record.partial = Some("interrupted".to_owned());
        let shown = record.to_string();
        assert_eq!(shown.lines().next(), Some("PARTIAL RESULTS: interrupted"));
        assert_eq!(
            shown.lines().last(),
            Some("warning: the load average is 1.51")
        );
    }
}
