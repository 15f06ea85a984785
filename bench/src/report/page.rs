//! A page of several outcomes.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::svg::{escaped, svg};
use super::{Record, Table};
use crate::machine::Machine;

const STYLE: &str = "body{font:15px/1.5 sans-serif;max-width:72em;margin:2em auto;padding:0 1em;\
color:#222;background:#fff}\
table{border-collapse:collapse;margin:1em 0;font-size:14px}\
caption{text-align:left;font-weight:bold;padding:.3em 0}\
th,td{padding:.2em .7em;border-bottom:1px solid #ddd;text-align:left}\
.figure{text-align:right;font-variant-numeric:tabular-nums}\
svg{max-width:100%;height:auto}pre{overflow-x:auto;background:#f6f6f6;padding:.7em}\
.warning{background:#fff3cd;padding:.4em .7em;margin:.3em 0}";

/// A self-contained HTML page.
pub fn html(records: &[Record]) -> String {
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <title>Benchmarks</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>Benchmarks</h1>\n"
    );
    for record in records {
        html_record(&mut out, record);
    }
    out.push_str("</body>\n</html>\n");
    out
}

fn html_record(out: &mut String, record: &Record) {
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    line(format!("<h2>{}</h2>", escaped(&record.outcome.scenario)));
    if let Some(why) = &record.partial {
        line(format!(
            "<p class=\"warning\">Partial results: {}</p>",
            escaped(why)
        ));
    }
    for warning in &record.warnings {
        line(format!(
            "<p class=\"warning\">Warning: {}</p>",
            escaped(warning)
        ));
    }
    for table in &record.outcome.tables {
        line(html_table(table));
    }
    for chart in &record.outcome.charts {
        line(svg(chart));
    }
    line("<details>\n<summary>Machine</summary>\n<table>".to_owned());
    for (what, value) in record.machine.facts() {
        line(format!(
            "<tr><th>{}</th><td>{}</td></tr>",
            escaped(&what),
            escaped(&value)
        ));
    }
    line("</table>\n</details>".to_owned());
    if !record.outcome.rules.is_empty() {
        line("<details>\n<summary>Configuration of each switch</summary>".to_owned());
        for (name, rules) in &record.outcome.rules {
            line(format!(
                "<h3>{}</h3>\n<pre>{}</pre>",
                escaped(name),
                escaped(rules)
            ));
        }
        line("</details>".to_owned());
    }
}

fn html_table(table: &Table) -> String {
    let row = |cells: &[String], tag: &str| {
        let cells: String = cells
            .iter()
            .enumerate()
            .map(|(column, cell)| {
                let class = if table.is_numeric(column) {
                    " class=\"figure\""
                } else {
                    ""
                };
                format!("<{tag}{class}>{}</{tag}>", escaped(cell))
            })
            .collect();
        format!("<tr>{cells}</tr>\n")
    };
    let head = row(&table.columns, "th");
    let rows: String = table.rows.iter().map(|cells| row(cells, "td")).collect();
    format!(
        "<table>\n<caption>{}</caption>\n{head}{rows}</table>",
        escaped(&table.title)
    )
}

/// A Markdown page, and the charts beside it: each a path relative to the page and a content.
///
/// `stem` is the page's own path without its extension.
pub fn markdown(records: &[Record], stem: &Path) -> (String, Vec<(PathBuf, String)>) {
    let mut out = String::from("# Benchmarks\n");
    let mut charts = Vec::new();
    let stem = stem
        .file_name()
        .unwrap_or(stem.as_os_str())
        .to_string_lossy();
    for (number, record) in records.iter().enumerate() {
        let mut line = |text: std::fmt::Arguments<'_>| {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{text}");
        };
        line(format_args!("\n## {}", record.outcome.scenario));
        if let Some(why) = &record.partial {
            line(format_args!("\n**Partial results:** {why}"));
        }
        for warning in &record.warnings {
            line(format_args!("\n> **Warning:** {warning}"));
        }
        for table in &record.outcome.tables {
            line(format_args!("\n{}", markdown_table(table)));
        }
        for (index, chart) in record.outcome.charts.iter().enumerate() {
            let name = format!(
                "{stem}-{}-{}-{}.svg",
                number + 1,
                record.outcome.scenario,
                index + 1
            );
            line(format_args!(
                "\n![{}]({name})",
                chart.title.replace(['[', ']'], "")
            ));
            charts.push((PathBuf::from(name), svg(chart)));
        }
        line(format_args!(
            "\n<details><summary>Machine</summary>\n\n{}\n</details>",
            markdown_facts(&record.machine)
        ));
        if !record.outcome.rules.is_empty() {
            line(format_args!(
                "\n<details><summary>Configuration of each switch</summary>\n"
            ));
            for (name, rules) in &record.outcome.rules {
                line(format_args!("### {name}\n```\n{}\n```\n", rules.trim_end()));
            }
            line(format_args!("</details>"));
        }
    }
    (out, charts)
}

fn markdown_table(table: &Table) -> String {
    let row = |cells: &[String]| {
        let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let ruler: Vec<&str> = (0..table.columns.len())
        .map(|column| {
            if table.is_numeric(column) {
                "---:"
            } else {
                "---"
            }
        })
        .collect();
    let rows: String = table.rows.iter().map(|cells| row(cells)).collect();
    format!(
        "{}\n\n{}|{}|\n{rows}",
        table.title,
        row(&table.columns),
        ruler.join("|")
    )
}

fn markdown_facts(machine: &Machine) -> String {
    let facts = machine.facts();
    facts
        .iter()
        .map(|(what, value)| format!("- {what}: {value}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::svg::tests::texts_of;
    use super::super::tests::record;
    use super::*;

    #[test]
    fn html_page_is_well_formed_and_complete() {
        let mut record = record();
        record.partial = Some("interrupted".to_owned());
        let page = html(&[record.clone(), record]);
        let texts = texts_of(&page, &[]);
        let expected = [
            "Partial results: interrupted",
            "Warning: the load average is 1.51",
            "p2p, Mpps",
            "0.89 (0.80–0.95)",
            "a &lt;b&gt; &amp; &quot;c&quot; | d",
            "3.12 (2.62–3.37)",
            "An Example CPU",
            "Configuration of each switch",
            "dpdk-testpmd --a &lt;b&gt;",
        ];
        for text in expected {
            let found = texts.iter().filter(|found| *found == text).count();
            assert_eq!(found, 2, "{text}");
        }
    }

    #[test]
    fn markdown_page_has_its_charts_beside_it() {
        let (page, charts) = markdown(&[record()], Path::new("out/report"));
        assert_eq!(charts.len(), 1);
        assert_eq!(
            charts[0],
            (
                PathBuf::from("report-1-p2p-1.svg"),
                svg(&record().outcome.charts[0])
            )
        );
        let expected = "\n## p2p\n\n> **Warning:** the load average is 1.51\n\np2p, Mpps\n\n\
            | peer | frame | ratio |\n|---|---:|---:|\n| testpmd | 64 | 0.89 (0.80–0.95) |\n\
            | a <b> & \"c\" \\| d | 1500 | 12.00 |\n\n\n\
            ![p2p <frames> & more](report-1-p2p-1.svg)\n\n<details><summary>Machine</summary>\n";
        assert!(page.contains(expected), "{page}");
        assert!(
            page.contains("### testpmd\n```\ndpdk-testpmd --a <b>\n```\n"),
            "{page}"
        );
    }
}
