//! TLS configurations and the certificates behind them: the gateway's own, the peers' authority, and an authority
//! of our own for the demonstration and the tests.
//!
//! The provider is always `ring`, passed explicitly: with two providers in a binary rustls panics at run time.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig,
    SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, ring},
    pki_types::{
        CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime,
        pem::{self, PemObject},
    },
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    time_provider::TimeProvider,
};
use sha2::{Digest, Sha256};
use tracing::{debug, info, warn};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::{clock::Clock, config::peers::Pem};

/// The gateway's own certificate and key, in one file so that they are always of one pair.
const OWN_FILE: &str = "own.pem";
/// Where an authority is that is in no file, for messages.
const IN_CONFIGURATION: &str = "`authority`";
const CERTIFICATE: &str = "certificate";

/// A certificate or key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("write {}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{}: {wrong}", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        wrong: String,
    },
    /// A certificate cannot be made.
    #[error("make a certificate for {subject}")]
    Make {
        /// For whom.
        subject: String,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// rustls refuses the pieces together.
    #[error("put the TLS configuration together")]
    Refused(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl TlsError {
    fn content(path: &Path, wrong: impl Into<String>) -> Self {
        Self::Content { path: path.to_owned(), wrong: wrong.into() }
    }

    fn refused(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Refused(source.into())
    }
}

/// A certificate chain and the key of its first certificate.
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    /// Reads two PEM files; they may be one and the same.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let chain = certificates(certificate)?;
        let key_der = PrivateKeyDer::from_pem_slice(&read(key)?)
            .map_err(|wrong| TlsError::content(key, pem_fault("private key", &wrong)))?;
        let identity = Self { chain, key: key_der };
        identity.check(certificate, key)?;
        Ok(identity)
    }

    /// The certificate of this end, in DER.
    pub fn certificate(&self) -> &[u8] {
        self.chain.first().map_or(&[], |der| der.as_ref())
    }

    /// SHA-256 of the certificate in hexadecimal pairs joined by colons, as browsers show it.
    pub fn fingerprint(&self) -> String {
        fingerprint(self.certificate())
    }

    /// Certificate and key must be of one pair.
    fn check(&self, certificate: &Path, key: &Path) -> Result<(), TlsError> {
        let signer = provider().key_provider.load_private_key(self.key.clone_key());
        let signer = signer.map_err(|wrong| TlsError::content(key, format!("the key cannot be used: {wrong}")))?;
        match rustls::sign::CertifiedKey::new(self.chain.clone(), signer).keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(()),
            Err(rustls::Error::InconsistentKeys(_)) => {
                Err(TlsError::content(certificate, format!("does not belong to the key in {}", key.display())))
            }
            Err(wrong) => Err(TlsError::content(certificate, format!("the certificate cannot be used: {wrong}"))),
        }
    }

    fn pair(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        (self.chain.clone(), self.key.clone_key())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.fingerprint())
    }
}

/// The certificate the gateway made for itself.
#[derive(Debug)]
pub struct OwnCertificate {
    /// Certificate and key.
    pub identity: Identity,
    /// What the technician compares with the browser's warning.
    pub fingerprint: String,
    /// The file that holds both, mode 0600.
    pub path: PathBuf,
}

