//! Reports as an operator reads them: one thing per line, what belongs to it indented below.

use std::fmt::{self, Display, Formatter};

use super::report::{
    AdmissionReport, CandidateReport, ConnectionReport, ConsumerReport, EndingReport, GroupReport, LinkState, Named,
    NodeReport, OwnerReport, PeerReport, PrimaryReport, ProducerReport, RefusedProducer, ReplicaReport, StoreReport,
    StreamReport, SubscriberReport, SyncState,
};
use crate::network::Lane;

/// A name, or the first digits of an id that has none here.
impl<I: fmt::Debug> Display for Named<I> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => f.write_str(name),
            None => write!(f, "{:?}", self.id),
        }
    }
}

/// A time in the unit that suits it.
struct Time(u64);

impl Time {
    const fn millis(ms: u64) -> Self {
        Self(ms.saturating_mul(1000))
    }
}

impl Display for Time {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        const SECOND: u64 = 1_000_000;
        match self.0 {
            us if us < 1000 => write!(f, "{us} us"),
            us if us < SECOND => write!(f, "{:.1} ms", us as f64 / 1e3),
            us if us < 60 * SECOND => write!(f, "{:.1} s", us as f64 / 1e6),
            us if us < 3600 * SECOND => write!(f, "{} min", us / (60 * SECOND)),
            us => write!(f, "{} h {} min", us / (3600 * SECOND), us / (60 * SECOND) % 60),
        }
    }
}

/// A list behind a word, if there is anything in it.
fn list<T: Display>(f: &mut Formatter<'_>, word: &str, items: &[T]) -> fmt::Result {
    if items.is_empty() {
        return Ok(());
    }
    write!(f, "  {word} ")?;
    for (i, item) in items.iter().enumerate() {
        write!(f, "{}{item}", if i == 0 { "" } else { "," })?;
    }
    Ok(())
}

fn rtt(f: &mut Formatter<'_>, rtt_us: Option<u64>) -> fmt::Result {
    rtt_us.map_or(Ok(()), |us| write!(f, ", rtt {}", Time(us)))
}

/// Refusals that are shown of one node; JSON has all.
const SHOWN_REFUSALS: usize = 8;

impl Display for NodeReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "node      {}", self.id)?;
        match &self.network.name {
            Some(name) => writeln!(f, "network   {name} ({})", self.network.id)?,
            None => writeln!(f, "network   {}", self.network.id)?,
        }
        writeln!(f, "kind      {}", self.kind)?;
        writeln!(f, "version   mosaik {}, up for {}", self.version, Time::millis(self.uptime_ms))?;
        writeln!(f, "addresses {}", self.addresses.join(" "))?;
        let tags: Vec<_> = self.tags.iter().map(ToString::to_string).collect();
        writeln!(f, "tags      {}", if tags.is_empty() { "none".to_owned() } else { tags.join(" ") })?;
        writeln!(f, "protocols {}", self.protocols.join(" "))?;
        let Self { peers, produces, consumes, groups, primaries, replicas, .. } = self;
        write!(f, "knows {peers} peers, produces {produces} streams, consumes {consumes}, is in {groups} groups, ")?;
        write!(f, "is the primary of {primaries} stores, has {replicas} replicas")?;
        for AdmissionReport { text, age_ms, times, .. } in self.refusals.iter().take(SHOWN_REFUSALS) {
            write!(f, "\n{text}; {} ago", Time::millis(*age_ms))?;
            if *times > 1 {
                write!(f, ", the last of {times}")?;
            }
        }
        match self.refusals.len().saturating_sub(SHOWN_REFUSALS) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more refusals"),
        }
    }
}

impl Display for PeerReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}  {}", self.id, self.addresses.first().map_or("no address", String::as_str))?;
        write!(f, "  heard {} ago (lease {})", Time::millis(self.heard_ms), Time::millis(self.lease_ms))?;
        if self.suspect {
            f.write_str("  connection lost, being looked for")?;
        }
        match self.connections.iter().min_by_key(|connection| connection.rtt_us.unwrap_or(u64::MAX)) {
            Some(connection) => {
                write!(f, "  {connection}")?;
                let lane = self.connections.iter().map(|it| it.lane.as_str()).find(|lane| *lane != Lane::Quic.name());
                lane.map_or(Ok(()), |lane| write!(f, ", streams by {lane}"))?;
            }
            None => f.write_str("  not connected")?,
        }
        list(f, "tags", &self.tags)?;
        list(f, "grants", &self.grants)?;
        list(f, "produces", &self.produces)?;
        list(f, "consumes", &self.consumes)?;
        let groups: Vec<_> = self.groups.iter().map(|group| format!("{group:?}")).collect();
        list(f, "groups", &groups)?;
        list(f, "primary of", &self.stores)
    }
}

