//! Periods such as `500ms`: one whole number and one unit.

/// The units, with their length in nanoseconds.
pub(crate) const UNITS: &[(&str, u64)] =
    &[("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000), ("m", 60_000_000_000), ("h", 3_600_000_000_000)];

/// The period in nanoseconds, or what is wrong with the text.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    const USAGE: &str = "a period is a whole number and a unit, such as \"500ms\", \"1s\" or \"5m\"";
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(USAGE.to_owned());
    }
    if unit.is_empty() {
        return Err(format!(
            "the period has no unit, did you mean \"{number}s\" or \"{number}ms\"? The units are us, ms, s, m and h"
        ));
    }
    let Some((_, nanos)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        let guess = match unit.trim().to_ascii_lowercase().as_str() {
            "s" | "sec" | "secs" | "second" | "seconds" => Some("s"),
            "ms" | "msec" | "milli" | "millis" | "milliseconds" => Some("ms"),
            "us" | "µs" | "micros" | "microseconds" => Some("us"),
            "m" | "min" | "mins" | "minute" | "minutes" => Some("m"),
            "h" | "hr" | "hour" | "hours" => Some("h"),
            _ => None,
        };
        return Err(match guess {
            Some(guess) => {
                format!("unknown unit `{unit}`, did you mean \"{number}{guess}\"? The units are us, ms, s, m and h")
            }
            None if unit.starts_with('.') => USAGE.to_owned(),
            None => format!("unknown unit `{unit}`: the units are us, ms, s, m and h"),
        });
    };
    match number.parse::<u64>().ok().and_then(|number| number.checked_mul(*nanos)) {
        None => Err(String::from("the period is longer than 584 years")),
        Some(0) => Err(String::from("a period of zero would never let anything else run")),
        Some(nanos) => Ok(nanos),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_periods() {
        assert_eq!(parse("1s"), Ok(1_000_000_000));
        assert_eq!(parse("250us"), Ok(250_000));
        assert_eq!(parse("2h"), Ok(7_200_000_000_000));
    }

    #[test]
    fn explains_what_is_wrong() {
        for (text, part) in [
            ("", "whole number"),
            ("fast", "whole number"),
            ("1.5s", "whole number"),
            ("10", "no unit"),
            ("1 sec", "did you mean \"1s\"?"),
            ("1fortnight", "the units are"),
            ("0s", "zero"),
            ("99999999999h", "584 years"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
