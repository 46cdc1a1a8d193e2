//! Directed schedules: each brings three to five cores into the one situation in which a classic bug shows. The honest
//! core survives them (`regressions`), its mutants do not (`mutants`).

use mosaik::groups::{
    client::{Batch, Call, CommandResult, Done, Event, Failure, Notice, Rejection, Router, Session, Source},
    raft::{
        Change, ClusterId, Command, Digest, Envelope, Input, MachineId, Member, Message, Mutant, Payload, SessionId,
        Switch,
    },
};

use crate::sim::{Lab, machine::Op, within};

type Planted = Option<Mutant>;

fn is_vote_reply(mail: &Envelope) -> bool {
    matches!(mail.body, Message::VoteReply { .. })
}

fn is_append_reply(mail: &Envelope) -> bool {
    matches!(mail.body, Message::AppendReply { .. })
}

const fn is_chunk(mail: &Envelope) -> bool {
    matches!(mail.body, Message::Chunk { .. })
}

fn carries_entries(mail: &Envelope) -> bool {
    matches!(&mail.body, Message::Append { entries, .. } if !entries.is_empty())
}

/// Three voters, led by 0, with an open session and everything everywhere.
fn three(mutant: Planted) -> Lab {
    group(3, 3, mutant)
}

fn group(nodes: usize, voters: usize, mutant: Planted) -> Lab {
    let mut lab = Lab::new(nodes, voters, mutant, |settings| settings.tail = 0);
    let all: Vec<usize> = (0..voters).collect();
    assert!(lab.stand(0, &all));
    lab.open(0, 1);
    lab.pass(300, &all);
    lab
}

/// A vote given before a restart is remembered after it.
pub fn vote_across_restart(mutant: Planted) {
    let mut lab = Lab::new(3, 3, mutant, |_| {});
    lab.stand_if(0, |mail| within(mail, &[0, 1]) && !is_vote_reply(mail));
    lab.restart(1);
    let second = lab.stand(2, &[1, 2]);
    lab.flow(&[0, 1]);
    assert!(!(second && lab.leads(0) && lab.raft(2).term() == lab.raft(0).term()));
}

/// Raft figure 8: an old entry on a majority is not committed until one of the new term is.
pub fn figure_8(mutant: Planted) {
    let mut lab = Lab::new(5, 5, mutant, |settings| settings.append_entries = 1);
    assert!(lab.stand(0, &[0, 1, 2, 3, 4]));
    lab.open(0, 1);
    lab.flow(&[0, 1]); // index 3 of term 2 is at 0 and 1
    lab.drop_mail();
    lab.crash(0);
    assert!(lab.stand_if(4, |mail| within(mail, &[2, 3, 4]) && !carries_entries(mail)));
    lab.drop_mail();
    lab.crash(4); // with index 3 of term 3
    lab.start(0);
    let old = |mail: &Envelope| {
        within(mail, &[0, 1, 2])
            && !matches!(&mail.body, Message::Append { entries, .. } if entries.iter().any(|it| it.index > 3))
    };
    assert!(lab.stand_if(0, old));
    lab.now += 100_000;
    lab.tick(0);
    lab.flow_if(old);
    assert_eq!(lab.last(2), 3, "the old entry is on a majority");
    lab.drop_mail();
    lab.crash(0);
    lab.start(4);
    lab.stand(4, &[2, 3, 4]);
    lab.pass(500, &[2, 3, 4]);
}

/// A candidate that lacks committed entries does not win.
pub fn stale_candidate(mutant: Planted) {
    let mut lab = three(mutant);
    lab.write(0, 1, 1, 7);
    lab.flow(&[0, 1]);
    assert!(lab.acked > 0);
    lab.crash(0);
    lab.drop_mail();
    assert!(!lab.stand(2, &[1, 2]));
    assert!(lab.stand(1, &[1, 2]));
}

/// A deposed leader answers no strong read.
pub fn read_at_deposed_leader(mutant: Planted) {
    depose_and_read(three(mutant));
}

/// 1 takes over behind the back of 0, which leads, and commits a write that a read at 0 would miss.
fn depose_and_read(mut lab: Lab) {
    lab.drop_mail();
    assert!(lab.stand(1, &[1, 2]));
    lab.write(1, 1, 1, 7);
    lab.flow(&[1, 2]);
    assert!(lab.leads(0) && lab.acked > lab.commit(0));
    let read = lab.read(0);
    lab.flow(&[0]);
    assert_eq!(lab.reads[&read].1, None);
    lab.flow(&[0, 1, 2]); // and when it learns the truth, the read fails or is answered by it
}

