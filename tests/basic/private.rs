//! What a node keeps on disk is for its owner alone, whatever the process's umask allows.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use mosaik::{
    builtin::NoOp,
    groups::{Consistency, GroupKey},
    network::Network,
    primitives::NetworkId,
    stores::View,
};
use serde::{Deserialize, Serialize};

#[derive(Clone, Default, Serialize, Deserialize)]
struct Count(u64);

impl View for Count {
    type Delta = u64;
    const NAME: &'static str = "count";

    fn fold(&mut self, by: u64) {
        self.0 += by;
    }
}

/// All directories and files below, with their permissions.
fn tree(dir: &Path) -> Vec<(PathBuf, bool, u32)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let mode = path.metadata().unwrap().permissions().mode() & 0o777;
        found.push((path.clone(), path.is_dir(), mode));
        if path.is_dir() {
            found.extend(tree(&path));
        }
    }
    found
}

#[tokio::test]
async fn nobody_else_can_read_a_data_directory() {
    let temp = tempfile::tempdir().unwrap();
    let id = NetworkId::random();
    let node = async |name: &str| {
        let listen = "127.0.0.1:0".parse().unwrap();
        // Also a directory above that has to be made.
        Network::builder(id)
            .with_listen(listen)
            .with_data_dir(temp.path().join("nodes").join(name))
            .build()
            .await
            .unwrap()
    };
    let (one, two) = (node("one").await, node("two").await);
    let group = one.groups().with_key(GroupKey::random()).with_state_machine(NoOp).with_size(1).join().await.unwrap();
    let primary = one.stores().primary::<Count>("count").durable().build().unwrap();
    let replica = two.stores().replica::<Count>("count").durable().build();
    let work = async {
        group.execute((), Consistency::Strong).await.unwrap();
        let position = primary.apply(5).await.unwrap();
        replica.when().reaches(position).await.unwrap();
    };
    tokio::time::timeout(Duration::from_mins(1), work).await.expect("works");
    one.shutdown().await;
    two.shutdown().await;
    drop((group, primary, replica));

    let tree = tree(temp.path());
    let has = |part: &str| tree.iter().any(|(path, ..)| path.to_str().unwrap().contains(part));
    assert!(["secret.key", "known-peers", ".log", "primary", "replica"].into_iter().all(has), "{tree:?}");
    for (path, is_dir, mode) in tree {
        assert_eq!(format!("{mode:o}"), if is_dir { "700" } else { "600" }, "{}", path.display());
    }
}
