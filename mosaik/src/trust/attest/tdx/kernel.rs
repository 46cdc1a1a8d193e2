//! [`Kernel`]: quotes by Linux's `configfs-tsm`: a directory is made for each, the report data are written to `inblob`, and the quote is
//! read from `outblob`.
//!
//! Source: Documentation/ABI/testing/configfs-tsm of Linux 6.7 and later.

use std::{
    fs, io,
    path::PathBuf,
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::trust::attest::AttestError;

/// Where it is.
const REPORTS: &str = "/sys/kernel/config/tsm/report";
/// What names itself as the maker of quotes of TDX.
const PROVIDER: &str = "tdx_guest";

#[derive(Clone, Debug)]
pub(super) struct Kernel {
    reports: PathBuf,
}

impl Default for Kernel {
    fn default() -> Self {
        Self { reports: REPORTS.into() }
    }
}

impl Kernel {
    /// Whether there is something that makes reports. Of what kind, only a report says.
    pub(super) fn available(&self) -> Result<(), AttestError> {
        if self.reports.is_dir() {
            return Ok(());
        }
        Err(AttestError::Unavailable {
            why: format!(
                "{} is missing: quotes are made in a trust domain of Intel TDX, by Linux 6.7 or newer with the module `tdx_guest`, and \
                 with configfs mounted",
                self.reports.display()
            ),
        })
    }

    /// A quote with this report data.
    pub(super) fn quote(&self, data: &[u8; 64]) -> Result<Vec<u8>, AttestError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        self.available()?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = self.reports.join(format!("mosaik-{}-{number}", process::id()));
        let failed =
            |error: io::Error| AttestError::Unavailable { why: format!("no quote by {}: {error}", dir.display()) };
        fs::create_dir(&dir).map_err(failed)?;
        let made = (|| {
            fs::write(dir.join("inblob"), data)?;
            let provider = fs::read_to_string(dir.join("provider"))?;
            Ok((provider.trim().to_owned(), fs::read(dir.join("outblob"))?))
        })();
        // The directory is the kernel's: it goes with what is in it.
        let removed = fs::remove_dir(&dir);
        let (provider, quote) = made.map_err(failed)?;
        if provider != PROVIDER {
            return Err(AttestError::Unavailable {
                why: format!("this machine makes reports of the kind {provider}, and not quotes of TDX ({PROVIDER})"),
            });
        }
        removed.map_err(failed)?;
        Ok(quote)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_it_is_missing_the_error_says_what_is_needed() {
        let kernel = Kernel { reports: "/nowhere/tsm/report".into() };
        let error = kernel.quote(&[0; 64]).expect_err("is missing").to_string();
        assert!(error.contains("/nowhere/tsm/report is missing") && error.contains("`tdx_guest`"), "{error}");
    }

    #[test]
    fn a_directory_that_is_not_the_kernels_makes_no_quote() {
        let dir = tempfile::tempdir().expect("is made");
        let kernel = Kernel { reports: dir.path().to_owned() };
        assert_eq!(kernel.available(), Ok(()));
        let error = kernel.quote(&[0; 64]).expect_err("nothing answers").to_string();
        assert!(error.contains("no quote by ") && error.contains("mosaik-"), "{error}");
    }
}
