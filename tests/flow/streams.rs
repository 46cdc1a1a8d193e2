//! The sources of the core, as `crate::streams` of the runtime crate has them.

#[allow(dead_code, reason = "not all of the core is simulated here")]
#[path = "../../mosaik/src/streams/core/mod.rs"]
pub mod core;
#[allow(dead_code, reason = "builders take these")]
#[path = "../../mosaik/src/streams/limits.rs"]
pub mod limits;
