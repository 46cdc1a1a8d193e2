//! Keys of groups for tests: a declaration says which environment variable holds a key, and a test need not set it.

use crate::node::{Graph, KeyDecl, test_key};

/// Makes up the keys that the environment does not have. They follow from the variables' names, so that tests that run beside
/// each other make up the same.
pub(super) fn make_up(graph: &Graph) {
    for group in graph.groups() {
        if let KeyDecl::Env(variable) = group.machine.group.key {
            test_key(variable);
        }
    }
}
