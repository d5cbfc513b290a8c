//! Figures of all contenders, side by side, with ratios to the first of them.

use super::{Contender, median};

/// One table: rows are figures, columns are contenders.
pub struct Table {
    columns: Vec<String>,
    rows: Vec<Row>,
}

struct Row {
    name: String,
    /// All values of each contender.
    values: Vec<Vec<f64>>,
}

impl Table {
    /// An empty table for these contenders.
    pub fn new(contenders: &[Contender]) -> Self {
        Self { columns: contenders.iter().map(|c| c.name.clone()).collect(), rows: Vec::new() }
    }

    /// Adds one more column, for something that is no contender.
    pub fn with(mut self, name: &str) -> Self {
        self.columns.push(name.to_owned());
        self
    }

    /// Notes one value; the rows come out in the order in which they were first seen.
    pub fn add(&mut self, row: &str, column: usize, value: f64) {
        let index = self.rows.iter().position(|r| r.name == row).unwrap_or_else(|| {
            let values = vec![Vec::new(); self.columns.len()];
            self.rows.push(Row { name: row.to_owned(), values });
            self.rows.len() - 1
        });
        if let Some(values) = self.rows[index].values.get_mut(column) {
            values.push(value);
        }
    }

    /// Prints medians, and behind each its ratio to the row's first one.
    pub fn print(mut self) {
        print!("{:26}", "");
        self.columns.iter().for_each(|name| print!("{name:>24}"));
        println!();
        for row in &mut self.rows {
            print!("{:26}", row.name);
            let mut reference = None;
            for values in &mut row.values {
                if values.is_empty() {
                    print!("{:>24}", "-");
                    continue;
                }
                let value = median(values);
                let ratio = value / *reference.get_or_insert(value);
                print!("{:>24}", format!("{value:.1} ({ratio:.2})"));
            }
            println!();
        }
    }
}
