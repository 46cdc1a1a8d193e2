//! Anti-entropy: what two nodes say to each other to end with the same catalog.
//!
//! ```text
//! initiator                                   responder
//! Open { root, own sign of life, silent }  ->
//!                                          <- Same { signs }                 roots are equal: done, O(1) bytes
//!                                          <- Buckets { signs, digests }     of the buckets that are not empty
//! Offer { buckets, items, last }           ->                                ids and versions in buckets that differ
//!                                          <- Delta { records, signs, wants, more }   one or more
//! Records { records, last }                ->                                what was wanted, if anything
//!                                          <- Merged                         after the last page
//! ... next Offer, until `last` ...
//! ```
//! Neither side keeps anything between messages: each answer is made from the catalog as it then is, which may have
//! changed meanwhile; the next round sees to that. Pages are cut so that every frame stays under its limit.
//! A renewed lease changes no digest, so it does not travel here, except the two nodes' own and those of peers that
//! the initiator lists as silent.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    super::{
        catalog::BUCKETS,
        entry::{EntryError, SignedEntry, Version},
        hint::{HINT_BYTES, Hint, HintError, RawHint},
    },
    Core, Key, Now, Record, Sign, Want,
};
use crate::primitives::{NetworkId, PeerId};

/// The longest frame in bytes. The largest single thing in one is the list of items of a bucket, at most all peers.
pub(in super::super) const MAX_FRAME: usize = 1 << 20;
/// Pages are cut at this size, in bytes: one more record of 64 KiB still fits the frame.
const PAGE: usize = 128 << 10;
/// The size of an item in an offer, in bytes, at most: key 32, run 10, seq 10.
const ITEM_BYTES: usize = 52;
/// Silent peers in one question.
const MAX_SILENT: usize = 64;

/// A sign of life on the wire. The age is in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct WireSign {
    hint: RawHint,
    age: u32,
}

/// A record on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct WireRecord {
    entry: SignedEntry,
    sign: WireSign,
}

/// A peer's version in an offer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct Item {
    peer: Key,
    version: Version,
}

/// A message of `sync/2`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) enum Message {
    Open { root: u128, me: WireSign, silent: Vec<Key> },
    Same { signs: Vec<WireSign> },
    Buckets { signs: Vec<WireSign>, digests: Vec<(u8, u128)> },
    Offer { buckets: Vec<u8>, items: Vec<Item>, last: bool },
    Delta { records: Vec<WireRecord>, signs: Vec<WireSign>, wants: Vec<Key>, more: bool },
    Records { records: Vec<WireRecord>, last: bool },
    Merged,
}

