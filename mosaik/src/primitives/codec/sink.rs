//! A buffer with a limit, that both formats write to.

use std::io;

use postcard::ser_flavors::Flavor;

/// Appends to a vector, up to so many bytes.
pub(super) struct Sink<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes beyond the end, which were dropped.
    beyond: usize,
}

impl<'a> Sink<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>, limit: usize) -> Self {
        let start = out.len();
        Self { start, end: start.saturating_add(limit), out, beyond: 0 }
    }

    /// Goes to the end, so that the size can be told; memory stays bounded.
    #[inline]
    fn put(&mut self, data: &[u8]) {
        if self.beyond > 0 || self.out.len() + data.len() > self.end {
            self.beyond += data.len();
        } else {
            self.out.extend_from_slice(data);
        }
    }

    /// How many bytes were written, dropped ones too.
    pub(super) fn size(&self) -> usize {
        self.out.len() - self.start + self.beyond
    }
}

impl Flavor for &mut Sink<'_> {
    type Output = ();

    #[inline]
    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        self.put(data);
        Ok(())
    }

    #[inline]
    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        // The limit is looked at only when the vector grows; what comes between is found by the size.
        if self.out.len() == self.out.capacity() && self.out.len() >= self.end {
            self.beyond += 1;
        } else {
            self.out.push(data);
        }
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

impl io::Write for Sink<'_> {
    #[inline]
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.put(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
