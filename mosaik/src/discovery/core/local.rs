//! One's own entry and lease: versions, beats, announcements, and what to do when others know a newer self.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use iroh::{EndpointAddr, SecretKey, TransportAddr};

use super::{
    super::{
        config::Config,
        entry::{EntryError, LocalEntry, MAX_ADDRS, PeerEntry, Version},
        hint::{Hint, Kind},
    },
    Core, Notice, Now, Output, Record, Sign, addrs, jitter,
    twins::Echo,
};
use crate::{
    primitives::{NetworkId, PeerId},
    trust::Trust,
};

/// Two nodes with one key outbid each other's versions for ever; this keeps them from doing it at full speed.
const ADOPT_GAP: Duration = Duration::from_secs(1);

/// The local node's side of the catalog.
#[derive(Debug)]
pub(super) struct Local {
    said: LocalEntry,
    entry: PeerEntry,
    hint: Hint,
    issued: Now,
    /// Whether the hint has not been broadcast yet.
    fresh: bool,
    /// Whether the next announcement is news to somebody and not just a renewal.
    news: bool,
    announced_at: Option<Now>,
    /// When the next announcement is due, be it news or a renewal.
    due: Now,
    next_adoption: Now,
    adoptions: u64,
    /// What was outbid last.
    outbid: Option<Version>,
    departed: bool,
    network: NetworkId,
    secret: SecretKey,
    /// By which the node's own entry knows its grants.
    trust: Option<Trust>,
}

impl Local {
    pub(super) fn new(
        said: LocalEntry,
        run_id: u64,
        network: NetworkId,
        secret: SecretKey,
        config: &Config,
        now: Now,
    ) -> Result<Self, EntryError> {
        let entry = said.sign(Version { run_id, seq: 0 }, network, &secret)?;
        let hint = Hint::sign(&entry, 0, config.lease, Kind::Alive, network, &secret);
        Ok(Self {
            said,
            entry,
            hint,
            issued: now,
            fresh: true,
            news: true,
            announced_at: None,
            due: now,
            next_adoption: now,
            adoptions: 0,
            outbid: None,
            departed: false,
            network,
            secret,
            trust: None,
        })
    }

    pub(super) fn id(&self) -> PeerId {
        self.entry.id()
    }

    pub(super) const fn entry(&self) -> &PeerEntry {
        &self.entry
    }

    pub(super) const fn due(&self) -> Now {
        self.due
    }

    pub(super) fn sign_of_life(&self, now: Now) -> Sign {
        Sign { hint: self.hint, age: now.saturating_sub(self.issued) }
    }

    /// Announces at once, or a little later if an announcement has just been made.
    pub(super) fn announce_soon(&mut self, now: Now) {
        self.news = true;
        self.due = self.due.min(now);
    }

    fn beat(&mut self, beat: u64, kind: Kind, config: &Config, now: Now) {
        self.hint = Hint::sign(&self.entry, beat, config.lease, kind, self.network, &self.secret);
        self.issued = now;
        self.fresh = true;
    }
}

impl Core {
    /// The node's own entry knows its grants from now on.
    pub(in super::super) fn trust(&mut self, trust: Trust) {
        self.local.entry = self.local.entry.clone().trusting(&trust);
        self.local.trust = Some(trust);
        self.catalog.put(self.local.entry.clone());
    }

    /// Changes what the local node says about itself; a real change is a new version, visible in the catalog on
    /// return and announced at once. A change that would put the entry over a limit is refused whole.
    pub(in super::super) fn try_update_local(
        &mut self,
        change: impl FnOnce(&mut LocalEntry),
        now: Now,
    ) -> Result<(), EntryError> {
        let mut said = self.local.said.clone();
        change(&mut said);
        if said == self.local.said || self.local.departed {
            return Ok(());
        }
        self.say(said, self.local.entry.version().next(), self.local.hint.beat + 1, now)
    }

    /// The local node's addresses, those at which others reached it first. As many are announced as the entry has room for.
    pub(super) fn on_addr(&mut self, addr: EndpointAddr, reached: &BTreeSet<IpAddr>, now: Now) {
        let mut room = MAX_ADDRS;
        loop {
            let (listed, left_out) = addrs::choose(addr.clone(), reached, &self.local.said.addr.addrs, room);
            match self.try_update_local(|said| said.addr = listed, now) {
                Err(EntryError::TooLarge { .. }) if room > 1 => room /= 2,
                Err(error) => {
                    // Nothing but addresses has changed, so one of them alone is too long: the former ones stay.
                    debug_assert!(matches!(error, EntryError::TooLarge { .. }), "{error}");
                    return self.tell_left_out(addr.addrs.into_iter().collect());
                }
                Ok(()) => return self.tell_left_out(left_out),
            }
        }
    }

