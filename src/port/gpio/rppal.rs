//! Pins through rppal: registers of the Pi mapped into memory, edges from the kernel.
//!
//! rppal is retired; [`super::cdev`] takes over where it no longer works.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use rppal::gpio::{Gpio, InputPin, Level, Trigger};
use tokio::sync::mpsc::{self, error::TrySendError};
use tracing::warn;

use super::{DEBOUNCE, DEPTH, Edge, OutputPin, PinError, Pins, Pull, on_header, refused, runtime};

/// The header of a Pi that rppal knows.
#[derive(Debug)]
pub(super) struct Rppal(Gpio);

impl Rppal {
    /// Opens the registers; why not, otherwise.
    pub(super) fn open() -> Result<Self, String> {
        Gpio::new().map(Self).map_err(|cause| cause.to_string())
    }
}

impl Pins for Rppal {
    fn input(&self, pin: u8, pull: Pull, debounce: Duration) -> Result<mpsc::Receiver<Edge>, PinError> {
        on_header(pin)?;
        let runtime = runtime(pin)?;
        let free = self.0.get(pin).map_err(|cause| refused(pin, "take it as input", cause))?;
        let mut input = match pull {
            Pull::Up => free.into_input_pullup(),
            Pull::Down => free.into_input_pulldown(),
            Pull::None => free.into_input(),
        };
        let (heard, from_kernel) = mpsc::channel(DEPTH);
        let debounce = debounce.clamp(DEBOUNCE.0, DEBOUNCE.1);
        let told = AtomicBool::new(false);
        let callback = move |event: rppal::gpio::Event| {
            let edge = Edge { high: event.trigger == Trigger::RisingEdge };
            // Runs on rppal's thread, which must never wait.
            let full = matches!(heard.try_send(edge), Err(TrySendError::Full(_)));
            if full && !told.swap(true, Ordering::Relaxed) {
                warn!(pin, "Edges come faster than they are read, some are lost");
            }
        };
        input
            .set_async_interrupt(Trigger::Both, Some(debounce), callback)
            .map_err(|cause| refused(pin, "watch it", cause))?;
        let (tell, edges) = mpsc::channel(DEPTH);
        runtime.spawn(forward(input, from_kernel, tell));
        Ok(edges)
    }

    fn output(&self, pin: u8, released: bool) -> Result<Box<dyn OutputPin>, PinError> {
        on_header(pin)?;
        let free = self.0.get(pin).map_err(|cause| refused(pin, "take it as output", cause))?;
        // Each of the two sets the level first, then the direction.
        let mut line = if released { free.into_output_high() } else { free.into_output_low() };
        // Left as a driven output when dropped: a floating relay input may pull.
        line.set_reset_on_drop(false);
        Ok(Box::new(Output { line, released: level(released) }))
    }
}

/// Holds the input for as long as somebody reads it. Ends, and frees the pin, when nobody does, or when rppal's
/// thread has given up (it drops its end).
async fn forward(input: InputPin, mut from_kernel: mpsc::Receiver<Edge>, tell: mpsc::Sender<Edge>) {
    let first = Edge { high: input.is_high() };
    if tell.send(first).await.is_err() {
        return;
    }
    loop {
        let edge = tokio::select! {
            () = tell.closed() => return,
            edge = from_kernel.recv() => edge,
        };
        let Some(edge) = edge else {
            warn!(pin = input.pin(), "The kernel no longer tells of this pin");
            return;
        };
        if tell.send(edge).await.is_err() {
            return;
        }
    }
}

struct Output {
    line: rppal::gpio::OutputPin,
    released: Level,
}

impl OutputPin for Output {
    fn set(&mut self, high: bool) -> Result<(), PinError> {
        self.line.write(level(high));
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.line.write(self.released);
    }
}

fn level(high: bool) -> Level {
    if high { Level::High } else { Level::Low }
}
