//! Answers questions, within bounds: so many links at once, so many bytes per second, so long for a question to come and
//! for an answer to be taken. Whoever goes beyond is refused with a code and nothing else happens.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until, timeout};

use super::{
    gather::Sources,
    wire::{Answer, Answering, Message, Page, Question},
};
use crate::{
    network::{Acceptors, CloseCode, Link, LinkError},
    primitives::PeerId,
};

/// Links that are served at once.
const MAX_LINKS: usize = 16;
/// The same of one peer.
const MAX_LINKS_PER_PEER: usize = 4;
/// Questions on one link.
const MAX_QUESTIONS: u32 = 1024;
/// How long a link may be silent between two questions.
const SILENCE: Duration = Duration::from_secs(10);
/// How long an answer may take to be taken.
const TAKE: Duration = Duration::from_secs(5);
/// Answers in bytes per second, over all links; each counts for at least [`MIN_COST`].
const RATE: u64 = 4 << 20;
/// What may be answered at once after a quiet time, in bytes: the catalog of some ten thousand peers.
const BURST: u64 = 8 << 20;
/// What an answer costs at least: a thousand small questions per second are answered.
const MIN_COST: u64 = 4 << 10;
/// The longest that an answer is put off for the rate's sake; a question that would have to wait longer is refused.
const MAX_DELAY: Duration = Duration::from_secs(2);

/// Serves the protocol of a node.
#[derive(Debug)]
pub(super) struct Server {
    sources: Sources,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    links: BTreeMap<PeerId, usize>,
    /// When the budget is or was full again: what was spent lies before it.
    full_at: Instant,
}

impl Server {
    /// Registers the protocol.
    pub(super) fn open(sources: Sources, acceptors: &mut Acceptors) -> Arc<Self> {
        let state = Mutex::new(State { links: BTreeMap::new(), full_at: Instant::now() });
        let server = Arc::new(Self { sources, state });
        let weak = Arc::downgrade(&server);
        acceptors.accept::<Answering>(move |incoming| {
            let Some(server) = weak.upgrade() else { return };
            let tasks = server.sources.node_handle().tasks().clone();
            tasks.spawn("diagnostics", serve(server, incoming.link()));
        });
        server
    }

    pub(super) const fn sources(&self) -> &Sources {
        &self.sources
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A permit for one more link of a peer.
    fn permit(self: &Arc<Self>, peer: PeerId) -> Option<Permit> {
        let mut state = self.state();
        let all: usize = state.links.values().sum();
        let of_peer = state.links.get(&peer).copied().unwrap_or_default();
        if all >= MAX_LINKS || of_peer >= MAX_LINKS_PER_PEER {
            return None;
        }
        state.links.insert(peer, of_peer + 1);
        Some(Permit { server: self.clone(), peer })
    }

    /// Takes the cost of an answer from the budget: when the answer may go out, unless that is too far away.
    fn spend(&self, bytes: usize, now: Instant) -> Option<Instant> {
        let mut state = self.state();
        let cost = Duration::from_micros((bytes as u64).max(MIN_COST) * 1_000_000 / RATE);
        let burst = Duration::from_micros(BURST * 1_000_000 / RATE);
        let full_at = state.full_at.max(now) + cost;
        let at = full_at.checked_sub(burst).map_or(now, |at| at.max(now));
        if at > now + MAX_DELAY {
            return None;
        }
        state.full_at = full_at;
        Some(at)
    }

    fn answer(&self, question: Question) -> Answer {
        match question {
            Question::Ping => Answer::Pong,
            Question::Node => Answer::Node(Box::new(self.sources.node())),
            Question::Peers { after } => Answer::Peers(Page::fill(self.sources.peers(after))),
            Question::Streams { skip } => {
                Answer::Streams(Page::fill(self.sources.streams().into_iter().skip(skip as usize)))
            }
            Question::Groups { skip } => {
                Answer::Groups(Page::fill(self.sources.groups().into_iter().skip(skip as usize)))
            }
            Question::Stores { skip } => {
                Answer::Stores(Page::fill(self.sources.stores().into_iter().skip(skip as usize)))
            }
            Question::Schema { stream } => Answer::Schema(self.sources.schema(stream)),
        }
    }
}

/// One link of a peer that is being served.
struct Permit {
    server: Arc<Server>,
    peer: PeerId,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.server.state();
        if let Some(links) = state.links.get_mut(&self.peer) {
            *links -= 1;
            if *links == 0 {
                state.links.remove(&self.peer);
            }
        }
    }
}

async fn serve(server: Arc<Server>, mut link: Link<Answering>) {
    let peer = link.peer();
    let Some(_permit) = server.permit(peer) else {
        tracing::debug!(?peer, "too many diagnostic links");
        return link.close(CloseCode::NoCapacity);
    };
    let cancel = server.sources.node_handle().cancel().clone();
    let end = tokio::select! {
        biased;
        () = cancel.cancelled() => Some(CloseCode::ShuttingDown),
        end = converse(&server, &mut link) => end,
    };
    match end {
        Some(code) => link.close(code),
        None => link.finish(),
    }
}

/// Answers until the peer has no more questions; the code with which to close the link otherwise.
async fn converse(server: &Server, link: &mut Link<Answering>) -> Option<CloseCode> {
    let peer = link.peer();
    for _ in 0..MAX_QUESTIONS {
        let question = match timeout(SILENCE, link.recv()).await {
            Ok(Ok(Some(Message::Ask(question)))) => question,
            Ok(Ok(Some(Message::Answer(_)))) => return Some(CloseCode::Undecodable),
            Ok(Ok(None)) => return None,
            Ok(Err(error)) => {
                tracing::debug!(?peer, %error, "no question");
                return Some(code_of(&error));
            }
            Err(_) => return Some(CloseCode::Timeout),
        };
        let answer = Message::Answer(server.answer(question));
        let bytes = postcard::experimental::serialized_size(&answer).unwrap_or(0);
        let Some(at) = server.spend(bytes, Instant::now()) else {
            tracing::debug!(?peer, "too many questions");
            return Some(CloseCode::NoCapacity);
        };
        sleep_until(at).await;
        match timeout(TAKE, link.send(&answer)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(?peer, ?question, %error, "an answer was not taken");
                return Some(code_of(&error));
            }
            Err(_) => return Some(CloseCode::Timeout),
        }
    }
    Some(CloseCode::NoCapacity)
}

const fn code_of(error: &LinkError) -> CloseCode {
    match error {
        LinkError::TooLarge { .. } => CloseCode::TooLarge,
        LinkError::Undecodable { .. } => CloseCode::Undecodable,
        LinkError::Stalled => CloseCode::Timeout,
        _ => CloseCode::Normal,
    }
}
