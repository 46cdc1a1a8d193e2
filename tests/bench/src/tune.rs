//! Which transport settings of plain iroh matter: each variant beside the framework's settings, in turn.

use anyhow::Result;

use crate::{
    benches::Effort,
    child::{self, Common},
    table::median,
    work::{Who, Work},
};

/// The loads and the figure that counts in each.
fn loads(seconds: f64) -> Vec<(&'static str, Who, Work, &'static str)> {
    let stream = |size, receivers| Work::Stream { size, receivers, seconds };
    vec![
        ("32 B items/s", Who::Raw, stream(32, 1), "items"),
        ("1 KiB items/s", Who::Raw, stream(1 << 10, 1), "items"),
        ("64 KiB bytes/s", Who::RawBytes, stream(64 << 10, 1), "megabytes"),
        ("1:16, 1 KiB items/s", Who::Raw, stream(1 << 10, 16), "items"),
        ("latency p50", Who::Raw, Work::Latency { items: 10_000 }, "p50"),
        ("latency p99", Who::Raw, Work::Latency { items: 10_000 }, "p99"),
    ]
}

/// Prints for each variant and load the median of the ratios variant / framework's settings, with their range.
pub async fn run(variants: &[String], effort: Effort, common: &Common) -> Result<()> {
    let loads = loads(effort.seconds);
    let names: Vec<_> = loads.iter().map(|(name, ..)| *name).collect();
    println!("| settings | {} |", names.join(" | "));
    println!("|{}", " --- |".repeat(names.len() + 1));
    for variant in variants {
        let mut cells = Vec::new();
        for (_, who, work, figure) in &loads {
            let mut ratios = Vec::new();
            for _ in 0..effort.runs {
                let (base, _) = child::run(*who, work, common).await?;
                let settings = Common { quic: variant.clone(), ..common.clone() };
                let (figures, _) = child::run(*who, work, &settings).await?;
                ratios.push(figures.get(*figure).copied().unwrap_or(f64::NAN) / base[*figure]);
            }
            let low = ratios.iter().copied().fold(f64::INFINITY, f64::min);
            let high = ratios.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let middle = median(ratios).unwrap_or(f64::NAN);
            cells.push(format!("{middle:.2} ({low:.2}..{high:.2})"));
        }
        println!("| `{variant}` | {} |", cells.join(" | "));
    }
    Ok(())
}
