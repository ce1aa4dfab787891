//! The invented central server: the product's own `pull`, through the link that drops.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::{
    peers::{Format, pull},
    supervisor::chain,
};

/// Pulls through `door` into `central.jsonl` until told to stop.
pub(super) async fn pull(door: SocketAddr, place: PathBuf, stop: CancellationToken) {
    let options = pull::PullOptions {
        url: format!("https://{door}"),
        certificate: place.join("central.pem"),
        key: place.join("central.key"),
        authority: place.join("authority.pem"),
        cursor_file: place.join("central.cursor"),
        output: Some(place.join("central.jsonl")),
        format: Format::Rows,
        newest_first: None,
        once: false,
        wait: Duration::from_secs(5),
        limit: 5_000,
        progress: false,
        patience: pull::Patience { longest: Duration::from_secs(5), ..pull::Patience::default() },
    };
    if let Err(wrong) = pull::run(options, stop).await {
        error!(wrong = chain(&wrong), "The central server of the demonstration stopped");
    }
}
