//! How connections begin and end: dial, answer, confirmation, close, and the idle timer.
//!
//! A dial takes one round trip for the dialler and half a round trip more for the acceptor, as QUIC with client
//! authentication does. There are no keep-alive packets: an end is *deaf* from the moment at which none could reach
//! it (path cut, a node stopped or dead, the other end gone), and is lost one idle time-out later unless that changed.

use std::{sync::Arc, task::Poll, time::Duration};

use iroh::EndpointAddr;

use super::{
    connection::{Conn, EndState, Signals},
    event::{Body, ConnId, Event, NodeIx, Side},
    link,
    world::{NodeState, World},
};
use crate::{
    primitives::PeerId,
    transport::{Code, ConnectError, ConnectionLost, IDLE_TIMEOUT, KEEP_ALIVE},
};

/// Connections that may wait to be accepted at one node; a dial beyond is refused.
const MAX_BACKLOG: usize = 4096;

impl World {
    /// Starts to dial; the outcome is [`dialled`](Self::dialled).
    pub(super) fn dial(
        &mut self,
        from: NodeIx,
        life: u32,
        to: &EndpointAddr,
        alpn: &'static [u8],
    ) -> Result<(ConnId, Arc<Signals>), ConnectError> {
        let wanted = PeerId::from(to.id);
        if !self.is_alive(from, life) {
            return Err(ConnectError::Closed);
        }
        if wanted == self.nodes[from].id {
            return Err(ConnectError::ToSelf);
        }
        if to.is_empty() {
            return Err(ConnectError::NoAddress);
        }
        let candidates = || to.ip_addrs().filter_map(|addr| self.by_addr.get(addr).copied()).filter(|ix| *ix != from);
        let target = candidates().find(|ix| self.nodes[*ix].id == wanted).or_else(|| candidates().next());
        let conn = self.next_conn;
        self.next_conn += 1;
        self.nodes[from].traffic.dials += 1;
        let mut connection = Conn::new(alpn, wanted, from, target.unwrap_or(from));
        let end = connection.end_mut(Side::Dialler);
        end.held = true;
        let signals = end.signals.clone();
        self.conns.insert(conn, connection);
        // Nobody at the address: nothing is sent, which looks the same as a node that is down.
        if target.is_some() {
            self.send(conn, Side::Dialler, Body::Dial);
        }
        Ok((conn, signals))
    }

    /// The outcome of a dial, once there is one.
    pub(super) fn dialled(&self, conn: ConnId) -> Poll<Result<(), ConnectError>> {
        let Some(connection) = self.conns.get(&conn) else { return Poll::Ready(Err(ConnectError::Closed)) };
        Poll::Ready(match &connection.end(Side::Dialler).state {
            EndState::Dialling | EndState::Unborn | EndState::Handshaking => return Poll::Pending,
            EndState::Refused(error) => Err(error.clone()),
            EndState::Open => Ok(()),
            EndState::Over(ConnectionLost::ClosedByPeer { code }) => Err(ConnectError::Refused { code: *code }),
            EndState::Over(_) => Err(ConnectError::Closed),
        })
    }

    pub(super) fn on_dial(&mut self, conn: ConnId) {
        let Some(connection) = self.conns.get_mut(&conn) else { return };
        let node = &self.nodes[connection.end(Side::Acceptor).node];
        let refusal = if node.id != connection.wanted {
            Some(ConnectError::AnotherPeer)
        } else if !node.alpns.iter().any(|alpn| alpn == connection.alpn) {
            Some(ConnectError::UnsupportedProtocol)
        } else if node.backlog.len() >= MAX_BACKLOG {
            Some(ConnectError::Refused { code: 0 })
        } else {
            None
        };
        if let Some(error) = refusal {
            return self.send(conn, Side::Acceptor, Body::Refused(error));
        }
        let end = connection.end_mut(Side::Acceptor);
        end.state = EndState::Handshaking;
        end.held = true;
        self.send(conn, Side::Acceptor, Body::Accepted);
        self.refresh(conn);
    }

    pub(super) fn on_refused(&mut self, conn: ConnId, error: ConnectError) {
        let Some(connection) = self.conns.get_mut(&conn) else { return };
        let end = connection.end_mut(Side::Dialler);
        if end.state == EndState::Dialling {
            end.state = EndState::Refused(error);
            self.wakes.signal(&end.signals.changed);
        }
    }

    pub(super) fn on_accepted(&mut self, conn: ConnId) {
        let Some(connection) = self.conns.get_mut(&conn) else { return };
        let end = connection.end_mut(Side::Dialler);
        if end.state == EndState::Dialling {
            end.state = EndState::Open;
            self.wakes.signal(&end.signals.changed);
            self.send(conn, Side::Dialler, Body::Established);
            self.refresh(conn);
        }
    }

    pub(super) fn on_established(&mut self, conn: ConnId) {
        let Some(connection) = self.conns.get_mut(&conn) else { return };
        let end = connection.end_mut(Side::Acceptor);
        if end.state == EndState::Handshaking {
            end.state = EndState::Open;
            let node = &mut self.nodes[end.node];
            node.backlog.push_back(conn);
            self.wakes.signal(&node.accept);
        }
    }