impl Display for ConnectionReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self.relayed {
            Some(true) => "relayed",
            Some(false) => "direct",
            None => "connecting",
        })?;
        rtt(f, self.rtt_us)
    }
}

impl Display for LinkState {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connected => "connected",
            Self::Connecting => "not connected",
            Self::NotAllowed => "waits: refused by the producer's predicate",
            Self::NoCapacity => "waits: the producer is at capacity",
            Self::NotGranted => "waits: a grant is missing",
            Self::Spare => "spare: another producer is preferred",
            Self::Standby => "stands by",
        })
    }
}

impl Display for StreamReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Producer(report) => report.fmt(f),
            Self::Consumer(report) => report.fmt(f),
        }
    }
}

impl Display for ProducerReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { stream, sent, bytes, undelivered, subscribers, .. } = self;
        let online = if self.online { "online" } else { "offline" };
        let served = subscribers.iter().filter(|it| it.state == LinkState::Connected).count();
        write!(f, "{stream}  producer, {online}, {sent} items ({bytes} bytes) sent, {undelivered} reached no one, ")?;
        write!(f, "{served} subscribers")?;
        self.max_consumers.map_or(Ok(()), |max| write!(f, " of at most {max}"))?;
        if self.waiting > 0 {
            write!(f, "\n  {} senders wait, the first for {}", self.waiting, Time::millis(self.waiting_ms))?;
            self.waiting_in.as_ref().map_or(Ok(()), |handler| write!(f, " ({handler})"))?;
        }
        self.owner.as_ref().map_or(Ok(()), |owner| write!(f, "\n  owned by {owner}"))?;
        self.missing_grant.as_ref().map_or(Ok(()), |missing| write!(f, "\n  NOBODY SUBSCRIBES: {missing}"))?;
        subscribers.iter().try_for_each(|subscriber| write!(f, "\n  to {subscriber}"))?;
        if self.omitted > 0 {
            write!(f, "\n  and {} more", self.omitted)?;
        }
        self.endings.iter().try_for_each(|ending| write!(f, "\n  ended {ending}"))
    }
}

impl Display for OwnerReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.group {
            Some(group) => write!(f, "the group {group:?}, ")?,
            None => f.write_str("a group whose key is not known, ")?,
        }
        f.write_str(if self.leads { "led by this node" } else { "not led by this node" })?;
        f.write_str(if self.serves {
            ""
        } else {
            "; NOBODY IS SERVED yet: its member here does not run or is not up to date"
        })
    }
}

impl Display for SubscriberReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}  {} for {}", self.peer, self.state, Time::millis(self.since_ms))?;
        if self.state == LinkState::Connected {
            let Self { items, queue_items, queue_bytes, high_items, .. } = self;
            write!(f, ", {items} items, {queue_items} ({queue_bytes} bytes) queued, at most {high_items}")?;
        }
        rtt(f, self.rtt_us)?;
        self.missing_grant.as_ref().map_or(Ok(()), |missing| write!(f, "; {missing}"))?;
        list(f, "misses the tags", &self.missing_tags)
    }
}

impl Display for EndingReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}  {}, {} ago", self.peer, self.reason, Time::millis(self.ago_ms))?;
        if self.count > 1 { write!(f, " ({} times)", self.count) } else { Ok(()) }
    }
}

impl Display for ConsumerReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { stream, received, bytes, gaps, missed, producers, .. } = self;
        let connected = producers.iter().filter(|it| it.state == LinkState::Connected).count();
        write!(f, "{stream}  consumer, {received} items ({bytes} bytes) read, {missed} missed in {gaps} gaps, ")?;
        write!(f, "{connected} of {} producers", producers.len() + self.refused.len())?;
        producers.iter().try_for_each(|producer| write!(f, "\n  from {producer}"))?;
        for refused in &self.refused {
            refusal(f, refused, "consumer")?;
        }
        if self.omitted > 0 { write!(f, "\n  and {} more", self.omitted) } else { Ok(()) }
    }
}

/// A producer or a primary that is not taken, and why.
fn refusal(f: &mut Formatter<'_>, refused: &RefusedProducer, by: &str) -> fmt::Result {
    match &refused.missing_grant {
        Some(missing) => write!(f, "\n  from {:?}  refused by this {by}: {missing}", refused.peer),
        None => {
            write!(f, "\n  from {:?}  refused by this {by}'s predicate", refused.peer)?;
            list(f, "misses the tags", &refused.missing_tags)
        }
    }
}

impl Display for CandidateReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}  {}", self.peer, self.state)?;
        self.since_ms.map_or(Ok(()), |ms| write!(f, " for {}", Time::millis(ms)))?;
        let Self { items, missed, gaps, queue_items, .. } = self;
        write!(f, ", {items} items, {missed} missed in {gaps} gaps, {queue_items} queued")?;
        rtt(f, self.rtt_us)?;
        match &self.last_end {
            Some(end) => write!(f, "; last end: {}, {} ago", end.reason, Time::millis(end.ago_ms)),
            None => Ok(()),
        }
    }
}