/// What a leader said in an earlier term of its own, and others refuse now, proves nothing for a read of this term.
pub fn read_proven_by_an_old_round(mutant: Planted) {
    let mut lab = three(mutant);
    lab.pass(5_000, &[0, 1, 2]);
    lab.now += 100_000;
    lab.tick(0);
    let late: Vec<Envelope> = lab.mail.iter().filter(|mail| within(mail, &[0, 1])).cloned().collect();
    assert!(!late.is_empty(), "a heartbeat is on its way");
    lab.drop_mail();
    assert!(lab.stand(2, &[1, 2]));
    lab.pass(100, &[0, 1, 2]);
    assert!(lab.stand(0, &[0, 1, 2]));
    lab.pass(100, &[0, 1, 2]);
    lab.drop_mail();
    lab.mail.extend(late);
    lab.flow(&[0, 1]);
    depose_and_read(lab);
}

/// A new leader does not know what is committed before it commits something itself.
pub fn read_at_unready_leader(mutant: Planted) {
    let mut lab = three(mutant);
    lab.write(0, 1, 1, 7);
    lab.flow_if(|mail| within(mail, &[0, 1]) && (carries_entries(mail) || is_append_reply(mail)));
    assert!(lab.acked > lab.commit(1), "acknowledged, and 1 does not know");
    lab.crash(0);
    lab.drop_mail();
    let quiet = |mail: &Envelope| within(mail, &[1, 2]) && !carries_entries(mail);
    assert!(lab.stand_if(1, quiet));
    let read = lab.read(1);
    lab.flow_if(quiet);
    assert_eq!(lab.reads[&read].1, None);
    lab.pass(500, &[1, 2]);
    assert!(lab.reads[&read].1.is_some(), "answered as soon as the term has a commit");
}

/// A follower acknowledges what it has verified, not the tail that an older leader left it.
pub fn stale_tail(mutant: Planted) {
    let mut lab = three(mutant);
    for sequence in 1..4 {
        lab.write(0, 1, sequence, sequence);
    }
    lab.drop_mail();
    assert!(lab.stand(1, &[1, 2]));
    lab.pass(300, &[0, 1, 2]);
    assert_eq!(lab.raft(0).log().last(), lab.raft(1).log().last());
}

/// An entry at the asked index is a match only if it is the same entry.
pub fn same_index_other_entry(mutant: Planted) {
    let mut lab = three(mutant);
    let at = lab.last(0) + 1;
    lab.write(0, 1, 1, 7); // stays at 0
    lab.drop_mail();
    assert!(lab.stand(1, &[1, 2]));
    lab.pass(200, &[1, 2]);
    assert!(lab.commit(2) >= at);
    lab.restart(1);
    lab.drop_mail();
    assert!(lab.stand(2, &[1, 2]));
    lab.pass(500, &[0, 1, 2]);
    assert_eq!(lab.entry(0, at), lab.entry(2, at));
}

/// A joint configuration ends only after it is committed.
pub fn joint_is_left_late(mutant: Planted) {
    let mut lab = group(5, 3, mutant);
    lab.link_all();
    lab.pass(1500, &[0, 1, 2, 3, 4]);
    assert!(lab.raft(0).log().membership().voters.len() >= 3);
    lab.pass(1500, &[0, 1, 2, 3, 4]);
    assert_eq!(lab.raft(0).log().membership().voters.len(), 5, "grown by a joint change");
}

/// Half of a joint configuration decides nothing.
pub fn joint_needs_both(mutant: Planted) {
    let mut lab = group(4, 3, mutant);
    lab.link_all();
    lab.pass(1500, &[0, 1, 2, 3]);
    assert!(lab.raft(0).log().membership().learners.contains(&lab.member(3)));
    lab.drop_mail();
    let (out, into) = (lab.member(1), lab.member(3));
    lab.feed(0, Input::Change(Change::Swap { out, into }));
    let joint = lab.last(0);
    lab.flow(&[0, 3]);
    assert!(lab.commit(0) < joint, "0 and 3 are a majority of the new voters only");
    lab.pass(500, &[0, 1, 2, 3]);
    assert!(lab.commit(0) > joint);
}

/// Nobody takes a group of three below three.
pub fn floor(mutant: Planted) {
    let mut lab = three(mutant);
    let change = Change::Demote(lab.member(2));
    lab.feed(0, Input::Change(change));
    lab.pass(500, &[0, 1, 2]);
    assert_eq!(lab.raft(0).log().membership().voters.len(), 3);
}

/// The second change waits for the first.
pub fn one_change_at_a_time(mutant: Planted) {
    let mut lab = Lab::new(5, 3, mutant, |settings| settings.target_voters = 3);
    assert!(lab.stand(0, &[0, 1, 2]));
    lab.link_all();
    lab.pass(2_000, &[0, 1, 2, 3, 4]);
    lab.drop_mail();
    let last = lab.last(0);
    for (out, into) in [(1, 3), (2, 4)] {
        let (out, into) = (lab.member(out), lab.member(into));
        assert!(lab.raft(0).log().membership().learners.contains(&lab.member(4)));
        lab.feed(0, Input::Change(Change::Swap { out, into }));
    }
    assert_eq!(lab.last(0), last + 1);
}

