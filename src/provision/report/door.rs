//! The certificate the panel shows to a browser, seen by asking as a browser does: it may not be the one on the card.

use std::{
    io::{self, ErrorKind},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use crate::tls;

/// A door that opens at all answers at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// SHA-256 of the certificate shown at an address, as browsers show it.
///
/// # Errors
/// When nobody answers there, or not in TLS.
pub(super) fn fingerprint(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
        .with_no_client_auth();
    let name = ServerName::from(address.ip());
    let mut session = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    while session.is_handshaking() {
        session.complete_io(&mut stream)?;
    }
    let shown = session.peer_certificates().and_then(<[_]>::first).ok_or(ErrorKind::InvalidData)?;
    Ok(tls::fingerprint(shown))
}

/// Takes whoever shows a certificate that is theirs: nothing is told to them, and who they are is what is asked.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read, net::TcpListener};

    use super::*;

    #[test]
    fn the_fingerprint_is_that_of_the_certificate_the_door_shows() {
        let place = tempfile::tempdir().expect("a folder");
        let own = tls::own_certificate(place.path(), &["clocher.local".to_owned()]).expect("made");
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("bound");
        let config = tls::server(&own).expect("a configuration");
        let door = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("somebody");
            let mut session = rustls::ServerConnection::new(config).expect("a session");
            let _ = rustls::Stream::new(&mut session, &mut stream).read(&mut [0; 1]);
        });
        assert_eq!(fingerprint(address).expect("shown"), own.fingerprint);
        door.join().expect("ended");
        assert!(fingerprint(address).is_err(), "nobody is there any more");
    }
}
