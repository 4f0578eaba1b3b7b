//! How answers are printed: a table for people, JSON and YAML for programs, names for shell loops.

use std::io::{self, IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use super::Failure;
use super::text::{escape_json, plain, plain_lines};

/// Form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// A table for people.
    #[default]
    Table,
    /// JSON as the API gives it.
    Json,
    /// The same as YAML.
    Yaml,
    /// Names alone, one per line.
    Name,
}

/// Something that can be printed in every form.
pub trait Show: Serialize {
    /// For people. Every string that came from outside has been through [`plain`].
    fn table(&self) -> String;
    /// One name per line.
    fn names(&self) -> Vec<String>;
}

impl Format {
    /// The text of a value in this form, with a line end.
    ///
    /// # Errors
    /// Where the value has no such form, which would be a mistake in the program.
    pub fn render<T: Show>(self, value: &T) -> Result<String, Failure> {
        let broken = |e: &dyn std::fmt::Display| Failure::Other(format!("cannot print the answer: {e}"));
        let mut text = match self {
            Self::Table => value.table(),
            Self::Json => escape_json(&serde_json::to_string_pretty(value).map_err(|e| broken(&e))?),
            Self::Yaml => {
                // By way of JSON, so that both forms have the same fields and types.
                let value = serde_json::to_value(value).map_err(|e| broken(&e))?;
                plain_lines(&serde_saphyr::to_string(&value).map_err(|e| broken(&e))?)
            }
            Self::Name => value.names().iter().map(|n| plain(n)).collect::<Vec<_>>().join("\n"),
        };
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        Ok(text)
    }

    /// Prints a value.
    ///
    /// # Errors
    /// Where the output is closed.
    pub fn print<T: Show>(self, value: &T) -> Result<(), Failure> {
        print(&self.render(value)?)
    }
}

/// Writes to standard output. A reader that went away (`| head`) ends the program without a complaint.
///
/// # Errors
/// Where the output is closed or full.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|e| match e.kind() {
        io::ErrorKind::BrokenPipe => Failure::Closed,
        _ => Failure::Other(format!("cannot write to standard output: {e}")),
    })
}

/// A table with these headings. Cells are made safe here. As wide as the terminal where there is one, else as wide
/// as its longest line, so that programs never see wrapped cells.
pub fn table(headings: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let arrangement =
        if io::stdout().is_terminal() { ContentArrangement::Dynamic } else { ContentArrangement::Disabled };
    table.set_content_arrangement(arrangement);
    table.set_header(headings.iter().map(|h| h.to_uppercase()));
    for row in rows {
        table.add_row(row.iter().map(|cell| plain(cell)));
    }
    trim_ends(&table.to_string())
}

/// Pairs of a name and a value, one per line; pairs without a value are left out.
pub fn facts(pairs: &[(&str, Option<String>)]) -> String {
    let width = pairs.iter().filter(|p| p.1.is_some()).map(|p| p.0.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, value) in pairs {
        if let Some(value) = value {
            text.push_str(&format!("{name:<width$}  {}\n", plain(value)));
        }
    }
    text
}

fn trim_ends(text: &str) -> String {
    text.lines().map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end()).collect::<Vec<_>>().join("\n")
}
