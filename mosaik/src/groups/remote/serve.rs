//! A member's side: lets clients of the group in, passes their batches to the worker and their queries to the machine.
//!
//! Limits: so many handshakes and clients at once, and for each client so many requests that wait for an answer; a client that
//! sends more is not read from until some are answered.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
};

use super::protocol::{
    Asked, Calling, Greeting, MAX_FRAME, Request, Side, Standing, Told, Unanswered, exporter, proof,
};
use crate::{
    discovery::PeerEntry,
    groups::{
        Groups, RECHECK, Registry,
        client::{Request as Requested, decode_request},
        error::CallError,
        inspect::Window,
        machine::StateMachine,
        raft::Index,
        status::Facts,
        worker::{Ask, Board, NotAsked, Queue, Replica},
    },
    network::{Acceptors, CloseCode, Link, LinkError, RawLink, decode, encode_frame, read_frame},
    primitives::{PeerId, codec::Codec},
    transport::Tasks,
    trust::{MissingGrant, RefusedBy},
};

/// Handshakes at once.
const HANDSHAKES: usize = 64;
/// Clients of all groups of a node at once.
const CLIENTS: usize = 1024;
/// How long the greeting may take to come.
const PROMPT: Duration = Duration::from_secs(5);
/// Requests of one client that wait for an answer: 32 batches, and queries.
const WAITING: usize = 128;
/// Between two looks at how the member stands.
const LOOK: Duration = Duration::from_millis(10);
/// The longest time that a query may ask for.
const LONGEST: Duration = Duration::from_mins(1);

/// A machine that can be asked without its type.
pub(in crate::groups) type Asking =
    Arc<dyn Fn(Query) -> BoxFuture<'static, Result<(Index, Bytes), Unanswered>> + Send + Sync>;

/// An encoded query.
pub(in crate::groups) struct Query {
    body: Bytes,
    strong: bool,
    at_least: Index,
    within: Duration,
}

/// How a member's machine is asked.
pub(in crate::groups) fn asking<M: StateMachine>(
    replica: &Arc<Replica<M>>,
    queue: &Arc<Queue>,
    board: &Arc<Board>,
    tasks: &Tasks,
) -> Asking {
    let (replica, queue, board, tasks) = (Arc::downgrade(replica), queue.clone(), board.clone(), tasks.clone());
    Arc::new(move |query| {
        let (replica, queue, board, tasks) = (replica.clone(), queue.clone(), board.clone(), tasks.clone());
        let answering = async move { ask_machine(&replica, &queue, &board, &tasks, query).await };
        // A panic is the query's own matter: the client is told, and the member goes on.
        let answered = AssertUnwindSafe(answering).catch_unwind();
        answered.map(|done| done.unwrap_or_else(|_| Err(Unanswered::Failed("it panicked".to_owned())))).boxed()
    })
}

async fn ask_machine<M: StateMachine>(
    replica: &Weak<Replica<M>>,
    queue: &Queue,
    board: &Board,
    tasks: &Tasks,
    Query { body, strong, at_least, within }: Query,
) -> Result<(Index, Bytes), Unanswered> {
    let not_here = |why: &dyn std::fmt::Display| Unanswered::NotHere(why.to_string());
    let query = Codec::<M::Query>::of().decode_marked(&body);
    let query = query.map_err(|error| Unanswered::Failed(error.to_string()))?;
    let deadline = Instant::now() + within;
    if strong {
        let (sender, answer) = oneshot::channel();
        let ask = Ask::Read { deadline, timeout: within, answer: sender };
        queue.ask(ask).map_err(|why| not_here(&why))?;
        let ended = |_| Err(CallError::Stopped(queue.closed().unwrap_or(crate::groups::StopReason::Shutdown)));
        answer.await.unwrap_or_else(ended).map_err(|error| not_here(&error))?;
    }
    let mut facts = board.watch_facts();
    let ended = || not_here(&"the member has ended");
    let replica = replica.upgrade().ok_or_else(ended)?;
    while replica.applied() < at_least {
        if let Some(why) = queue.closed() {
            return Err(not_here(&why));
        }
        let changed = tokio::time::timeout_at(deadline, facts.changed()).await;
        changed.map_err(|_| not_here(&format_args!("it has not applied {at_least} yet")))?.map_err(|_| ended())?;
    }
    let (result, index) = replica.query(tasks, query, deadline).await.map_err(|why| match why {
        NotAsked::Late => not_here(&"its machine is busy"),
        NotAsked::Ended => ended(),
    })?;
    let result = Codec::<M::QueryResult>::of().marked(&result, MAX_FRAME - 1024);
    let result = result.map_err(|error| Unanswered::Failed(format!("its result cannot be sent: {error}")))?;
    Ok((index, result.into()))
}

