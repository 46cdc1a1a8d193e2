//! Which of two links stays, seen from both ends.

use tokio_util::sync::CancellationToken;

use super::{super::bond::Made, *};

fn peer(seed: u8) -> PeerId {
    iroh::SecretKey::from_bytes(&[seed; 32]).public().into()
}

fn member(peer: PeerId, incarnation: u64) -> Member {
    Member { node: NodeId::from_bytes(*peer.as_bytes()), incarnation }
}

/// Two peers, the lower id first.
fn two() -> (PeerId, PeerId) {
    let (a, b) = (peer(1), peer(2));
    (a.min(b), a.max(b))
}

fn mesh(local: PeerId) -> Mesh {
    let mut mesh = Mesh::new(local, GroupId::from("group"), member(local, 1), Table::new(BTreeMap::new()), [1; 32]);
    mesh.open();
    mesh
}

struct Spec {
    id: u64,
    session: u64,
    dialled: bool,
    dial: u64,
    incarnation: u64,
}

fn bond(local: PeerId, other: PeerId, spec: &Spec) -> Arc<Bond> {
    let Spec { id, session, dialled, dial, incarnation } = *spec;
    let (member, me) = (member(other, incarnation), member(local, 1));
    let (start, extent, cluster) = (Start::default(), Extent::default(), None);
    let made = Made { peer: other, member, start, extent, cluster, me, id, session, dialled, dial };
    Bond::new(&made, &CancellationToken::new())
}

const FIRST: Spec = Spec { id: 1, session: 7, dialled: true, dial: 1, incarnation: 1 };

#[tokio::test(start_paused = true)]
async fn two_dials_that_cross_leave_the_one_of_the_lower_id() {
    let (low, high) = two();
    for dialled_first in [true, false] {
        // `low` dialled link 1, `high` dialled link 2; each end sees both, in either order.
        let mut low_end = mesh(low);
        let mut high_end = mesh(high);
        let at = |mesh: &mut Mesh, local, other, dialled, id| {
            mesh.admit(&bond(local, other, &Spec { id, dialled, ..FIRST }), 0).is_ok()
        };
        let mut admitted = Vec::new();
        // Each end has admitted its own dial before it hears of the other one.
        admitted.push(at(&mut low_end, low, high, true, 1));
        admitted.push(at(&mut high_end, high, low, true, 2));
        if dialled_first {
            admitted.push(at(&mut low_end, low, high, false, 2));
            admitted.push(at(&mut high_end, high, low, false, 1));
        } else {
            admitted.push(at(&mut high_end, high, low, false, 1));
            admitted.push(at(&mut low_end, low, high, false, 2));
        }
        let ids = [low_end.bond(high), high_end.bond(low)].map(|bond| bond.expect("bonded").id);
        assert_eq!(ids, [1, 1], "{admitted:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dialler_that_has_a_bond_gives_its_dial_up() {
    let (low, high) = two();
    let mut mesh = mesh(low);
    assert!(mesh.admit(&bond(low, high, &Spec { dialled: false, ..FIRST }), 0).is_ok());
    let own = bond(low, high, &Spec { id: 2, ..FIRST });
    assert_eq!(mesh.admit(&own, 0).err(), Some(NotAdmitted::Duplicate));
}

#[tokio::test(start_paused = true)]
async fn a_link_that_replaces_a_lost_one_is_taken_at_once() {
    let (low, high) = two();
    for (local, other) in [(low, high), (high, low)] {
        for dialled in [true, false] {
            let mut mesh = mesh(local);
            assert!(mesh.admit(&bond(local, other, &Spec { dialled, ..FIRST }), 0).is_ok());
            let again = bond(local, other, &Spec { id: 2, dialled: false, dial: 2, ..FIRST });
            let former = mesh.admit(&again, 1).expect("admitted").expect("replaces");
            assert_eq!(former.id, 1);
            // The end of the former one is no news.
            mesh.lost(&former, false, Instant::now());
            assert_eq!(mesh.bond(other).map(|bond| bond.id), Some(2));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_run_of_a_peer_replaces_its_old_one_and_an_old_life_is_refused() {
    let (low, high) = two();
    let mut mesh = mesh(low);
    assert!(mesh.admit(&bond(low, high, &FIRST), 0).is_ok());
    let returned = bond(low, high, &Spec { id: 2, session: 8, dialled: false, incarnation: 2, ..FIRST });
    assert!(mesh.admit(&returned, 0).is_ok_and(|former| former.is_some_and(|former| former.id == 1)));
    let ghost = bond(low, high, &Spec { id: 3, session: 9, dialled: false, ..FIRST });
    assert_eq!(mesh.admit(&ghost, 0).err(), Some(NotAdmitted::Refused(Refusal::OldIncarnation)));
}

#[tokio::test(start_paused = true)]
async fn a_link_of_a_former_identity_is_not_admitted() {
    let (low, high) = two();
    let mut mesh = mesh(low);
    mesh.set_me(member(low, 2), Start::default(), Instant::now());
    assert_eq!(mesh.admit(&bond(low, high, &FIRST), 0).err(), Some(NotAdmitted::Over));
}

#[tokio::test(start_paused = true)]
async fn refusals_are_bounded_and_counted() {
    let (low, high) = two();
    let mut mesh = mesh(low);
    assert!(mesh.refused(high, &Refusal::WrongKey, true, Instant::now()));
    assert!(!mesh.refused(high, &Refusal::WrongKey, true, Instant::now()));
    assert!(mesh.refused(high, &Refusal::WrongKey, false, Instant::now()));
    assert_eq!(mesh.refusals().map(|refused| refused.count).collect::<Vec<_>>(), [2, 1]);
    for seed in 0..=u8::MAX {
        mesh.refused(peer(seed), &Refusal::NotMember, true, Instant::now());
    }
    assert_eq!(mesh.refusals().count(), MAX_REFUSALS);
}

#[tokio::test]
async fn two_starts_of_one_storage_are_not_looked_into_at_once() {
    let (low, high) = two();
    let mut mesh = mesh(low);
    let claim = |peer, number| Claim { peer, incarnation: 1, start: Start { number, ..Start::default() } };
    let (third, fourth) = (claim(high, 3), claim(high, 4));
    assert_eq!(mesh.begin_claim(third), Ok(()));
    assert_eq!(mesh.begin_claim(third), Ok(()), "two links of one process");
    assert_eq!(mesh.begin_claim(fourth), Err(NotAdmitted::Duplicate));
    assert_eq!(mesh.begin_claim(claim(peer(9), 4)), Ok(()), "of another member");
    mesh.end_claim(&third);
    assert!(mesh.is_contested(&fourth), "one of the two is left");
    mesh.end_claim(&third);
    assert_eq!(mesh.begin_claim(fourth), Ok(()));
}
