//! Holds the book, the README and the attributes' documentation to the code: `cargo test` compiles every Rust snippet of every page (as doc tests) and
//! checks that pages, links and named paths exist. Nobody calls this crate, and it exports nothing.

/// The README, every page of the book and what is said of each attribute, each as a module whose documentation it is.
macro_rules! pages {
    ($($module:ident $path:literal)*) => {
        $(
            #[cfg(doctest)]
            #[doc = include_str!($path)]
            mod $module {}
        )*

        #[cfg(test)]
        const PAGES: &[&str] = &[$($path),*];
    };
}

pages! {
    readme "../README.md"
    introduction "src/introduction.md"
    identity "src/identity.md"
    trust "src/trust.md"
    discovery "src/discovery.md"
    stores "src/stores.md"
    streams "src/streams.md"
    choosing "src/streams/choosing.md"
    owned "src/streams/owned.md"
    types "src/types.md"
    streams_flow "src/streams/flow.md"
    testing "src/testing.md"
    tutorial "src/tutorial.md"
    ledger "src/ledger.md"
    architecture "src/architecture.md"
    attributes "src/attributes.md"
    levels "src/levels.md"
    operations "src/operations.md"
    troubleshooting "src/troubleshooting.md"
    containers "src/containers.md"
    command_line "src/command-line.md"
    configuration "src/configuration.md"
    comparison "src/comparison.md"
    metrics "src/metrics.md"
    protocols "src/protocols.md"
    benchmarks "src/benchmarks.md"
    benchmarks_history "src/benchmarks/history.md"
    groups "src/groups/groups.md"
    groups_operations "src/groups/operations.md"
    leadership "src/groups/leadership.md"
    machines "src/groups/machines.md"
    consensus "src/groups/consensus.md"
    bonds "src/groups/bonds.md"
    storage "src/groups/storage.md"
    decisions "src/decisions.md"
    attribute_stream "../mosaik-macros/docs/stream.md"
    attribute_node "../mosaik-macros/docs/node.md"
    attribute_handlers "../mosaik-macros/docs/handlers.md"
    attribute_group "../mosaik-macros/docs/group.md"
    attribute_state_machine "../mosaik-macros/docs/state_machine.md"
    derive_state_machine "../mosaik-macros/docs/derive_state_machine.md"
    attribute_store "../mosaik-macros/docs/store.md"
    attribute_app "../mosaik-macros/docs/app.md"
    attribute_main "../mosaik-macros/docs/main.md"
    attribute_test "../mosaik-macros/docs/test.md"
}

#[cfg(test)]
mod tests;
