//! [`Discovery`]: the handle that users and the other subsystems hold.

use std::{path::PathBuf, sync::Arc, time::Duration};

use iroh::{EndpointAddr, SecretKey};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

#[cfg(feature = "attest")]
use super::attesting;
use super::{
    announce::{Gossip, Neighbors, Overlay},
    book::Book,
    bootstrap::Bootstrap,
    catalog::Catalog,
    config::Config,
    core::{Core, Input, Life},
    entry::{EntryError, LocalEntry, PeerEntry, SignedEntry},
    events::Events,
    rendezvous::Guest,
    renewals, revocations,
    session::{self, Error},
    shared::Shared,
    stats::Stats,
    tickets,
    worker::Worker,
};
use crate::{
    network::{Acceptors, Node, Protocol},
    primitives::{PeerId, Tag, Tags, watch},
    trust::NetworkKind,
};

/// Nodes of this process that a starting node dials.
const RENDEZVOUS_CONTACTS: usize = 2;
/// Attempts to reach a contact that is not a bootstrap peer.
const CONTACT_ATTEMPTS: u32 = 3;
/// The same for nodes of this process: one in a simulation may be cut off while it begins.
const RENDEZVOUS_ATTEMPTS: u32 = 30;
/// The remembered peers are written down so long after a change, and at most every `BOOK_EVERY`.
const BOOK_DELAY: Duration = Duration::from_millis(500);
const BOOK_EVERY: Duration = Duration::from_secs(5);

/// Who is in the network. Cheap to clone; does not keep the network alive.
///
/// ```no_run
/// # fn example(network: &mosaik::Network) {
/// let discovery = network.discovery();
/// discovery.add_tags(["leader"]);
/// let sensors = discovery.catalog().peers().filter(|peer| peer.tags().contains("sensor")).count();
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Discovery {
    shared: Arc<Shared>,
    shutdown: mpsc::Sender<()>,
}

/// What discovery is started with.
pub(crate) struct Setup {
    pub(crate) config: Config,
    pub(crate) secret: SecretKey,
    pub(crate) bootstrap: Vec<Bootstrap>,
    pub(crate) tags: Tags,
    /// Where known peers are remembered, if anywhere.
    pub(crate) data_dir: Option<PathBuf>,
}

impl Discovery {
    /// Starts discovery and registers its protocols. Returns at once; peers are found in the background.
    ///
    /// # Errors
    /// When the initial tags are over the limit of an entry.
    pub(crate) fn spawn(setup: Setup, node: &Node, acceptors: &mut Acceptors) -> Result<Self, EntryError> {
        let Setup { config, secret, bootstrap, tags, data_dir } = setup;
        let transport = node.transport();
        let mut said = LocalEntry::new(node.addr());
        said.tags = tags;
        said.protocols = [
            Gossip::NAME,
            session::Sync::NAME,
            session::Pull::NAME,
            tickets::Tickets::NAME,
            revocations::Exchange::NAME,
        ]
        .map(String::from)
        .into();
        if node.trust().renews() {
            said.protocols.insert(renewals::Renewals::NAME.to_owned());
        }
        #[cfg(feature = "attest")]
        if node.trust().makes_evidence() {
            said.protocols.insert(attesting::Attesting::NAME.to_owned());
        }
        said.ticket = node.trust().ticket().map(|ticket| ticket.digest());
        let (network, now) = (node.network_id(), Shared::origin());
        let seed = transport.random_seed();
        let mut core = Core::new(said, transport.wall_clock(), network, secret, config.clone(), seed, now)?;
        core.trust(node.trust().clone());
        let overlay = Overlay::new(node.id(), network, &config, transport.random_seed());
        let shared = Arc::new(Shared::new(node.clone(), config.clone(), core, node.cancel().child_token()));
        let (neighbors, door, inbox) =
            Neighbors::new(node.clone(), shared.cancel.clone(), shared.watch(), shared.counters.clone(), &config);
        acceptors.accept::<Gossip>(move |incoming| door.enter(incoming));
        serve(&shared, acceptors);

        let guest = config.rendezvous.then(|| Guest::enter(transport.scope(), network, node.addr()));
        let kept = data_dir.clone();
        let book = data_dir.map(|dir| Book::in_dir(&dir, config.max_remembered));
        first_contacts(&shared, bootstrap, book.as_ref(), guest.as_ref());
        if let Some(book) = book {
            node.tasks().spawn("known-peers", keep(shared.clone(), book));
        }
        let (shutdown, on_shutdown) = mpsc::channel(1);
        let connections = node.connection_events();
        let worker = Worker::new(shared.clone(), overlay, (neighbors, inbox), connections, on_shutdown, guest);
        node.tasks().spawn_essential("discovery", worker.run());
        if node.trust().kind() == NetworkKind::Authority {
            node.tasks().spawn("tickets", tickets::fetch(shared.clone()));
            kept.iter().for_each(|dir| revocations::load(&shared, dir));
            node.tasks().spawn("revocations", revocations::spread(shared.clone(), kept.clone()));
            node.tasks().spawn("renewals", renewals::run(shared.clone(), kept));
        }
        #[cfg(feature = "attest")]
        attest(&shared);
        Ok(Self { shared, shutdown })
    }

