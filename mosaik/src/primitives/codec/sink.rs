//! A buffer with a limit, that both formats write to.

use std::io;

use postcard::ser_flavors::Flavor;
use serde::Serialize;

/// Appends to a vector, up to so many bytes.
pub(super) struct Sink<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes beyond the end, which were dropped.
    beyond: usize,
}

impl<'a> Sink<'a> {
    #[inline]
    pub(super) fn new(out: &'a mut Vec<u8>, limit: usize) -> Self {
        let start = out.len();
        Self { start, end: start.saturating_add(limit), out, beyond: 0 }
    }

    /// Writes a value with postcard. Goes to the end, so that the size can be told; memory stays bounded.
    #[inline]
    pub(super) fn postcard<T: Serialize>(self, value: &T) -> (postcard::Result<()>, usize) {
        let mut serializer = postcard::Serializer { output: self };
        let written = value.serialize(&mut serializer);
        (written, serializer.output.size())
    }

    /// The limit is looked at only when the vector has to grow; what comes between is found by the size.
    #[inline]
    fn put(&mut self, data: &[u8]) {
        if data.len() > self.out.capacity() - self.out.len() {
            return self.grow(data);
        }
        self.out.extend_from_slice(data);
    }

    #[cold]
    fn grow(&mut self, data: &[u8]) {
        if self.beyond > 0 || self.out.len() + data.len() > self.end {
            self.beyond += data.len();
        } else {
            self.out.extend_from_slice(data);
        }
    }

    /// How many bytes were written, dropped ones too.
    #[inline]
    pub(super) fn size(&self) -> usize {
        self.out.len() - self.start + self.beyond
    }
}

impl Flavor for Sink<'_> {
    type Output = ();

    #[inline]
    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        match data {
            // Most lengths: a store, where the rest is a call.
            [byte] => self.put(&[*byte]),
            _ => self.put(data),
        }
        Ok(())
    }

    #[inline]
    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        self.put(&[data]);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

impl io::Write for Sink<'_> {
    #[inline]
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.beyond > 0 {
            // What was kept is the beginning, where the place of an error is looked for.
            self.beyond += data.len();
        } else {
            self.put(data);
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
