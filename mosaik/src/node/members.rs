//! One line on stderr whenever the local member of a group is something else, or waits for something else.

use futures::{Stream, StreamExt};

use super::process::say;
use crate::groups::GroupStatus;

/// Prints what changes until the network ends, each line behind `prefix`.
pub(super) async fn tell(mut statuses: impl Stream<Item = GroupStatus> + Unpin, prefix: String, group: &'static str) {
    let mut last = String::new();
    while let Some(status) = statuses.next().await {
        let line = line(&status);
        if line != last {
            say(format_args!("{prefix}group {group}: {line}"));
            last = line;
        }
    }
}

fn line(status: &GroupStatus) -> String {
    let role = status.role();
    match (status.why_offline(), status.leader()) {
        (Some(why), _) => format!("{role}, not online: {why}"),
        (None, Some(leader)) if leader != status.me() => format!("{role} of {leader:?}"),
        (None, _) => format!("{role} in term {}", status.term()),
    }
}
