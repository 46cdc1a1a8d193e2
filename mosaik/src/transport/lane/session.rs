//! The lane at one end of one connection: what the two ends agreed on, the streams that this end opens, and those of the other.
//!
//! Before the two have told each other where they listen, and without an answer, all streams go over QUIC. So does each that finds
//! the other end busy or this process without descriptors; from the first one on that finds nobody, all others do at once.
//! Streams appear at the other end in the order in which they were opened, with their first byte, as those of QUIC do.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

#[cfg(unix)]
use std::{path::PathBuf, time::Duration};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
#[cfg(unix)]
use tokio::{
    net::UnixStream,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
#[cfg(unix)]
use tokio_util::sync::DropGuard;

use super::{
    Lane, LaneOffer, Lanes, MemoryRecv, MemorySend, Tie,
    hello::{Key, Name, Side},
    memory::Pipe,
};
#[cfg(unix)]
use super::{
    hello::{Direction, Hello, TOKEN},
    is_exhausted, listener,
    socket::{SocketRecv, SocketSend},
};
use crate::transport::{ConnectionLost, MAX_STREAMS, RecvStream, SendStream, iroh::IrohConnection};

/// How often a stream knocks at a busy socket before it goes over QUIC.
#[cfg(unix)]
const KNOCKS: u32 = 4;
/// Between the knocks; twice as long each time.
#[cfg(unix)]
const KNOCK_AGAIN: Duration = Duration::from_millis(2);
/// How long an answer may take.
#[cfg(unix)]
const ANSWER: Duration = Duration::from_secs(1);
/// For how long all streams go over QUIC after one without an answer.
#[cfg(unix)]
const AVOIDED: Duration = Duration::from_secs(5);
/// How long one direction of a stream waits for the other.
#[cfg(unix)]
const HALF: Duration = Duration::from_secs(5);
/// How far behind the highest number of a stream another one may still come: nobody has as many under way.
const WINDOW: u64 = 2 * MAX_STREAMS as u64;

/// The ends of connections of this process that have a lane, by the name of the connection.
static ENDS: Mutex<BTreeMap<(Name, Side), Weak<Session>>> = Mutex::new(BTreeMap::new());

/// The end of a connection with that name, if it is in this process.
pub(super) fn find(name: Name, side: Side) -> Option<Arc<Session>> {
    ENDS.lock().unwrap_or_else(PoisonError::into_inner).get(&(name, side))?.upgrade()
}

/// The lane at one end of one connection.
#[derive(Debug)]
pub(crate) struct Session {
    lanes: Arc<Lanes>,
    side: Side,
    key: OnceLock<Key>,
    way: OnceLock<Way>,
    /// The way is known.
    settled: CancellationToken,
    /// The connection has ended.
    ended: CancellationToken,
    /// Whether the other end was not found where it should be.
    #[cfg(unix)]
    avoided: Mutex<Avoided>,
    opened: AtomicU64,
    /// For the streams that this end may have open.
    opening: Arc<Semaphore>,
    /// For those of the other end.
    accepting: Arc<Semaphore>,
    arrivals: Mutex<Arrivals>,
    arrived: Notify,
}

/// How streams get to the other end.
#[derive(Debug)]
enum Way {
    Quic,
    Memory(Weak<Session>),
    #[cfg(unix)]
    Socket(PathBuf),
}

/// Streams that the other end opens.
#[derive(Debug, Default)]
struct Arrivals {
    seen: Seen,
    #[cfg(unix)]
    halves: BTreeMap<u64, Half>,
    /// Whole, and without a byte.
    silent: BTreeMap<u64, Arrival>,
    ready: VecDeque<Arrival>,
}

/// One direction of a stream, whose other one is to come.
#[cfg(unix)]
#[derive(Debug)]
struct Half {
    socket: Arc<UnixStream>,
    place: OwnedSemaphorePermit,
    since: Instant,
}

/// A stream of the other end.
#[derive(Debug)]
struct Arrival {
    place: OwnedSemaphorePermit,
    ends: Ends,
}

/// What carries it, to be read and to be written.
#[derive(Debug)]
enum Ends {
    Memory(Arc<Pipe>, Arc<Pipe>),
    #[cfg(unix)]
    Socket {
        recv: Arc<UnixStream>,
        send: Arc<UnixStream>,
        /// Ends the wait for the first byte.
        _taken: DropGuard,
    },
}

/// Which tokens were used: each counts once.
#[derive(Debug, Default)]
struct Seen {
    used: BTreeSet<(u64, u8)>,
}

impl Seen {
    /// Whether it is the first time.
    #[cfg(unix)]
    fn mark(&mut self, number: u64, direction: Direction) -> bool {
        let highest = self.used.last().map_or(0, |(number, _)| *number);
        if number.saturating_add(WINDOW) < highest {
            return false;
        }
        let new = self.used.insert((number, direction as u8));
        let from = highest.max(number).saturating_sub(WINDOW);
        while self.used.first().is_some_and(|(number, _)| *number < from) {
            self.used.pop_first();
        }
        new
    }
}

/// Why a stream was not opened on the lane.
#[cfg(unix)]
#[derive(Debug)]
enum NotOpened {
    /// Nobody is there, or not who should be: it will not get better.
    Unreachable(String),
    /// It listens and does not answer: it is frozen, or out of descriptors.
    Unanswered,
    /// For now.
    Busy,
}

/// Whether the lane is not tried.
#[cfg(unix)]
#[derive(Clone, Copy, Debug, Default)]
enum Avoided {
    #[default]
    No,
    Until(Instant),
    Always,
}

#[cfg(unix)]
impl Avoided {
    fn is_now(self) -> bool {
        match self {
            Self::No => false,
            Self::Until(at) => Instant::now() < at,
            Self::Always => true,
        }
    }
}

impl Session {
    pub(in crate::transport) fn new(lanes: Arc<Lanes>, dialled: bool) -> Arc<Self> {
        let places = |limit| Arc::new(Semaphore::new(limit));
        Arc::new(Self {
            lanes,
            side: if dialled { Side::Dialler } else { Side::Acceptor },
            key: OnceLock::new(),
            way: OnceLock::new(),
            settled: CancellationToken::new(),
            ended: CancellationToken::new(),
            #[cfg(unix)]
            avoided: Mutex::default(),
            opened: AtomicU64::new(0),
            opening: places(MAX_STREAMS as usize),
            // The other end keeps to its limit, but its streams may end here later than there.
            accepting: places(2 * MAX_STREAMS as usize),
            arrivals: Mutex::default(),
            arrived: Notify::new(),
        })
    }

    /// Gets ready for streams of the other end, and says where it finds this one. `None` when the connection has ended.
    pub(in crate::transport) fn offer(self: &Arc<Self>, connection: &IrohConnection) -> Option<LaneOffer> {
        let key = Key::derive(|label, context| connection.exporter(label, context))?;
        let mut ends = ENDS.lock().unwrap_or_else(PoisonError::into_inner);
        ends.insert((key.name(), self.side), Arc::downgrade(self));
        drop(ends);
        if self.key.set(key).is_ok() {
            let (session, ended) = (Arc::downgrade(self), connection.ended());
            self.lanes.tasks.spawn("lane", async move {
                ended.await;
                if let Some(session) = session.upgrade() {
                    session.end();
                }
            });
        }
        #[cfg(unix)]
        let socket = self.lanes.socket.as_ref().and_then(|path| path.to_str()).map(str::to_owned);
        #[cfg(not(unix))]
        let socket = None;
        Some(LaneOffer { socket })
    }

    /// What the other end has answered; `None` when it has no lane. The first word counts.
    pub(crate) fn settle(&self, theirs: Option<LaneOffer>) {
        let way = match (theirs, self.key.get()) {
            (Some(theirs), Some(key)) => match (self.beside(key), theirs.socket) {
                (Some(other), _) => Way::Memory(other),
                #[cfg(unix)]
                (None, Some(path)) if listener::is_one(path.as_ref()) => Way::Socket(path.into()),
                (None, _) => Way::Quic,
            },
            _ => Way::Quic,
        };
        if self.way.set(way).is_ok() {
            self.settled.cancel();
        }
    }

    /// The other end, if it is in this process and both have a lane through memory.
    fn beside(&self, key: &Key) -> Option<Weak<Self>> {
        let other = find(key.name(), self.side.other())?;
        (self.lanes.memory && other.lanes.memory).then(|| Arc::downgrade(&other))
    }

    /// Resolves when it is known how streams go, or the connection has ended. Cancellation-safe.
    pub(crate) async fn settled(&self) {
        tokio::select! {
            biased;
            () = self.settled.cancelled() => {}
            () = self.ended.cancelled() => {}
        }
    }

    /// What carries the next stream that this end opens.
    pub(crate) fn lane(&self) -> Lane {
        match self.way.get() {
            None | Some(Way::Quic) => Lane::Quic,
            Some(Way::Memory(_)) => Lane::Memory,
            #[cfg(unix)]
            Some(Way::Socket(_)) => {
                if self.avoided().is_now() {
                    Lane::Quic
                } else {
                    Lane::Local
                }
            }
        }
    }

    /// The connection has ended, and with it all streams.
    pub(in crate::transport) fn end(&self) {
        self.ended.cancel();
    }

    #[cfg(test)]
    pub(super) fn key(&self) -> Key {
        self.key.get().cloned().expect("was offered")
    }

    fn tie(&self, connection: &IrohConnection, place: OwnedSemaphorePermit) -> Tie {
        Tie {
            connection: connection.clone(),
            ended: self.ended.clone(),
            tasks: self.lanes.tasks.clone(),
            _place: Arc::new(place),
        }
    }

    #[cfg(unix)]
    fn avoided(&self) -> MutexGuard<'_, Avoided> {
        self.avoided.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn arrivals(&self) -> MutexGuard<'_, Arrivals> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a stream on the lane, waiting at the limit of streams. Otherwise its place, for a stream of QUIC: `None` where no
    /// lane counts them. Cancellation-safe.
    pub(in crate::transport) async fn open(
        self: &Arc<Self>,
        connection: &IrohConnection,
    ) -> Result<Result<(SendStream, RecvStream), Option<OwnedSemaphorePermit>>, ConnectionLost> {
        let way = match self.way.get() {
            None | Some(Way::Quic) => return Ok(Err(None)),
            Some(way) => way,
        };
        let place = tokio::select! {
            biased;
            () = self.ended.cancelled() => None,
            place = self.opening.clone().acquire_owned() => place.ok(),
        };
        if let Some(lost) = connection.close_reason() {
            return Err(lost);
        }
        let place = place.ok_or(ConnectionLost::ClosedLocally)?;
        let number = self.opened.fetch_add(1, Ordering::Relaxed);
        match way {
            Way::Quic => Ok(Err(Some(place))),
            Way::Memory(other) => {
                let opened = other.upgrade().and_then(|other| other.admit(number));
                let Some((other, forth, back)) = opened else { return Ok(Err(Some(place))) };
                let tie = self.tie(connection, place);
                let send = MemorySend::new(forth, tie.clone(), Some((other, number)));
                Ok(Ok((SendStream::Memory(send), RecvStream::Memory(MemoryRecv::new(back, tie)))))
            }
            #[cfg(unix)]
            Way::Socket(path) => {
                let Some(key) = self.key.get().filter(|_| !self.avoided().is_now()) else {
                    return Ok(Err(Some(place)));
                };
                let knocked = tokio::select! {
                    biased;
                    () = self.ended.cancelled() => return Err(connection.close_reason().unwrap_or(ConnectionLost::ClosedLocally)),
                    knocked = timeout(ANSWER, self.knock(path, key, number)) => knocked,
                };
                match knocked.unwrap_or(Err(NotOpened::Unanswered)) {
                    Ok((forth, back)) => {
                        let tie = self.tie(connection, place);
                        let send = SocketSend::new(forth, tie.clone());
                        Ok(Ok((SendStream::Local(send), RecvStream::Local(SocketRecv::new(back, tie)))))
                    }
                    Err(NotOpened::Busy) => Ok(Err(Some(place))),
                    Err(NotOpened::Unanswered) => {
                        *self.avoided() = Avoided::Until(Instant::now() + AVOIDED);
                        Ok(Err(Some(place)))
                    }
                    Err(NotOpened::Unreachable(why)) => {
                        tracing::debug!(?connection, path = %path.display(), why, "no lane to the peer; streams go over QUIC");
                        *self.avoided() = Avoided::Always;
                        Ok(Err(Some(place)))
                    }
                }
            }
        }
    }

    /// Both directions of a new stream, with an answer on each.
    #[cfg(unix)]
    async fn knock(
        &self,
        path: &std::path::Path,
        key: &Key,
        number: u64,
    ) -> Result<(Arc<UnixStream>, Arc<UnixStream>), NotOpened> {
        let mut pause = KNOCK_AGAIN;
        let mut tries = 0;
        let (forth, back) = loop {
            let both = async { Ok((UnixStream::connect(path).await?, UnixStream::connect(path).await?)) };
            match both.await {
                Ok(both) => break both,
                Err(error) if is_exhausted(&error) => {
                    self.lanes.warn_exhausted(&error);
                    return Err(NotOpened::Busy);
                }
                // The other end has not come to accept those before, which says nothing about whether it will.
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    tries += 1;
                    if tries == KNOCKS {
                        return Err(NotOpened::Busy);
                    }
                    sleep(pause).await;
                    pause *= 2;
                }
                Err(error) => return Err(NotOpened::Unreachable(error.to_string())),
            }
        };
        let hellos = [(&forth, Direction::Forth), (&back, Direction::Back)];
        let hellos = hellos.map(|(socket, direction)| (socket, key.hello(self.side, direction, number)));
        for (socket, hello) in &hellos {
            if !listener::is_own(socket) {
                return Err(NotOpened::Unreachable("the socket is of another user".into()));
            }
            listener::write_all(socket, &hello.encode()).await.map_err(closed)?;
        }
        for (socket, hello) in &hellos {
            let mut answer = [0; TOKEN];
            listener::read_exact(socket, &mut answer).await.map_err(closed)?;
            if !key.is_answer(hello, answer) {
                return Err(NotOpened::Unreachable("the answer is wrong".into()));
            }
        }
        Ok((Arc::new(forth), Arc::new(back)))
    }

    /// A stream of the other end in this process: both of its directions. `None` when it has as many as it may.
    fn admit(self: &Arc<Self>, number: u64) -> Option<(Weak<Self>, Arc<Pipe>, Arc<Pipe>)> {
        let place = self.accepting.clone().try_acquire_owned().ok()?;
        let (forth, back) = (Arc::<Pipe>::default(), Arc::<Pipe>::default());
        let ends = Ends::Memory(forth.clone(), back.clone());
        self.arrivals().silent.insert(number, Arrival { place, ends });
        Some((Arc::downgrade(self), forth, back))
    }

    /// Somebody knocks with a hello: answers if it is of this connection, and waits for the first byte of the stream.
    #[cfg(unix)]
    pub(super) async fn greet(&self, hello: Hello, socket: UnixStream) {
        let Some(answer) = self.key.get().and_then(|key| key.answer(&hello)) else { return };
        let number = hello.number;
        // Beyond the limit nobody is answered, and the stream goes over QUIC.
        let Ok(place) = self.accepting.clone().try_acquire_owned() else { return };
        // The first byte comes behind the answer: until then the socket has nothing to read, which it does not know of itself.
        listener::has_no_more(&socket);
        if !self.arrivals().seen.mark(number, hello.direction) || listener::write_all(&socket, &answer).await.is_err() {
            return;
        }
        let socket = Arc::new(socket);
        let Some(recv) = self.join(hello, socket, place) else { return };
        let (recv, taken) = recv;
        let spoken = tokio::select! {
            biased;
            () = self.ended.cancelled() => false,
            () = taken.cancelled() => false,
            // Bytes, or the end of the socket, which is that of the stream.
            _ = recv.readable() => true,
        };
        if spoken {
            self.appear(number);
        }
    }

    /// One direction of a stream was answered: with the other one it is whole, and waits for its first byte on the socket that is
    /// returned, unless it is taken before.
    #[cfg(unix)]
    fn join(
        &self,
        hello: Hello,
        socket: Arc<UnixStream>,
        place: OwnedSemaphorePermit,
    ) -> Option<(Arc<UnixStream>, CancellationToken)> {
        let mut arrivals = self.arrivals();
        arrivals.halves.retain(|_, half| half.since.elapsed() < HALF);
        let Some(half) = arrivals.halves.remove(&hello.number) else {
            let half = Half { socket, place, since: Instant::now() };
            arrivals.halves.insert(hello.number, half);
            return None;
        };
        let (recv, send) = match hello.direction {
            Direction::Forth => (socket, half.socket),
            Direction::Back => (half.socket, socket),
        };
        let taken = CancellationToken::new();
        let ends = Ends::Socket { recv: recv.clone(), send, _taken: taken.clone().drop_guard() };
        arrivals.silent.insert(hello.number, Arrival { place: half.place, ends });
        Some((recv, taken))
    }

    /// A stream of the other end has its first byte: it appears, behind those that were opened before it.
    pub(super) fn appear(&self, number: u64) {
        {
            let mut arrivals = self.arrivals();
            let later = arrivals.silent.split_off(&(number + 1));
            let now = std::mem::replace(&mut arrivals.silent, later);
            arrivals.ready.extend(now.into_values());
        }
        self.arrived.notify_one();
    }

    /// The next stream of the other end that has appeared. Cancellation-safe.
    pub(in crate::transport) async fn accept(&self, connection: &IrohConnection) -> (SendStream, RecvStream) {
        let arrival = loop {
            let (next, more) = {
                let mut arrivals = self.arrivals();
                (arrivals.ready.pop_front(), !arrivals.ready.is_empty())
            };
            if more {
                self.arrived.notify_one();
            }
            match next {
                Some(arrival) => break arrival,
                None => self.arrived.notified().await,
            }
        };
        let tie = self.tie(connection, arrival.place);
        match arrival.ends {
            Ends::Memory(forth, back) => {
                let send = MemorySend::new(back, tie.clone(), None);
                (SendStream::Memory(send), RecvStream::Memory(MemoryRecv::new(forth, tie)))
            }
            #[cfg(unix)]
            Ends::Socket { recv, send, _taken } => {
                let recv = SocketRecv::new(recv, tie.clone());
                (SendStream::Local(SocketSend::new(send, tie)), RecvStream::Local(recv))
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(key) = self.key.get() {
            ENDS.lock().unwrap_or_else(PoisonError::into_inner).remove(&(key.name(), self.side));
        }
    }
}

/// The other end has closed a socket before it answered: it has as many streams as it takes, or no memory of the connection. The
/// next one may fare better.
#[cfg(unix)]
fn closed(_: std::io::Error) -> NotOpened {
    NotOpened::Busy
}
