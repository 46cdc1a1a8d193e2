//! The handles of a simulated stream that the seam dispatches to.
//!
//! Each call enters the world for an instant; waiting is a waker left in the stream's pipe.

use std::{future::poll_fn, sync::Arc};

use bytes::{Bytes, BytesMut};

use super::{connection::Handle, event::StreamKey};
use crate::transport::{Code, ConnectionLost, ReadError, WriteError};

/// Chunks up to this size are copied together, as the QUIC backend does.
const COPY_UP_TO: usize = 1452;

/// The sending half of a simulated stream.
#[derive(Debug)]
pub(crate) struct SimSendStream {
    handle: Arc<Handle>,
    key: StreamKey,
}

/// The receiving half of a simulated stream.
#[derive(Debug)]
pub(crate) struct SimRecvStream {
    handle: Arc<Handle>,
    key: StreamKey,
}

impl SimSendStream {
    pub(super) fn new(handle: Arc<Handle>, key: StreamKey) -> Self {
        Self { handle, key }
    }

    pub(crate) async fn write_all(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.write(Bytes::copy_from_slice(bytes)).await
    }

    pub(crate) async fn write_all_chunks(&mut self, chunks: &mut [Bytes]) -> Result<(), WriteError> {
        let mut next = 0;
        while next < chunks.len() {
            let small = chunks[next..].iter().take_while(|chunk| chunk.len() <= COPY_UP_TO).count();
            if small > 1 {
                let mut batch = BytesMut::new();
                chunks[next..next + small].iter().for_each(|chunk| batch.extend_from_slice(chunk));
                self.write(batch.freeze()).await?;
                chunks[next..next + small].iter_mut().for_each(Bytes::clear);
                next += small;
            } else {
                self.write(chunks[next].clone()).await?;
                chunks[next].clear();
                next += 1;
            }
        }
        Ok(())
    }

    async fn write(&self, mut bytes: Bytes) -> Result<(), WriteError> {
        let Handle { net, conn, side, .. } = &*self.handle;
        loop {
            poll_fn(|cx| net.with(|world| world.write(*conn, *side, self.key, &mut bytes, cx.waker()))).await?;
            if bytes.is_empty() {
                return Ok(());
            }
        }
    }

    pub(crate) fn finish(&mut self) {
        let Handle { net, conn, side, .. } = &*self.handle;
        net.with(|world| world.finish_stream(*conn, *side, self.key));
    }

    pub(crate) fn reset(&mut self, code: Code) {
        let Handle { net, conn, side, .. } = &*self.handle;
        net.with(|world| world.reset_stream(*conn, *side, self.key, code));
    }

    pub(crate) async fn stopped(&mut self) -> Result<Option<Code>, ConnectionLost> {
        let Handle { net, conn, side, .. } = &*self.handle;
        poll_fn(|cx| net.with(|world| world.poll_stopped(*conn, *side, self.key, cx.waker()))).await
    }
}

impl Drop for SimSendStream {
    fn drop(&mut self) {
        let Handle { net, conn, side, .. } = &*self.handle;
        net.with(|world| world.drop_sender(*conn, *side, self.key));
    }
}

impl SimRecvStream {
    pub(super) fn new(handle: Arc<Handle>, key: StreamKey) -> Self {
        Self { handle, key }
    }

    pub(crate) async fn read_chunk(&mut self, max: usize) -> Result<Option<Bytes>, ReadError> {
        let Handle { net, conn, side, .. } = &*self.handle;
        poll_fn(|cx| net.with(|world| world.read(*conn, *side, self.key, max, cx.waker()))).await
    }

    pub(crate) fn stop(&mut self, code: Code) {
        let Handle { net, conn, side, .. } = &*self.handle;
        net.with(|world| world.stop_stream(*conn, *side, self.key, code));
    }
}

impl Drop for SimRecvStream {
    fn drop(&mut self) {
        let Handle { net, conn, side, .. } = &*self.handle;
        net.with(|world| {
            world.stop_stream(*conn, *side, self.key, 0);
            world.drop_half(*conn, *side, self.key);
        });
    }
}
