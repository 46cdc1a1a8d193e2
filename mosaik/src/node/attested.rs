//! Roles with `attest`: the flags of their nodes, and what a generated main gives those: evidence of this machine, a verifier of that
//! of others by the role's file, and the word to ask everybody for some.

use clap::Arg;

#[cfg(feature = "attest")]
use super::{cli::NodeFlags, process::Failure};
use super::{cli::flag, decl::RoleDecl};
#[cfg(feature = "attest-tdx")]
use crate::trust::attest::Tdx;
#[cfg(feature = "attest")]
use crate::{network::NetworkBuilder, trust::attest::Policy};

/// The file of `#[mosaik::node(attest = "..")]`, if `mosaik` was built with what reads it.
#[cfg(feature = "attest")]
#[doc(hidden)]
#[macro_export]
macro_rules! __attest {
    ($file:literal) => {
        ::core::option::Option::Some($file)
    };
}

/// The file of `#[mosaik::node(attest = "..")]`, if `mosaik` was built with what reads it.
#[cfg(not(feature = "attest"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __attest {
    ($file:literal) => {
        ::core::compile_error!(
            "`attest` needs the feature `attest` of mosaik, or `attest-tdx`: mosaik = { version = \"..\", features = [\"attest-tdx\"] }"
        )
    };
}

/// The flag for another file than the declared one.
pub(super) const MEASUREMENTS: &str = "measurements";

/// The flag for the collateral of evidence of TDX.
#[cfg(feature = "attest-tdx")]
pub(super) const COLLATERAL: &str = "collateral";

/// The flags of a role's node that others do not have.
pub(super) fn flags(role: &RoleDecl) -> Vec<Arg> {
    let Some(declared) = role.attest else { return Vec::new() };
    let help = format!("The file with what may run here and at peers, read at the start [default: {declared}]");
    let path = || clap::value_parser!(std::path::PathBuf);
    #[cfg(feature = "attest-tdx")]
    let collateral =
        "A file with the vendor's word on this platform, read whenever evidence is made [default: what peers give]";
    vec![
        flag(MEASUREMENTS, "FILE", help).value_parser(path()),
        #[cfg(feature = "attest-tdx")]
        flag(COLLATERAL, "FILE", collateral).value_parser(path()),
    ]
}

/// What a node is given whose role has `attest`.
#[cfg(feature = "attest")]
pub(super) fn configure(builder: NetworkBuilder, declared: &str, flags: &NodeFlags) -> Result<NetworkBuilder, Failure> {
    let policy = match &flags.measurements {
        Some(file) => Policy::from_file(file),
        None => Policy::from_file(declared),
    };
    let policy = policy.map_err(|error| format!("{error}; --{MEASUREMENTS} names another file"))?;
    #[cfg(feature = "attest-tdx")]
    {
        let tdx = Tdx::new(policy);
        let tdx = flags.collateral.iter().fold(tdx, |tdx, file| tdx.with_collateral_file(file));
        tdx.available()?;
        Ok(builder.with_evidence(tdx).with_attested_peers())
    }
    #[cfg(not(feature = "attest-tdx"))]
    {
        let _ = (builder, policy);
        Err("this role attests what runs here, and mosaik was built without a kind of evidence for that: `attest-tdx` is one; for \
             another, start the node by hand, with `with_evidence` and `with_attested_peers`"
            .into())
    }
}
