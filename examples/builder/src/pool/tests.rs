//! The machine by itself.

use alloy::primitives::keccak256;

use super::*;

fn order(sender: u8, nonce: u64, tip: u128, gas: u64) -> Order {
    let raw = Bytes::from(format!("{sender} {nonce} {tip} {gas}").into_bytes());
    Order { hash: keccak256(&raw), sender: Address::repeat_byte(sender), nonce, tip, gas, raw }
}

/// A pool that has taken these.
fn pool(orders: &[Order]) -> Mempool {
    let mut pool = Mempool::default();
    for order in orders {
        assert_eq!(pool.submit(order.clone()), Ok(()));
    }
    pool
}

/// Seals the next block.
fn seal(pool: &mut Mempool) -> Vec<B256> {
    let number = pool.height() + 1;
    let ctx = ApplyContext::at(number).with_time(Duration::from_secs(number));
    let txs = pool.seal(number, &ctx).unwrap_or_default();
    txs.iter().map(keccak256).collect()
}

fn hashes(orders: &[&Order]) -> Vec<B256> {
    orders.iter().map(|order| order.hash).collect()
}

#[test]
fn the_highest_tip_comes_first_and_of_equal_ones_the_lowest_hash() {
    let mut orders: Vec<_> = (1..=9).map(|sender| order(sender, 0, u128::from(sender / 3), 21_000)).collect();
    let sealed = seal(&mut pool(&orders));
    orders.sort_by_key(|order| (Reverse(order.tip), order.hash));
    assert_eq!(sealed, hashes(&orders.iter().collect::<Vec<_>>()));
}

#[test]
fn a_sender_s_nonces_are_in_order_whatever_they_pay() {
    let orders = [order(1, 7, 9, 21_000), order(1, 5, 1, 21_000), order(2, 0, 5, 21_000), order(1, 6, 7, 21_000)];
    let [seventh, fifth, other, sixth] = &orders;
    assert_eq!(seal(&mut pool(&orders)), hashes(&[other, fifth, sixth, seventh]));
}

#[test]
fn a_block_keeps_its_gas_limit() {
    let orders = [
        order(1, 0, 9, GAS_LIMIT - 50_000),
        order(2, 0, 8, 60_000), // does not fit any more, and so
        order(2, 1, 8, 21_000), // nor does this
        order(3, 0, 1, 50_000),
    ];
    let [big, wide, behind, small] = &orders;
    let mut pool = pool(&orders);
    assert_eq!(seal(&mut pool), hashes(&[big, small]));
    assert_eq!(seal(&mut pool), hashes(&[wide, behind]));
    assert_eq!((pool.next(), pool.bytes, pool.height()), (None, 0, 2));
}

#[test]
fn what_is_too_big_for_any_block_gets_one_of_its_own() {
    let orders =
        [order(1, 0, 9, 21_000), order(2, 0, 8, 5 * GAS_LIMIT), order(3, 0, 7, 21_000), order(2, 1, 1, 21_000)];
    let [first, huge, small, behind] = &orders;
    let mut pool = pool(&orders);
    assert_eq!(seal(&mut pool), hashes(&[first, small]));
    assert_eq!(seal(&mut pool), hashes(&[huge]));
    assert_eq!(seal(&mut pool), hashes(&[behind]));
}

#[test]
fn a_known_order_is_taken_alike_and_sealed_once() {
    let known = order(1, 3, 1, 21_000);
    let mut pool = pool(&[known.clone(), known.clone()]);
    assert_eq!(seal(&mut pool), hashes(&[&known]));
    assert_eq!(pool.submit(known), Ok(()));
    assert_eq!(pool.next(), None);
}

#[test]
fn what_cannot_come_any_more_is_refused() {
    let mut pool = pool(&[order(1, 3, 1, 21_000)]);
    assert_eq!(pool.submit(order(1, 3, 2, 21_000)), Err(Refusal::NonceTaken));
    assert_eq!(pool.submit(order(1, 2, 1, 21_000)), Ok(()));
    seal(&mut pool);
    for nonce in 0..=3 {
        assert_eq!(pool.submit(order(1, nonce, 5, 21_000)), Err(Refusal::NonceTooLow));
    }
    assert_eq!(pool.submit(order(1, 9, 1, 21_000)), Ok(()), "what is missing in between may be nobody's");
}

#[test]
fn a_block_is_sealed_once_and_an_empty_one_never() {
    let ctx = ApplyContext::at(1);
    assert_eq!(Mempool::default().seal(1, &ctx), None);
    let mut pool = pool(&[order(1, 0, 1, GAS_LIMIT), order(2, 0, 1, GAS_LIMIT)]);
    assert_eq!(pool.seal(2, &ctx), None);
    assert_eq!(pool.seal(1, &ctx).map(|txs| txs.len()), Some(1));
    assert_eq!(pool.seal(1, &ctx), None, "asked for again");
    assert_eq!(pool.next(), Some(2));
}

#[test]
fn a_full_pool_takes_nothing_but_what_it_knows() {
    let first = order(1, 0, 1, GAS_LIMIT);
    let mut pool = pool(std::slice::from_ref(&first));
    pool.bytes = MAX_WAITING;
    assert_eq!(pool.submit(order(2, 0, 1, 21_000)), Err(Refusal::Full));
    assert_eq!(pool.submit(first), Ok(()));
}

#[test]
fn so_many_blocks_are_remembered_and_whoever_comes_late_is_told() {
    let orders: Vec<_> = (0..REMEMBERED as u64 + 5).map(|nonce| order(1, nonce, 1, GAS_LIMIT)).collect();
    let mut pool = Mempool::default();
    for order in &orders {
        assert_eq!(pool.submit(order.clone()), Ok(()));
        assert_eq!(seal(&mut pool), [order.hash]);
    }
    assert_eq!((pool.blocks.len(), pool.hashes.len()), (REMEMBERED, REMEMBERED));
    let height = pool.height();
    let (first, blocks) = pool.since(1);
    assert_eq!((first, blocks.len(), &blocks[0]), (6, PAGE, &vec![orders[5].hash]));
    assert_eq!(pool.since(height), (height, vec![vec![orders[orders.len() - 1].hash]]));
    assert_eq!(pool.since(height + 9), (height + 9, vec![]));
    assert_eq!(pool.submit(orders[0].clone()), Err(Refusal::NonceTooLow), "never twice, though it is forgotten");
}

#[test]
fn blocks_are_found_by_their_time() {
    let mut pool = pool(&[order(1, 0, 1, GAS_LIMIT), order(1, 1, 1, GAS_LIMIT)]);
    assert_eq!(pool.first_after(Duration::ZERO), 1);
    seal(&mut pool);
    seal(&mut pool);
    let at = |seconds| pool.first_after(Duration::from_secs(seconds));
    assert_eq!([at(0), at(1), at(2), at(3)], [1, 1, 2, 3]);
}
