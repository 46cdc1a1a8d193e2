//! Rules for `#[mosaik::stream]`.

use crate::{
    diag::Diag,
    model::{Retain, Stream},
};

pub(crate) fn stream(stream: &Stream, diag: &Diag) {
    super::no_generics(
        &stream.generics,
        "a stream is one concrete type with one name: declare a type per stream, or give each instance its own id with \
         `net.streams().producer::<T>().with_stream_id(..)`",
        diag,
    );
    if let Err(problem) = super::printable(&stream.name.text) {
        diag.error_at(stream.name.span, format!("the name of the stream {problem}"));
    }
    super::grants(&stream.produce, diag);
    super::grants(&stream.consume, diag);
    super::labels(stream.label.as_slice(), diag);
    if let (Some(Retain::LastPerKey(items)), None) = (&stream.retain, &stream.key) {
        diag.error(items, "`last_per_key` needs to know the key of an item: add `key = |item| item.field`");
    }
}
