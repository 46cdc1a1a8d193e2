//! The words of authorities among members, on what is taken back and on who is trusted: told on at once, compared now and then,
//! kept in the data directory. `trust` verifies and holds them.
//!
//! Whoever hears something new tells all that it is connected to, which ends because what is known only grows. What is missed that way
//! is made up for by comparing digests with somebody every few seconds. A part of the network that is cut off hears of nothing.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use iroh::EndpointAddr;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep_until, timeout};

use super::{entry::PeerEntry, shared::Shared};
use crate::{
    network::{CloseCode, Family, Incoming, Node, OpenError, Protocol},
    primitives::{PeerId, private, watch},
    trust::{AuthorityList, ListError, MAX_REVOCATIONS, Revocation, RevocationError, Trust},
};

/// The files in the data directory: one revocation a line, and one list of authorities.
const FILE: &str = "revocations";
const LISTS: &str = "authorities";
/// The longest files that are read, in bytes.
const MAX_FILE: u64 = 4 << 20;
/// How long one exchange may take.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often this node compares with somebody.
const COMPARE_EVERY: Duration = Duration::from_secs(10);
/// Those that are told at once.
const TOLD: usize = 64;

/// `revoke/2`.
pub(super) struct Exchange;

impl Protocol for Exchange {
    type Message = Message;
    const FAMILY: Family = Family::DISCOVERY;
    const NAME: &'static str = "revoke/2";
}

/// A message of `revoke/2`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Message {
    /// The digest of what the sender knows.
    Known([u8; 32]),
    /// All that the sender knows; the answer to another digest, and the answer to that. Or what an operator has to say.
    All(Words),
}

/// What authorities have said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Words {
    /// The oldest first.
    pub(crate) lists: Vec<AuthorityList>,
    pub(crate) revocations: Vec<Revocation>,
}

impl Words {
    fn of(trust: &Trust) -> Self {
        let (lists, revocations, _) = trust.words();
        Self { lists, revocations }
    }
}

/// Reads what was kept.
pub(super) fn load(shared: &Shared, dir: &Path) {
    // Who is trusted comes first: it decides whose word counts.
    each_line(&dir.join(LISTS), |line| {
        let taken = line.parse::<AuthorityList>().and_then(|said| shared.node.trust().trust_authorities(&said));
        // One from before the membership that is kept now: a later one follows.
        if matches!(taken, Err(ListError::UnknownAuthority { .. })) { Ok(false) } else { taken }
    });
    each_line(&dir.join(FILE), |line| line.parse::<Revocation>().and_then(|said| shared.node.trust().revoke(&said)));
}

fn each_line<E: std::fmt::Display>(path: &Path, take: impl Fn(&str) -> Result<bool, E>) {
    let text = match fs::metadata(path).map(|meta| meta.len()) {
        Ok(len) if len > MAX_FILE => Err(io::Error::other("it is too long")),
        Ok(_) => fs::read_to_string(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => Err(error),
    };
    match text {
        Ok(text) => {
            for (number, line) in text.lines().enumerate() {
                if let Err(error) = take(line) {
                    tracing::warn!(path = %path.display(), line = number + 1, %error, "a line is left out");
                }
            }
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "cannot read what authorities have said; others tell of it");
        }
    }
}

/// Acts on what is new from this call on, whenever the future is first polled, and compares now and then, until the node ends.
pub(super) fn spread(shared: Arc<Shared>, dir: Option<PathBuf>) -> impl Future<Output = ()> {
    let changes = shared.node.trust().word_changes();
    act(shared, dir, changes)
}

async fn act(shared: Arc<Shared>, dir: Option<PathBuf>, mut changes: watch::Receiver<u64>) {
    let mut compare_at = Instant::now() + COMPARE_EVERY;
    let mut turn = 0;
    loop {
        tokio::select! {
            biased;
            () = shared.cancel.cancelled() => return,
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
                changes.borrow_and_update();
                shared.node.close_excluded();
                shared.look_again();
                keep(&shared, dir.clone()).await;
                let told = shared.connected().take(TOLD).map(|peer| compare(&shared, peer));
                let telling = futures::future::join_all(told);
                if shared.cancel.run_until_cancelled(telling).await.is_none() {
                    return;
                }
            }
            () = sleep_until(compare_at) => {
                compare_at = Instant::now() + COMPARE_EVERY;
                let peers: Vec<PeerEntry> = shared.connected().collect();
                turn += 1;
                if let Some(peer) = peers.get(turn % peers.len().max(1)).cloned()
                    && shared.cancel.run_until_cancelled(compare(&shared, peer)).await.is_none()
                {
                    return;
                }
            }
        }
    }
}

