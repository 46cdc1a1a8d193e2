//! Resident memory of this process, in MB.

/// The most that has been resident at once.
pub fn peak() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB").and_then(|number| number.trim().parse::<f64>().ok()));
    kib.map_or(f64::NAN, |kib| kib * 1024.0 / 1e6)
}