impl Groups {
    /// Registers the protocol.
    pub(crate) fn serve_clients(&self, acceptors: &mut Acceptors) {
        let weak = Arc::downgrade(&self.0);
        let (places, clients) = (Arc::new(Semaphore::new(HANDSHAKES)), Arc::new(Semaphore::new(CLIENTS)));
        acceptors.accept::<Calling>(move |incoming| {
            let Some(registry) = weak.upgrade() else { return };
            let link = incoming.link::<Calling>();
            let Ok(place) = places.clone().try_acquire_owned() else { return link.close(CloseCode::NoCapacity) };
            let (weak, clients) = (weak.clone(), clients.clone());
            registry.node.tasks().spawn("group client", async move {
                let Some((link, window)) = greet(&weak, link).await else { return };
                let Ok(client) = clients.try_acquire_owned() else { return link.close(CloseCode::NoCapacity) };
                drop(place);
                let peer = link.peer();
                let loses_grant = loses_grant(&weak, &window, peer);
                let why = serve(link.into_raw(), &window, loses_grant).await;
                tracing::debug!(?peer, why = why.err().map(tracing::field::display), "a client of a group has gone");
                drop(client);
            });
        });
    }
}

/// Proves the key in both directions. Nothing of the group is told before.
async fn greet(registry: &Weak<Registry>, mut link: Link<Calling>) -> Option<(Link<Calling>, Window)> {
    let refuse = |link: Link<Calling>, code| {
        link.close(code);
        None
    };
    let (group, shape, shown) = match timeout(PROMPT, link.recv()).await {
        Ok(Ok(Some(Greeting::Hello { group, shape, proof }))) => (group, shape, proof),
        Ok(Ok(Some(_)) | Err(LinkError::Undecodable { .. })) => return refuse(link, CloseCode::Undecodable),
        Ok(Ok(None) | Err(_)) => return None,
        Err(_) => return refuse(link, CloseCode::Timeout),
    };
    let window = registry.upgrade()?.joined().get(&group).and_then(|joined| joined.window.clone());
    let Some(window) = window.filter(|window| window.queue.closed().is_none()) else {
        return refuse(link, CloseCode::GroupNotFound);
    };
    if let Some(missing) = ungranted(&*registry.upgrade()?, &window, link.peer()) {
        note_ungranted(&*registry.upgrade()?, link.peer(), missing);
        return refuse(link, CloseCode::NotGranted);
    }
    let exported = exporter(&link, group)?;
    // Compared in constant time.
    if proof(&window.key, group, &exported, Side::Client) != blake3::Hash::from_bytes(shown) {
        tracing::warn!(?group, peer = ?link.peer(), "somebody without the key wants to call the group");
        return refuse(link, CloseCode::WrongKey);
    }
    let ours = window.shape;
    let greeting = if ours == shape {
        Greeting::Welcome { proof: *proof(&window.key, group, &exported, Side::Member).as_bytes() }
    } else {
        Greeting::Differs { shape: ours }
    };
    let sent = timeout(PROMPT, link.send(&greeting)).await;
    if !matches!(sent, Ok(Ok(()))) || ours != shape {
        link.finish();
        return None;
    }
    Some((link, window))
}

/// The grant that a client lacks, if it does.
fn ungranted(registry: &Registry, window: &Window, client: PeerId) -> Option<MissingGrant> {
    let ticket = registry.discovery.catalog().get(client).and_then(PeerEntry::ticket);
    window.call.lacks(registry.node.trust(), client, ticket)
}

fn note_ungranted(registry: &Registry, client: PeerId, missing: MissingGrant) {
    let node = &registry.node;
    node.trust().note_missing(client, RefusedBy::Us, missing, node.transport().wall_clock());
}

