//! Pins through the kernel's GPIO character device (uAPI v2), where rppal does not work: Debian's kernel, a Pi 5, and,
//! with the chip named in the configuration, a board that is no Pi.
//!
//! One thread per input, as rppal has it: waiting for its descriptor in tokio needs `unsafe` since tokio 1.54.

use std::{path::PathBuf, thread, time::Duration};

use gpiocdev::{
    Request,
    chip::{Chip, chips},
    line::{Bias, EdgeDetection, EdgeKind, Value},
};
use tokio::sync::mpsc;
use tracing::warn;

use super::{DEBOUNCE, DEPTH, Edge, OutputPin, PinError, Pins, Pull, on_header, refused};

/// The chip behind the header, by its driver's label; on each of them line n is GPIO n.
/// source: Linux drivers/pinctrl/bcm/pinctrl-bcm2835.c and pinctrl-rp1.c
const HEADER_CHIPS: [&str; 3] = ["pinctrl-bcm2711", "pinctrl-bcm2835", "pinctrl-rp1"];
const CONSUMER: &str = "clocher";
/// How soon a pin is free after nobody reads it any more.
const LOOK_UP: Duration = Duration::from_millis(500);

/// The header's chip.
#[derive(Debug)]
pub(super) struct Cdev {
    chip: PathBuf,
}

impl Cdev {
    /// Finds the header's chip, or the one of this label; why not, otherwise.
    pub(super) fn open(label: Option<&str>) -> Result<Self, String> {
        let is_ours = |found: &str| label.map_or_else(|| HEADER_CHIPS.contains(&found), |wanted| wanted == found);
        let paths = chips().map_err(|cause| cause.to_string())?;
        let mut seen = Vec::new();
        for path in paths {
            match Chip::from_path(&path).and_then(|chip| chip.info()) {
                Ok(info) if is_ours(&info.label) => return Ok(Self { chip: path }),
                Ok(info) => seen.push(info.label),
                Err(cause) => seen.push(format!("{} ({cause})", path.display())),
            }
        }
        let wanted = label.map_or_else(|| "of a Pi's header".to_owned(), |label| format!("\"{label}\""));
        let seen = if seen.is_empty() { "none".to_owned() } else { seen.join(", ") };
        Err(format!("no chip {wanted}, found {seen}"))
    }
}

impl Pins for Cdev {
    fn input(&self, pin: u8, pull: Pull, debounce: Duration) -> Result<mpsc::Receiver<Edge>, PinError> {
        on_header(pin)?;
        let bias = match pull {
            Pull::Up => Bias::PullUp,
            Pull::Down => Bias::PullDown,
            Pull::None => Bias::Disabled,
        };
        let request = Request::builder()
            .on_chip(&self.chip)
            .with_consumer(CONSUMER)
            .with_line(u32::from(pin))
            .as_input()
            .with_bias(bias)
            .with_edge_detection(EdgeDetection::BothEdges)
            .with_debounce_period(debounce.clamp(DEBOUNCE.0, DEBOUNCE.1))
            .with_kernel_event_buffer_size(DEPTH as u32)
            .request()
            .map_err(|cause| refused(pin, "take it as input", cause))?;
        let present = request.value(u32::from(pin)).map_err(|cause| refused(pin, "read its level", cause))?;
        let (tell, edges) = mpsc::channel(DEPTH);
        let first = Edge { high: present == Value::Active };
        let forward = move || {
            if let Err(cause) = forward(&request, first, &tell) {
                warn!(pin, %cause, "The kernel no longer tells of this pin");
            }
        };
        thread::Builder::new()
            .name(format!("gpio{pin}"))
            .spawn(forward)
            .map_err(|cause| refused(pin, "watch it", cause))?;
        Ok(edges)
    }

    fn output(&self, pin: u8, released: bool) -> Result<Box<dyn OutputPin>, PinError> {
        on_header(pin)?;
        // One request carries direction and level: the line never shows the other level.
        let line = Request::builder()
            .on_chip(&self.chip)
            .with_consumer(CONSUMER)
            .with_line(u32::from(pin))
            .as_output(level(released))
            .request()
            .map_err(|cause| refused(pin, "take it as output", cause))?;
        Ok(Box::new(Output { line, pin, released }))
    }
}

/// Hands edges on until nobody reads them. A slow reader makes the kernel's buffer wait, not its interrupt.
fn forward(line: &Request, first: Edge, tell: &mpsc::Sender<Edge>) -> Result<(), gpiocdev::Error> {
    let mut read = tell.blocking_send(first).is_ok();
    while read && !tell.is_closed() {
        if line.wait_edge_event(LOOK_UP)? {
            let high = line.read_edge_event()?.kind == EdgeKind::Rising;
            read = tell.blocking_send(Edge { high }).is_ok();
        }
    }
    Ok(())
}

struct Output {
    line: Request,
    pin: u8,
    released: bool,
}

impl OutputPin for Output {
    fn set(&mut self, high: bool) -> Result<(), PinError> {
        self.line
            .set_value(u32::from(self.pin), level(high))
            .map(|_| ())
            .map_err(|cause| refused(self.pin, "drive it", cause))
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Err(cause) = self.set(self.released) {
            warn!(pin = self.pin, %cause, "Output not released");
        }
    }
}

fn level(high: bool) -> Value {
    if high { Value::Active } else { Value::Inactive }
}
