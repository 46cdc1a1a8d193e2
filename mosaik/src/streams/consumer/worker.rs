//! The worker of a consumer: watches the catalog and keeps one subscription task per producer of the stream.

use std::{collections::BTreeMap, sync::Arc};

use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::{channel::Channel, preference::Preference, reader::Wanted, shared::Shared, subscription};
use crate::{
    discovery::{Catalog, PeerEntry},
    primitives::{PeerId, watch},
    streams::{limits::RECHECK, producer::ask},
    trust::{Held, MissingGrant, RefusedBy},
};

pub(super) async fn run(shared: Arc<Shared>, mut preference: Option<Preference>) {
    let mut topology = shared.topology();
    let mut catalog = shared.registry.discovery.watch();
    let mut subscriptions = BTreeMap::new();
    let mut recheck = interval(RECHECK);
    recheck.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (asks, mut lacking) = (shared.asks(), BTreeMap::new());
    let mut deadline = shared.deadline();
    loop {
        let now = catalog.borrow_and_update().clone();
        let asked = ask_all(&shared, &now, &mut lacking);
        // Before it is decided: one that is late is replaced at once.
        let look_at = deadline.borrow_and_update().map(|deadline| shared.check_deadline(deadline));
        update(&shared, &now, &mut subscriptions, asked, preference.as_mut());
        let choose_at = preference.as_ref().map(|preference| preference.wake_at(&shared));
        tokio::select! {
            biased;
            () = shared.cancel.cancelled() => break,
            changed = catalog.changed() => if changed.is_err() { shared.cancel.cancelled().await },
            _ = recheck.tick(), if asks => {}
            Ok(()) = deadline.changed() => {}
            () = sleep_until(look_at.unwrap_or_else(Instant::now)), if look_at.is_some() => {}
            () = sleep_until(choose_at.unwrap_or_else(Instant::now)), if choose_at.is_some() => {}
            // A producer was lost, or items flow from it.
            Ok(()) = topology.changed(), if choose_at.is_some() => {}
        }
    }
    shared.registry.consumer_closed(shared.stream);
    shared.merge.close();
}

/// A producer, and whether it may be subscribed to; if not, the grant that it lacks, if that is why.
type Asked<'a> = (&'a PeerEntry, Result<(), Option<MissingGrant>>);

/// Asks of every producer whether its ticket lets it produce, and then the predicate. Tells of those that have come to lack a grant;
/// `lacking` are those that were told of.
fn ask_all<'a>(shared: &Shared, catalog: &'a Catalog, lacking: &mut BTreeMap<PeerId, MissingGrant>) -> Vec<Asked<'a>> {
    let before = std::mem::take(lacking);
    let producers = catalog.peers().filter(|entry| entry.produces().contains(shared.stream));
    let asked = producers.map(|entry| {
        let peer = entry.id();
        let admits = |predicate| ask(predicate, &entry.measured(shared.registry.node.rtt(peer)));
        let allowed = match shared.held(entry) {
            Held::Granted => shared.subscribe_if.as_ref().is_none_or(admits).then_some(()).ok_or(None),
            Held::Unknown => Err(None),
            Held::Missing(missing) => {
                if before.get(&peer) != Some(&missing) {
                    shared.not_granted(peer, RefusedBy::Us, missing.clone());
                }
                lacking.insert(peer, missing.clone());
                Err(Some(missing))
            }
        };
        (entry, allowed)
    });
    asked.collect()
}

/// Tells every subscription what the catalog says of its producer, and starts new ones.
fn update(
    shared: &Arc<Shared>,
    catalog: &Catalog,
    subscriptions: &mut BTreeMap<PeerId, watch::Sender<Wanted>>,
    asked: Vec<Asked<'_>>,
    mut preference: Option<&mut Preference>,
) {
    // A task that has forgotten its producer has dropped its receiver.
    subscriptions.retain(|_, wanted| wanted.receiver_count() > 0);
    for (peer, wanted) in subscriptions.iter() {
        if !catalog.get(peer).is_some_and(|entry| entry.produces().contains(shared.stream)) {
            tell(wanted, Wanted::Gone);
        }
    }
    if let Some(preference) = &mut preference {
        let allowed: Vec<_> =
            asked.iter().filter(|(_, allowed)| allowed.is_ok()).map(|(entry, _)| (*entry).clone()).collect();
        preference.decide(shared, &allowed);
    }
    for (entry, allowed) in asked {
        let want: fn(PeerEntry) -> Wanted = match &preference {
            Some(preference) if preference.takes(entry.id()) => Wanted::Yes,
            Some(preference) if preference.stands_by(entry.id()) => Wanted::Standby,
            Some(_) => Wanted::Spare,
            None => Wanted::Yes,
        };
        let want = want(entry.clone());
        if preference.is_some() {
            shared.set_spare(entry.id(), matches!(want, Wanted::Spare(_)));
        }
        match (subscriptions.get(&entry.id()), allowed) {
            (Some(wanted), Ok(())) => tell(wanted, want),
            (Some(wanted), Err(missing)) => tell(wanted, Wanted::No(missing)),
            (None, Ok(())) => {
                subscriptions.insert(entry.id(), start(shared, entry, want));
            }
            (None, Err(_)) => {}
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

fn start(shared: &Arc<Shared>, entry: &PeerEntry, want: Wanted) -> watch::Sender<Wanted> {
    let channel = Arc::new(Channel::new(entry.clone()));
    shared.add(channel.clone());
    channel.set_spare(matches!(want, Wanted::Spare(_)));
    let (sender, receiver) = watch::channel(want);
    shared.registry.node.tasks().spawn("subscription", subscription::run(shared.clone(), channel, receiver));
    sender
}
