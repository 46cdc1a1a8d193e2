//! The status lines of `dev`: one for each node. On a terminal they stand in its last rows and are drawn anew every second, while
//! everything else scrolls above them; elsewhere they are plain lines from time to time.
//!
//! The rows are kept free by a scrolling region (DECSTBM), so lines of handlers on stdout do not run into them. The region has to be
//! given back at every end of the process that can be seen coming: [`leave`].

use std::{
    fmt::Write,
    io::{self, IsTerminal},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::output;

/// How often the lines of a terminal are drawn.
const DRAWN: Duration = Duration::from_secs(1);
/// How often plain lines are written.
const PLAIN: Duration = Duration::from_secs(10);
/// A terminal keeps at least so many rows for what scrolls.
const SCROLLS: u16 = 5;

/// The rows of the terminal that are kept free, if there are some.
static KEPT: Mutex<Option<Rows>> = Mutex::new(None);

/// A terminal with rows that are kept free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rows {
    all: u16,
    kept: u16,
    columns: u16,
}

/// How the lines are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Board {
    Terminal,
    Plain,
}

impl Board {
    /// As stderr is.
    pub(super) fn of_stderr() -> Self {
        if io::stderr().is_terminal() { Self::Terminal } else { Self::Plain }
    }

    /// How long the lines stay as they are.
    pub(super) const fn period(self) -> Duration {
        match self {
            Self::Terminal => DRAWN,
            Self::Plain => PLAIN,
        }
    }

    /// Shows these lines.
    pub(super) fn show(self, lines: &[String]) {
        let text = match self {
            Self::Plain => lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect(),
            Self::Terminal => {
                let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
                let size = terminal_size::terminal_size_of(io::stderr());
                let rows = size.and_then(|(columns, rows)| Rows::of(rows.0, columns.0, lines.len()));
                let text = drawn(*kept, rows, lines);
                *kept = rows;
                text
            }
        };
        output::write(text.into_bytes(), false);
    }
}

/// Gives the rows back; nothing if none are kept.
pub(super) fn leave() {
    let kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(rows) = kept {
        output::write(given_back(rows).into_bytes(), false);
    }
}

impl Rows {
    /// Nothing where there is no room for them.
    fn of(all: u16, columns: u16, lines: usize) -> Option<Self> {
        let kept = u16::try_from(lines).ok()?;
        (kept > 0 && all >= kept.saturating_add(SCROLLS)).then_some(Self { all, kept, columns })
    }
}

/// What is written to show the lines in the rows, where before these rows were kept.
fn drawn(before: Option<Rows>, rows: Option<Rows>, lines: &[String]) -> String {
    let mut out = String::new();
    if before != rows {
        out.extend(before.map(given_back));
        if let Some(Rows { all, kept, .. }) = rows {
            // Makes room, then keeps it; setting the region moves the cursor, which goes back to its last line.
            out.extend(std::iter::repeat_n('\n', kept.into()));
            append(&mut out, format_args!("\x1b[1;{0}r\x1b[{0};1H", all - kept));
        }
    }
    let Some(Rows { all, kept, columns }) = rows else { return out };
    out.push_str("\x1b7");
    for (row, line) in (all - kept + 1..).zip(lines) {
        let shown: String = line.chars().filter(|c| !c.is_control()).take(columns.into()).collect();
        append(&mut out, format_args!("\x1b[{row};1H\x1b[2m{shown}\x1b[0m\x1b[K"));
    }
    out.push_str("\x1b8");
    out
}

fn given_back(Rows { all, kept, .. }: Rows) -> String {
    let first = all - kept + 1;
    format!("\x1b7\x1b[r\x1b[{first};1H\x1b[J\x1b8")
}

fn append(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String does not fail.
    let _ = out.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines() -> Vec<String> {
        vec![String::from("[sensor] ready"), String::from("[display] is \x1b[2J frozen")]
    }

    #[test]
    fn lines_stand_in_rows_that_do_not_scroll() {
        let rows = Rows::of(24, 12, 2);
        let first = drawn(None, rows, &lines());
        assert!(first.starts_with("\n\n\x1b[1;22r\x1b[22;1H\x1b7\x1b[23;1H"), "{first:?}");
        assert!(first.contains("\x1b[24;1H\x1b[2m[display] is\x1b[0m"), "cut at the edge: {first:?}");
        let second = drawn(rows, rows, &lines());
        assert!(second.starts_with("\x1b7\x1b[23;1H") && second.ends_with("\x1b8"), "{second:?}");
        let smaller = drawn(rows, Rows::of(10, 12, 2), &lines());
        assert!(smaller.starts_with("\x1b7\x1b[r\x1b[23;1H\x1b[J\x1b8\n\n\x1b[1;8r"), "{smaller:?}");
    }

    #[test]
    fn a_terminal_without_room_shows_none() {
        assert_eq!(Rows::of(6, 80, 2), None);
        assert_eq!(Rows::of(24, 80, 0), None);
        assert_eq!(drawn(None, None, &lines()), "");
    }
}
