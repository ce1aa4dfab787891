//! Styles, scripts and the icon: named after their content, compressed once, kept by browsers for a year.

use std::collections::BTreeMap;

use bytes::Bytes;
use flate2::Compression;
use rust_embed::RustEmbed;
use sha2::{Digest, Sha256};
use warp::http::{StatusCode, header};

use super::{
    answer::{Answer, Problem, accepts_gzip, gzip},
    sessions::hex,
    visit::Visit,
};

#[derive(RustEmbed)]
#[folder = "web/styles"]
struct Styles;

#[derive(RustEmbed)]
#[folder = "web/scripts"]
struct Scripts;

#[derive(RustEmbed)]
#[folder = "web/images"]
struct Images;

struct Asset {
    kind: &'static str,
    plain: Bytes,
    compressed: Bytes,
}

/// The files of the panel.
pub(crate) struct Assets {
    by_address: BTreeMap<String, Asset>,
    addresses: BTreeMap<String, String>,
}

impl Assets {
    /// Reads and compresses them all.
    pub(crate) fn read() -> Self {
        let mut assets = Self { by_address: BTreeMap::new(), addresses: BTreeMap::new() };
        Styles::iter().for_each(|name| assets.add(&name, "text/css; charset=utf-8", Styles::get(&name)));
        Scripts::iter().for_each(|name| assets.add(&name, "text/javascript; charset=utf-8", Scripts::get(&name)));
        Images::iter().for_each(|name| assets.add(&name, "image/svg+xml", Images::get(&name)));
        assets
    }

    fn add(&mut self, name: &str, kind: &'static str, file: Option<rust_embed::EmbeddedFile>) {
        let Some(file) = file else { return };
        let plain = Bytes::from(file.data.into_owned());
        let digest = hex(&Sha256::digest(&plain));
        let address = format!("{}/{name}", digest.get(..16).unwrap_or_default());
        let compressed = gzip(&plain, Compression::best()).map_or_else(|_| plain.clone(), Bytes::from);
        self.addresses.insert(name.to_owned(), format!("/assets/{address}"));
        self.by_address.insert(address, Asset { kind, plain, compressed });
    }

    /// The address of a file.
    pub(crate) fn address(&self, name: &str) -> String {
        self.addresses.get(name).cloned().unwrap_or_default()
    }
}

/// `/assets/<hash>/<name>`.
pub(crate) fn serve(visit: &Visit) -> Result<Answer, Problem> {
    visit.only_reading()?;
    let asset = visit.site.assets.by_address.get(&visit.tail).ok_or(Problem::NotFound)?;
    let answer = if accepts_gzip(&visit.headers) {
        Answer::file(StatusCode::OK, asset.kind, asset.compressed.clone()).with(header::CONTENT_ENCODING, "gzip")
    } else {
        Answer::file(StatusCode::OK, asset.kind, asset.plain.clone())
    };
    Ok(answer.with(header::VARY, "accept-encoding").with(header::CACHE_CONTROL, "public, max-age=31536000, immutable"))
}
