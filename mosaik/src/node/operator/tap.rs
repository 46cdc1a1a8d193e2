//! `mosaik tap`: a consumer of a stream of any type. The producer tells the shape of its items; values are read by it and printed
//! as JSON lines.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use clap::ArgMatches;
use serde::Serialize;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::super::process::{Failure, print, say};
use crate::{
    discovery::Bootstrap,
    network::Network,
    primitives::{NetworkId, PeerId, Schema, StreamId, figures, schema::Value},
    streams::{Consumer, Event, Origin},
    trust::{Invitation, NetworkKey},
};

/// How long nobody is found before that is said.
const NOBODY: Duration = Duration::from_secs(5);
/// How long a shape may take to come. Without one, what describes itself can still be read.
const SHAPE: Duration = Duration::from_secs(5);

/// One line.
#[derive(Serialize)]
struct Line {
    producer: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    #[serde(flatten)]
    what: What,
}

#[derive(Serialize)]
#[serde(untagged)]
enum What {
    Item { item: Value },
    Unreadable { error: String, bytes: Value },
    Missed { missed: [u64; 2], reason: String },
}

/// Prints items until there were enough, the time is over or a signal comes.
pub(super) async fn tap(matches: &ArgMatches, ending: CancellationToken) -> Result<(), Failure> {
    let invitation = matches.get_one::<Invitation>("join").cloned();
    let named = matches.get_one::<NetworkId>("network").copied();
    let id = invitation.as_ref().map(Invitation::network).or(named).ok_or("--network is missing")?;
    let stream = *matches.get_one::<StreamId>("stream").ok_or("STREAM is missing")?;
    let bootstrap = matches.get_many::<Bootstrap>("bootstrap").into_iter().flatten().cloned();
    let mut builder = bootstrap.fold(Network::builder(id), |it, peer| it.with_bootstrap(peer));
    if let Some(invitation) = invitation {
        builder = builder.with_invitation(invitation);
    }
    if let Some(file) = matches.get_one::<PathBuf>("network-key") {
        builder = builder.with_network_key(NetworkKey::from_file(file)?);
    }
    let network = builder.build().await?;
    let limit = matches.get_one::<Duration>("for").copied();
    let over = async {
        match limit {
            Some(limit) => sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    let result = tokio::select! {
        biased;
        () = ending.cancelled() => Ok(()),
        result = items(&network, stream, matches) => result,
        found = async { over.await; is_produced(&network, stream) } => {
            if found { Ok(()) } else { Err(format!("nobody that was found produces the stream {}", called(stream)).into()) }
        }
    };
    network.shutdown().await;
    result
}

fn is_produced(network: &Network, stream: StreamId) -> bool {
    network.discovery().catalog().iter().any(|peer| peer.produces().contains(stream))
}

async fn items(network: &Network, stream: StreamId, matches: &ArgMatches) -> Result<(), Failure> {
    let mut builder = network.streams().consumer::<()>().with_stream_id(stream).of_any_owner();
    if !matches.get_flag("replay") {
        builder = builder.live_only();
    }
    if let Some(start) = matches.get_one::<String>("from").cloned() {
        builder = builder.subscribe_if(move |peer| peer.id().to_string().starts_with(&start));
    }
    let mut consumer = builder.build();
    let mut events = consumer.events();
    let mut shapes = BTreeMap::new();
    let mut left = matches.get_one::<u64>("count").copied().unwrap_or(u64::MAX);
    let mut nobody = std::pin::pin!(sleep(NOBODY));
    let mut waiting = true;
    while left > 0 {
        tokio::select! {
            biased;
            event = events.recv() => match event {
                Some(Event::Gap { producer, from, to, reason }) => {
                    let what = What::Missed { missed: [from, to], reason: format!("{reason:?}") };
                    line(producer, None, what)?;
                }
                Some(_) => {}
                None => return Ok(()),
            },
            item = consumer.recv_encoded() => {
                let Some(((format, bytes), origin)) = item else { return Ok(()) };
                waiting = false;
                let schema = shape(network, stream, origin, &mut shapes).await;
                let what = match schema.read(format, &bytes) {
                    Ok(item) => What::Item { item },
                    Err(error) => What::Unreadable { error, bytes: Value::Bytes(bytes) },
                };
                line(origin.producer, Some(origin), what)?;
                left -= 1;
            }
            () = &mut nobody, if waiting => {
                waiting = false;
                tell_why(&consumer, network, stream);
            }
        }
    }
    Ok(())
}

/// Says why nothing comes.
fn tell_why(consumer: &Consumer<()>, network: &Network, stream: StreamId) {
    let found = consumer.candidates().count();
    let why = match (found, is_produced(network, stream)) {
        (0, false) => "nobody that was found produces it".to_owned(),
        (0, true) => "none of its producers is asked for".to_owned(),
        (found, _) => format!("{found} produce it: {} are connected", consumer.producers().count()),
    };
    say(format_args!("no item of {} yet: {why}", called(stream)));
}

fn line(producer: PeerId, origin: Option<Origin>, what: What) -> Result<(), Failure> {
    let (epoch, seq) = (origin.map(|origin| origin.epoch), origin.map(|origin| origin.seq));
    let mut text = serde_json::to_string(&Line { producer: producer.to_string(), epoch, seq, what })?;
    text.push('\n');
    print(&text)
}

/// The shape of a producer's items, asked for once per life of the stream there.
async fn shape<'a>(
    network: &Network,
    stream: StreamId,
    origin: Origin,
    known: &'a mut BTreeMap<(PeerId, u64), Schema>,
) -> &'a Schema {
    let key = (origin.producer, origin.epoch);
    if !known.contains_key(&key) {
        known.retain(|(producer, _), _| *producer != origin.producer);
        let told = async {
            let entry = network.discovery().catalog().get(origin.producer)?.clone();
            network.diagnostics().client().schema(entry.addr(), stream).await.ok()?
        };
        if let Ok(Some(schema)) = timeout(SHAPE, told).await {
            known.insert(key, schema);
        }
    }
    known.entry(key).or_insert_with(Schema::unknown)
}

/// A stream's name if it was asked for by that, else the first digits of its id.
fn called(stream: StreamId) -> impl std::fmt::Display {
    figures::label(stream.as_bytes(), stream)
}
