//! What the core has of `crate::primitives`.

#[path = "../../mosaik/src/primitives/persistent.rs"]
mod persistent;

pub(crate) use persistent::OrdMap;
