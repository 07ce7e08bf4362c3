//! The raw results as a database in memory: the tables and views of report/schema.sql, and functions for figures.

use std::path::Path;

use anyhow::{Context, Result};
use rusqlite::functions::{self, Aggregate, FunctionFlags};
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};
use walkdir::WalkDir;

use super::numbers;

/// Makes a database of all results: each file `PART/NAME.csv` of the folder is added to the table NAME.
pub fn open(folder: &Path) -> Result<Connection> {
    let database = Connection::open_in_memory()?;
    add_functions(&database)?;
    database.execute_batch(include_str!("../../report/schema.sql"))?;
    database.execute_batch("BEGIN")?;
    for file in WalkDir::new(folder).sort_by_file_name() {
        let file = file.with_context(|| format!("there are no results in {}", folder.display()))?;
        if file.path().extension() == Some("csv".as_ref()) {
            add(&database, file.path()).with_context(|| format!("cannot read {file:?}"))?;
        }
    }
    database.execute_batch("COMMIT")?;
    Ok(database)
}

fn add(database: &Connection, file: &Path) -> Result<()> {
    let table = file.file_stem().unwrap_or_default().to_string_lossy();
    let mut reader = csv::Reader::from_path(file)?;
    let columns: Vec<String> = reader.headers()?.iter().map(|name| format!("\"{name}\"")).collect();
    let places = vec!["?"; columns.len()].join(",");
    let insert = format!("INSERT INTO \"{table}\" ({}) VALUES ({places})", columns.join(","));
    let mut insert = database.prepare(&insert)?;
    for record in reader.records() {
        // The column's type makes a number of the text, except of this one. An empty field is a missing value.
        let value = |field: &str| match field {
            "" => Value::Null,
            "inf" => f64::INFINITY.into(),
            _ => field.to_owned().into(),
        };
        insert.execute(params_from_iter(record?.iter().map(value)))?;
    }
    Ok(())
}

/// `quantile(value, share)`, `median(value)`, `spread(value, unit)` and `told(value, unit)`: see [`numbers`].
fn add_functions(database: &Connection) -> Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    database.create_scalar_function("told", 2, flags, |context| {
        let (value, unit): (Option<f64>, String) = (context.get(0)?, context.get(1)?);
        Ok(value.map_or_else(String::new, |value| numbers::told(value, &unit)))
    })?;
    let quantile = |values: &mut [f64], share: &Value| match share {
        Value::Real(share) => numbers::quantile(values, *share).into(),
        _ => Value::Null,
    };
    let spread = |values: &mut [f64], unit: &Value| match unit {
        Value::Text(unit) => numbers::spread(values, unit).into(),
        _ => Value::Null,
    };
    let median = |values: &mut [f64], _: &Value| numbers::median(values).into();
    database.create_aggregate_function("quantile", 2, flags, Figure(quantile))?;
    database.create_aggregate_function("spread", 2, flags, Figure(spread))?;
    database.create_aggregate_function("median", 1, flags, Figure(median))?;
    Ok(())
}

/// An aggregate function of values. Its second argument, if it has one, is the same for all of them.
struct Figure(fn(&mut [f64], &Value) -> Value);

type Values = (Vec<f64>, Value);

impl Aggregate<Values, Value> for Figure {
    fn init(&self, context: &mut functions::Context<'_>) -> rusqlite::Result<Values> {
        let second = if context.len() > 1 { context.get(1)? } else { Value::Null };
        Ok((Vec::new(), second))
    }

    fn step(&self, context: &mut functions::Context<'_>, all: &mut Values) -> rusqlite::Result<()> {
        all.0.extend(context.get::<Option<f64>>(0)?);
        Ok(())
    }

    fn finalize(
        &self,
        _: &mut functions::Context<'_>,
        all: Option<Values>,
    ) -> rusqlite::Result<Value> {
        Ok(all.map_or(Value::Null, |(mut values, second)| self.0(&mut values, &second)))
    }
}
