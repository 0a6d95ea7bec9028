//! The folder a Keystone runs in: its configuration, its keys, and where its database is.

use anyhow::Context;
use std::{
    fmt::Write as _,
    fs::{DirBuilder, File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

/// Role assignments, users and the catalog are cached, in the memory of the one process: without
/// that a validation takes 0.8 s, with it 20 ms. Tokens and revocations are not: with several threads
/// a revoked token was seen to pass for a second or two.
pub(super) const CONFIGURATION: &str = "\
[cache]
enabled = true
backend = dogpile.cache.memory
[database]
connection = sqlite:///{folder}/keystone.db
sqlite_synchronous = false
[identity]
password_hash_rounds = 4
[token]
provider = fernet
expiration = {token_lifetime}
caching = false
cache_on_issue = false
[revoke]
caching = false
[fernet_tokens]
key_repository = {folder}/token-keys
[fernet_receipts]
key_repository = {folder}/token-keys
[credential]
key_repository = {folder}/credential-keys
";

/// Writes the configuration and new keys into an empty folder.
pub(super) fn write(folder: &Path, token_lifetime: Duration) -> anyhow::Result<()> {
    let configuration = CONFIGURATION
        .replace("{folder}", &folder.display().to_string())
        .replace("{token_lifetime}", &token_lifetime.as_secs().to_string());
    write_private(&configuration_file(folder), &configuration)?;
    for name in ["token-keys", "credential-keys"] {
        let keys = folder.join(name);
        DirBuilder::new()
            .mode(0o700)
            .create(&keys)
            .with_context(|| format!("creating {}", keys.display()))?;
        // 0 is the next key, 1 the one in use.
        for number in ["0", "1"] {
            write_private(&keys.join(number), &fernet_key()?)?;
        }
    }
    Ok(())
}

/// The configuration in a Keystone's folder.
pub(super) fn configuration_file(folder: &Path) -> PathBuf {
    folder.join("keystone.conf")
}

/// The database in a Keystone's folder.
pub(super) fn database(folder: &Path) -> PathBuf {
    folder.join("keystone.db")
}

/// Writes a file that only its owner can read.
pub(super) fn write_private(file: &Path, content: &str) -> anyhow::Result<()> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(file)
        .and_then(|mut open| open.write_all(content.as_bytes()))
        .with_context(|| format!("writing {}", file.display()))
}

/// `digits` random hexadecimal digits.
pub(super) fn random_hex(digits: usize) -> anyhow::Result<String> {
    let mut bytes = vec![0; digits.div_ceil(2)];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .context("reading /dev/urandom")?;
    let mut hex = bytes.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("writing to a String cannot fail");
        hex
    });
    hex.truncate(digits);
    Ok(hex)
}

/// 32 bytes in base64url, 168 bits of them random: hexadecimal digits are base64url digits, and a
/// final 0 has no bits beyond the 32 bytes.
fn fernet_key() -> anyhow::Result<String> {
    Ok(format!("{}0=", random_hex(42)?))
}
