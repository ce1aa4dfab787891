//! What the binary weighs, and what a phone loads to see the first page.

use std::{fs, process::Command};

use anyhow::{Context, ensure};

use crate::{
    Ask, gateway,
    gateway::Running,
    home,
    table::{Runs, Table},
};

pub(crate) async fn measure(ask: &Ask, table: &mut Table) -> anyhow::Result<()> {
    let stripped = ask.scratch.join("clocher.stripped");
    let done = Command::new("strip").arg("-o").arg(&stripped).arg(&ask.clocher).status().context("run strip")?;
    ensure!(done.success(), "the binary is stripped");
    let bytes = Runs::from_iter([fs::metadata(&stripped)?.len() as f64 / 1e6]);
    let what = format!("the binary, stripped, {}", std::env::consts::ARCH);
    table.line(&what, bytes.told("MB"), String::new(), String::new(), "≤ 12 MB (aarch64)");

    let place = ask.scratch.join("pages");
    gateway::configure(&place)?;
    let running = Running::start(&ask.clocher, &place)?;
    let mut browser = running.browser().await?;
    let cookie = home::claim(&running, &mut browser).await?;
    let headers = [("cookie", cookie.as_str()), ("accept-encoding", "gzip, deflate, br, zstd")];
    let page = browser.get("/", &headers).await?;
    ensure!(page.status.is_success(), "home: {}", page.status);
    let mut bytes = page.body.len();
    for asset in assets(&browser.get("/", &[("cookie", cookie.as_str())]).await?.body) {
        let answer = browser.get(&asset, &headers).await?;
        ensure!(answer.status.is_success(), "{asset}: {}", answer.status);
        bytes += answer.body.len();
    }
    let told = Runs::from_iter([bytes as f64 / 1e3]).told("kB");
    table.line(
        "the panel's first page with 50 points, all it loads, compressed",
        told,
        String::new(),
        String::new(),
        "≤ 30 kB",
    );
    running.kill()
}

/// Addresses of ours that a page names.
fn assets(page: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(page);
    let quoted = text.split('"').filter(|text| text.starts_with("/assets/"));
    // One image with many parts is loaded once.
    let mut found = quoted.map(|address| address.split('#').next().unwrap_or(address).to_owned()).collect::<Vec<_>>();
    found.sort();
    found.dedup();
    found
}
