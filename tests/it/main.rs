//! The gateway tried from outside, in one binary: real listeners on port 0, real files in a temporary folder.

mod announce;
mod broker;
mod buffer;
mod card;
mod clock;
mod cuts;
mod damage;
mod drivers;
mod hostile;
mod layers;
mod link;
mod machine;
mod memory_card;
mod panel;
mod peers;
mod ports;
mod process;
mod provision;
mod room;
mod run;
mod unit;
mod village;
