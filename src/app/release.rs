//! Opens every relay of a configuration and leaves: what systemd runs when the gateway has ended, however it ended.

use std::{sync::mpsc, thread, time::Duration};

use tracing::{error, info};

use super::{Settings, uses_pins};
use crate::{config::announce::AnnounceSettings, drivers::Device, port::gpio, supervisor::chain};

/// A pin that does not answer within this is left to the kernel.
const PATIENCE: Duration = Duration::from_secs(5);

/// Opens the relays; says how many, or what did not obey. Works without the gateway, and in bounded time.
///
/// # Errors
/// One line a relay that is not known to be open.
pub fn release(settings: &Settings<Device>) -> Result<usize, Vec<String>> {
    let Some(announce) = settings.announce.clone().filter(uses_pins) else { return Ok(0) };
    let choice = settings.gpio.clone();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || tell.send(open_all(&announce, choice)));
    let outcome = told.recv_timeout(PATIENCE).unwrap_or_else(|_| Err(vec!["the pins do not answer".to_owned()]));
    match &outcome {
        Ok(relays) => info!(relays, "Every relay is open"),
        Err(wrong) => wrong.iter().for_each(|wrong| error!(wrong, "A relay may still be closed")),
    }
    outcome
}

/// The amplifier's first, as at the end of an announcement.
fn open_all(announce: &AnnounceSettings, choice: gpio::Choice) -> Result<usize, Vec<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|wrong| vec![wrong.to_string()])?;
    let _within = runtime.enter();
    let pins = gpio::open(choice).map_err(|wrong| vec![chain(&wrong)])?;
    let relays: Vec<u8> =
        announce.amplifier_pin.into_iter().chain(announce.zones.iter().filter_map(|zone| zone.pin)).collect();
    let released = !announce.relay_active_high;
    // All are held until the last is open: taking one drives it.
    let taken: Vec<_> = relays.iter().map(|pin| pins.output(*pin, released)).collect();
    let wrong: Vec<String> = taken.iter().filter_map(|taken| taken.as_ref().err()).map(|wrong| chain(wrong)).collect();
    if wrong.is_empty() { Ok(relays.len()) } else { Err(wrong) }
}
