//! First contact: bootstrap peers, which are kept in touch with for ever, and peers to try a few times.

use std::{collections::BTreeMap, time::Duration};

use iroh::EndpointAddr;

use super::{super::config::Config, Core, FULL_GAP, Notice, Now, Output, Purpose, Target, backoff};
use crate::primitives::PeerId;

/// Contacts at one time; further ones are refused, with a notice.
const MAX_CONTACTS: usize = 256;
const FIRST_RETRY: Duration = Duration::from_millis(250);
/// How long a lost bootstrap peer is looked for at the quick pace.
const QUICK: Duration = Duration::from_mins(1);

/// A peer to be in touch with.
#[derive(Debug)]
pub(super) struct Contact {
    target: Target,
    /// Attempts left; `None` for a bootstrap peer.
    left: Option<u32>,
    state: State,
    attempts: u32,
    /// Since when it is looked for.
    since: Now,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Due(Now),
    Dialling,
    InTouch,
}

impl Contact {
    pub(super) const fn due(&self) -> Option<Now> {
        match self.state {
            State::Due(at) => Some(at),
            _ => None,
        }
    }

    fn look_for(&mut self, now: Now) {
        self.attempts = 0;
        self.since = now;
        self.state = State::Due(now);
    }

    fn retry_cap(&self, config: &Config, now: Now) -> Duration {
        if now < self.since + QUICK { config.bootstrap_retry } else { config.bootstrap_retry_cap }
    }
}

/// Where to dial a peer: what its entry says and what was configured for it.
pub(super) fn target_of(contacts: &BTreeMap<PeerId, Contact>, addr: &EndpointAddr) -> Target {
    let mut target = Target::from(addr.clone());
    if let Some(contact) = contacts.get(&target.peer) {
        target.addrs.extend(contact.target.addrs.iter().cloned());
        target.hosts.extend(contact.target.hosts.iter().cloned());
    }
    target
}

impl Core {
    pub(super) fn on_contact(&mut self, target: Target, attempts: Option<u32>, now: Now) {
        let id = target.peer;
        if id == self.local.id() {
            return;
        }
        if self.contacts.len() >= MAX_CONTACTS && !self.contacts.contains_key(&id) {
            if now >= self.next_contacts_full {
                self.next_contacts_full = now + FULL_GAP;
                self.outputs.push(Output::Notice(Notice::Contacts { peer: id, max: MAX_CONTACTS }));
            }
            return;
        }
        let contact = self.contacts.entry(id).or_insert_with(|| Contact {
            target: Target { peer: id, addrs: Default::default(), hosts: Default::default() },
            left: attempts,
            state: State::InTouch,
            attempts: 0,
            since: now,
        });
        contact.target.widen(&target);
        contact.left = contact.left.and_then(|left| attempts.map(|attempts| left.max(attempts)));
        if contact.state == State::Dialling {
            self.dial(target, Purpose::Contact);
        } else {
            contact.look_for(now);
        }
    }

    /// Dials the contacts that are due. They are few, and first contact is urgent: no ration.
    pub(super) fn tick_contacts(&mut self, now: Now) {
        let due: Vec<PeerId> =
            self.contacts.iter().filter(|(_, c)| c.due().is_some_and(|at| at <= now)).map(|(id, _)| *id).collect();
        for id in due {
            let known = self.peers.get(id.as_bytes()).map(|peer| peer.entry.addr().clone());
            let target = target_of(&self.contacts, &known.unwrap_or_else(|| id.into()));
            let started = self.dial(target, Purpose::Contact);
            if let Some(contact) = self.contacts.get_mut(&id) {
                // When it is being dialled for another purpose, the outcome of that counts.
                debug_assert!(started || self.dialling.contains_key(&id));
                contact.state = State::Dialling;
            }
        }
    }

    /// A dial to a peer has ended. True when the peer was a contact that was not in touch and now is.
    pub(super) fn settle_contact(&mut self, id: PeerId, reached: bool, now: Now) -> bool {
        let Some(contact) = self.contacts.get_mut(&id) else { return false };
        let was_in_touch = contact.state == State::InTouch;
        if reached {
            contact.state = State::InTouch;
            if contact.left.is_some() {
                self.contacts.remove(&id);
            }
            return !was_in_touch;
        }
        if was_in_touch {
            return false;
        }
        if let Some(left) = &mut contact.left {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.contacts.remove(&id);
                return false;
            }
        }
        let cap = contact.retry_cap(&self.config, now);
        let pause = backoff(&mut self.rng, contact.attempts, FIRST_RETRY.min(cap), cap);
        contact.attempts += 1;
        contact.state = State::Due(now + pause);
        false
    }

    /// A peer departed: if it is a bootstrap peer, it is looked for at once.
    pub(super) fn contact_departed(&mut self, id: PeerId, now: Now) {
        if let Some(contact) = self.contacts.get_mut(&id)
            && contact.state == State::InTouch
        {
            contact.look_for(now);
        }
    }

    /// The connection of a peer that is not live was lost: if it is a bootstrap peer, it is dialled now.
    pub(super) fn hurry_contact(&mut self, id: PeerId, now: Now) {
        if let Some(contact) = self.contacts.get_mut(&id)
            && contact.state != State::Dialling
        {
            contact.look_for(now);
        }
    }

    /// Whether the configured first contacts have all been tried and there is nobody.
    #[cfg(test)]
    pub(super) fn in_touch(&self, id: PeerId) -> bool {
        self.contacts.get(&id).is_some_and(|contact| contact.state == State::InTouch)
    }
}
