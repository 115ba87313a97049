//! Configuration, from the environment.

use std::env::{self, VarError};
use std::fmt::Display;
use std::str::FromStr;

use crate::{Error, Result};

/// The configuration value of this name, as a `T`. Configuration and secrets are environment
/// variables. An absent one is an error, as is one that is not a `T`: a 500 whose reason is logged.
///
/// ```
/// # fn example() -> whit_sdk::Result<()> {
/// let key: String = whit_sdk::config("API_KEY")?;
/// let quality = whit_sdk::config::<u8>("QUALITY")?;
/// # Ok(()) }
/// # assert_eq!(example().unwrap_err().status(), 500);
/// ```
pub fn config<T: FromStr<Err: Display>>(name: &str) -> Result<T> {
    read(name)?.ok_or_else(|| {
        std::io::Error::other(format!("the environment variable {name} is not set")).into()
    })
}

/// The configuration value of this name, or `default` where it is absent. One that is there but is
/// not a `T` is an error: a typing mistake must not go unseen.
///
/// ```
/// # fn example() -> whit_sdk::Result<()> {
/// let greeting = whit_sdk::config_or("GREETING", "Hello".to_string())?;
/// assert_eq!(greeting, "Hello");
/// # Ok(()) }
/// # example().unwrap();
/// ```
pub fn config_or<T: FromStr<Err: Display>>(name: &str, default: T) -> Result<T> {
    Ok(read(name)?.unwrap_or(default))
}

fn read<T: FromStr<Err: Display>>(name: &str) -> Result<Option<T>> {
    // The value itself stays out of the message: it may be a secret.
    let invalid = |reason: &dyn Display| -> Error {
        std::io::Error::other(format!(
            "the environment variable {name} is not valid: {reason}"
        ))
        .into()
    };
    match env::var(name) {
        Ok(text) => text.parse().map(Some).map_err(|error| invalid(&error)),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(invalid(&"it is not text")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_parsed() {
        // Cargo sets these for every test.
        assert_eq!(config::<String>("CARGO_PKG_NAME").unwrap(), "whit-sdk");
        assert_eq!(config_or("CARGO_PKG_VERSION_PATCH", 9_u8).unwrap(), 0);
        assert_eq!(config_or("WHIT_SDK_ABSENT", 9_u8).unwrap(), 9);
        let error = config_or("CARGO_PKG_NAME", 9_u8).unwrap_err();
        assert!(error.to_string().contains("CARGO_PKG_NAME"));
        assert!(config::<u8>("WHIT_SDK_ABSENT").is_err());
    }
}
