//! Tables on stdout: bold headers, and no line longer than the terminal is wide; in a pipe, plain
//! columns. Ids and image tags stay whole: the last column is shortened, and columns that can be spared
//! are left out.

use std::io::{IsTerminal, stdout};

use console::style;
use rustix::termios::tcgetwinsize;

use super::print;
use crate::printable::printable;

/// The least that is shown of the last column before another is left out, in characters.
const LAST: usize = 12;

/// A table whose last column is free text.
pub struct Table<'a> {
    pub headers: &'a [&'a str],
    /// The headers of columns that are left out where there is too little room, the first one first.
    pub spare: &'a [&'a str],
    /// Stands at the beginning of each line.
    pub margin: &'a str,
}

/// Prints `rows` under `headers`.
pub fn show(headers: &[&str], rows: Vec<Vec<String>>) {
    let (spare, margin) = (&[][..], "");
    let table = Table {
        headers,
        spare,
        margin,
    };
    table.show(rows);
}

impl Table<'_> {
    /// Prints `rows` under the headers.
    pub fn show(&self, rows: Vec<Vec<String>>) {
        for (number, line) in self.lines(rows, width()).into_iter().enumerate() {
            match number {
                0 => print::styled(style(line).bold()),
                _ => print::line(line),
            }
        }
    }

    fn lines(&self, mut rows: Vec<Vec<String>>, width: Option<usize>) -> Vec<String> {
        for cell in rows.iter_mut().flatten() {
            *cell = printable(cell).into_owned();
        }
        let mut headers: Vec<String> = self.headers.iter().map(|&it| it.to_owned()).collect();
        if let Some(width) = width {
            for spare in self.spare {
                if room(&headers, &rows, self.margin, width) >= LAST {
                    break;
                }
                if let Some(at) = headers.iter().position(|header| header == spare) {
                    headers.remove(at);
                    rows.iter_mut().for_each(|row| drop(row.remove(at)));
                }
            }
            let room = room(&headers, &rows, self.margin, width).max(LAST);
            for last in rows.iter_mut().filter_map(|row| row.last_mut()) {
                if let Some((cut, _)) = last.char_indices().nth(room.saturating_sub(1))
                    && last.chars().count() > room
                {
                    last.truncate(cut);
                    last.push('…');
                }
            }
        }
        let widths = widths(&headers, &rows);
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths);
            let cells = cells.map(|(cell, width)| format!("{cell:<width$}"));
            let line = cells.collect::<Vec<_>>().join("  ");
            format!("{}{}", self.margin, line.trim_end())
        };
        [&headers].into_iter().chain(&rows).map(line).collect()
    }
}

/// The terminal's width, in characters; `None` if stdout is none.
fn width() -> Option<usize> {
    if !stdout().is_terminal() {
        return None;
    }
    let size = tcgetwinsize(stdout()).ok();
    let columns = size.map(|size| usize::from(size.ws_col));
    Some(columns.filter(|columns| *columns > 0).unwrap_or(80))
}

/// How many characters are left for the last column.
fn room(headers: &[String], rows: &[Vec<String>], margin: &str, width: usize) -> usize {
    let widths = widths(headers, rows);
    let others = widths.iter().rev().skip(1).map(|width| width + 2);
    width.saturating_sub(margin.len() + others.sum::<usize>())
}

fn widths(headers: &[String], rows: &[Vec<String>]) -> Vec<usize> {
    let width = |text: &String| text.chars().count();
    let of = |at: usize| {
        let cells = rows.iter().filter_map(|row| row.get(at));
        cells.map(width).chain([width(&headers[at])]).max()
    };
    (0..headers.len()).filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: Table<'_> = Table {
        headers: &["RELEASE", "IMAGE", "BUILT", "SUBJECT"],
        spare: &["BUILT"],
        margin: "",
    };

    fn rows() -> Vec<Vec<String>> {
        let row = [
            "r01m5z8k6c0d3f",
            "cutover/hello:8f3c2a9d41b0",
            "3 min ago",
            "Say hello in colour, and in bold where it matters",
        ];
        vec![row.map(str::to_owned).to_vec()]
    }

    #[test]
    fn the_last_column_gives_way_and_then_those_that_can_be_spared() {
        let lines = TABLE.lines(rows(), None);
        assert_eq!(
            lines,
            [
                "RELEASE         IMAGE                       BUILT      SUBJECT",
                "r01m5z8k6c0d3f  cutover/hello:8f3c2a9d41b0  3 min ago  Say hello in colour, and in bold \
                 where it matters",
            ]
        );
        let lines = TABLE.lines(rows(), Some(80));
        assert!(
            lines[1].ends_with("3 min ago  Say hello in colour, and…"),
            "{lines:#?}"
        );
        assert_eq!(lines[1].chars().count(), 80);
        let lines = TABLE.lines(rows(), Some(60));
        assert_eq!(
            lines,
            [
                "RELEASE         IMAGE                       SUBJECT",
                "r01m5z8k6c0d3f  cutover/hello:8f3c2a9d41b0  Say hello in co…",
            ]
        );
        // Nothing is broken where there is no room at all.
        let lines = TABLE.lines(rows(), Some(20));
        assert!(
            lines[1].contains("cutover/hello:8f3c2a9d41b0  "),
            "{lines:#?}"
        );
    }
}