/// S11: no change before the leader has committed an entry of its own term.
pub fn change_before_own_commit(mutant: Planted) {
    let mut lab = group(4, 3, mutant);
    lab.link_all();
    lab.pass(1500, &[0, 1, 2, 3]);
    let (out, into) = (lab.member(2), lab.member(3));
    lab.crash(0);
    lab.drop_mail();
    // Probes are answered, so everybody is alive and caught up; the no-op stays with the leader.
    let quiet = |mail: &Envelope| within(mail, &[1, 2, 3]) && !carries_entries(mail);
    assert!(lab.stand_if(1, quiet));
    lab.now += 100_000;
    lab.tick(1);
    lab.flow_if(quiet);
    let last = lab.last(1);
    lab.feed(1, Input::Change(Change::Swap { out, into }));
    assert_eq!(lab.last(1), last);
}

/// A wiped voter is somebody else: its old promises are not renewed by the new life.
pub fn wiped_voter(mutant: Planted) {
    let mut lab = three(mutant);
    lab.write(0, 1, 1, 7);
    lab.flow(&[0, 1]);
    assert!(lab.acked > 0);
    lab.drop_mail();
    lab.wipe(1);
    lab.now += 200_000;
    lab.tick(0);
    lab.flow_if(|mail| within(mail, &[0, 1]) && !carries_entries(mail));
    lab.drop_mail();
    lab.crash(0);
    assert!(!lab.stand(2, &[1, 2]), "one live voter of three is no quorum");
}

fn blank(nodes: usize, declared: u32, mutant: Planted) -> Lab {
    let mut lab = Lab::new(nodes, 0, mutant, |settings| settings.declared = declared);
    lab.checks.one_genesis = true;
    lab.link_all();
    lab
}

/// S15: an acceptance binds however long it takes, so a delayed one cannot complete a second genesis.
pub fn acceptance_binds(mutant: Planted) {
    let mut lab = blank(5, 3, mutant);
    let accepted = |mail: &Envelope| matches!(mail.body, Message::Accepted { .. });
    lab.pass(900, &[0, 1, 2]);
    for _ in 0..10 {
        lab.now += 100_000;
        lab.tick(0);
        lab.flow_if(|mail| within(mail, &[0, 1, 2]) && !accepted(mail));
    }
    let bound = lab.raft(1).founding().accepted.clone().expect("1 accepted");
    assert_eq!(bound.proposer, lab.member(0));
    // 0 falls silent with its ballot open; 1 and 2 meet 3 and 4, and everybody would like to found.
    let late: Vec<Envelope> = lab.mail.drain(..).filter(accepted).collect();
    assert!(late.len() >= 2);
    lab.pass(12_000, &[1, 2, 3, 4]);
    lab.mail.clear();
    lab.mail.extend(late);
    lab.flow(&[0, 1, 2]);
    lab.pass(8_000, &[0, 1, 2, 3, 4]);
    assert_eq!(lab.checks.geneses.len(), 1);
}

/// The proposer accepts last: its own acceptance is the genesis.
pub fn proposer_is_last(mutant: Planted) {
    let mut lab = blank(3, 3, mutant);
    lab.pass(900, &[0, 1, 2]);
    for _ in 0..4 {
        lab.now += 100_000;
        lab.tick(0);
    }
    assert!(lab.raft(0).founding().open.is_some());
    lab.drop_mail();
    lab.restart(0);
    lab.link_all();
    lab.tick(0);
    assert!(lab.raft(0).cluster().is_none(), "nobody else accepted");
    lab.pass(8_000, &[0, 1, 2]);
    assert!(lab.raft(0).cluster().is_some());
}

/// S14: a follower is restarted that knows less to be committed than it has acknowledged, and then fetches up to a target
/// below that: what lies beyond the target stays, and is there when the leader is lost.
pub fn catch_up_keeps_acknowledged(mutant: Planted) {
    let mut lab = three(mutant);
    let low = lab.commit(1);
    for sequence in 1..9 {
        lab.write(0, 1, sequence, sequence);
    }
    lab.flow_if(|mail| within(mail, &[0, 1]) && (carries_entries(mail) || is_append_reply(mail)));
    let acked = lab.acked;
    assert!(acked >= low + 7);
    lab.drop_mail();
    lab.restart(1);
    assert!(lab.commit(1) <= low && lab.last(1) >= acked);
    let target = lab.entry(0, low + 3).position();
    let body = Message::CatchUp { target, sources: vec![lab.member(0)], commit: low + 1, round: 0 };
    let (term, cluster) = (lab.raft(0).term(), lab.raft(0).cluster());
    lab.mail.push(Envelope { from: lab.member(0), to: lab.member(1), cluster, term, body });
    lab.flow_if(|mail| within(mail, &[0, 1]) && !carries_entries(mail));
    lab.crash(0);
    lab.drop_mail();
    lab.stand(2, &[1, 2]);
    assert!(lab.leads(2) || lab.stand(1, &[1, 2]));
    lab.pass(500, &[1, 2]);
    assert!(lab.last(2) > acked);
}