/// The gateway's own certificate: made at the first start, the same ever after. A file that was damaged is set aside
/// and a new certificate made, since a panel with another certificate is better than none.
///
/// # Errors
/// When the directory cannot be written, or a host name cannot be part of a certificate.
pub fn own_certificate(directory: &Path, host_names: &[String]) -> Result<OwnCertificate, TlsError> {
    let path = directory.join(OWN_FILE);
    let identity = match Identity::load(&path, &path) {
        Ok(identity) => identity,
        Err(TlsError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => make_own(&path, host_names)?,
        Err(wrong @ TlsError::Read { .. }) => return Err(wrong),
        Err(wrong) => {
            let aside = path.with_extension("pem.damaged");
            warn!(%wrong, aside = %aside.display(), "Own certificate set aside");
            fs::rename(&path, &aside).map_err(|source| TlsError::Write { path: aside, source })?;
            make_own(&path, host_names)?
        }
    };
    let fingerprint = identity.fingerprint();
    Ok(OwnCertificate { identity, fingerprint, path })
}

fn make_own(path: &Path, host_names: &[String]) -> Result<Identity, TlsError> {
    let mut names = host_names.to_vec();
    if !names.iter().any(|name| name == "localhost") {
        names.push("localhost".to_owned());
    }
    let subject = names.first().cloned().unwrap_or_default();
    let made = self_signed(&subject, &names).map_err(|source| TlsError::Make { subject, source })?;
    write_secret(path, &format!("{}{}", made.certificate, made.key))
        .map_err(|source| TlsError::Write { path: path.to_owned(), source })?;
    let identity = Identity::load(path, path)?;
    info!(fingerprint = identity.fingerprint(), "Own certificate made");
    Ok(identity)
}

fn self_signed(subject: &str, names: &[String]) -> Result<Issued, rcgen::Error> {
    let key = KeyPair::generate()?;
    let certificate = params(subject, names, ExtendedKeyUsagePurpose::ServerAuth)?.self_signed(&key)?;
    Ok(Issued { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// From 1975, early enough for every clock but one that stands at 1970, to 2049, the last year the short date form of
/// X.509 can hold (RFC 5280, 4.1.2.5) and so the last one every old client reads.
fn params(subject: &str, names: &[String], usage: ExtendedKeyUsagePurpose) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names.to_vec())?;
    params.not_before = rcgen::date_time_ymd(1975, 1, 1);
    params.not_after = rcgen::date_time_ymd(2049, 12, 31);
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, subject);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.insert_extended_key_usage(usage);
    Ok(params)
}

/// On the card, whole or not at all, readable by nobody else at any moment.
fn write_secret(path: &Path, text: &str) -> io::Result<()> {
    let draft = path.with_extension("pem.draft");
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

/// For the panel and the broker: anyone may connect, who they are is asked later.
///
/// # Errors
/// When rustls refuses the certificate.
pub fn server(own: &OwnCertificate) -> Result<Arc<ServerConfig>, TlsError> {
    let (chain, key) = own.identity.pair();
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(TlsError::refused)?;
    Ok(Arc::new(config))
}

/// For the peers: a client must show a certificate of `authority` that is not in the `revoked` list.
///
/// Validity dates are judged by the gateway's clock, and not at all while nobody vouches for it: a Pi that starts at
/// 1970 must still be pulled.
///
/// # Errors
/// Names the file and what is wrong with it.
pub fn server_mutual(
    identity: &Identity,
    authority: &Pem,
    revoked: Option<&Path>,
    clock: &Clock,
) -> Result<Arc<ServerConfig>, TlsError> {
    let verifier = FairToClocks::new(authority, revoked, clock)?;
    let time: Arc<dyn TimeProvider> = Arc::new(OurTime(clock.clone()));
    let (chain, key) = identity.pair();
    let config = ServerConfig::builder_with_details(provider(), time)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_client_cert_verifier(Arc::new(verifier)).with_single_cert(chain, key))
        .map_err(TlsError::refused)?;
    Ok(Arc::new(config))
}

/// For the puller: the gateway must show a certificate of `authority` (or be it), and is shown `identity`.
///
/// # Errors
/// Names the file and what is wrong with it.
pub fn client(identity: Option<&Identity>, authority: &Path) -> Result<Arc<ClientConfig>, TlsError> {
    let roots = roots(certificates(authority)?, authority)?;
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::refused)?
        .with_root_certificates(roots);
    let config = match identity.map(Identity::pair) {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(TlsError::refused)?,
        None => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

/// The names a certificate carries: its common name first, then its DNS names.
pub fn names(certificate: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let common = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok()).map(ToOwned::to_owned);
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let alternative = alternative.into_iter().flat_map(|names| &names.value.general_names);
    let dns = alternative.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    });
    common.chain(dns).collect()
}

/// SHA-256 of a certificate in hexadecimal pairs joined by colons, as browsers show it.
pub fn fingerprint(certificate: &[u8]) -> String {
    Sha256::digest(certificate).iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    sections(path, CERTIFICATE)
}

fn revocations(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    sections(path, "revocation list")
}

/// Every section of one kind in a PEM file; there must be one.
fn sections<T: PemObject>(path: &Path, what: &str) -> Result<Vec<T>, TlsError> {
    found(&read(path)?, path, what)
}

fn found<T: PemObject>(text: &[u8], path: &Path, what: &str) -> Result<Vec<T>, TlsError> {
    let found = T::pem_slice_iter(text).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|wrong| TlsError::content(path, pem_fault(what, &wrong)))?;
    if found.is_empty() {
        return Err(TlsError::content(path, format!("holds no {what} in PEM form")));
    }
    Ok(found)
}

