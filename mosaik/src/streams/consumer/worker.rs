//! The worker of a consumer: watches the catalog and keeps one subscription task per producer of the stream.

use std::{collections::BTreeMap, sync::Arc};

use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::{channel::Channel, reader::Wanted, shared::Shared, subscription};
use crate::{
    discovery::{Catalog, PeerEntry},
    primitives::{PeerId, watch},
    streams::{limits::RECHECK, producer::ask},
};

pub(super) async fn run(shared: Arc<Shared>) {
    let mut catalog = shared.registry.discovery.watch();
    let mut subscriptions = BTreeMap::new();
    let mut recheck = interval(RECHECK);
    recheck.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let has_predicate = shared.subscribe_if.is_some();
    let mut deadline = shared.deadline();
    loop {
        let now = catalog.borrow_and_update().clone();
        update(&shared, &now, &mut subscriptions);
        let look_at = deadline.borrow_and_update().map(|deadline| shared.check_deadline(deadline));
        tokio::select! {
            biased;
            () = shared.cancel.cancelled() => break,
            changed = catalog.changed() => if changed.is_err() { shared.cancel.cancelled().await },
            _ = recheck.tick(), if has_predicate => {}
            Ok(()) = deadline.changed() => {}
            () = sleep_until(look_at.unwrap_or_else(Instant::now)), if look_at.is_some() => {}
        }
    }
    shared.registry.consumer_closed(shared.stream);
    shared.merge.close();
}

/// Tells every subscription what the catalog says of its producer, and starts new ones.
fn update(shared: &Arc<Shared>, catalog: &Catalog, subscriptions: &mut BTreeMap<PeerId, watch::Sender<Wanted>>) {
    // A task that has forgotten its producer has dropped its receiver.
    subscriptions.retain(|_, wanted| wanted.receiver_count() > 0);
    for (peer, wanted) in subscriptions.iter() {
        if !catalog.get(peer).is_some_and(|entry| entry.produces().contains(shared.stream)) {
            tell(wanted, Wanted::No { allowed: true });
        }
    }
    for entry in catalog.peers().filter(|entry| entry.produces().contains(shared.stream)) {
        let allowed = shared.subscribe_if.as_ref().is_none_or(|predicate| ask(predicate, entry));
        match subscriptions.get(&entry.id()) {
            Some(wanted) if allowed => tell(wanted, Wanted::Yes(entry.clone())),
            Some(wanted) => tell(wanted, Wanted::No { allowed: false }),
            None if allowed => {
                subscriptions.insert(entry.id(), start(shared, entry));
            }
            None => {}
        }
    }
}

fn tell(subscription: &watch::Sender<Wanted>, wanted: Wanted) {
    subscription.send_if_modified(|now| {
        let changes = *now != wanted;
        if changes {
            *now = wanted;
        }
        changes
    });
}

fn start(shared: &Arc<Shared>, entry: &PeerEntry) -> watch::Sender<Wanted> {
    let channel = Arc::new(Channel::new(entry.clone()));
    shared.add(channel.clone());
    let (sender, receiver) = watch::channel(Wanted::Yes(entry.clone()));
    shared.registry.node.tasks().spawn("subscription", subscription::run(shared.clone(), channel, receiver));
    sender
}
