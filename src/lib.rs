//! Clocher: the gateway of a village hall.
//!
//! ```text
//!                  GPIO  serial  MQTT devices               phone, PC           central servers
//!                    \     |       |   ^                        |                    |
//!                     v    v       v   |                        v                    v
//!  ports ──────────► drivers ──► Reading ──┬──► broker        panel               peers (pull)
//!  (the wire)       (datasheets)           ├──► buffer (sled) ◄── history ────────────┘ cursor, gaps
//!                                          ├──► live ──► panel
//!                                          └──► watch ──► Condition ──► panel, MQTT, log, peers
//!  panel / MQTT ──► announce: queue ──► voice, chime ──► zone relays, amplifier, sound card ──► journal
//! ```
//!
//! Layers: vocabulary ← ground ← parts ← app ← main. A part never imports another; [`app`] joins them.
//! `tests/it/layers.rs` reads the `use` lines and fails with file and line.

#[cfg(panic = "abort")]
compile_error!("a unit that panics must fall alone: build with panic = \"unwind\"");

// Vocabulary: what everyone talks about.
pub mod announcement;
pub mod clock;
pub mod condition;
pub mod reading;

// Ground: what every part stands on.
pub mod config;
pub mod consent;
pub mod live;
pub mod machine;
pub mod port;
pub mod serve;
pub mod signals;
pub mod store;
pub mod supervisor;
pub mod tls;
pub mod traffic;
pub mod vouch;

// Parts: none knows another.
pub mod announce;
pub mod broker;
pub mod buffer;
pub mod drivers;
pub mod panel;
pub mod peers;
pub mod watch;

// The only file that knows every part, and what stands on it.
pub mod app;
pub mod cli;
pub mod demo;
pub mod provision;