    /// A snapshot of all known entries.
    #[must_use]
    pub fn catalog(&self) -> Catalog {
        self.shared.catalog()
    }

    /// Subscribes to changes of the catalog from now on.
    #[must_use]
    pub fn events(&self) -> Events {
        self.shared.subscribers.subscribe(self.shared.is_closed())
    }

    /// What this node says about itself.
    #[must_use]
    pub fn me(&self) -> PeerEntry {
        self.shared.catalog().local().clone()
    }

    /// Adds tags to the local node. The catalog shows them on return and they are announced at once. Tags over the
    /// limit of [`MAX_TAGS`](super::MAX_TAGS) are refused together, with a warning.
    pub fn add_tags(&self, tags: impl IntoIterator<Item = impl Into<Tag>>) {
        self.update_local(|said| tags.into_iter().for_each(|tag| _ = said.tags.insert(tag)));
    }

    /// Removes tags from the local node, as [`add_tags`](Self::add_tags) adds them.
    pub fn remove_tags(&self, tags: impl IntoIterator<Item = impl Into<Tag>>) {
        self.update_local(|said| tags.into_iter().for_each(|tag| _ = said.tags.remove(tag)));
    }

    /// Exchanges the full catalog with a peer now. On return both hold what either held. Cancellation-safe.
    ///
    /// # Errors
    /// When the peer cannot be reached within 3 s, or the exchange fails or takes longer than
    /// [`Config::session_timeout`].
    pub async fn sync_with(&self, peer: impl Into<EndpointAddr>) -> Result<(), Error> {
        let target = peer.into().into();
        tokio::select! {
            biased;
            () = self.shared.cancel.cancelled() => return Err(Error::ShutDown),
            result = session::synchronize(&self.shared, &target) => result?,
        }
        self.shared.step(Input::Met(target.peer));
        Ok(())
    }

    /// Makes contact with a peer in the background: exchanges catalogs and joins its overlay. A few attempts are made;
    /// what comes of it shows in [`events`](Self::events).
    pub fn dial(&self, peer: impl Into<EndpointAddr>) {
        self.shared.step(Input::Contact { target: peer.into().into(), attempts: Some(CONTACT_ATTEMPTS) });
    }

    /// What discovery has cost so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let counters = &self.shared.counters;
        let (refused_full, adoptions) = self.shared.with_quietly(|core, _| (core.refused_full(), core.adoptions()));
        Stats {
            gossip: counters.gossip.read(),
            sync: counters.sync.read(),
            entry: counters.entry.read(),
            refused_full,
            adoptions,
        }
    }

    /// How the live peers stand: signs of life and leases.
    pub(crate) fn lives(&self) -> Vec<Life> {
        self.shared.with_quietly(|core, now| core.lives(now))
    }

    /// The catalog as it changes.
    pub(crate) fn watch(&self) -> watch::Receiver<Catalog> {
        self.shared.watch()
    }

    /// Changes what the local node says about itself; the same promises as [`add_tags`](Self::add_tags).
    pub(crate) fn update_local(&self, change: impl FnOnce(&mut LocalEntry)) {
        if let Err(error) = self.try_update_local(change) {
            tracing::warn!(%error, "the node's own entry cannot say this and stays as it was");
        }
    }

    /// The same for a caller that cannot do without.
    ///
    /// # Errors
    /// When a list of the entry, or the whole, would be over its limit; the entry stays as it was.
    pub(crate) fn try_update_local(&self, change: impl FnOnce(&mut LocalEntry)) -> Result<(), EntryError> {
        self.shared.with(|core, now| core.try_update_local(change, now))
    }

    /// The local node's newest entry, for a protocol that introduces the node to a peer at once.
    pub(crate) fn signed_local(&self) -> SignedEntry {
        self.me().signed().clone()
    }

    /// Takes in what the peer at the other end of a live connection gave about itself. On return the catalog has it.
    ///
    /// # Errors
    /// When the entry is another peer's, forged, over a limit, stale, or the catalog is full.
    pub(crate) fn offer(&self, from: PeerId, entry: &SignedEntry) -> Result<PeerEntry, EntryError> {
        let entry = self.verified(entry)?;
        if entry.id() != from {
            return Err(EntryError::Foreign { owner: entry.id() });
        }
        self.shared.with(|core, now| core.offer(entry, from, now))
    }

    /// Takes in an entry, of whomever, that a peer gave on a live connection. Only of itself is it a sign of life: another one, if it
    /// was not known, is asked at once.
    ///
    /// # Errors
    /// When the entry is forged, over a limit, stale, one's own, of a peer that departed, or the catalog is full.
    pub(crate) fn introduce(&self, from: PeerId, entry: &SignedEntry) -> Result<PeerEntry, EntryError> {
        let entry = self.verified(entry)?;
        self.shared.with(|core, now| core.offer(entry, from, now))
    }

    fn verified(&self, entry: &SignedEntry) -> Result<PeerEntry, EntryError> {
        let node = &self.shared.node;
        Ok(entry.verify(node.network_id())?.trusting(node.trust()))
    }

    /// Says farewell and ends discovery, within [`Config::farewell`]. Safe to call twice.
    pub(crate) async fn shutdown(&self) {
        // Full or closed: it is departing already.
        let _ = self.shutdown.try_send(());
        self.shared.cancel.cancelled().await;
    }
}

