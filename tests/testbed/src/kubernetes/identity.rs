//! The keys and certificates of one API server, and the token of its administrator.

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use std::{
    fmt::Write as _,
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// Files that the API server and its clients read.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    /// Certificate of the authority that signed the serving certificate.
    pub(super) ca_certificate: PathBuf,
    /// Serving certificate for 127.0.0.1.
    pub(super) certificate: PathBuf,
    /// Key of the serving certificate.
    pub(super) key: PathBuf,
    /// Public half of the key that signs `ServiceAccount` tokens.
    pub(super) service_account_public_key: PathBuf,
    /// Private half.
    pub(super) service_account_key: PathBuf,
    /// For `--token-auth-file`: one line, the administrator's.
    pub(super) tokens: PathBuf,
}

impl Identity {
    /// Makes everything anew in `folder`; also returns the administrator's token.
    ///
    /// The server could sign a certificate for itself, but rustls, unlike Go, rejects a
    /// self-signed certificate that is no authority. Hence an authority of our own.
    pub(super) fn create(folder: &Path) -> anyhow::Result<(Self, String)> {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        authority
            .distinguished_name
            .push(DnType::CommonName, "image-export-operator testbed");
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;

        let mut serving = CertificateParams::new(["127.0.0.1".into(), "localhost".into()])?;
        serving.use_authority_key_identifier_extension = true;
        serving.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        serving.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        serving
            .distinguished_name
            .push(DnType::CommonName, "kube-apiserver");
        let serving_key = KeyPair::generate()?;
        let serving = serving.signed_by(&serving_key, &authority)?;

        let service_account_key = KeyPair::generate()?;
        let token = random_token()?;
        let identity = Self {
            ca_certificate: folder.join("ca.crt"),
            certificate: folder.join("serving.crt"),
            key: folder.join("serving.key"),
            service_account_public_key: folder.join("service-accounts.pub"),
            service_account_key: folder.join("service-accounts.key"),
            tokens: folder.join("tokens.csv"),
        };
        for (file, content) in [
            (&identity.ca_certificate, authority.pem()),
            (&identity.certificate, serving.pem()),
            (&identity.key, serving_key.serialize_pem()),
            (
                &identity.service_account_public_key,
                service_account_key.public_key_pem(),
            ),
            (
                &identity.service_account_key,
                service_account_key.serialize_pem(),
            ),
            (
                &identity.tokens,
                format!("{token},admin,admin,system:masters\n"),
            ),
        ] {
            write_private(file, content.as_bytes())?;
        }
        Ok((identity, token))
    }
}

/// Writes a file that only its owner can read.
pub(super) fn write_private(file: &Path, content: &[u8]) -> anyhow::Result<()> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(file)
        .and_then(|mut open| open.write_all(content))
        .with_context(|| format!("writing {}", file.display()))
}

fn random_token() -> anyhow::Result<String> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .context("reading /dev/urandom")?;
    Ok(bytes.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("writing to a String cannot fail");
        hex
    }))
}
