//! The bytes of a subscription and a replay.

use super::{
    core::{frames, progress::GapReason},
    protocol::{Message, Replay, ReplayMessage, Subscription},
};
use crate::{network::Protocol, primitives::fixtures::Fixture};

#[test]
fn messages_are_as_they_were() {
    let mut subscription = Fixture::new(Subscription::NAME).postcard::<Message>();
    for reason in [GapReason::Skipped, GapReason::Dropped, GapReason::Conflated, GapReason::Expired] {
        subscription = subscription.bytes(&format!("{reason:?}"), frames::batch_header(7, 2, 300, Some(reason)));
    }
    subscription
        .bytes("batch", frames::batch_header(7, 2, 300, None))
        .bytes("item-postcard", frames::item_header(20, false))
        .bytes("item-messagepack", frames::item_header(20, true))
        .bytes("end", frames::end(3, 9))
        .check();
    Fixture::new(Replay::NAME).postcard::<ReplayMessage>().check();
}
