//! What a group survives, one scenario each.

use std::time::Duration;

use mosaik::{prelude::*, testing::Sim};

use crate::lab::{Increment, Lab, within};

#[test]
fn three_members_elect_a_leader_and_any_of_them_executes_and_answers() {
    Sim::run(1, async |sim| {
        let lab = Lab::with(&sim, 3, 3).await;
        let leader = within(Duration::from_secs(5), "elected", lab.elected()).await;
        assert_eq!(lab.add(leader, 5).await, 5);
        for n in 0..3 {
            let before = lab.sum(leader).await;
            assert_eq!(lab.add(n, 1).await, before + 1);
            assert_eq!(lab.sum(n).await, before + 1);
            assert_eq!(*lab.group(n).query((), Consistency::Weak).await.unwrap(), before + 1, "strong sees itself");
        }
        lab.all_have(8).await;
        assert_eq!(lab.group(1).execute(Increment(2), Consistency::Weak).await.unwrap(), 10);
    });
}
