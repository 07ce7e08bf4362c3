//! Fills in a Markdown template: each fenced block with a query becomes what the query returns.
//!
//! * `sql`: a table; the names of the columns are the headings.
//! * `lines`: one line of text for each row.
//! * `plots`: distributions. The columns are file, title, axis, name of a line and value; one file for each plot.
//!
//! A line `---` or a heading begins a new passage. A passage is left out if it has tables and all of them are empty.

use std::path::Path;

use anyhow::{Context, Result};
use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::plot::{self, Line};

/// Fills in a template. Plots are drawn into a folder; their links begin with the folder's name.
pub fn fill(template: &str, database: &Connection, plots: &Path) -> Result<String> {
    let mut report = String::new();
    let mut passage = Passage::default();
    let mut lines = template.lines();
    while let Some(line) = lines.next() {
        if line == "---" || line.starts_with('#') {
            report += &std::mem::take(&mut passage).finish();
        }
        let Some(kind) = line.strip_prefix("```") else {
            passage.text += if line == "---" { "" } else { line };
            passage.text.push('\n');
            continue;
        };
        let query: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        let query = query.join("\n");
        passage
            .add(kind, &rows(database, &query).with_context(|| query.clone())?, plots)
            .with_context(|| query.clone())?;
    }
    report += &passage.finish();
    // Blocks without any rows leave blank lines behind.
    while report.contains("\n\n\n") {
        report = report.replace("\n\n\n", "\n\n");
    }
    Ok(report.trim().to_owned() + "\n")
}

#[derive(Default)]
struct Passage {
    text: String,
    tables: usize,
    filled: usize,
}

impl Passage {
    fn add(&mut self, kind: &str, (headings, rows): &Rows, plots: &Path) -> Result<()> {
        match kind {
            "sql" => {
                self.tables += 1;
                self.filled += usize::from(!rows.is_empty());
                if !rows.is_empty() {
                    self.text += &table(headings, rows);
                }
            }
            "lines" => rows.iter().for_each(|row| self.text += &format!("{}\n", row[0].text)),
            "plots" => self.text += &draw(rows, plots)?,
            _ => anyhow::bail!("there are no blocks of kind {kind}"),
        }
        Ok(())
    }

    fn finish(self) -> String {
        if self.tables > 0 && self.filled == 0 { String::new() } else { self.text }
    }
}

/// A value, and its text in a table.
struct Cell {
    text: String,
    value: f64,
}

type Rows = (Vec<String>, Vec<Vec<Cell>>);

fn rows(database: &Connection, query: &str) -> Result<Rows> {
    let mut statement = database.prepare(query)?;
    let headings: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let row = |row: &rusqlite::Row<'_>| {
        let cell = |column| {
            Ok(match row.get_ref(column)? {
                ValueRef::Real(value) => Cell { text: value.to_string(), value },
                ValueRef::Integer(value) => Cell { text: value.to_string(), value: value as f64 },
                ValueRef::Text(text) => {
                    Cell { text: String::from_utf8_lossy(text).into_owned(), value: f64::NAN }
                }
                ValueRef::Null | ValueRef::Blob(_) => Cell { text: String::new(), value: f64::NAN },
            })
        };
        (0..headings.len()).map(cell).collect::<rusqlite::Result<Vec<_>>>()
    };
    let rows = statement.query_map([], row)?.collect::<rusqlite::Result<_>>()?;
    Ok((headings, rows))
}

fn table(headings: &[String], rows: &[Vec<Cell>]) -> String {
    let line = |cells: Vec<&str>| format!("| {} |\n", cells.join(" | "));
    let mut text = line(headings.iter().map(String::as_str).collect());
    text += &("|---".repeat(headings.len()) + "|\n");
    for row in rows {
        text += &line(row.iter().map(|cell| cell.text.as_str()).collect());
    }
    text
}

/// Draws the plots, and returns the Markdown that shows them. Rows of one plot, and of one line, lie together.
fn draw(rows: &[Vec<Cell>], folder: &Path) -> Result<String> {
    let mut text = String::new();
    for plot in rows.chunk_by(|a, b| a[0].text == b[0].text) {
        let [file, title, axis, ..] = &plot[0][..] else {
            anyhow::bail!("a plot has five columns")
        };
        let lines: Vec<Line> = plot
            .chunk_by(|a, b| a[3].text == b[3].text)
            .map(|rows| Line {
                name: rows[0][3].text.clone(),
                values: rows.iter().map(|row| row[4].value).collect(),
            })
            .collect();
        plot::draw(&folder.join(format!("{}.svg", file.text)), &axis.text, &lines)?;
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        text += &format!("![{}]({name}/{}.svg)\n\n", title.text, file.text);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(template: &str) -> String {
        let database = Connection::open_in_memory().unwrap();
        fill(template, &database, Path::new("plots")).unwrap()
    }

    #[test]
    fn a_block_becomes_a_table_and_a_passage_without_rows_is_left_out() {
        let template = "# A\n\nfirst\n\n```sql\nSELECT 1 AS one, 'x' AS \"\"\n```\n\n---\n\nsecond\n\n```sql\nSELECT 1 WHERE 0\n```\n\n\
                        ## B\n\nthird\n";
        assert_eq!(
            filled(template),
            "# A\n\nfirst\n\n| one |  |\n|---|---|\n| 1 | x |\n\n## B\n\nthird\n"
        );
    }

    #[test]
    fn lines_follow_one_another() {
        let template =
            "```lines\nSELECT 'a' UNION ALL SELECT 'b'\n```\n```lines\nSELECT 'c'\n```\n";
        assert_eq!(filled(template), "a\nb\nc\n");
    }

    #[test]
    fn a_wrong_query_is_named() {
        let database = Connection::open_in_memory().unwrap();
        let error = fill("```sql\nSELECT x\n```", &database, Path::new("plots")).unwrap_err();
        assert!(format!("{error:#}").starts_with("SELECT x: "), "{error:#}");
    }
}