/// A damaged entry is not taken.
pub fn damaged_entry(mutant: Planted) {
    let mut lab = three(mutant);
    lab.write(0, 1, 1, 7);
    for mail in &mut lab.mail {
        if let Message::Append { entries, .. } = &mut mail.body {
            for entry in entries {
                if let Payload::Command(command) = &mut entry.payload {
                    let mut body = command.body.to_vec();
                    body[11] ^= 1;
                    command.body = body.into();
                }
            }
        }
    }
    lab.pass(1_000, &[0, 1, 2]);
    assert_eq!((lab.value(0), lab.value(1), lab.value(2)), (7, 7, 7), "machines differ");
}

/// A retry is recognised by a member that learned the first attempt from a snapshot.
pub fn retry_after_snapshot(mutant: Planted) {
    let mut lab = three(mutant);
    lab.write(0, 1, 1, 7);
    lab.pass(200, &[0, 1]);
    let (index, data) = (lab.nodes[0].machine.applied, lab.nodes[0].machine.snapshot());
    lab.feed(0, Input::Compact { index, data });
    lab.drop_mail();
    lab.pass(3_000, &[0, 1, 2]);
    assert_eq!(lab.value(2), 7, "2 got the snapshot");
    lab.crash(0);
    lab.drop_mail();
    assert!(lab.stand(2, &[1, 2]));
    lab.write(2, 1, 1, 7);
    lab.pass(500, &[1, 2]);
    assert_eq!(lab.commit(1), lab.commit(2));
    assert_eq!(lab.nodes[1].machine.sessions, lab.nodes[2].machine.sessions, "session tables differ");
}

/// No command follows a seal, at the leader that has appended it, at the next one, nor in a log that begins after it.
pub fn nothing_after_a_seal(mutant: Planted) {
    let mut lab = three(mutant);
    lab.feed(0, Input::Seal);
    lab.write(0, 1, 1, 7);
    lab.pass(300, &[0, 1, 2]);
    let sealed = |lab: &Lab, n: usize| lab.raft(n).is_sealed_at(lab.commit(n)) && lab.value(n) == 0;
    assert!((0..3).all(|n| sealed(&lab, n)), "the seal is committed, and nothing else");
    let seal = lab.last(0);
    assert!((0..3).all(|n| lab.entry(n, seal).payload == Payload::Seal));
    lab.feed(0, Input::Seal);
    assert_eq!(lab.last(0), seal, "one seal is enough");
    lab.drop_mail();
    assert!(lab.stand(1, &[0, 1, 2]));
    lab.write(1, 1, 1, 7);
    lab.pass(300, &[0, 1, 2]);
    assert!((0..3).all(|n| sealed(&lab, n)));
    let (index, data) = (lab.nodes[1].machine.applied, lab.nodes[1].machine.snapshot());
    lab.feed(1, Input::Compact { index, data });
    assert_eq!(lab.raft(1).log().base().index, index, "its log begins after the seal");
    lab.write(1, 1, 1, 7);
    lab.restart(1);
    assert!(lab.raft(1).is_sealed(), "also after a restart");
    lab.drop_mail();
    assert!(lab.stand(1, &[0, 1, 2]));
    lab.write(1, 1, 1, 7);
    lab.pass(300, &[0, 1, 2]);
    assert!((0..3).all(|n| lab.value(n) == 0), "a command was taken after the seal");
}

/// A member takes no snapshot of another version of its machine.
pub fn snapshot_of_another_version(mutant: Planted) {
    let machine = |version| Some(MachineId { name: String::from("registers"), version, ..MachineId::default() });
    let mut lab = Lab::new(3, 3, mutant, |settings| (settings.tail, settings.machine) = (0, machine(1)));
    assert!(lab.stand(0, &[0, 1, 2]));
    lab.open(0, 1);
    lab.pass(300, &[0, 1, 2]);
    lab.write(0, 1, 1, 7);
    lab.pass(200, &[0, 1]);
    let (index, data) = (lab.nodes[0].machine.applied, lab.nodes[0].machine.snapshot());
    lab.feed(0, Input::Compact { index, data });
    lab.drop_mail();
    lab.settings.machine = machine(2);
    lab.restart(2);
    lab.pass(3_000, &[0, 1, 2]);
    assert_eq!(lab.value(2), 0, "version 2 runs on what version 1 wrote");
    lab.settings.machine = machine(1);
    lab.restart(2);
    lab.pass(3_000, &[0, 1, 2]);
    assert_eq!(lab.value(2), 7);
}

