//! Declared types: fields of bytes, a forced codec, streams of types that are declared elsewhere.

use bytes::Bytes;
use mosaik::{
    groups::{GroupKey, StateMachine},
    node::StreamType,
    prelude::*,
    primitives::{Format, Schema},
    testing::Sim,
};

#[mosaik::stream(name = "blobs")]
#[derive(Clone, Debug, Default, PartialEq)]
struct Blob {
    data: Vec<u8>,
    more: Option<Vec<u8>>,
    #[serde(skip)]
    cache: Vec<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out: Option<Vec<u8>>,
    numbers: Vec<u16>,
}

/// The same on the wire, written by hand.
mod by_hand {
    use super::*;

    #[derive(Deserialize)]
    #[serde(rename = "blobs")]
    #[expect(dead_code, reason = "only its shape counts")]
    pub struct Blob {
        data: Bytes,
        more: Option<Bytes>,
        left_out: Option<Bytes>,
        numbers: Vec<u16>,
    }
}

#[mosaik::stream(name = "shapes", codec = "messagepack")]
#[derive(Clone, Debug, PartialEq)]
enum Shape {
    Line(u8, Vec<u8>),
    Point { x: i32 },
}

/// A type of another crate, as far as this one knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Foreign(u64, String);

#[mosaik::stream(name = "transactions", of = Foreign, key = |item| item.0, retain = last_per_key(1), codec = "postcard")]
struct Transactions;

#[mosaik::group(name = "files", key = GroupKey::from_bytes([3; 32]))]
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Files {
    last: Vec<u8>,
}

#[mosaik::state_machine]
impl Files {
    #[command]
    fn put(&mut self, owned: Vec<u8>, borrowed: &[u8], maybe: Option<Vec<u8>>) -> Vec<u8> {
        self.last = owned;
        self.last.extend([borrowed, &maybe.unwrap_or_default()].concat());
        self.last.clone()
    }

    #[query]
    fn last(&self) -> Vec<u8> {
        self.last.clone()
    }
}

#[test]
fn fields_of_bytes_have_the_shape_of_bytes() {
    let (declared, by_hand) = (Schema::of::<Blob>(), Schema::of::<by_hand::Blob>());
    assert_eq!(declared.difference(&by_hand), None, "{declared:?} {by_hand:?}");
    let command = format!("{:?}", Schema::of::<<Files as StateMachine>::Command>());
    assert_eq!(command.matches("Bytes").count(), 3, "{command}");
    let output = format!("{:?}", Schema::of::<<Files as StateMachine>::Output>());
    assert_eq!(output.matches("Bytes").count(), 1, "{output}");
}

#[test]
fn declared_types_arrive_as_they_were() {
    Sim::run(3, |sim| async move {
        let (here, there) = (sim.node("here"), sim.node("there"));
        let one = here.builder("types").build().await.unwrap();
        let other = there.builder("types").with_bootstrap(here.addr()).build().await.unwrap();

        let (blobs, mut arrive) = (Blob::producer(&one).build().unwrap(), Blob::consumer(&other).build());
        let full = Blob { data: vec![1; 300], more: Some(vec![2, 255]), left_out: Some(vec![]), ..Blob::default() };
        for blob in [full, Blob { numbers: vec![1, 256], ..Blob::default() }] {
            blobs.send(blob.clone()).await.unwrap();
            assert_eq!(arrive.recv().await, Some(blob));
        }

        assert_eq!((Shape::CODEC, Blob::CODEC), (Some(Format::MessagePack), None));
        let (shapes, mut arrive) = (Shape::producer(&one).build().unwrap(), Shape::consumer(&other).build());
        for shape in [Shape::Line(7, vec![0, 128]), Shape::Point { x: -1 }] {
            shapes.send(shape.clone()).await.unwrap();
            assert_eq!(arrive.recv().await, Some(shape));
        }

        let transactions = Transactions::producer(&one).build().unwrap();
        let mut first = Transactions::consumer(&other).build();
        let (old, new) = (Foreign(1, "old".into()), Foreign(1, "new".into()));
        transactions.send(old.clone()).await.unwrap();
        assert_eq!(first.recv().await, Some(old));
        transactions.send(new.clone()).await.unwrap();
        assert_eq!(first.recv().await, Some(new.clone()));
        drop(first);
        let mut late =
            other.streams().consumer::<Foreign>().with_stream_id("transactions").with_codec(Format::Postcard).build();
        assert_eq!(late.recv().await, Some(new), "the last one of its key");

        let key = GroupKey::from_bytes([3; 32]);
        let files = one.groups().with_key(key).with_state_machine(Files::default()).join().await.unwrap();
        let put = FilesCommand::Put { owned: vec![1], borrowed: vec![2], maybe: Some(vec![3]) };
        let output = files.execute(put, Consistency::Strong).await.unwrap();
        assert!(matches!(output, FilesOutput::Put(all) if all == [1, 2, 3]));
        let answer = files.query(FilesQuery::Last {}, Consistency::Strong).await.unwrap().into_inner();
        assert!(matches!(answer, FilesAnswer::Last(all) if all == [1, 2, 3]));
    });
}
