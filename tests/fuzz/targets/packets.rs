//! What an MQTT client may send, before and after it has said who it is.
#![no_main]

use clocher::broker;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| broker::fuzz_packets(bytes));