/// Makes evidence and asks for that of others, if that is configured.
#[cfg(feature = "attest")]
fn attest(shared: &Arc<Shared>) {
    if shared.node.trust().makes_evidence() {
        shared.node.tasks().spawn("evidence", attesting::make(shared.clone()));
    }
    if shared.node.trust().verifies_evidence() {
        shared.node.tasks().spawn("attestation", attesting::follow(shared.clone()));
    }
}

/// Registers what discovery serves.
fn serve(shared: &Arc<Shared>, acceptors: &mut Acceptors) {
    let on_sync = shared.clone();
    acceptors.accept::<session::Sync>(move |incoming| {
        on_sync.node.tasks().spawn("sync-serve", session::serve_sync(on_sync.clone(), incoming));
    });
    let on_pull = shared.clone();
    let on_revocation = shared.clone();
    acceptors.accept::<revocations::Exchange>(move |incoming| {
        on_revocation.node.tasks().spawn("revoke-serve", revocations::serve(on_revocation.clone(), incoming));
    });
    #[cfg(feature = "attest")]
    {
        let on_evidence = shared.clone();
        acceptors.accept::<attesting::Attesting>(move |incoming| {
            on_evidence.node.tasks().spawn("attest-serve", attesting::serve(on_evidence.clone(), incoming));
        });
    }
    let on_renewal = shared.clone();
    acceptors.accept::<renewals::Renewals>(move |incoming| {
        on_renewal.node.tasks().spawn("renew-serve", renewals::serve(on_renewal.clone(), incoming));
    });
    let on_ticket = shared.clone();
    acceptors.accept::<tickets::Tickets>(move |incoming| {
        on_ticket.node.tasks().spawn("ticket-serve", tickets::serve(on_ticket.clone(), incoming));
    });
    acceptors.accept::<session::Pull>(move |incoming| {
        on_pull.node.tasks().spawn("pull-serve", session::serve_pull(on_pull.clone(), incoming));
    });
}

/// Bootstrap peers and remembered ones for ever, nodes of this process a few times.
fn first_contacts(shared: &Arc<Shared>, bootstrap: Vec<Bootstrap>, book: Option<&Book>, guest: Option<&Guest>) {
    for peer in bootstrap {
        shared.step(Input::Contact { target: peer.target(), attempts: None });
    }
    for addr in guest.map_or_else(Vec::new, |guest| guest.others(RENDEZVOUS_CONTACTS)) {
        shared.step(Input::Contact { target: addr.into(), attempts: Some(RENDEZVOUS_ATTEMPTS) });
    }
    if let Some(book) = book {
        shared.step(Input::Remembered(book.load()));
    }
}

/// Writes known peers down whenever they change: those that are there, and those that are looked for.
async fn keep(shared: Arc<Shared>, book: Book) {
    let book = Arc::new(book);
    let mut catalog = shared.watch();
    let mut not_before = Instant::now();
    loop {
        tokio::select! {
            biased;
            () = shared.cancel.cancelled() => return,
            changed = catalog.changed() => if changed.is_err() { return },
        }
        tokio::select! {
            biased;
            () = shared.cancel.cancelled() => {}
            () = async { sleep(BOOK_DELAY).await; sleep_until(not_before).await } => {}
        }
        catalog.borrow_and_update();
        let peers = shared.with_quietly(|core, _| core.to_remember(book.max()));
        // Nobody was ever known, here or before: there is nothing to write over what may be there.
        if !peers.is_empty() {
            let book = book.clone();
            // A disk that hangs holds up nothing but this task. `None` says that the runtime ends.
            let _ = shared.node.tasks().blocking(move || book.save(&peers)).await;
            not_before = Instant::now() + BOOK_EVERY;
        }
    }
}