/// A full table refuses newcomers; it never forgets a session early.
pub fn full_session_table(mutant: Planted) {
    let mut lab = Lab::new(3, 3, mutant, |_| {});
    lab.limits = (1, 3_600_000, 64);
    for n in 0..3 {
        lab.restart(n);
    }
    assert!(lab.stand(0, &[0, 1, 2]));
    lab.open(0, 1);
    lab.write(0, 1, 1, 7);
    lab.open(0, 2);
    lab.write(0, 2, 1, 8);
    lab.write(0, 1, 1, 7);
    lab.pass(300, &[0, 1, 2]);
    assert_eq!(lab.value(0), 7);
}

/// A message that arrives twice, late, takes nothing away.
pub fn late_duplicate(mutant: Planted) {
    let mut lab = three(mutant);
    lab.write(0, 1, 1, 7);
    let old: Vec<Envelope> = lab.mail.iter().filter(|mail| carries_entries(mail)).cloned().collect();
    lab.pass(200, &[0, 1, 2]);
    lab.write(0, 1, 2, 8);
    lab.pass(200, &[0, 1, 2]);
    let last = lab.last(1);
    lab.mail.extend(old);
    lab.flow(&[0, 1, 2]);
    assert_eq!(lab.last(1), last);
}

/// Leadership goes to a member only when its log is complete.
pub fn transfer_to_laggard(mutant: Planted) {
    let mut lab = three(mutant);
    lab.write(0, 1, 1, 7);
    lab.flow(&[0, 1]);
    let to = Some(lab.member(2));
    lab.feed(0, Input::Transfer { to });
    lab.flow_if(|mail| matches!(mail.body, Message::TimeoutNow));
    assert!(lab.leads(0));
    lab.pass(300, &[0, 1, 2]);
    assert!(lab.leads(2), "and then it leads");
}

/// S16: two foundings meet; one dissolves, only after the other has adopted it, and never both.
pub fn two_foundings_meet(mutant: Planted) {
    let mut lab = Lab::new(2, 0, mutant, |_| {});
    lab.pass(2_000, &[0]);
    lab.pass(2_000, &[1]);
    assert_ne!(lab.raft(0).cluster(), lab.raft(1).cluster());
    assert!(lab.raft(0).cluster().is_some() && lab.raft(1).cluster().is_some());
    lab.link_all();
    let lesser = if lab.raft(0).cluster() < lab.raft(1).cluster() { lab.member(0) } else { lab.member(1) };
    for _ in 0..20 {
        // The greater one speaks and hears nothing: it has adopted nobody.
        lab.now += 100_000;
        lab.tick(0);
        lab.tick(1);
        lab.flow_if(|mail| mail.from != lesser);
        lab.drop_mail();
    }
    for _ in 0..20 {
        lab.pass(500, &[0, 1]);
        lab.link_all();
    }
    assert_eq!(lab.raft(0).cluster(), lab.raft(1).cluster());
    assert_eq!(lab.raft(0).log().membership().voters.len(), 2);
}

/// An acknowledgement says durable.
pub fn acknowledgement_waits_for_disk(mutant: Planted) {
    let mut lab = three(mutant);
    lab.nodes[1].stuck = true;
    lab.nodes[2].stuck = true;
    lab.write(0, 1, 1, 7);
    lab.pass(300, &[0, 1, 2]);
    assert_eq!(lab.acked, 0, "acknowledged with one copy");
    lab.nodes[1].stuck = false;
    lab.sync(1);
    lab.pass(100, &[0, 1, 2]);
    assert!(lab.acked > 0);
}

/// A session that has ended does not come back under its name: a late repetition of what opened it opens another one, in which
/// no command of the first is applied.
pub fn late_opening(mutant: Planted) {
    let mut lab = Lab::new(3, 3, mutant, |_| {});
    lab.limits = (8, 1_000, 64);
    for n in 0..3 {
        lab.restart(n);
    }
    assert!(lab.stand(0, &[0, 1, 2]));
    lab.open(0, 1);
    lab.pass(300, &[0, 1, 2]);
    lab.write(0, 1, 1, 7);
    lab.pass(300, &[0, 1, 2]);
    assert!(lab.acked > 0);
    let opened = lab.opened[&SessionId(1)];
    lab.pass(1_500, &[0, 1, 2]);
    lab.open(0, 1);
    lab.pass(300, &[0, 1, 2]);
    let (body, attempted) = (crate::sim::machine::Op::Write { key: 0, value: 7 }.body(), 1 << 40);
    let late = Command { session: SessionId(1), opened, sequence: 1, settled: 1, attempted, body };
    lab.propose_raw(0, Payload::Command(late));
    lab.pass(300, &[0, 1, 2]);
}

