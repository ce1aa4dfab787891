//! GPIO pins behind one trait: rppal on a Pi, `gpiocdev` where rppal cannot, simulated elsewhere.
//! Only this folder names those crates.

mod cdev;
mod rppal;
mod simulated;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{runtime::Handle, sync::mpsc};
use tracing::info;

pub use simulated::{Change, Simulated};

/// The pins of the 40-pin header, the only ones a hall is wired to.
const HEADER: std::ops::RangeInclusive<u8> = 0..=27;
/// Edges waiting to be read; at a debounce of 50 ms, a minute of the fastest contact.
const DEPTH: usize = 1024;
/// Debounce is always on, and the kernel counts it in 32 bits of microseconds.
const DEBOUNCE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(10));

/// What holds an input when nothing drives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pull {
    /// To 3.3 V through the Pi's own resistor: a contact to ground reads low when closed.
    Up,
    /// To ground.
    Down,
    /// Nothing: the board has its own resistor.
    None,
}

/// A pin has changed and stayed so for the debounce time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edge {
    /// High or low.
    pub high: bool,
}

/// A pin that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// No GPIO of any kind on this machine.
    #[error("no GPIO on this machine ({0})")]
    NoGpio(String),
    /// This pin.
    #[error("GPIO {pin}: {doing}")]
    Pin {
        /// BCM number.
        pin: u8,
        /// What was being done.
        doing: &'static str,
        /// What went wrong beneath.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The pins of this machine, by BCM number.
pub trait Pins: Send + Sync {
    /// Watches an input. The first edge tells its present level. Edges stop when the receiver is dropped.
    ///
    /// # Errors
    /// When the pin does not exist, is taken, or the kernel refuses.
    fn input(&self, pin: u8, pull: Pull, debounce: Duration) -> Result<mpsc::Receiver<Edge>, PinError>;

    /// Takes a pin as output; it is driven to `released` before it becomes an output, and again when dropped.
    ///
    /// # Errors
    /// When the pin does not exist, is taken, or the kernel refuses.
    fn output(&self, pin: u8, released: bool) -> Result<Box<dyn OutputPin>, PinError>;
}

/// An output: a relay.
pub trait OutputPin: Send {
    /// Drives it.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn set(&mut self, high: bool) -> Result<(), PinError>;
}

/// Which pins to use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Choice {
    /// rppal on a Pi it knows whose kernel has `/dev/gpiomem`, else the kernel's character device, else none.
    #[default]
    Auto,
    /// rppal: Pi 4 and earlier, and a Pi 5 whose kernel still has `/dev/gpiochip0`.
    Rppal,
    /// The kernel's GPIO character device.
    Cdev {
        /// The label of its chip, where it is not a Pi's header.
        chip: Option<String>,
    },
    /// No hardware: inputs are driven, outputs recorded.
    Simulated {
        /// A FIFO to be created, through which a shell drives inputs; outputs are written to `<control>.outputs`.
        control: Option<PathBuf>,
    },
}

/// Opens the pins of this machine. Within a tokio runtime, which the inputs need.
///
/// # Errors
/// [`PinError::NoGpio`] when there are none of the kind asked for.
pub fn open(choice: Choice) -> Result<Arc<dyn Pins>, PinError> {
    match choice {
        Choice::Rppal => Ok(Arc::new(rppal::Rppal::open().map_err(PinError::NoGpio)?)),
        Choice::Cdev { chip } => Ok(Arc::new(cdev::Cdev::open(chip.as_deref()).map_err(PinError::NoGpio)?)),
        Choice::Simulated { control: None } => Ok(Arc::new(Simulated::new())),
        Choice::Simulated { control: Some(path) } => Ok(Arc::new(Simulated::with_control(&path)?)),
        Choice::Auto => auto(),
    }
}

fn auto() -> Result<Arc<dyn Pins>, PinError> {
    let rppal = has_gpiomem(Path::new("/dev")).and_then(|()| rppal::Rppal::open());
    let not_rppal = match rppal {
        Ok(pins) => return Ok(Arc::new(pins)),
        Err(why) => why,
    };
    let not_cdev = match cdev::Cdev::open(None) {
        Ok(pins) => {
            info!(rppal = not_rppal, "GPIO through the kernel's character device");
            return Ok(Arc::new(pins));
        }
        Err(why) => why,
    };
    Err(PinError::NoGpio(format!("rppal: {not_rppal}; character device: {not_cdev}")))
}

/// Raspberry Pi's kernel has a device for the registers of the pins, Debian's has none. Without it rppal would go through
/// `/dev/mem`, as root, behind the back of the kernel that may have given the pins to somebody else.
/// Source: rppal 0.22.1, `src/gpio/gpiomem/bcm.rs` and `rp1.rs`.
fn has_gpiomem(dev: &Path) -> Result<(), String> {
    let has = ["gpiomem", "gpiomem0"].iter().any(|name| dev.join(name).exists());
    if has { Ok(()) } else { Err("this kernel has no /dev/gpiomem".to_owned()) }
}

fn refused(pin: u8, doing: &'static str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> PinError {
    PinError::Pin { pin, doing, source: source.into() }
}

fn on_header(pin: u8) -> Result<(), PinError> {
    if HEADER.contains(&pin) {
        return Ok(());
    }
    Err(refused(pin, "look for it on the header", "the header has GPIO 0 to 27"))
}

fn runtime(pin: u8) -> Result<Handle, PinError> {
    Handle::try_current().map_err(|cause| refused(pin, "watch it", cause))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rppal_is_left_alone_where_the_kernel_has_no_door_for_it() {
        let dev = tempfile::tempdir().expect("a folder");
        assert!(has_gpiomem(dev.path()).is_err(), "Debian's kernel");
        std::fs::write(dev.path().join("gpiomem0"), "").expect("written");
        assert!(has_gpiomem(dev.path()).is_ok());
    }

    #[test]
    fn a_chip_that_is_not_there_is_named_beside_those_that_are() {
        let refused = open(Choice::Cdev { chip: Some("9030000.pl061".to_owned()) }).map(|_| ()).unwrap_err();
        let text = refused.to_string();
        assert!(text.contains("no chip \"9030000.pl061\", found "), "{text}");
    }

    #[test]
    fn a_machine_without_gpio_says_what_was_tried() {
        // A machine that does have a header would open it; the answer is then a set of pins.
        if let Err(cause) = open(Choice::Auto) {
            let text = cause.to_string();
            assert!(text.contains("rppal: ") && text.contains("character device: "), "{text}");
        }
    }
}
