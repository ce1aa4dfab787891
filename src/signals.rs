//! How a person, or systemd, asks the program to stop: SIGINT and SIGTERM. The second one leaves at once.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// SIGINT and SIGTERM, listened to from the moment this is made: a stop asked while starting is an orderly one.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Listens from now on.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn listen() -> std::io::Result<Self> {
        let interrupt = signal(SignalKind::interrupt())?;
        let terminate = signal(SignalKind::terminate())?;
        Ok(Self { interrupt, terminate })
    }

    /// Returns at the first signal; a second one leaves at once, with nothing left to do but `last`.
    pub async fn told_to_stop(mut self, last: impl FnOnce() + Send + 'static) {
        self.next().await;
        tokio::spawn(async move {
            self.next().await;
            warn!("Second signal, leaving at once");
            last();
            std::process::exit(130);
        });
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// A token that fires at the first signal, for commands that are not a gateway. Within a tokio runtime.
///
/// # Errors
/// When the system refuses.
pub fn token() -> std::io::Result<CancellationToken> {
    let signals = Signals::listen()?;
    let stop = CancellationToken::new();
    let fired = stop.clone();
    tokio::spawn(async move {
        signals.told_to_stop(|| {}).await;
        fired.cancel();
    });
    Ok(stop)
}
