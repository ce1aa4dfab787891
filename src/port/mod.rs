//! The wires: serial lines, GPIO pins, and what stands in for them where there is no hardware.
//!
//! A port moves bytes and levels; what they mean is a driver's business.

pub mod gpio;
pub mod serial;
