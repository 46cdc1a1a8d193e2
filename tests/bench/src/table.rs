//! The Markdown table: medians, ranges, ratios.

use std::collections::BTreeMap;

use crate::work::{Figures, Who};

/// A figure of a bench as it is shown.
#[derive(Clone, Copy, Debug)]
pub struct Shown {
    pub figure: &'static str,
    pub unit: &'static str,
    pub digits: usize,
    /// Figures are divided by this for display.
    pub scale: f64,
}

/// All runs of one bench.
#[derive(Debug, Default)]
pub struct Samples {
    /// Per contender the figures of each round, in the order of the rounds.
    pub rounds: BTreeMap<Who, Vec<Figures>>,
    pub retries: BTreeMap<Who, usize>,
}

/// One bench: its name, what is shown of it and its runs.
#[derive(Debug)]
pub struct Section {
    pub name: String,
    pub shown: Vec<Shown>,
    pub samples: Samples,
}

impl Samples {
    fn values(&self, who: Who, figure: &str) -> Vec<f64> {
        let rounds = self.rounds.get(&who).map(Vec::as_slice).unwrap_or_default();
        rounds.iter().filter_map(|figures| figures.get(figure).copied()).collect()
    }

    /// Median of the ratios round by round: what else the machine did weighs on both sides of each.
    pub fn ratio(&self, over: Who, under: Who, figure: &str) -> Option<f64> {
        let (over, under) = (self.values(over, figure), self.values(under, figure));
        median(over.iter().zip(&under).map(|(over, under)| over / under).collect())
    }
}

pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

/// Renders with one column per contender and one per pair to compare.
pub fn render(sections: &[Section], columns: &[(Who, &str)], pairs: &[(Who, Who, &str)]) -> String {
    let mut head = vec!["bench".to_owned(), "figure".to_owned()];
    head.extend(columns.iter().map(|(_, name)| (*name).to_owned()));
    head.extend(pairs.iter().map(|(_, _, name)| (*name).to_owned()));
    head.push("retries".to_owned());
    let mut lines = vec![row(&head), row(&vec!["---".to_owned(); head.len()])];
    for section in sections {
        // What no contender has measured is not shown.
        let measured =
            |shown: &&Shown| columns.iter().any(|(who, _)| !section.samples.values(*who, shown.figure).is_empty());
        for (index, shown) in section.shown.iter().filter(measured).enumerate() {
            let first = index == 0;
            let mut cells = vec![if first { section.name.clone() } else { String::new() }, shown.unit.to_owned()];
            cells.extend(columns.iter().map(|(who, _)| cell(&section.samples.values(*who, shown.figure), *shown)));
            cells.extend(pairs.iter().map(|(over, under, _)| {
                section.samples.ratio(*over, *under, shown.figure).map_or_else(String::new, |r| format!("{r:.2}"))
            }));
            cells.push(if first { retries(&section.samples, columns) } else { String::new() });
            lines.push(row(&cells));
        }
    }
    lines.join("\n")
}

fn cell(values: &[f64], shown: Shown) -> String {
    let Some(middle) = median(values.to_vec()) else { return String::new() };
    let low = values.iter().copied().fold(f64::INFINITY, f64::min) / shown.scale;
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max) / shown.scale;
    let (middle, digits) = (middle / shown.scale, shown.digits);
    if values.len() == 1 {
        return format!("{middle:.digits$}");
    }
    format!("{middle:.digits$} ({low:.digits$}..{high:.digits$})")
}

fn retries(samples: &Samples, columns: &[(Who, &str)]) -> String {
    let counts = columns.iter().filter_map(|(who, name)| {
        samples.retries.get(who).filter(|count| **count > 0).map(|count| format!("{name}: {count}"))
    });
    counts.collect::<Vec<_>>().join(", ")
}

fn row(cells: &[String]) -> String {
    format!("| {} |", cells.join(" | "))
}
