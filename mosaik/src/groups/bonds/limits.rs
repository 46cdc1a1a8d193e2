//! Numbers that more than one part of the bonds uses.

use std::time::Duration;

/// How long a handshake may take, once there is a link.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(3);
/// How long a dialler that found the terms to differ waits for the other side to find out, too.
pub(super) const VERDICT: Duration = Duration::from_secs(1);
/// Events that may wait for the worker, and the bytes of the large ones among them. Beyond, the links are not read.
pub(super) const INBOX: usize = 4096;
pub(super) const INBOX_BYTES: usize = 32 << 20;
/// Handshakes that peers have begun and not ended, in all and by peer. The oldest goes first.
pub(super) const MAX_PENDING: usize = 128;
pub(super) const MAX_PENDING_PER_PEER: usize = 4;
/// How long the farewells may take when a group is left.
pub(super) const LEAVE: Duration = Duration::from_millis(600);