pub const CLUSTER: ClusterId = ClusterId(Digest([9; 32]));
pub const LEADER: Member = Member { node: mosaik::groups::raft::NodeId::from_bytes([1; 32]), incarnation: 1 };

pub fn session(mutant: Planted) -> Session {
    let switch = mutant.map_or_else(Switch::default, Switch::plant);
    Session::new(SessionId(1), 2_000_000, 10_000, 0, switch)
}

pub fn call(id: usize) -> Call {
    // Too long to share a body with another one.
    let mut body = vec![1];
    body.resize(20_000, id as u8);
    Call { id, body: body.into(), deadline: 1 << 50, strong: false, detached: false, ack_on_append: false }
}

pub fn poll(session: &mut Session, now: u64) -> Option<(u64, Batch)> {
    session.poll(now, || SessionId(2)).map(|(flight, _, batch)| (flight, batch))
}

/// A session that was opened at index 5 of term 1 and has one command in flight, which is returned.
pub fn in_flight(mutant: Planted) -> (Session, u64, Batch) {
    let mut session = session(mutant);
    session.set_leader(Some((CLUSTER, LEADER, 1)));
    session.submit([call(0)]);
    let (flight, opening) = poll(&mut session, 0).expect("it is to be opened");
    assert_eq!((opening.opened, opening.commands.len()), (0, 0), "commands wait for the session");
    assert!(poll(&mut session, 0).is_none());
    session.answered(flight, vec![Done { sequence: 0, index: 5, result: CommandResult::Opened }], 100, 0, 0);
    let (flight, batch) = poll(&mut session, 0).expect("the command");
    assert_eq!((batch.opened, batch.commands[0].sequence), (5, 1));
    (session, flight, batch)
}

/// What is sent again keeps its number.
pub fn resend_keeps_its_number(mutant: Planted) {
    let (mut session, flight, first) = in_flight(mutant);
    session.lost(flight, 0, 10);
    session.set_leader(Some((CLUSTER, LEADER, 2)));
    let (_, again) = poll(&mut session, 20).expect("again");
    assert_eq!(again.commands, first.commands);
}

/// What may have been applied in a session that has ended is not sent in the next one.
pub fn ended_session_takes_nothing_along(mutant: Planted) {
    let (mut session, flight, _) = in_flight(mutant);
    session.lost(flight, 0, 10);
    let (flight, again) = poll(&mut session, 20).expect("again");
    session.submit([call(1)]);
    let ended = Done { sequence: again.commands[0].sequence, index: 9, result: CommandResult::Ended };
    session.answered(flight, vec![ended], 200, 0, 30);
    let (flight, opening) = poll(&mut session, 40).expect("another session");
    assert_eq!((opening.session, opening.opened), (SessionId(2), 0));
    assert_eq!(session.events().collect::<Vec<_>>(), [Event::Done(0, Err(Failure::Expired))]);
    session.answered(flight, vec![Done { sequence: 0, index: 12, result: CommandResult::Opened }], 300, 0, 50);
    let (_, batch) = poll(&mut session, 60).expect("what was never sent");
    assert_eq!((batch.commands.len(), batch.commands[0].body[1]), (1, 1));
}

/// Nothing is called settled before its caller has the result.
pub fn settled_means_answered(mutant: Planted) {
    let (mut session, flight, _) = in_flight(mutant);
    session.queued(flight);
    session.submit([call(1)]);
    let (_, second) = poll(&mut session, 10).expect("the second");
    assert_eq!((second.settled, second.commands[0].sequence), (1, 2), "the first is not settled");
}

/// A leader takes no command whose predecessor it has not appended.
pub fn order_across_a_lost_batch(mutant: Planted) {
    let (mut session, _lost, _) = in_flight(mutant);
    session.submit([call(1)]);
    let (flight, second) = poll(&mut session, 10).expect("the second");
    let mut router = Router::new();
    let notice = router.take(second, Source::Remote(flight), Some(CLUSTER));
    assert!(
        matches!(notice, Some(Notice::Remote(_, mosaik::groups::client::Response::Rejected(Rejection::OutOfOrder)))),
        "{notice:?}"
    );
    session.rejected(flight, Rejection::OutOfOrder, 0, 20);
    let (_, both) = poll(&mut session, 20).expect("both again");
    assert_eq!(both.commands.iter().map(|it| it.sequence).collect::<Vec<_>>(), [1, 2]);
}

