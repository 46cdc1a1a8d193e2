//! What a command must not look at, and how it says that it may.

use std::time::{Instant, SystemTime};

use mosaik::prelude::*;

mod rand {
    pub fn random<T: Default>() -> T {
        T::default()
    }
}

use rand::random;

#[derive(Default, Clone, Serialize, Deserialize)]
#[mosaik::group(key = env("KEY"))]
struct Lottery {
    drawn: u64,
}

#[mosaik::state_machine]
impl Lottery {
    #[command]
    fn clocks(&mut self) {
        let start = Instant::now();
        if start.elapsed().as_secs() > 1 {
            self.drawn = SystemTime::now().elapsed().map_or(0, |elapsed| elapsed.as_secs());
        }
    }

    #[command]
    fn dice(&mut self) -> u64 {
        self.drawn = rand::random();
        vec![random::<u64>(), random()].len() as u64
    }

    #[command]
    fn world(&mut self) -> Option<String> {
        std::env::var("HOME").ok().or_else(|| std::fs::read_to_string("home").ok())
    }

    #[command]
    #[mosaik(nondeterministic = "is only logged")]
    fn excused(&mut self) {
        println!("{:?}", Instant::now());
    }

    #[command]
    #[mosaik(nondeterministic = "")]
    fn without_reason(&mut self) {
        println!("{:?}", Instant::now());
    }

    #[command]
    fn indirectly(&mut self) {
        Self::draw(self);
        self.log();
    }

    fn draw(&mut self) {
        self.drawn = self.seconds();
    }

    fn seconds(&self) -> u64 {
        SystemTime::UNIX_EPOCH.elapsed().map_or(self.drawn, |elapsed| elapsed.as_secs())
    }

    #[mosaik(nondeterministic = "is only logged")]
    fn log(&self) {
        println!("{:?}", Instant::now());
    }

    fn only_for_queries() -> SystemTime {
        SystemTime::now()
    }

    #[query]
    fn locally(&self) -> bool {
        Self::only_for_queries().elapsed().is_ok()
    }
}

fn main() {}
