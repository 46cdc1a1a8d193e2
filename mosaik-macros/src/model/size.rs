//! Sizes such as `64MiB`: one whole number and one unit; rates such as `8MiB/s`.

/// The units, with their length in bytes.
const UNITS: &[(&str, u64)] = &[("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// The size in bytes, or what is wrong with the text.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    const USAGE: &str = "a size is a whole number and a unit (B, KiB, MiB or GiB), such as \"64MiB\"";
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(USAGE.to_owned());
    }
    let Some((_, bytes)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        let guess = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" | "byte" | "bytes" => Some("B"),
            "k" | "kb" | "ki" | "kib" => Some("KiB"),
            "m" | "mb" | "mi" | "mib" => Some("MiB"),
            "g" | "gb" | "gi" | "gib" => Some("GiB"),
            _ => None,
        };
        return Err(match guess {
            Some(guess) => format!("unknown unit `{unit}`, did you mean \"{number}{guess}\"? {USAGE}"),
            None => USAGE.to_owned(),
        });
    };
    match number.parse::<u64>().ok().and_then(|number| number.checked_mul(*bytes)) {
        None => Err(String::from("the size does not fit into 64 bits")),
        Some(0) => Err(String::from("a size of zero would keep nothing: leave it out")),
        Some(bytes) => Ok(bytes),
    }
}

/// The rate in bytes per second, or what is wrong with the text.
pub(crate) fn rate(text: &str) -> Result<u64, String> {
    const USAGE: &str = "a rate is a size per second, such as \"8MiB/s\"";
    let Some(size) = text.strip_suffix("/s") else {
        let size = text.split(['/', 'p']).next().unwrap_or_default().trim();
        return Err(match parse(size) {
            Ok(_) => format!("{USAGE}: did you mean \"{size}/s\"?"),
            Err(_) => USAGE.to_owned(),
        });
    };
    parse(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_sizes_and_explains_what_is_wrong() {
        assert_eq!(parse("1B"), Ok(1));
        assert_eq!(parse("64MiB"), Ok(64 << 20));
        for (text, part) in [
            ("", "whole number"),
            ("much", "whole number"),
            ("10", "did you mean \"10B\"?"),
            ("64MB", "did you mean \"64MiB\"?"),
            ("1XiB", "a unit (B"),
            ("0B", "zero"),
            ("99999999999999GiB", "64 bits"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
    #[test]
    fn reads_rates_and_explains_what_is_wrong() {
        assert_eq!(rate("8MiB/s"), Ok(8 << 20));
        for (text, part) in [
            ("8MiB", "did you mean \"8MiB/s\"?"),
            ("8MiBps", "did you mean \"8MiB/s\"?"),
            ("fast", "a rate is"),
            ("8MB/s", "did you mean \"8MiB\"?"),
        ] {
            let error = rate(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