/// Attempts are stamped in group time: what the session was told last, and the time since.
pub fn attempts_in_group_time(mutant: Planted) {
    let (mut session, flight, first) = in_flight(mutant);
    assert_eq!(first.commands[0].attempted, 100);
    session.queued(flight);
    session.observe_time(5_000, 1_000_000);
    session.submit([call(1)]);
    let (_, second) = poll(&mut session, 1_500_000).expect("the second");
    assert_eq!(second.commands[0].attempted, 5_500);
}

/// A leader whose disk hangs gives leadership up within a bound; what it sent is not lost, and it follows afterwards.
pub fn leader_with_a_hung_disk(mutant: Planted) {
    let mut lab = three(mutant);
    lab.nodes[0].stuck = true;
    lab.write(0, 1, 1, 7);
    lab.pass(4_500, &[0, 1, 2]);
    let next = (1..3).find(|n| lab.leads(*n)).expect("another leads");
    assert!(!lab.leads(0), "it gave up");
    lab.pass(500, &[0, 1, 2]);
    assert_eq!(lab.value(next), 7);
    lab.nodes[0].stuck = false;
    lab.sync(0);
    lab.pass(1_000, &[0, 1, 2]);
    assert_eq!((lab.value(0), lab.commit(0)), (7, lab.commit(next)));
}

/// A follower whose disk hangs asks for nobody's vote: its own would never count.
pub fn follower_with_a_hung_disk(mutant: Planted) {
    let mut lab = three(mutant);
    lab.nodes[1].stuck = true;
    lab.write(0, 1, 1, 7);
    lab.pass(2_500, &[0, 1, 2]);
    lab.drop_mail();
    lab.pass(5_000, &[1]);
    let asks = |mail: &Envelope| matches!(mail.body, Message::PreVote { .. } | Message::Vote { .. });
    assert!(!lab.mail.iter().any(asks), "it campaigns");
    lab.drop_mail();
    lab.nodes[1].stuck = false;
    lab.sync(1);
    lab.pass(5_000, &[1]);
    assert!(lab.mail.iter().any(asks), "and when the disk has answered it does");
}

/// What waits for a disk is bounded, at a leader whose followers are quick and at a follower whose leader is.
pub fn unwritten_is_bounded(mutant: Planted) {
    for n in [0, 2] {
        let mut lab = Lab::new(3, 3, mutant, |settings| settings.unwritten_bytes = 500);
        assert!(lab.stand(0, &[0, 1, 2]));
        lab.open(0, 1);
        lab.pass(300, &[0, 1, 2]);
        lab.nodes[n].stuck = true;
        for sequence in 1..60 {
            lab.write(0, 1, sequence, sequence);
            lab.flow(&[0, 1, 2]);
        }
        assert!(lab.nodes[n].disk.pending() <= 10, "{} batches wait for the disk of {n}", lab.nodes[n].disk.pending());
        lab.pass(1_000, &[0, 1, 2]);
        assert!(lab.nodes[n].disk.pending() <= 10, "{} batches wait for the disk of {n}", lab.nodes[n].disk.pending());
        lab.nodes[n].stuck = false;
        lab.sync(n);
        lab.pass(3_000, &[0, 1, 2]);
        let leader = (0..3).find(|n| lab.leads(*n)).expect("one leads");
        lab.write(leader, 1, 61, 7);
        lab.pass(1_000, &[0, 1, 2]);
        assert_eq!((lab.value(0), lab.value(1), lab.value(2)), (7, 7, 7));
    }
}

/// Learners that have been silent for long make room for new ones.
pub fn silent_learners_make_room(mutant: Planted) {
    let mut lab = Lab::new(12, 3, mutant, |settings| {
        (settings.peers, settings.target_voters, settings.silent) = (6, 3, 3_000_000);
    });
    assert!(lab.stand(0, &[0, 1, 2]));
    for n in 3..12 {
        (0..3).for_each(|other| lab.link(other, n));
        lab.pass(2_000, &[0, 1, 2, n]);
        let member = lab.member(n);
        assert!(lab.raft(0).log().membership().contains(&member), "{n} is not taken in");
        assert!(lab.raft(0).log().membership().everyone().len() <= 6);
        lab.crash(n);
        (0..3).for_each(|other| lab.feed(other, Input::PeerDown(member)));
        lab.pass(4_000, &[0, 1, 2]);
    }
    let voters: Vec<_> = (0..3).map(|n| lab.member(n)).collect();
    assert!(voters.iter().all(|it| lab.raft(0).log().membership().voters.contains(it)));
}