/// What is wrong with a PEM file, without showing anything of a key.
fn pem_fault(what: &str, wrong: &pem::Error) -> String {
    match wrong {
        pem::Error::NoItemsFound => format!("holds no {what} in PEM form"),
        pem::Error::MissingSectionEnd { .. } => format!("the {what} is cut short: its END line is missing"),
        pem::Error::IllegalSectionStart { .. } => format!("the BEGIN line of the {what} is misspelt"),
        pem::Error::Base64Decode(_) => format!("the {what} is not base64"),
        _ => format!("the {what} cannot be read"),
    }
}

/// Whether a text holds certificates of authorities in PEM form, and nothing else.
pub fn is_authority(text: &str) -> bool {
    let path = Path::new(IN_CONFIGURATION);
    found(text.as_bytes(), path, CERTIFICATE).is_ok_and(|certificates| roots(certificates, path).is_ok())
}

fn roots_of(authority: &Pem) -> Result<RootCertStore, TlsError> {
    let in_configuration = Path::new(IN_CONFIGURATION);
    match authority {
        Pem::File(path) => roots(certificates(path)?, path),
        Pem::Text(text) => roots(found(text.as_bytes(), in_configuration, CERTIFICATE)?, in_configuration),
    }
}

fn roots(certificates: Vec<CertificateDer<'static>>, path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate).map_err(|wrong| TlsError::content(path, format!("not an authority: {wrong}")))?;
    }
    Ok(roots)
}

/// The gateway's clock, for rustls.
#[derive(Debug)]
struct OurTime(Clock);

impl TimeProvider for OurTime {
    fn current_time(&self) -> Option<UnixTime> {
        let ms = u64::try_from(self.0.wall_now().unix_ms).unwrap_or(0);
        Some(UnixTime::since_unix_epoch(Duration::from_millis(ms)))
    }
}

/// Judges a certificate's dates only when somebody vouches for the clock.
#[derive(Debug)]
struct FairToClocks {
    verifier: Arc<dyn ClientCertVerifier>,
    clock: Clock,
}

impl FairToClocks {
    fn new(authority: &Pem, revoked: Option<&Path>, clock: &Clock) -> Result<Self, TlsError> {
        let lists = revoked.map(revocations).transpose()?.unwrap_or_default();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots_of(authority)?), provider())
            .with_crls(lists)
            .allow_unknown_revocation_status()
            .build()
            .map_err(TlsError::refused)?;
        Ok(Self { verifier, clock: clock.clone() })
    }
}

impl ClientCertVerifier for FairToClocks {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let judged = self.verifier.verify_client_cert(end_entity, intermediates, now);
        match judged {
            Err(rustls::Error::InvalidCertificate(ref wrong))
                if is_about_dates(wrong) && !self.clock.wall_now().source.is_trusted() =>
            {
                let Some(instant) = instant_within(end_entity) else { return judged };
                debug!("Dates of a peer's certificate not judged: nobody vouches for the clock");
                self.verifier.verify_client_cert(end_entity, intermediates, instant)
            }
            judged => judged,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

fn is_about_dates(wrong: &CertificateError) -> bool {
    use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    matches!(wrong, Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. })
}

/// The first instant at which a certificate is valid; its authority was then valid too.
fn instant_within(certificate: &CertificateDer<'_>) -> Option<UnixTime> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let seconds = u64::try_from(certificate.validity().not_before.timestamp()).ok()?;
    Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
}

/// A certificate and its key, as PEM text.
#[derive(Clone)]
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// Its key: a secret.
    pub key: String,
}

impl Issued {
    /// Writes `<name>.pem` and `<name>.key` (mode 0600) into a directory and returns their paths.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, directory: &Path, name: &str) -> Result<(PathBuf, PathBuf), TlsError> {
        let (certificate, key) = (directory.join(format!("{name}.pem")), directory.join(format!("{name}.key")));
        fs::write(&certificate, &self.certificate)
            .map_err(|source| TlsError::Write { path: certificate.clone(), source })?;
        write_secret(&key, &self.key).map_err(|source| TlsError::Write { path: key.clone(), source })?;
        Ok((certificate, key))
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Issued(…)")
    }
}

/// A small certificate authority, for `clocher demo` and the tests. Its key never leaves memory.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authority(…)")
    }
}

