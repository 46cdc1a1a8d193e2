//! Generated code under the strictest lints, without the standard prelude, with raw identifiers and the crate under another name. That
//! it compiles, also under clippy, is the test.

#![deny(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unused,
    unsafe_code,
    clippy::all,
    clippy::pedantic
)]
#![allow(
    clippy::needless_pass_by_value,
    clippy::trivially_copy_pass_by_ref,
    clippy::unnecessary_wraps,
    clippy::unused_self,
    reason = "about what is written by hand here, not about what is generated"
)]
#![no_implicit_prelude]

mod names {
    //! The crate under another name.
    pub(crate) use ::mosaik as tiles;
}

use ::core::{
    clone::Clone,
    convert::From,
    default::Default,
    fmt::Debug,
    marker::Copy,
    option::Option,
    result::Result::{self, Ok},
    time::Duration,
};
use ::std::{string::String, vec::Vec};

use names::tiles::{
    PeerId,
    discovery::PeerEntry,
    groups::{ApplyContext, CallError},
    node::{Client, Replica},
    prelude::{Deserialize, Serialize, StateMachine},
    stores::{Primary, StoreReplica, Versioned},
    streams::{Consumer, Gap, Producer},
};

/// What travels.
#[names::tiles::stream(crate = names::tiles, name = "clean.item", key = |item| item.r#type, retain = last_per_key(1))]
#[derive(Clone, Debug)]
pub(crate) struct Item {
    /// Its kind.
    pub(crate) r#type: u8,
}

/// Where it is.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) enum Stage {
    /// It begins.
    #[default]
    r#Begin,
    /// It has ended.
    End,
    /// It took too long.
    Late,
}

/// A machine with states.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[names::tiles::group(crate = names::tiles, name = "clean.work", key = env("CLEAN_KEY"))]
pub(crate) struct Work {
    stage: Stage,
    since: Duration,
    left: u64,
}

#[names::tiles::state_machine(
    crate = names::tiles,
    states = Stage { Begin, End, Late },
    state = stage,
    since = since,
    terminal = [End, Late]
)]
impl Work {
    /// Does some of it.
    #[transition(Move: Begin -> End, if = Self::r#do)]
    fn last(&mut self, r#in: u64, why: &str) -> Result<u64, String> {
        let _ = why;
        self.left -= r#in;
        Ok(self.left)
    }

    #[transition(Move: Begin -> Begin, if = !Self::r#do)]
    fn more(&mut self, r#in: u64, why: &str) -> Result<u64, String> {
        self.last(r#in, why)
    }

    #[transition(Begin -> Late, after = "1h")]
    fn late(&mut self, _ctx: &ApplyContext) {}

    /// Adds to it.
    #[command]
    fn add(&mut self, by: u64) {
        self.left += by;
    }

    /// How much is left.
    #[query]
    fn left(&self) -> u64 {
        self.left
    }

    fn r#do(&self, r#in: &u64, _why: &str) -> bool {
        self.left <= *r#in
    }
}

/// What is done to a lamp.
#[derive(Debug, Serialize, Deserialize, StateMachine)]
#[state_machine(crate = names::tiles, machine = Lamp, output = bool)]
pub(crate) enum Switch {
    /// Turns it.
    Turn(bool),
    /// Moves it.
    #[state_machine(context)]
    Move {
        /// Where to.
        to: u64,
    },
}

/// A machine over an enum of commands.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[names::tiles::group(crate = names::tiles, name = "clean.lamp", key = env("CLEAN_KEY"))]
pub(crate) struct Lamp(bool);

impl Lamp {
    fn turn(&mut self, on: bool) -> bool {
        ::core::mem::replace(&mut self.0, on)
    }

    fn r#move(&mut self, to: u64, ctx: &ApplyContext) -> bool {
        self.0 = to > ctx.index();
        self.0
    }
}

/// A state that others follow.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Total(u64);

#[names::tiles::store(crate = names::tiles, name = "clean.total")]
impl Total {
    fn fold(&mut self, by: u64) {
        self.0 += by;
    }
}

/// Sends.
#[names::tiles::node(crate = names::tiles)]
pub(crate) struct Source {
    /// To whom.
    #[mosaik(arg, default = "eu")]
    zone: String,
    /// Whether at all.
    #[mosaik(arg)]
    r#loop: bool,
    #[mosaik(only_if = r#loop, accept_if = Self::may_read(zone), on_lag = drop_oldest, undelivered = Self::back)]
    out: Option<Producer<Item>>,
    total: Primary<Total>,
    work: Client<Work>,
}

#[names::tiles::handlers(crate = names::tiles)]
impl Source {
    #[every("1h", emit = out)]
    async fn r#yield(&mut self) -> Result<Vec<Item>, CallError> {
        let left = self.work.left().weak().await?;
        let _ = self.total.apply(left).await;
        Ok(Vec::new())
    }

    fn back(&mut self, item: Item) {
        self.r#loop = item.r#type == 0;
    }

    fn may_read(zone: &str, peer: &PeerEntry) -> bool {
        peer.tags().contains(zone)
    }
}

/// Receives.
#[names::tiles::node(crate = names::tiles)]
pub(crate) struct Sink {
    #[mosaik(deadline = "5s")]
    r#in: Consumer<Item>,
    total: StoreReplica<Total>,
    work: Replica<Work>,
    lamp: Replica<Lamp>,
}

#[names::tiles::handlers(crate = names::tiles)]
impl Sink {
    #[on(r#in, concurrency = 8, on_error = restart)]
    async fn take(&self, item: Item, _from: PeerId) -> Result<(), CallError> {
        let moved = self.work.r#move(u64::from(item.r#type), "item").await?;
        let _ = self.lamp.execute(Switch::Turn(moved.is_ok())).await?;
        Ok(())
    }

    #[on(r#in.gap)]
    fn gap(&mut self, gap: Gap) {
        let _ = (gap, &self.r#in);
    }

    #[on(total)]
    fn total(&mut self, total: Versioned<Total>) {
        let _ = (total.0, &self.total);
    }

    #[ready]
    fn ready(&self) -> bool {
        self.work.group().leader().is_some()
    }
}

/// An app of both.
#[names::tiles::app(crate = names::tiles, roles = [Source, Sink])]
pub(crate) struct Clean;

#[::core::prelude::v1::test]
fn the_names_are_those_that_were_written() {
    use names::tiles::{
        App,
        node::{Declared, Role},
    };
    let [out, ..] = Source::ROLE.endpoints else { ::core::panic!("there are endpoints") };
    ::core::assert_eq!((out.field, Source::ROLE.args[1].flag), ("out", "loop"));
    ::core::assert_eq!(Work::MACHINE.commands[0].name, "move");
    ::core::assert_eq!(Clean::GRAPH.roles.len(), 2);
}