impl Display for StoreReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Primary(report) => report.fmt(f),
            Self::Replica(report) => report.fmt(f),
        }
    }
}

impl Display for PrimaryReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { store, view, version, epoch, seq, snapshots, trouble, .. } = self;
        write!(f, "{store}  primary of a {view} (version {version}) at {epoch}:{seq}, {snapshots} snapshots served")?;
        if let Some(trouble) = trouble {
            write!(f, ", TROUBLE: {trouble}")?;
        }
        let Some(deltas) = &self.deltas else { return f.write_str(", ends") };
        let served = deltas.subscribers.iter().filter(|it| it.state == LinkState::Connected).count();
        write!(f, ", {served} replicas")?;
        deltas.missing_grant.as_ref().map_or(Ok(()), |missing| write!(f, "\n  NOBODY FOLLOWS: {missing}"))?;
        deltas.subscribers.iter().try_for_each(|replica| write!(f, "\n  to {replica}"))?;
        if deltas.omitted > 0 {
            write!(f, "\n  and {} more", deltas.omitted)?;
        }
        deltas.endings.iter().try_for_each(|ending| write!(f, "\n  ended {ending}"))
    }
}

impl Display for ReplicaReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { store, view, version, epoch, seq, folded, snapshots, resumed, primaries, .. } = self;
        let state = match self.state {
            SyncState::Alone => "NO PRIMARY",
            SyncState::Catching => "WAITS FOR A SNAPSHOT",
            SyncState::Synced => "synced",
            SyncState::OtherHistory => "KEEPS ANOTHER HISTORY",
        };
        write!(
            f,
            "{store}  replica of a {view} (version {version}) at {epoch}:{seq}, {state}, {folded} deltas folded, "
        )?;
        write!(f, "{snapshots} snapshots taken, {resumed} times resumed")?;
        if let Some(primary) = &self.primary {
            write!(f, "\n  follows {primary:?}")?;
        }
        if *primaries > 1 {
            write!(f, "\n  THE STORE HAS {primaries} PRIMARIES: all but one are ignored")?;
        }
        if let Some(failure) = &self.failure {
            write!(f, "\n  not in step: {failure}")?;
        }
        let Some(deltas) = &self.deltas else { return Ok(()) };
        deltas.producers.iter().try_for_each(|producer| write!(f, "\n  from {producer}"))?;
        for refused in &deltas.refused {
            refusal(f, refused, "replica")?;
        }
        Ok(())
    }
}

impl Display for GroupReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { group, name, role, term, committed, log_position, .. } = self;
        write!(f, "{name} ({group:?})  {role} in term {term}, {committed} of {log_position} applied")?;
        match &self.leader {
            Some(leader) => write!(f, ", leader {leader:?}")?,
            None => f.write_str(", no leader")?,
        }
        self.size.map_or(Ok(()), |size| write!(f, ", declared size {size}"))?;
        match &self.why {
            Some(why) => write!(f, "\n  NOT ONLINE: {why}")?,
            None => f.write_str(", online")?,
        }
        for warning in &self.warnings {
            write!(f, "\n  WARNING: {warning}")?;
        }
        if !self.compacts {
            f.write_str("\n  the log is never compacted (the machine has no snapshots)")?;
        }
        self.notes.iter().try_for_each(|note| write!(f, "\n  {note}"))?;
        for member in &self.members {
            write!(f, "\n  member {:?}  {}", member.id, member.kind)?;
            member.lag.map_or(Ok(()), |lag| write!(f, ", {lag} behind"))?;
            if let Some(skew) = member.skew_ms {
                let way = if skew < 0 { "behind" } else { "ahead" };
                write!(f, ", wall clock {} {way}", Time::millis(skew.unsigned_abs()))?;
            }
            if let Some(bond) = self.bonds.iter().find(|bond| bond.peer == member.id) {
                write!(f, ", linked for {}", Time::millis(bond.age_ms))?;
                rtt(f, bond.rtt_us)?;
            }
        }
        for refusal in &self.refusals {
            let way = if refusal.by_peer { "refused by" } else { "refuses" };
            write!(f, "\n  {way} {:?}  {}, {} ago", refusal.peer, refusal.reason, Time::millis(refusal.ago_ms))?;
            if refusal.count > 1 {
                write!(f, " ({} times)", refusal.count)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_unit_that_suits_them() {
        let shown = [7, 1_500, 2_500_000, 90_000_000, 7_260_000_000].map(|us| Time(us).to_string());
        assert_eq!(shown, ["7 us", "1.5 ms", "2.5 s", "1 min", "2 h 1 min"]);
    }
}