impl Authority {
    /// A new authority.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn new(name: &str) -> Result<Self, TlsError> {
        let make = || {
            let mut params = params(name, &[], ExtendedKeyUsagePurpose::ClientAuth)?;
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            params.extended_key_usages.clear();
            CertifiedIssuer::self_signed(params, KeyPair::generate()?)
        };
        make().map(Self).map_err(|source| TlsError::Make { subject: name.to_owned(), source })
    }

    /// Its certificate, as PEM: what is given to those who must trust it.
    pub fn certificate(&self) -> String {
        self.0.pem()
    }

    /// A certificate for a peer.
    ///
    /// # Errors
    /// When the name cannot be part of a certificate.
    pub fn issue_client(&self, common_name: &str) -> Result<Issued, TlsError> {
        self.issue(common_name, &[], ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// A certificate for a server known by `names` (host names or addresses).
    ///
    /// # Errors
    /// When a name cannot be part of a certificate.
    pub fn issue_server(&self, names: &[String]) -> Result<Issued, TlsError> {
        let subject = names.first().map_or("clocher", String::as_str);
        self.issue(subject, names, ExtendedKeyUsagePurpose::ServerAuth)
    }

    fn issue(&self, subject: &str, names: &[String], usage: ExtendedKeyUsagePurpose) -> Result<Issued, TlsError> {
        self.issue_with(subject, names, usage, |_| ())
    }

    fn issue_with(
        &self,
        subject: &str,
        names: &[String],
        usage: ExtendedKeyUsagePurpose,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Result<Issued, TlsError> {
        let make = || {
            let key = KeyPair::generate()?;
            let mut params = params(subject, names, usage)?;
            params.use_authority_key_identifier_extension = true;
            change(&mut params);
            let certificate = params.signed_by(&key, &self.0)?;
            Ok(Issued { certificate: certificate.pem(), key: key.serialize_pem() })
        };
        make().map_err(|source| TlsError::Make { subject: subject.to_owned(), source })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::clock::{HeldTime, Source};

    fn own(directory: &Path) -> OwnCertificate {
        own_certificate(directory, &["mairie.local".to_owned(), "192.0.2.7".to_owned()]).expect("made")
    }

    #[test]
    fn the_own_certificate_is_the_same_after_a_restart_and_its_key_is_nobody_elses() {
        let directory = tempfile::tempdir().expect("a folder");
        let (first, second) = (own(directory.path()), own(directory.path()));
        assert_eq!(first.fingerprint, second.fingerprint);
        assert_eq!((first.fingerprint.len(), first.fingerprint.matches(':').count()), (95, 31));
        let mode = fs::metadata(&first.path).expect("written").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(names(first.identity.certificate()), ["mairie.local", "mairie.local", "localhost"]);
        server(&first).expect("a configuration");
    }

    #[test]
    fn a_certificate_cut_short_by_a_power_cut_is_set_aside_and_made_anew() {
        let directory = tempfile::tempdir().expect("a folder");
        let first = own(directory.path());
        let whole = fs::read(&first.path).expect("written");
        for length in [0, 40, whole.len() / 2, whole.len() - 30] {
            fs::write(&first.path, &whole[..length]).expect("cut");
            assert_ne!(own(directory.path()).fingerprint, first.fingerprint, "cut at {length}");
        }
        assert!(directory.path().join("own.pem.damaged").exists());
    }

    #[test]
    fn a_wrong_file_is_named_with_what_is_wrong_and_nothing_of_a_key_is_shown() {
        let directory = tempfile::tempdir().expect("a folder");
        let authority = Authority::new("Agglo").expect("made");
        let (certificate, key) =
            authority.issue_client("agglo").expect("made").write(directory.path(), "a").expect("w");
        let (_, other) = authority.issue_client("other").expect("made").write(directory.path(), "b").expect("w");
        let tell = |certificate: &Path, key: &Path| Identity::load(certificate, key).expect_err("wrong").to_string();

        assert!(tell(&certificate, &other).contains("a.pem: does not belong to the key in"));
        assert!(tell(&certificate, &certificate).ends_with("a.pem: holds no private key in PEM form"));
        assert!(tell(&key, &key).ends_with("a.key: holds no certificate in PEM form"));
        assert!(tell(&directory.path().join("none"), &key).contains("none"));
        let text = fs::read_to_string(&key).expect("key");
        fs::write(&key, text.replace("-----END", "")).expect("cut");
        assert!(tell(&certificate, &key).ends_with("the private key is cut short: its END line is missing"));
    }

    fn dated(authority: &Authority, from: i32, to: i32) -> CertificateDer<'static> {
        let issued = authority.issue_with("agglo", &[], ExtendedKeyUsagePurpose::ClientAuth, |params| {
            params.not_before = rcgen::date_time_ymd(from, 1, 1);
            params.not_after = rcgen::date_time_ymd(to, 1, 1);
        });
        CertificateDer::from_pem_slice(issued.expect("made").certificate.as_bytes()).expect("PEM")
    }

    fn verdict(authority: &Authority, certificate: &CertificateDer<'_>, unix_ms: i64, source: Source) -> bool {
        verdict_with(authority, None, certificate, unix_ms, source)
    }

    fn verdict_with(
        authority: &Authority,
        revoked: Option<&str>,
        certificate: &CertificateDer<'_>,
        unix_ms: i64,
        source: Source,
    ) -> bool {
        let directory = tempfile::tempdir().expect("a folder");
        let (ca, crl) = (directory.path().join("ca.pem"), directory.path().join("crl.pem"));
        fs::write(&ca, authority.certificate()).expect("written");
        fs::write(&crl, revoked.unwrap_or_default()).expect("written");
        let clock = Clock::new(1, HeldTime::at(unix_ms, source), []);
        let verifier = FairToClocks::new(&ca.into(), revoked.map(|_| crl.as_path()), &clock).expect("built");
        let now = OurTime(clock).current_time().expect("a time");
        verifier.verify_client_cert(certificate, &[], now).is_ok()
    }

    #[test]
    fn a_revoked_certificate_is_refused_whatever_the_clock_says() {
        let ours = Authority::new("Agglo").expect("made");
        let numbered = |serial: u64| {
            let number = |params: &mut CertificateParams| params.serial_number = Some(serial.into());
            let issued = ours.issue_with("agglo", &[], ExtendedKeyUsagePurpose::ClientAuth, number).expect("made");
            CertificateDer::from_pem_slice(issued.certificate.as_bytes()).expect("PEM")
        };
        let revoked = rcgen::RevokedCertParams {
            serial_number: 7_u64.into(),
            revocation_time: rcgen::date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = rcgen::CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2026, 1, 1),
            next_update: rcgen::date_time_ymd(2026, 2, 1),
            crl_number: 1_u64.into(),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&ours.0).expect("signed").pem().expect("PEM");
        for (unix_ms, source) in [(1_780_000_000_000, Source::Ntp), (0, Source::Unknown)] {
            assert!(!verdict_with(&ours, Some(&list), &numbered(7), unix_ms, source), "revoked, {source:?}");
            assert!(verdict_with(&ours, Some(&list), &numbered(8), unix_ms, source), "another, {source:?}");
        }
    }

    #[test]
    fn the_dates_of_a_certificate_are_judged_only_by_a_clock_somebody_vouches_for() {
        const IN_2026: i64 = 1_780_000_000_000;
        let ours = Authority::new("Agglo").expect("made");
        let (valid, expired, future) = (dated(&ours, 2025, 2028), dated(&ours, 2020, 2022), dated(&ours, 2030, 2032));
        assert!(verdict(&ours, &valid, IN_2026, Source::Ntp));
        assert!(!verdict(&ours, &expired, IN_2026, Source::Ntp));
        assert!(!verdict(&ours, &future, IN_2026, Source::Rtc));
        assert!(verdict(&ours, &valid, 0, Source::Unknown), "a Pi without time, in 1970");
        assert!(verdict(&ours, &expired, IN_2026, Source::Unknown));
        let foreign = dated(&Authority::new("Agglo").expect("made"), 2025, 2028);
        assert!(!verdict(&ours, &foreign, 0, Source::Unknown), "a foreign authority of the same name");
    }

    #[test]
    fn a_revoked_certificate_list_that_is_not_one_is_named() {
        let directory = tempfile::tempdir().expect("a folder");
        let authority = directory.path().join("ca.pem");
        fs::write(&authority, Authority::new("Agglo").expect("made").certificate()).expect("written");
        let clock = Clock::new(1, HeldTime::at(0, Source::Unknown), []);
        let own = own(directory.path());
        let refused =
            server_mutual(&own.identity, &authority.clone().into(), Some(&authority), &clock).expect_err("not a list");
        assert!(refused.to_string().ends_with("ca.pem: holds no revocation list in PEM form"), "{refused}");
        server_mutual(&own.identity, &authority.into(), None, &clock).expect("a configuration");
    }
}
