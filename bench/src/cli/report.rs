//! `bench report`.

use std::path::PathBuf;

use anyhow::Context;
use bench::report::{Record, html, markdown};

use super::{Failure, write};

/// One page with tables, charts, machine, warnings and rules.
#[derive(Debug, clap::Args)]
pub(crate) struct Report {
    /// Files that `bench run` saved (`--save`) or printed (`--json`), in the order of the page
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The page: HTML if it ends in .html, Markdown with its charts beside it if in .md
    #[arg(long, short, value_name = "PAGE", default_value = "report.html")]
    output: PathBuf,
}

impl Report {
    pub(crate) fn carry_out(self) -> Result<(), Failure> {
        let end = self.output.extension().and_then(|end| end.to_str());
        let is_html = match end {
            Some("html" | "htm") => true,
            Some("md") => false,
            _ => {
                let page = self.output.display();
                return Err(Failure::Usage(format!(
                    "{page}: a page must end in .html or .md"
                )));
            }
        };
        let mut records = Vec::new();
        for file in &self.files {
            let text = std::fs::read_to_string(file)
                .map_err(|error| Failure::Usage(format!("{}: {error}", file.display())))?;
            let found = read(&text).with_context(|| {
                format!("{} was not written by `bench run --save`", file.display())
            });
            records.extend(found.map_err(|error| Failure::Usage(format!("{error:#}")))?);
        }
        if is_html {
            return Ok(write(&self.output, &html(&records))?);
        }
        let (page, charts) = markdown(&records, &self.output.with_extension(""));
        write(&self.output, &page)?;
        for (name, chart) in charts {
            write(&self.output.with_file_name(name), &chart)?;
        }
        Ok(())
    }
}

/// Reads one record, or several in sequence.
fn read(text: &str) -> anyhow::Result<Vec<Record>> {
    let records: Vec<Record> = serde_json::Deserializer::from_str(text)
        .into_iter()
        .collect::<Result<_, _>>()?;
    anyhow::ensure!(!records.is_empty(), "the file is empty");
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_holds_one_record_or_several() {
        let record = r#"{"scenario":"p2p","pairs":[],"tables":[],"charts":[],"rules":[],
            "machine":{"processor":"x","cpus":2,"mhz":null,"governor":null,"virtualised":false,
            "kernel":"6","hugepages":{"total":0,"free":0,"kib":2048},"versions":{},"date":"",
            "commit":null,"command":"bench"},"warnings":[]}"#;
        let scenarios = |text: &str| -> Vec<String> {
            let records = read(text).expect("it is read");
            records
                .into_iter()
                .map(|record| record.outcome.scenario)
                .collect()
        };
        assert_eq!(scenarios(record), ["p2p"]);
        assert_eq!(scenarios(&format!("{record}\n{record}\n")), ["p2p", "p2p"]);
        assert!(read("").is_err());
        assert!(read("{}").is_err());
    }
}
