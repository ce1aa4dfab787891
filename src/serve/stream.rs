//! The stream beneath TLS: its other end must keep taking what is written, and each byte of either way is counted.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use super::stalled;
use crate::traffic::Counters;

/// A stream whose other end must take what is written to it.
pub(super) struct Paced<T> {
    stream: T,
    limit: Duration,
    traffic: Arc<Counters>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<T> Paced<T> {
    pub(super) fn new(stream: T, limit: Duration, traffic: Arc<Counters>) -> Self {
        Self { stream, limit, traffic, timer: None }
    }

    /// Restarts the clock at each step forward, ends with an error when there was none for too long.
    fn pace<R>(&mut self, cx: &mut Context<'_>, step: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if step.is_ready() {
            self.timer = None;
            return step;
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(self.limit)));
        timer.as_mut().poll(cx).map(|()| Err(stalled("the client takes nothing")))
    }

    fn count(&self, step: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(sent)) = step {
            self.traffic.sent(*sent);
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Paced<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let step = Pin::new(&mut self.stream).poll_read(cx, into);
        self.traffic.received(into.filled().len().saturating_sub(before));
        step
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Paced<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let step = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.count(&step);
        self.pace(cx, step)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let step = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.count(&step);
        self.pace(cx, step)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A socket's flush is always ready and says nothing of progress: it must not restart the clock.
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let step = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.pace(cx, step)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_is_left_and_one_that_takes_a_little_is_not() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let limit = Duration::from_secs(30);
        let (near, mut far) = tokio::io::duplex(4);
        let counters = Arc::new(Counters::default());
        let mut paced = Paced::new(near, limit, Arc::clone(&counters));
        let slow = async {
            for _ in 0..5 {
                sleep(Duration::from_secs(29)).await;
                let mut some = [0; 4];
                far.read_exact(&mut some).await.expect("bytes");
            }
        };
        let (written, ()) = tokio::join!(paced.write_all(&[7; 24]), slow);
        written.expect("a slow reader is waited for");
        let begun = Instant::now();
        let error = paced.write_all(&[7; 8]).await.expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(begun.elapsed(), limit);
        assert_eq!(counters.total(), 24, "all that could be written");
    }
}
