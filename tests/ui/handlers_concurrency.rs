//! Handlers of which several calls share the role.

use std::cell::Cell;

use mosaik::prelude::*;

#[mosaik::stream]
struct Job(u64);

#[mosaik::node]
struct Worker {
    jobs: Consumer<Job>,
    others: Consumer<Job>,
    third: Consumer<Job>,
    fourth: Consumer<Job>,
    fifth: Consumer<Job>,
    sixth: Consumer<Job>,
}

#[mosaik::handlers]
impl Worker {
    #[on(jobs, concurrency = 1)]
    async fn one(&self, _: Job) {}

    #[on(others, concurrency = 5000)]
    async fn too_many(&self, _: Job) {}

    #[on(third, concurrency = "8")]
    async fn text(&self, _: Job) {}

    #[on(fourth, concurrency = 8)]
    async fn changes(&mut self, _: Job) {}

    #[on(fifth, concurrency = 8)]
    fn at_once(&self, _: Job) {}

    #[on(jobs.connected, concurrency = 8)]
    async fn event(&self, _: PeerId) {}

    #[every("1s", concurrency = 8)]
    async fn period(&self) {}

    #[on(sixth, concurrency)]
    async fn no_number(&self, _: Job) {}
}

#[mosaik::node]
struct NotShared {
    jobs: Consumer<Job>,
    #[mosaik(default)]
    count: Cell<u64>,
}

#[mosaik::handlers]
impl NotShared {
    #[on(jobs, concurrency = 8)]
    async fn count(&self, _: Job) {
        self.count.set(self.count.get() + 1);
    }
}

fn main() {}
