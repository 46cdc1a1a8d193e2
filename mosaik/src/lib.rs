//! mosaik
pub mod primitives;
