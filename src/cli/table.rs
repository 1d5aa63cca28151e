//! Tables on stdout: bold headers and cells truncated to fit the terminal; in a pipe, plain columns.

use std::io::{IsTerminal, stdout};

use comfy_table::{Attribute, Cell, ContentArrangement, Table, presets};

use super::print;

/// Prints `rows` under `headers`.
pub fn show(headers: &[&str], rows: Vec<Vec<String>>) {
    show_indented("", headers, rows);
}

/// The same, with `margin` at the beginning of each line.
pub fn show_indented(margin: &str, headers: &[&str], rows: Vec<Vec<String>>) {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    let terminal = stdout().is_terminal();
    if terminal {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    } else {
        table.force_no_tty();
    }
    let bold = |header: &&str| match terminal {
        true => Cell::new(header).add_attribute(Attribute::Bold),
        false => Cell::new(header),
    };
    table.set_header(headers.iter().map(bold));
    table.add_rows(rows);
    // Columns begin at the left edge and are separated by two spaces.
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    for line in table.trim_fmt().lines() {
        print::line(format_args!("{margin}{line}"));
    }
}
