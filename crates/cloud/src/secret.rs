//! A secret text, shared by all who hold it.

use secrecy::SecretString;
use std::{ops::Deref, sync::Arc};

/// A secret text. Its clones share the text, its debug form hides it, and the last one overwrites it.
#[derive(Clone, Debug)]
pub(crate) struct Secret(Arc<SecretString>);

impl Secret {
    /// Whether both are clones of one secret.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Deref for Secret {
    type Target = SecretString;

    fn deref(&self) -> &SecretString {
        &self.0
    }
}

impl From<SecretString> for Secret {
    fn from(secret: SecretString) -> Self {
        Self(Arc::new(secret))
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        SecretString::from(text).into()
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        SecretString::from(text).into()
    }
}
