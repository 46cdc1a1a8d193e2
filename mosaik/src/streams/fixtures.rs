//! The bytes of a subscription and a replay.

use super::{
    core::{
        frames::{self, Between},
        progress::GapReason,
    },
    protocol::{Message, Replay, ReplayMessage, Subscription},
};
use crate::{network::Protocol, primitives::fixtures::Fixture};

#[test]
fn messages_are_as_they_were() {
    let mut subscription = Fixture::new(Subscription::NAME).postcard::<Message>();
    for reason in [GapReason::Skipped, GapReason::Dropped, GapReason::Conflated, GapReason::Expired] {
        subscription =
            subscription.bytes(&format!("{reason:?}"), frames::batch_header(7, 2, 300, Between::LeftOut(reason)));
    }
    subscription
        .bytes("batch", frames::batch_header(7, 2, 300, Between::Nothing))
        .bytes("batch-filtered", frames::batch_header(7, 2, 300, Between::Filtered))
        .bytes("mark-filtered", frames::mark(Between::Filtered, 7))
        .bytes("item-postcard", frames::item_header(20, false))
        .bytes("item-messagepack", frames::item_header(20, true))
        .bytes("end", frames::end(3, 9))
        .check();
    Fixture::new(Replay::NAME).postcard::<ReplayMessage>().check();
}