async fn keep(shared: &Shared, dir: Option<PathBuf>) {
    let Some(dir) = dir else { return };
    let Words { lists, revocations } = Words::of(shared.node.trust());
    let revocations: BTreeSet<String> = revocations.iter().map(ToString::to_string).collect();
    let files = [(LISTS, lines(lists.iter().map(ToString::to_string))), (FILE, lines(revocations))];
    let write = move || {
        let mut files = files.into_iter().map(|(file, text)| (dir.join(file), text));
        files.try_for_each(|(path, text)| private::replace(&path, text.as_bytes()).map_err(|error| (path, error)))
    };
    if let Some(Err((path, error))) = shared.node.tasks().blocking(write).await {
        tracing::warn!(path = %path.display(), %error, "cannot keep what authorities have said; after a restart others tell of it");
    }
}

fn lines(lines: impl IntoIterator<Item = String>) -> String {
    lines.into_iter().map(|line| line + "\n").collect()
}

/// Makes one's own and a peer's knowledge equal.
async fn compare(shared: &Arc<Shared>, peer: PeerEntry) {
    match timeout(EXCHANGE_TIMEOUT, exchange(shared, &peer)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(peer = ?peer.id(), %error, "revocations were not compared"),
        Err(_) => tracing::debug!(peer = ?peer.id(), "revocations were not compared in time"),
    }
}

async fn exchange(shared: &Arc<Shared>, peer: &PeerEntry) -> Result<(), OpenError> {
    let mut link = shared.node.open::<Exchange>(peer.addr()).await?;
    link.send(&Message::Known(shared.node.trust().words().2)).await?;
    if let Some(Message::All(theirs)) = link.recv().await? {
        link.send(&Message::All(Words::of(shared.node.trust()))).await?;
        link.finish();
        take(shared, peer.id(), &theirs);
        // The peer ends its side when it has taken them in.
        link.recv().await?;
    }
    Ok(())
}

/// Tells a member, over a link of whoever wants to.
pub(crate) async fn tell(node: &Node, to: &EndpointAddr, words: Words) -> Result<(), OpenError> {
    let mut link = node.open::<Exchange>(to).await?;
    link.send(&Message::All(words)).await?;
    link.finish();
    // The member ends its side when it has taken it in.
    link.recv().await?;
    Ok(())
}

fn take(shared: &Shared, from: PeerId, Words { lists, revocations }: &Words) {
    // Who is trusted comes first: it decides whose word counts.
    for list in lists {
        // Of an authority of which this node has not heard yet, for one.
        if let Err(error) = shared.node.trust().trust_authorities(list) {
            tracing::debug!(?from, %error, "a list of authorities is not taken in");
        }
    }
    for revocation in revocations.iter().take(MAX_REVOCATIONS) {
        match shared.node.trust().revoke(revocation) {
            Ok(_) => {}
            Err(error @ RevocationError::Full) => return tracing::warn!(%error, "a revocation is not taken in"),
            // Of an authority that only the other one trusts, for one.
            Err(error) => tracing::debug!(?from, %error, "a revocation is not taken in"),
        }
    }
}

/// Answers one exchange.
pub(super) async fn serve(shared: Arc<Shared>, incoming: Incoming) {
    let peer = incoming.peer();
    let mut link = incoming.link::<Exchange>();
    let Some(place) = shared.serving[3].enter(peer) else { return link.close(CloseCode::NoCapacity) };
    let served = timeout(EXCHANGE_TIMEOUT, async {
        let first = link.recv().await?;
        place.spoke();
        match first {
            Some(Message::Known(theirs)) => {
                let (lists, revocations, digest) = shared.node.trust().words();
                if theirs == digest {
                    link.finish();
                    return Ok(());
                }
                link.send(&Message::All(Words { lists, revocations })).await?;
                if let Some(Message::All(theirs)) = link.recv().await? {
                    take(&shared, peer, &theirs);
                }
            }
            // An operator's word.
            Some(Message::All(told)) => take(&shared, peer, &told),
            None => {}
        }
        link.finish();
        Ok::<_, crate::network::LinkError>(())
    });
    let end = tokio::select! {
        biased;
        () = shared.cancel.cancelled() => return,
        () = place.displaced() => return link.close(CloseCode::NoCapacity),
        end = served => end,
    };
    match end {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(?peer, %error, "an exchange of revocations failed"),
        Err(_) => link.close(CloseCode::Timeout),
    }
}