/// Something in a message of a peer is not what it claims to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in super::super) enum Forged {
    #[error("an entry: {0}")]
    Entry(#[from] EntryError),
    #[error("a hint: {0}")]
    Hint(#[from] HintError),
}

impl From<Sign> for WireSign {
    fn from(sign: Sign) -> Self {
        Self { hint: sign.hint.into(), age: u32::try_from(sign.age.as_millis()).unwrap_or(u32::MAX) }
    }
}

impl From<&Record> for WireRecord {
    fn from(record: &Record) -> Self {
        Self { entry: record.entry.signed().clone(), sign: record.sign.into() }
    }
}

impl WireSign {
    /// # Errors
    /// When the hint is not its peer's.
    pub(in super::super) fn verify(&self, network: NetworkId) -> Result<Sign, Forged> {
        Ok(Sign { hint: self.hint.verify(network)?, age: Duration::from_millis(u64::from(self.age)) })
    }
}

impl WireRecord {
    /// # Errors
    /// When the entry or the hint is not its peer's.
    pub(in super::super) fn verify(&self, network: NetworkId) -> Result<Record, Forged> {
        Ok(Record { entry: self.entry.verify(network)?, sign: self.sign.verify(network)? })
    }

    fn len(&self) -> usize {
        self.entry.len() + HINT_BYTES + 16
    }
}

/// Cuts records into pages of bounded size; at least one page, which may be empty.
pub(in super::super) fn pages(records: impl IntoIterator<Item = WireRecord>) -> Vec<Vec<WireRecord>> {
    let (mut pages, mut page, mut size) = (Vec::new(), Vec::new(), 0);
    for record in records {
        if size + record.len() > PAGE && !page.is_empty() {
            pages.push(std::mem::take(&mut page));
            size = 0;
        }
        size += record.len();
        page.push(record);
    }
    pages.push(page);
    pages
}

impl Core {
    /// The first message of a session.
    pub(in super::super) fn sync_open(&mut self, now: Now) -> Message {
        let silent = self.silent_peers(now, MAX_SILENT);
        Message::Open { root: self.catalog.root().0, me: self.local.sign_of_life(now).into(), silent }
    }

    /// The responder's answer to [`Message::Open`] of the peer that signed `opener`.
    pub(in super::super) fn sync_greet(&self, root: u128, opener: &Hint, silent: &[Key], now: Now) -> Message {
        let mut signs = vec![self.local.sign_of_life(now).into()];
        // A peer that departed and came back with its clock behind must learn what it was, or nobody believes it.
        let former = self.gone.last_hint(opener.peer.as_bytes()).filter(|last| last.order() >= opener.order());
        signs.extend(former.map(|hint| WireSign::from(Sign { hint, age: Duration::ZERO })));
        let heard = silent.iter().take(MAX_SILENT).filter_map(|key| self.peers.get(key));
        signs.extend(heard.filter(|peer| !peer.is_silent(now)).filter_map(|p| p.sign_of_life(now)).map(WireSign::from));
        if root == self.catalog.root().0 {
            return Message::Same { signs };
        }
        let all = (0..=u8::MAX).map(|bucket| (bucket, self.catalog.bucket(bucket)));
        Message::Buckets { signs, digests: all.filter(|(_, digest)| *digest != 0).collect() }
    }

    /// The initiator's offers: what it has in the buckets that differ. Empty when none differs.
    pub(in super::super) fn sync_offers(&self, digests: &[(u8, u128)]) -> Vec<Message> {
        let mut theirs = [0; BUCKETS];
        for (bucket, digest) in digests {
            theirs[usize::from(*bucket)] = *digest;
        }
        let (mut offers, mut buckets, mut items) = (Vec::new(), Vec::new(), Vec::new());
        for bucket in 0..=u8::MAX {
            if theirs[usize::from(bucket)] == self.catalog.bucket(bucket) {
                continue;
            }
            let mine = self.items(bucket);
            if (items.len() + mine.len()) * ITEM_BYTES > PAGE && !buckets.is_empty() {
                let (buckets, items) = (std::mem::take(&mut buckets), std::mem::take(&mut items));
                offers.push(Message::Offer { buckets, items, last: false });
            }
            buckets.push(bucket);
            items.extend(mine);
        }
        if !buckets.is_empty() {
            offers.push(Message::Offer { buckets, items, last: true });
        }
        offers
    }

    fn items(&self, bucket: u8) -> Vec<Item> {
        let me = self.local.entry();
        let local =
            (me.id().as_bytes()[0] == bucket).then(|| Item { peer: *me.id().as_bytes(), version: me.version() });
        let live = self.peers.range(bucket_range(bucket));
        live.map(|(key, peer)| Item { peer: *key, version: peer.entry.version() }).chain(local).collect()
    }

    /// The responder's answer to an offer: what it has that is newer, farewells, and what it wants.
    pub(in super::super) fn sync_delta(&self, buckets: &[u8], items: &[Item], now: Now) -> Vec<Message> {
        let theirs: std::collections::BTreeMap<Key, Version> =
            items.iter().map(|item| (item.peer, item.version)).collect();
        let newer = |key: &Key, version: Version| theirs.get(key).is_none_or(|known| version > *known);
        let mut records = Vec::new();
        let me = self.local.entry();
        for bucket in buckets.iter().take(BUCKETS) {
            let live = self.peers.range(bucket_range(*bucket));
            let news = live.filter(|(key, peer)| newer(key, peer.entry.version()));
            records.extend(news.filter_map(|(key, _)| self.record(key, now)));
            if me.id().as_bytes()[0] == *bucket && newer(me.id().as_bytes(), me.version()) {
                records.push(WireRecord::from(&self.local_record(now)));
            }
        }
        let mut wants = Vec::new();
        let mut signs = Vec::new();
        for (key, version) in &theirs {
            let mine = self.version_of(key);
            if mine.is_some_and(|mine| mine >= *version) {
                continue;
            }
            match self.gone.farewell(key, *version) {
                Some(hint) if mine.is_none() => signs.push(Sign { hint, age: Duration::ZERO }.into()),
                _ => wants.push(*key),
            }
        }
        let pages = pages(records);
        let last = pages.len() - 1;
        let mut deltas: Vec<Message> = Vec::with_capacity(pages.len());
        for (at, records) in pages.into_iter().enumerate() {
            let (signs, wants) = if at == 0 { Default::default() } else { (Vec::new(), Vec::new()) };
            deltas.push(Message::Delta { records, signs, wants, more: at < last });
        }
        if let Some(Message::Delta { signs: s, wants: w, .. }) = deltas.last_mut() {
            (*s, *w) = (signs, wants);
        }
        deltas
    }

    fn version_of(&self, key: &Key) -> Option<Version> {
        let me = self.local.entry();
        if me.id().as_bytes() == key {
            return Some(me.version());
        }
        self.peers.get(key).map(|peer| peer.entry.version())
    }

    /// A peer's record as it may be passed on; `None` without a hint, or when it is about to expire.
    fn record(&self, key: &Key, now: Now) -> Option<WireRecord> {
        let peer = self.peers.get(key)?;
        let sign = peer.sign_of_life(now).filter(|sign| sign.age < sign.hint.ttl())?;
        Some(WireRecord { entry: peer.entry.signed().clone(), sign: sign.into() })
    }

    /// Records that the other side asked for, as far as they are here, in pages.
    pub(in super::super) fn sync_records(&self, wants: &[Key], now: Now) -> Vec<Message> {
        let pages = pages(wants.iter().filter_map(|key| self.record_or_own(key, now)));
        let last = pages.len() - 1;
        let page = |(at, records)| Message::Records { records, last: at == last };
        pages.into_iter().enumerate().map(page).collect()
    }

    fn record_or_own(&self, key: &Key, now: Now) -> Option<WireRecord> {
        if self.local.id().as_bytes() == key {
            return Some(WireRecord::from(&self.local_record(now)));
        }
        self.record(key, now)
    }

    /// The answer to an entry request: the records that are here, and whether others are on their way.
    pub(in super::super) fn pull_answer(
        &self,
        wants: &[Want],
        asker: PeerId,
        now: Now,
    ) -> (Vec<WireRecord>, Vec<Want>) {
        let (mut records, mut coming) = (Vec::new(), Vec::new());
        for want in wants.iter().take(super::pull::MAX_BATCH) {
            if self.version_of(&want.peer).is_some_and(|version| version >= want.version) {
                records.extend(self.record_or_own(&want.peer, now));
            } else if self.pulls.expects(want, asker) {
                coming.push(*want);
            }
        }
        (records, coming)
    }
}

fn bucket_range(bucket: u8) -> std::ops::RangeInclusive<Key> {
    let (mut low, mut high) = ([0; 32], [u8::MAX; 32]);
    (low[0], high[0]) = (bucket, bucket);
    low..=high
}

const _: () = assert!(super::super::config::MAX_PEERS * ITEM_BYTES + PAGE < MAX_FRAME, "one bucket fits one frame");
