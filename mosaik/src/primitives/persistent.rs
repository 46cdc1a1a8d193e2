//! Persistent maps: a copy shares its parts with the original, so that a snapshot costs nothing and a change a path. This is
//! the one place that names the crate they come from, which its authors have archived: another one is put in here.

pub(crate) use im::OrdMap;
