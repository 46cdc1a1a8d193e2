//! A program whose types have a first and a second version (`orders_old.rs`, `orders_new.rs`).

#![expect(clippy::unused_self, clippy::needless_pass_by_value, reason = "handlers have these forms")]

use mosaik::prelude::*;

use crate::types::{Order, order};

/// Sends orders.
#[mosaik::node]
pub struct Seller {
    orders: Producer<Order>,
    #[mosaik(default)]
    count: u64,
}

#[mosaik::handlers]
impl Seller {
    #[every("50ms", emit = orders)]
    fn sell(&mut self) -> Order {
        self.count += 1;
        order(self.count)
    }
}

/// Prints orders.
#[mosaik::node]
pub struct Buyer {
    orders: Consumer<Order>,
}

#[mosaik::handlers]
impl Buyer {
    #[on(orders)]
    fn buy(&mut self, order: Order) {
        println!("{order:?}");
    }
}

/// The program.
#[mosaik::app(name = "orders", roles = [Seller, Buyer])]
pub struct Orders;
