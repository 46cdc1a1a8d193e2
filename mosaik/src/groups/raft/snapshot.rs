//! Compaction, and bringing a member up to date that needs what is compacted: a manifest, then chunks, each verified.

use bytes::Bytes;

use super::{
    Digest, Fetching, Index, Log, Manifest, Member, Mutant, Output, Raft, Role, Snapshot, Write, message::Message,
    progress::Mode,
};

/// A snapshot being fetched.
#[derive(Clone, Debug)]
pub(super) struct Install {
    from: Member,
    manifest: Manifest,
    id: Digest,
    chunks: Vec<Option<Bytes>>,
    asked_at: u64,
    /// When a chunk last came, microseconds.
    got_at: u64,
}

/// A snapshot that was replaced while a member fetched it. Kept, with the entries after it, until nobody asks for it any more
/// or the log has grown too far beyond it: otherwise a member on a slow link would begin again with every compaction.
#[derive(Clone, Debug)]
pub(super) struct Older {
    snapshot: Snapshot,
    asked_at: u64,
}

impl Install {
    pub fn fetching(&self) -> Fetching {
        Fetching {
            mode: super::Mode::Snapshot,
            target: self.manifest.position.index,
            have: self.chunks.iter().flatten().count() as u64,
            of: self.chunks.len() as u64,
        }
    }
}

/// The digests of a snapshot's chunks of so many bytes.
#[must_use]
pub fn chunks(data: &[u8], size: usize) -> Vec<Digest> {
    data.chunks(size).map(|it| Digest(*blake3::hash(it).as_bytes())).collect()
}

/// Chunks asked for at once.
const WINDOW: usize = 4;
/// Heartbeats without a chunk, or a question for one, after which a transfer is over.
const IDLE: u64 = 20;

impl Raft {
    /// The machine's state at `index`: the log up to there may go.
    pub(super) fn on_compact(&mut self, index: Index, data: Bytes) {
        let before = self.snapshot.as_ref().map_or(0, |snapshot| snapshot.manifest.position.index);
        // A `Yield` must stay in the log: after it no user entry may follow, after a restart neither.
        // Storage that hangs is not given a snapshot on top: the log stays, and the next one is due later.
        if index <= before || index > self.applied || self.log.is_yielding() || self.is_full() || self.hangs() {
            return;
        }
        let Some(position) = self.log.at(index) else { return };
        let (time, civil) = self.log.times_at(index);
        let manifest = Manifest {
            position,
            time,
            civil,
            user: self.log.has_user_up_to(index),
            membership: self.log.membership_at(index).clone(),
            adopted: self.adopted.clone(),
            chunks: chunks(&data, self.settings.chunk),
            machine: self.settings.machine.clone(),
            sealed: self.is_sealed_at(index) && !self.settings.switch.is(Mutant::SealNotInSnapshot),
        };
        let snapshot = Snapshot { manifest, data };
        self.outbox.write(Write::Snapshot { snapshot: snapshot.clone(), keep: true });
        self.keep_while_fetched();
        self.snapshot = Some(snapshot);
        // A tail stays, in memory only, for followers that lag a little, or come from an older snapshot.
        let tail = self.log.tail(index, self.settings.tail, self.settings.tail_bytes);
        let older = self.older.as_ref().map(|older| older.snapshot.manifest.position.index);
        let begin = older.map_or(tail, |older| older.min(tail));
        if begin > self.log.base().index {
            self.log.compact(begin);
        }
    }

    fn is_under_way(&self, at: u64) -> bool {
        self.now.mono < at + IDLE * self.settings.heartbeat
    }

    /// The present snapshot is about to be replaced. One older one is kept at most: the oldest that is being fetched, unless
    /// too much of the log came after it.
    fn keep_while_fetched(&mut self) {
        let fetched = self.fetched.take().filter(|at| self.is_under_way(*at));
        self.forget_older();
        self.older.take_if(|older| {
            let index = older.snapshot.manifest.position.index;
            index < self.log.base().index || self.log.bytes_after(index) > self.settings.fetch_bytes
        });
        if self.settings.switch.is(Mutant::FetchedSnapshotDropped) {
            self.older = None;
        } else if let (None, Some(asked_at), Some(snapshot)) = (&self.older, fetched, &self.snapshot) {
            self.older = Some(Older { snapshot: snapshot.clone(), asked_at });
        }
    }

    /// Lets the older snapshot go if nobody fetches it any more.
    pub(super) fn forget_older(&mut self) {
        if self.older.as_ref().is_some_and(|older| !self.is_under_way(older.asked_at)) {
            self.older = None;
        }
    }

    /// Leader: the member needs compacted entries.
    pub(super) fn offer(&mut self, to: Member) {
        let Self { role: Role::Leader(leader), snapshot: Some(snapshot), outbox, now, .. } = self else { return };
        let round = leader.round;
        let Some(progress) = leader.progress.get_mut(&to) else { return };
        progress.mode = Mode::Snapshot { target: snapshot.manifest.position.index };
        progress.moved = now.mono;
        outbox.send(to, Message::Offer { manifest: Box::new(snapshot.manifest.clone()), round });
    }