/// Resolves when a client has lost its grant; never where none is asked for.
async fn loses_grant(registry: &Weak<Registry>, window: &Window, client: PeerId) {
    let asks = registry.upgrade().is_some_and(|registry| window.call.asks(registry.node.trust()));
    if !asks {
        return std::future::pending().await;
    }
    let mut recheck = interval(RECHECK);
    recheck.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        recheck.tick().await;
        let Some(registry) = registry.upgrade() else { return };
        if let Some(missing) = ungranted(&registry, window, client) {
            return note_ungranted(&registry, client, missing);
        }
    }
}

/// An answer that is being waited for, with the place that it takes.
type Answer = BoxFuture<'static, (Told, OwnedSemaphorePermit)>;

/// Serves a client to its end.
async fn serve(link: RawLink, window: &Window, loses_grant: impl Future<Output = ()>) -> Result<(), LinkError> {
    let RawLink { mut send, mut recv, buffered, connection: _connection, in_use: _in_use } = link;
    let (begun, mut waiting) = mpsc::channel::<Answer>(WAITING);
    let places = Arc::new(Semaphore::new(WAITING));
    let receiving = async {
        let mut buffer = BytesMut::from(&buffered[..]);
        while let Some(frame) = read_frame(&mut recv, &mut buffer, MAX_FRAME, None).await? {
            let request: Request = decode(&frame)?;
            let Ok(place) = places.clone().acquire_owned().await else { break };
            if begun.send(begin(request, window, place)).await.is_err() {
                break;
            }
        }
        Ok::<_, LinkError>(())
    };
    let sending = async {
        let mut answers = FuturesUnordered::new();
        let (mut facts, mut shown) = (window.board.watch_facts(), None);
        // Facts change with every commit, so they are looked at again only after a pause.
        let (mut look, mut stale) = (Instant::now(), true);
        loop {
            if stale && Instant::now() >= look {
                (look, stale) = (Instant::now() + LOOK, false);
                facts.borrow_and_update();
                let standing = standing(window);
                if shown != Some(standing) {
                    shown = Some(standing);
                    send.write_all_chunks(&mut [encode_frame(&Told::Standing(standing), MAX_FRAME)?]).await?;
                }
            }
            if window.queue.closed().is_some() && answers.is_empty() {
                send.finish();
                return Ok(());
            }
            tokio::select! {
                biased;
                Some((told, place)) = answers.next(), if !answers.is_empty() => {
                    send.write_all_chunks(&mut [encode_frame(&told, MAX_FRAME)?]).await?;
                    drop(place);
                }
                Some(answer) = waiting.recv() => answers.push(answer),
                () = sleep_until(look), if stale => {}
                changed = facts.changed(), if !stale => {
                    if changed.is_err() {
                        send.finish();
                        return Ok(());
                    }
                    stale = true;
                }
            }
        }
    };
    let code = tokio::select! {
        biased;
        received = receiving => return received,
        () = loses_grant => CloseCode::NotGranted,
        sent = sending => return sent,
    };
    send.reset(code.code());
    recv.stop(code.code());
    Err(LinkError::Closed(code))
}

fn standing(window: &Window) -> Standing {
    let Facts { cluster, term, leader, online, sealed, .. } = window.board.facts();
    Standing { cluster, term, leader, online, sealed }
}

/// Hands a request on, in the order in which it came.
fn begin(Request { id, ask }: Request, window: &Window, place: OwnedSemaphorePermit) -> Answer {
    match ask {
        Asked::Batch(body) => {
            let (sender, answer) = oneshot::channel();
            // A client may propose commands and nothing else.
            let asked = matches!(decode_request(&body), Some(Requested::Commands(_)))
                && window.queue.ask(Ask::Call { request: body, answer: sender }).is_ok();
            Box::pin(async move {
                let response = if asked { answer.await.ok() } else { None };
                (Told::Batch { id, response }, place)
            })
        }
        Asked::Query { body, strong, at_least, within } => {
            let within = Duration::from_millis(within.into()).min(LONGEST);
            let answer = (window.asking)(Query { body, strong, at_least, within });
            Box::pin(async move { (Told::Query { id, answer: answer.await }, place) })
        }
    }
}
