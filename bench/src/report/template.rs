//! Fills in a Markdown template: each fenced block with a query becomes what the query returns.
//!
//! * `sql`: a table; the names of the columns are the headings.
//! * `lines`: one line of text for each row.
//! * `plots`: distributions. The columns are file, title, axis, name of a line and value; one file for each plot.
//!
//! A line `---` or a heading begins a new passage. A passage is left out if it has tables and all of them are empty.

use std::path::Path;

use anyhow::{Context, Result};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};

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
        if let Some(kind) = line.strip_prefix("```") {
            let query: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            let query = query.join("\n");
            passage.add(kind, database, &query, plots).context(query)?;
        } else if line != "---" {
            passage.text += &format!("{line}\n");
        }
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
    has_tables: bool,
    has_rows: bool,
}

impl Passage {
    fn add(&mut self, kind: &str, data: &Connection, query: &str, plots: &Path) -> Result<()> {
        self.text += &match kind {
            "sql" => {
                let table = table(data, query)?;
                self.has_tables = true;
                self.has_rows |= !table.is_empty();
                table
            }
            "lines" => rows(data, query, |row| Ok(row.get::<_, String>(0)? + "\n"))?.concat(),
            "plots" => draw(data, query, plots)?,
            _ => anyhow::bail!("there are no blocks of kind {kind}"),
        };
        Ok(())
    }

    fn finish(self) -> String {
        if self.has_tables && !self.has_rows { String::new() } else { self.text }
    }
}

fn rows<T>(
    database: &Connection,
    query: &str,
    row: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>> {
    Ok(database.prepare(query)?.query_map([], row)?.collect::<rusqlite::Result<_>>()?)
}

/// Returns a table; no text if it would have no rows.
fn table(database: &Connection, query: &str) -> Result<String> {
    let statement = database.prepare(query)?;
    let headings: Vec<&str> = statement.column_names().collect();
    let cell = |value: ValueRef<'_>| match value {
        ValueRef::Real(value) => value.to_string(),
        ValueRef::Integer(value) => value.to_string(),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
        ValueRef::Null | ValueRef::Blob(_) => String::new(),
    };
    let rows = rows(database, query, |row| {
        let cells = (0..headings.len()).map(|column| Ok(cell(row.get_ref(column)?)));
        Ok(format!("| {} |\n", cells.collect::<rusqlite::Result<Vec<_>>>()?.join(" | ")))
    })?;
    if rows.is_empty() {
        return Ok(String::new());
    }
    let rule = "|---".repeat(headings.len());
    Ok(format!("| {} |\n{rule}|\n{}", headings.join(" | "), rows.concat()))
}

/// Draws the plots, and returns the Markdown that shows them. Rows of one plot, and of one line, lie together.
fn draw(database: &Connection, query: &str, folder: &Path) -> Result<String> {
    let text = |row: &Row<'_>, column: usize| row.get::<_, String>(column);
    let rows = rows(database, query, |row| {
        let plot = (text(row, 0)?, text(row, 1)?, text(row, 2)?);
        Ok((plot, text(row, 3)?, row.get::<_, f64>(4)?))
    })?;
    let mut shown = String::new();
    for plot in rows.chunk_by(|a, b| a.0 == b.0) {
        let (file, title, axis) = &plot[0].0;
        let line = |rows: &[(_, String, f64)]| Line {
            name: rows[0].1.clone(),
            values: rows.iter().map(|row| row.2).collect(),
        };
        let lines: Vec<Line> = plot.chunk_by(|a, b| a.1 == b.1).map(line).collect();
        let path = folder.join(format!("{file}.svg"));
        plot::draw(&path, axis, &lines).with_context(|| format!("cannot draw {file}"))?;
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        shown += &format!("![{title}]({name}/{file}.svg)\n\n");
    }
    Ok(shown)
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