    pub(super) fn on_offer(&mut self, from: Member, manifest: Manifest) {
        // Members of different machines have no bond; what comes all the same is not taken.
        if let (Some(ours), Some(theirs)) = (&self.settings.machine, &manifest.machine)
            && !ours.reads(theirs)
            && !self.settings.switch.is(Mutant::SnapshotOfAnotherMachine)
        {
            return;
        }
        if manifest.position.index <= self.commit {
            return self.ack(from, None, 0);
        }
        if self.hangs() {
            return; // it could not be written
        }
        let id = manifest.id();
        // A newer one does not interrupt a transfer that goes on.
        if self.installing.as_ref().is_some_and(|it| it.from == from && (it.id == id || self.is_under_way(it.got_at))) {
            return;
        }
        let chunks = vec![None; manifest.chunks.len()];
        self.installing = Some(Install { from, manifest, id, chunks, asked_at: 0, got_at: self.now.mono });
        self.install_tick();
        self.install_if_complete();
    }

    /// Asks for missing chunks.
    pub(super) fn install_tick(&mut self) {
        let Self { installing: Some(install), outbox, now, settings, .. } = self else { return };
        if install.asked_at != 0 && now.mono < install.asked_at + 3 * settings.heartbeat {
            return;
        }
        install.asked_at = now.mono.max(1);
        let missing = install.chunks.iter().enumerate().filter(|(_, chunk)| chunk.is_none()).take(WINDOW);
        for (chunk, _) in missing {
            let chunk = u32::try_from(chunk).unwrap_or(u32::MAX);
            outbox.send(install.from, Message::PullChunk { snapshot: install.id, chunk });
        }
    }

    pub(super) fn on_pull_chunk(&mut self, from: Member, wanted: Digest, chunk: u32) {
        let now = self.now.mono;
        let snapshot = match (&self.snapshot, &mut self.older) {
            (Some(snapshot), _) if snapshot.manifest.id() == wanted => {
                self.fetched = Some(now);
                snapshot
            }
            (_, Some(older)) if older.snapshot.manifest.id() == wanted => {
                older.asked_at = now;
                &older.snapshot
            }
            _ => return,
        };
        // It moves: the leader need not ask how it stands.
        if let Role::Leader(leader) = &mut self.role
            && let Some(progress) = leader.progress.get_mut(&from)
            && matches!(progress.mode, Mode::Snapshot { .. })
        {
            progress.moved = now;
        }
        let start = chunk as usize * self.settings.chunk;
        if start >= snapshot.data.len() {
            return;
        }
        let data = snapshot.data.slice(start..(start + self.settings.chunk).min(snapshot.data.len()));
        self.outbox.send(from, Message::Chunk { snapshot: wanted, chunk, data });
    }

    pub(super) fn on_chunk(&mut self, from: Member, of: Digest, chunk: u32, data: Bytes) {
        let Some(install) = &mut self.installing else { return };
        let chunk = chunk as usize;
        let expected = install.manifest.chunks.get(chunk).copied();
        if install.id != of || install.from != from || expected != Some(Digest(*blake3::hash(&data).as_bytes())) {
            return;
        }
        // A repeated chunk asks for nothing: or each repetition would multiply the next round.
        install.got_at = self.now.mono;
        if install.chunks[chunk].replace(data).is_some() {
            return;
        }
        let full = install.chunks.iter().filter(|it| it.is_some()).count();
        if full.is_multiple_of(WINDOW) {
            install.asked_at = 0;
            self.install_tick();
        }
        self.install_if_complete();
    }

    fn install_if_complete(&mut self) {
        if !self.installing.as_ref().is_some_and(|install| install.chunks.iter().all(Option::is_some)) {
            return;
        }
        let Some(Install { from, manifest, chunks, .. }) = self.installing.take() else { return };
        let position = manifest.position;
        if position.index <= self.commit {
            return self.ack(from, None, 0);
        }
        let data = chunks.into_iter().flatten().fold(Vec::new(), |mut all, chunk| {
            all.extend_from_slice(&chunk);
            all
        });
        let keep = self.log.at(position.index) == Some(position);
        let snapshot = Snapshot { manifest, data: data.into() };
        let token = self.outbox.write(Write::Snapshot { snapshot: snapshot.clone(), keep });
        if keep {
            self.log.compact(position.index);
        } else {
            self.log = Log::resting(&snapshot.manifest);
        }
        self.log.unsettle(token);
        self.adopted.clone_from(&snapshot.manifest.adopted);
        self.commit = position.index;
        self.hard.commit = position.index;
        self.handed = position.index;
        self.verified = self.verified.max(position.index);
        self.catching = None;
        self.outbox.put(Output::Restore(snapshot.clone()));
        (self.fetched, self.older) = (None, None);
        self.snapshot = Some(snapshot);
        self.ack(from, None, 0);
    }
}