    /// Says once which addresses others will not hear of.
    pub(super) fn tell_left_out(&mut self, left_out: Vec<TransportAddr>) {
        if !left_out.is_empty() && !std::mem::replace(&mut self.left_out_told, true) {
            let listed = self.local.said.addr.addrs.len();
            self.outputs.push(Output::Notice(Notice::LeftOut { listed, left_out }));
        }
    }

    fn say(&mut self, said: LocalEntry, version: Version, beat: u64, now: Now) -> Result<(), EntryError> {
        let entry = said.sign(version, self.network, &self.local.secret)?;
        let entry = self.local.trust.iter().fold(entry, PeerEntry::trusting);
        self.local.said = said;
        self.local.entry = entry.clone();
        self.local.beat(beat, Kind::Alive, &self.config, now);
        self.catalog.put(entry);
        self.local.announce_soon(now);
        Ok(())
    }

    /// Announces when it is due: news at once (but `announce_gap` apart), otherwise to renew the lease.
    pub(super) fn tick_local(&mut self, now: Now) {
        if now < self.local.due || self.local.departed {
            return;
        }
        let earliest = self.local.announced_at.map_or(now, |at| at + self.config.announce_gap);
        if now < earliest {
            self.local.due = earliest;
            return;
        }
        if !self.local.fresh {
            self.local.beat(self.local.hint.beat + 1, Kind::Alive, &self.config, now);
        }
        self.local.fresh = false;
        let news = std::mem::take(&mut self.local.news);
        self.local.announced_at = Some(now);
        self.local.due = now + jitter(&mut self.rng, self.config.renew_every, 0.1);
        self.outputs.push(Output::Broadcast { hint: self.local.hint, news });
    }

    /// The farewell hint: the last word of this run.
    pub(in super::super) fn depart(&mut self, now: Now) -> Hint {
        self.local.departed = true;
        self.local.due = Now::MAX;
        let beat = self.local.hint.beat + 1;
        self.local.beat(beat, Kind::Departed, &self.config, now);
        self.local.hint
    }

    /// The local node's newest entry and sign of life.
    pub(in super::super) fn local_record(&self, now: Now) -> Record {
        Record { entry: self.local.entry.clone(), sign: self.local.sign_of_life(now) }
    }

    /// Others know this node at a version that is not older than its own: an earlier run with a clock ahead, or another
    /// node with the same key. Starts a run after it, so that what this node says now is the newest, even if that run
    /// said farewell.
    pub(super) fn on_own_echo(&mut self, echo: Echo<'_>, now: Now) {
        let Echo { version, digest, beat, addr, .. } = echo;
        if self.local.departed {
            return;
        }
        // An entry of the same version that is not this one cannot be told from it by anybody else.
        let other = version == self.local.entry.version() && digest != self.local.entry.digest();
        if (version, beat) <= self.local.hint.order() && !other {
            if let Some(addr) = addr.filter(|_| self.local.outbid == Some(version)) {
                self.on_rival_entry(addr, now);
            }
            return;
        }
        if now < self.local.next_adoption {
            return;
        }
        self.local.next_adoption = now + ADOPT_GAP;
        self.local.adoptions += 1;
        self.local.outbid = Some(version);
        self.on_outbid(echo, now);
        let (said, beat) = (self.local.said.clone(), self.local.hint.beat.max(beat) + 1);
        if let Err(error) = self.say(said, Version { run_id: version.run_id.saturating_add(1), seq: 0 }, beat, now) {
            debug_assert!(false, "what was signed before can be signed again: {error}");
        }
    }

    /// How often the local node had to outbid an older self; more than a few say that two nodes share one key.
    pub(in super::super) const fn adoptions(&self) -> u64 {
        self.local.adoptions
    }
}

/// What a node says, with as many of its addresses as an entry lists; the others.
pub(super) fn within_limits(mut said: LocalEntry) -> (LocalEntry, Vec<TransportAddr>) {
    let (addr, left_out) = addrs::choose(said.addr, &BTreeSet::new(), &BTreeSet::new(), MAX_ADDRS);
    said.addr = addr;
    (said, left_out)
}