    /// The next connection for a node to take; ready with `None` when it takes none any more.
    pub(super) fn accept(&mut self, node: NodeIx, life: u32) -> Poll<Option<(ConnId, Arc<Signals>)>> {
        if !self.is_alive(node, life) {
            return Poll::Ready(None);
        }
        while let Some(conn) = self.nodes[node].backlog.pop_front() {
            if let Some(connection) = self.conns.get(&conn) {
                return Poll::Ready(Some((conn, connection.end(Side::Acceptor).signals.clone())));
            }
        }
        Poll::Pending
    }

    /// Who is at the other end, and under which protocol.
    pub(super) fn describe(&self, conn: ConnId, side: Side) -> Option<(PeerId, &'static [u8])> {
        let connection = self.conns.get(&conn)?;
        Some((self.nodes[connection.end(side.other()).node].id, connection.alpn))
    }

    pub(super) fn rtt(&self, conn: ConnId) -> Option<Duration> {
        let connection = self.conns.get(&conn)?;
        Some(self.paths.rtt(connection.end(Side::Dialler).node, connection.end(Side::Acceptor).node))
    }

    /// Closes one end; the other hears of it after the latency.
    pub(super) fn close(&mut self, conn: ConnId, side: Side, code: Code) {
        if self.conns.get(&conn).is_some_and(|connection| connection.end(side).speaks()) {
            self.send(conn, side, Body::Closed { code });
            self.finish(conn, side, ConnectionLost::ClosedLocally);
        }
    }

    pub(super) fn on_closed(&mut self, conn: ConnId, side: Side, code: Code) {
        self.finish(conn, side, ConnectionLost::ClosedByPeer { code });
    }

    /// Ends one end of a connection for good and wakes whoever waits there.
    pub(super) fn finish(&mut self, conn: ConnId, side: Side, reason: ConnectionLost) {
        let Some(connection) = self.conns.get_mut(&conn) else { return };
        if connection.end(side).is_over() {
            return;
        }
        for stream in connection.streams.values_mut() {
            self.wakes.task(&mut stream.from(side).writer);
            self.wakes.task(&mut stream.from(side.other()).reader);
        }
        let end = connection.end_mut(side);
        let unheard = end.state != EndState::Open && side == Side::Acceptor;
        // The reason is set once: an end that is over returned above.
        let _ = end.signals.over.set(reason.clone());
        end.state = EndState::Over(reason);
        end.held &= !unheard;
        let Signals { changed, incoming, credit, .. } = &*end.signals;
        [changed, incoming, credit].into_iter().for_each(|signal| self.wakes.signal(signal));
        let (from, to) = (end.node, connection.end(side.other()).node);
        self.note("over", from, to, conn);
        self.refresh(conn);
        self.sweep(conn);
    }

    /// The last handle of an end is gone.
    pub(super) fn release(&mut self, conn: ConnId, side: Side) {
        self.close(conn, side, 0);
        if let Some(connection) = self.conns.get_mut(&conn) {
            connection.end_mut(side).held = false;
        }
        self.sweep(conn);
    }

    /// Forgets a connection to which nothing refers any more.
    fn sweep(&mut self, conn: ConnId) {
        let unused = |connection: &Conn| {
            Side::BOTH.iter().all(|side| {
                let end = connection.end(*side);
                !end.held && (end.is_over() || end.state == EndState::Unborn)
            })
        };
        // A close on its way still needs the connection: the other end is not over then.
        if self.conns.get(&conn).is_some_and(unused) {
            self.conns.remove(&conn);
        }
    }

    /// Starts or stops the idle timers of both ends, by whether they can hear each other now.
    pub(super) fn refresh(&mut self, conn: ConnId) {
        for side in Side::BOTH {
            let Some(connection) = self.conns.get(&conn) else { return };
            let (end, other) = (connection.end(side), connection.end(side.other()));
            let deaf = !(other.speaks() && self.is_open(other.node, end.node));
            if deaf == end.deaf || !matches!(end.state, EndState::Open | EndState::Handshaking) {
                continue;
            }
            let epoch = end.epoch.wrapping_add(1);
            if let Some(connection) = self.conns.get_mut(&conn) {
                let end = connection.end_mut(side);
                (end.deaf, end.epoch) = (deaf, epoch);
            }
            if deaf {
                // The last keep-alive was heard up to one period ago.
                let since = link::draw(&mut self.rng, link::micros(KEEP_ALIVE));
                let at = self.now + link::micros(IDLE_TIMEOUT) - since;
                self.schedule(at, Event::Idle { conn, side, epoch });
            }
        }
    }

    pub(super) fn refresh_all(&mut self) {
        let all: Vec<_> = self.conns.keys().copied().collect();
        all.into_iter().for_each(|conn| self.refresh(conn));
    }

    /// An idle timer ran out.
    pub(super) fn idle(&mut self, conn: ConnId, side: Side, epoch: u32) {
        let Some(connection) = self.conns.get(&conn) else { return };
        let end = connection.end(side);
        if end.epoch != epoch || end.is_over() {
            return;
        }
        let node = end.node;
        if self.nodes[node].state == NodeState::Paused {
            self.nodes[node].overdue.push((conn, side, epoch));
        } else {
            self.finish(conn, side, ConnectionLost::TimedOut);
        }
    }

    pub(super) fn is_alive(&self, node: NodeIx, life: u32) -> bool {
        let node = &self.nodes[node];
        node.life == life && matches!(node.state, NodeState::Up | NodeState::Paused)
    }
}
