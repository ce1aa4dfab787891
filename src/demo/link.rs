//! The invented 4G link: a relay between the central server and the gateway that drops now and then, and the account
//! of what became of the readings meanwhile.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::info;

use crate::{
    clock::{Clock, Stamp},
    panel::{Demonstration, OutageReport},
    store::{Archive, Cause},
};

/// The central server's name in `config/demo.toml`.
pub(super) const CENTRAL: &str = "demonstration";

/// How far production and delivery were at one instant.
#[derive(Debug, Clone, Copy, Default)]
struct Marks {
    /// Readings on the card.
    produced: u64,
    /// Readings the central server has.
    pulled: u64,
}

/// One time without link.
#[derive(Debug, Clone, Copy)]
struct Outage {
    since: Stamp,
    at_start: Marks,
    /// Unset while it lasts.
    ended: Option<(Stamp, Marks)>,
}

/// The link and its account.
pub(super) struct Link {
    up: watch::Sender<bool>,
    gateway: OnceLock<(Arc<dyn Archive>, Clock)>,
    outages: Mutex<Vec<Outage>>,
}

impl Link {
    pub(super) fn new() -> Self {
        Self { up: watch::Sender::new(true), gateway: OnceLock::new(), outages: Mutex::default() }
    }

    /// Whose readings are counted.
    pub(super) fn watch(&self, archive: Arc<dyn Archive>, clock: Clock) {
        let _ = self.gateway.set((archive, clock));
    }

    /// Opens the door the central server knocks at; what comes is relayed to `gateway` while the link is up.
    pub(super) async fn serve(
        self: &Arc<Self>,
        gateway: SocketAddr,
        played: &TaskTracker,
        stop: &CancellationToken,
    ) -> std::io::Result<SocketAddr> {
        let door = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let address = door.local_addr()?;
        let (link, tracker, stopped) = (Arc::clone(self), played.clone(), stop.clone());
        played.spawn(stop.clone().run_until_cancelled_owned(async move {
            loop {
                // A connection lost before it was accepted is the central server's to try again.
                let Ok((central, _)) = door.accept().await else { continue };
                let up = link.up.subscribe();
                tracker.spawn(stopped.clone().run_until_cancelled_owned(relay(central, gateway, up)));
            }
        }));
        Ok(address)
    }

    /// Up for a while, down for a while, for ever.
    pub(super) async fn drop_now_and_then(self: Arc<Self>, up_s: u64, down_s: u64) {
        loop {
            tokio::time::sleep(Duration::from_secs(up_s)).await;
            self.begin_outage();
            tokio::time::sleep(Duration::from_secs(down_s)).await;
            self.end_outage();
        }
    }

    fn begin_outage(&self) {
        info!("The link dropped");
        self.up.send_replace(false);
        let Some((_, clock)) = self.gateway.get() else { return };
        let outage = Outage { since: clock.now(), at_start: self.marks(), ended: None };
        self.outages.lock().unwrap_or_else(PoisonError::into_inner).push(outage);
    }

    fn end_outage(&self) {
        let ended = self.gateway.get().map(|(_, clock)| (clock.now(), self.marks()));
        if let Some(outage) = self.outages.lock().unwrap_or_else(PoisonError::into_inner).last_mut() {
            outage.ended = ended;
        }
        self.up.send_replace(true);
        info!("The link is back");
    }

    fn marks(&self) -> Marks {
        let Some((archive, _)) = self.gateway.get() else { return Marks::default() };
        let pulled = archive.acknowledged().get(CENTRAL).copied().unwrap_or(0);
        Marks { produced: archive.figures().last_seq, pulled }
    }

    /// Readings between two numbers that will never come; what somebody wished to be erased is not lost.
    fn lost(&self, after: u64, upto: u64) -> u64 {
        let Some((archive, _)) = self.gateway.get() else { return 0 };
        let within =
            |gap: &crate::store::Gap| gap.last.min(upto).saturating_sub(gap.first.saturating_sub(1).max(after));
        archive.gaps().iter().filter(|gap| gap.cause != Cause::Erased).map(within).sum()
    }
}

impl Demonstration for Link {
    fn report(&self) -> OutageReport {
        let now = self.marks();
        let outages = self.outages.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let total = OutageReport {
            link_up: *self.up.borrow(),
            outage: outages.len() as u64,
            produced_total: now.produced,
            pulled_total: now.pulled,
            lost_total: self.lost(0, u64::MAX),
            ..OutageReport::default()
        };
        let (Some(last), Some((_, clock))) = (outages.last(), self.gateway.get()) else { return total };
        let (until, end) = last.ended.unwrap_or((clock.now(), now));
        let first = last.at_start.produced;
        let produced = end.produced.saturating_sub(first);
        let lost = self.lost(first, end.produced);
        OutageReport {
            since: Some(last.ended.map_or(last.since, |(until, _)| until)),
            lasted_ms: until.mono_ms.saturating_sub(last.since.mono_ms),
            produced,
            buffered: produced.saturating_sub(lost),
            pulled: now.pulled.min(end.produced).saturating_sub(first),
            lost,
            ..total
        }
    }
}

/// Carries bytes both ways until either end leaves or the link drops.
async fn relay(mut central: TcpStream, gateway: SocketAddr, mut up: watch::Receiver<bool>) {
    if !*up.borrow_and_update() {
        return;
    }
    let Ok(mut gateway) = TcpStream::connect(gateway).await else { return };
    tokio::select! {
        _ = copy_bidirectional(&mut central, &mut gateway) => {}
        _ = up.wait_for(|up| !up) => {}
    }
}
