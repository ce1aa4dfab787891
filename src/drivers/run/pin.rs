//! Contacts on pins: edges and seconds to readings, the index going on from what is stored.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Mutex, mpsc},
    time::MissedTickBehavior,
};
use tokio_util::sync::CancellationToken;

use super::{super::PinDecoder, Ground, ear::Ear};
use crate::{
    condition::Code,
    live::Live,
    port::gpio::{Edge, PinError, Pins, Pull},
    reading::Intake,
    supervisor::{Stage, chain},
};

/// A pin that cannot be used is tried again after so long.
const RETRY: Duration = Duration::from_secs(30);
/// How often a contact's decoder is asked what is due.
const TICK: Duration = Duration::from_secs(1);

/// A contact on a pin.
pub(super) struct Contact {
    pub(super) ear: Arc<Ear>,
    pub(super) pin: u8,
    pub(super) pull: Pull,
    pub(super) debounce: Duration,
    pub(super) decoder: Box<dyn PinDecoder>,
    /// Whether the decoder was told the stored values. Once: afterwards it knows better.
    pub(super) resumed: bool,
}

/// Starts the unit of one contact.
pub(super) fn start(contact: Contact, ground: &Ground) {
    let name = format!("pin {} ({})", contact.pin, contact.ear.device());
    let (pins, intake, live) = (ground.pins.clone(), ground.intake.clone(), ground.live.clone());
    let contact = Arc::new(Mutex::new(contact));
    ground.supervisor.unit(Stage::Inputs, name, move |stop| {
        let (pins, intake, live, contact) = (pins.clone(), intake.clone(), live.clone(), Arc::clone(&contact));
        async move {
            let mut contact = contact.lock().await;
            contact.resume(&live);
            while !stop.is_cancelled() {
                contact.watch(pins.as_deref(), &intake, &stop).await;
                let _ = stop.run_until_cancelled(tokio::time::sleep(RETRY)).await;
            }
            Ok(())
        }
    });
}

impl Contact {
    fn resume(&mut self, live: &Live) {
        if std::mem::replace(&mut self.resumed, true) {
            return;
        }
        let known = self.ear.points().filter_map(|point| Some((point.id.clone(), live.newest(&point.id)?.value?)));
        for (point, value) in known {
            self.decoder.resume(&point, value);
        }
    }

    /// Watches the pin until it is lost or `stop` fires.
    async fn watch(&mut self, pins: Option<&dyn Pins>, intake: &Intake, stop: &CancellationToken) {
        match self.take(pins) {
            Ok(edges) => {
                self.ear.board().close(Code::PinUnusable, self.ear.device());
                self.listen(edges, intake, stop).await;
                if !stop.is_cancelled() {
                    self.unusable(&format!("GPIO {}: its edges ended", self.pin));
                }
            }
            Err(wrong) => self.unusable(&chain(&wrong)),
        }
    }

    fn take(&self, pins: Option<&dyn Pins>) -> Result<mpsc::Receiver<Edge>, PinError> {
        let pins = pins.ok_or_else(|| PinError::NoGpio("none was found at start".to_owned()))?;
        pins.input(self.pin, self.pull, self.debounce)
    }

    fn unusable(&self, why: &str) {
        self.ear.board().raise(Code::PinUnusable, self.ear.device(), why);
    }

    async fn listen(&mut self, mut edges: mpsc::Receiver<Edge>, intake: &Intake, stop: &CancellationToken) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let mut said = Vec::new();
            let mut over = false;
            tokio::select! {
                biased;
                edge = edges.recv() => match edge {
                    Some(edge) => self.decoder.edge(edge, self.ear.now_ms(), &mut said),
                    None => return,
                },
                _ = ticks.tick() => self.decoder.tick(self.ear.now_ms(), &mut said),
                () = stop.cancelled() => {
                    self.decoder.finish(self.ear.now_ms(), &mut said);
                    over = true;
                }
            }
            let readings = self.ear.hear(said);
            if !readings.is_empty() {
                intake.give(readings, self.decoder.commit()).await;
            }
            if over {
                return;
            }
        }
    }
}