/// A snapshot that is being fetched can be fetched to its end, however often the leader compacts meanwhile; and the entries
/// after it are still there.
pub fn fetched_snapshot_stays(mutant: Planted) {
    let mut lab = Lab::new(3, 3, mutant, |settings| (settings.tail, settings.chunk) = (0, 4));
    assert!(lab.stand(0, &[0, 1, 2]));
    lab.open(0, 1);
    lab.pass(300, &[0, 1, 2]);
    lab.drop_mail();
    let mut asked = std::collections::BTreeSet::new();
    let mut sequence = 0;
    for round in 0..100 {
        for _ in 0..if round == 0 { 20 } else { 3 } {
            sequence += 1;
            let (session, attempted) = (SessionId(1), lab.raft(0).log().last_times().0);
            let opened = lab.opened[&session];
            let body = Op::Write { key: 0, value: sequence }.body();
            let command = Command { session, opened, sequence, settled: sequence, attempted, body };
            lab.propose_raw(0, Payload::Command(command));
        }
        lab.flow(&[0, 1]);
        if round == 0 {
            lab.drop_mail(); // nothing of this reaches 2
        }
        if round % 4 == 0 {
            let (index, data) = (lab.nodes[0].machine.applied, lab.nodes[0].machine.snapshot());
            lab.feed(0, Input::Compact { index, data });
        }
        lab.now += 100_000;
        lab.tick(0);
        lab.tick(2);
        // A slow link: one chunk goes through in a round, and the others are lost.
        let mut left = 1;
        lab.flow_if(|mail| {
            if let Message::PullChunk { snapshot, .. } = &mail.body {
                asked.insert(*snapshot);
            }
            let passes = !is_chunk(mail) || left > 0;
            left -= i32::from(passes && is_chunk(mail));
            passes
        });
        lab.mail.retain(|mail| !is_chunk(mail));
        if lab.last(2) == lab.last(0) {
            break;
        }
    }
    lab.pass(1_000, &[0, 1, 2]);
    assert!(!asked.is_empty(), "it fetched");
    assert_eq!(asked.len(), 1, "it began again");
    assert_eq!(lab.value(2), sequence);
}

/// Every planted bug with the schedule that kills it.
pub const KILLS: &[(Mutant, fn(Planted))] = &[
    (Mutant::VoteNotPersisted, vote_across_restart),
    (Mutant::OldTermCommit, figure_8),
    (Mutant::NoUpToDateCheck, stale_candidate),
    (Mutant::ReadWithoutQuorum, read_at_deposed_leader),
    (Mutant::OldRoundCounted, read_proven_by_an_old_round),
    (Mutant::ReadBeforeOwnTermCommit, read_at_unready_leader),
    (Mutant::AckBeyondVerified, stale_tail),
    (Mutant::AckByIndexOnly, same_index_other_entry),
    (Mutant::JointLeftEarly, joint_is_left_late),
    (Mutant::OneMajorityInJoint, joint_needs_both),
    (Mutant::FloorIgnored, floor),
    (Mutant::TwoChangesInFlight, one_change_at_a_time),
    (Mutant::IncarnationReused, wiped_voter),
    (Mutant::AcceptanceReleasedByTime, acceptance_binds),
    (Mutant::ProposerAcceptsFirst, proposer_is_last),
    (Mutant::CatchUpDropsMatching, catch_up_keeps_acknowledged),
    (Mutant::ChainNotVerified, damaged_entry),
    (Mutant::SessionsNotInSnapshot, retry_after_snapshot),
    (Mutant::SessionEvictedEarly, full_session_table),
    (Mutant::TruncationBelowCommit, late_duplicate),
    (Mutant::TransferWithoutCatchUp, transfer_to_laggard),
    (Mutant::YieldBeforeAdopt, two_foundings_meet),
    (Mutant::AckBeforeDurable, acknowledgement_waits_for_disk),
    (Mutant::ChangeBeforeOwnTermCommit, change_before_own_commit),
    (Mutant::CommandAfterSeal, nothing_after_a_seal),
    (Mutant::SealNotInSnapshot, nothing_after_a_seal),
    (Mutant::SnapshotOfAnotherMachine, snapshot_of_another_version),
    (Mutant::SessionNamedByIdAlone, late_opening),
    (Mutant::RenumberedResend, resend_keeps_its_number),
    (Mutant::ForgetfulReplacement, ended_session_takes_nothing_along),
    (Mutant::SettledEarly, settled_means_answered),
    (Mutant::PriorSkipped, order_across_a_lost_batch),
    (Mutant::AttemptInLocalTime, attempts_in_group_time),
    (Mutant::LeadsOnHungDisk, leader_with_a_hung_disk),
    (Mutant::CampaignsOnHungDisk, follower_with_a_hung_disk),
    (Mutant::UnwrittenUnbounded, unwritten_is_bounded),
    (Mutant::SilentLearnersStay, silent_learners_make_room),
    (Mutant::FetchedSnapshotDropped, fetched_snapshot_stays),
];
