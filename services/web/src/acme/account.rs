//! The account at the authority: made once, its key kept in a file that only this user can read.

use std::fs;
use std::io;
use std::path::Path;

use http_support::gateway::write_private;
use instant_acme::{Account, AccountBuilder, AccountCredentials, NewAccount};

use super::{AcmeConfig, AcmeError};

/// The account that `file` knows, or a new one.
pub(super) async fn open(config: &AcmeConfig, file: &Path) -> Result<Account, AcmeError> {
    match fs::read(file) {
        Ok(bytes) => {
            let credentials: AccountCredentials =
                serde_json::from_slice(&bytes).map_err(|error| damaged(file, &error))?;
            Ok(builder(config)?.from_credentials(credentials).await?)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(config, file).await,
        Err(error) => Err(damaged(file, &error)),
    }
}

async fn create(config: &AcmeConfig, file: &Path) -> Result<Account, AcmeError> {
    let contact: Vec<&str> = config.contact.as_deref().into_iter().collect();
    let new = NewAccount {
        contact: &contact,
        terms_of_service_agreed: config.agree_to_terms,
        only_return_existing: false,
    };
    let (account, credentials) = builder(config)?.create(&new, config.directory.clone(), None).await?;
    let bytes = serde_json::to_vec_pretty(&credentials).map_err(|error| damaged(file, &error))?;
    write_private(file, &bytes)?;
    Ok(account)
}

fn builder(config: &AcmeConfig) -> Result<AccountBuilder, instant_acme::Error> {
    match &config.root {
        Some(root) => Account::builder_with_root(root),
        None => Account::builder(),
    }
}

fn damaged(file: &Path, error: &dyn std::fmt::Display) -> AcmeError {
    AcmeError::Account { file: file.to_path_buf(), detail: error.to_string() }
}
