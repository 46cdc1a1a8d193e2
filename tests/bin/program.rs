//! A program with a main of its own, for the process tests.

use mosaik::prelude::*;

/// What travels is declared with what the prelude brings; this package has no dependency on serde.
mod data {
    use mosaik::prelude::*;

    /// A generic part of an order.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Amount<T> {
        /// How much.
        pub value: T,
    }

    /// An enum with all kinds of variants.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    pub enum Side {
        /// The default.
        #[default]
        Buy = 1,
        /// The other one.
        Sell = 2,
    }

    /// Declared as a stream.
    #[mosaik::stream(name = "orders")]
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Order {
        /// Derived by the prelude's derive.
        pub side: Side,
        /// A generic one.
        pub amount: Amount<u64>,
        /// Never sent.
        #[serde(skip)]
        pub note: String,
    }

    /// A stream by its serde name.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Data1(pub u32);
}

/// Sends and receives one order and one datum within this process.
async fn exchange(net: &Network) -> anyhow::Result<()> {
    let other = Network::new(net.network_id()).await?;
    let order = data::Order { side: data::Side::Sell, amount: data::Amount { value: 7 }, note: String::from("mine") };
    let (mut orders, mut numbers) = (data::Order::consumer(&other).build(), other.streams().consume::<data::Data1>());
    data::Order::producer(net).build()?.send(order.clone()).await?;
    net.streams().produce::<data::Data1>().send(data::Data1(42)).await?;
    assert_eq!(orders.next().await, Some(data::Order { note: String::new(), ..order }));
    assert_eq!(numbers.next().await, Some(data::Data1(42)));
    assert_eq!(numbers.stream_id(), StreamId::from("Data1"));
    assert_eq!(StreamId::of::<data::Order>(), StreamId::from("orders"));
    other.shutdown().await;
    Ok(())
}

/// Logs as many lines of some 100 bytes as `LINES` says, each with its number, and panics once in between.
fn talk() {
    let lines: u32 = std::env::var("LINES").ok().and_then(|lines| lines.parse().ok()).unwrap_or_default();
    for line in 0..lines {
        tracing::info!(line, "{:->40}", "");
        if line == lines / 2 {
            let panicked = std::panic::catch_unwind(|| panic!("on purpose"));
            assert!(panicked.is_err());
        }
    }
    println!("all is said");
}

/// Sends to nobody.
#[mosaik::node]
pub struct Stuck {
    orders: Producer<data::Order>,
}

#[mosaik::handlers]
impl Stuck {
    #[every("10ms")]
    async fn place(&mut self) -> anyhow::Result<()> {
        let amount = data::Amount { value: 1 };
        Ok(self.orders.send(data::Order { side: data::Side::Buy, amount, note: String::new() }).await?)
    }
}

/// Computes for seconds.
#[mosaik::node]
pub struct Busy {}

#[mosaik::handlers]
impl Busy {
    #[every("10ms")]
    async fn compute(&mut self) {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        #[expect(clippy::disallowed_methods, reason = "it stands for a computation")]
        std::thread::sleep(std::time::Duration::from_secs(3));
    }
}

/// As the readings of the example `weather`, but for one field.
#[mosaik::stream(name = "readings")]
pub struct Reading {
    /// Which.
    pub sensor: u32,
    /// Not as precise there.
    pub celsius: f64,
}

/// Listens to another weather.
#[mosaik::node]
pub struct Station {
    #[mosaik(deadline = "5s")]
    readings: Consumer<Reading>,
    #[mosaik(default)]
    shown: u64,
}

#[mosaik::handlers]
impl Station {
    #[on(readings)]
    fn show(&mut self, Reading { sensor, celsius }: Reading) {
        self.shown += 1;
        println!("{}: {sensor} {celsius}", self.shown);
    }
}

/// An app that does not fit to `weather`; it is only looked at.
#[mosaik::app(name = "other-weather", roles = [Station])]
pub struct OtherWeather;

async fn play<R: mosaik::node::Handlers>(net: &Network) -> anyhow::Result<()> {
    let values = mosaik::node::ArgValues::parse::<&str>(&R::ROLE, [])?;
    let role = R::open(&mut mosaik::node::Setup::new(net, &values)).await?;
    Ok(mosaik::node::spawn(net, role).ended().await?)
}

/// Measures something of its own, and has a stream that ends before the other one.
async fn measure(net: &Network) -> anyhow::Result<()> {
    metrics::histogram!("order_lines").record(42.0);
    let _lasting = net.streams().producer::<u64>().with_stream_id("lasting").build()?;
    {
        let _passing = net.streams().producer::<u64>().with_stream_id("passing").build()?;
        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    }
    println!("passed");
    std::future::pending().await
}

/// Ends when `PROGRAM` says how: `ok`, `exchange`, `error`, `fail`, `wait`, `block`, `stuck`, `busy`, `measure`, `talk` (and waits)
/// or `recite` (and ends).
#[mosaik::main(name = "program", tags = ["program"])]
async fn main(net: Network) -> anyhow::Result<()> {
    println!("{}", net.local().id());
    match std::env::var("PROGRAM").as_deref() {
        Ok("exchange") => exchange(&net).await,
        Ok("error") => Err(anyhow::anyhow!("the cause").context("the effect")),
        Ok("fail") => {
            mosaik::testing::panic_in_essential_task(&net);
            std::future::pending().await
        }
        Ok("stuck") => play::<Stuck>(&net).await,
        Ok("busy") => play::<Busy>(&net).await,
        Ok("measure") => measure(&net).await,
        Ok("wait") => std::future::pending().await,
        Ok("block") => loop {
            std::thread::park();
        },
        Ok("talk") => {
            talk();
            std::future::pending().await
        }
        Ok("recite") => {
            talk();
            Ok(())
        }
        _ => Ok(()),
    }
}
