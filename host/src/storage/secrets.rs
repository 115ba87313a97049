//! The two secrets of a data folder, each in a file of its own that only the
//! owner can read: the key that artifacts are checked with, and the token of
//! the admin API.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::StorageError;
use super::files::{FILE_MODE, Files};

/// Random bytes in a secret: the artifact key is these, the admin token their
/// hexadecimal form.
pub const SECRET_BYTES: usize = 32;
/// Most that is read of a secret's file, in bytes: a token is a line, not a book.
const SECRET_FILE_BYTES_MAX: u64 = 4096;

/// A secret's file does not hold such a secret. It is not overwritten: what
/// depends on the old one would break without a word.
#[derive(Debug, thiserror::Error)]
#[error("{path} does not hold {expected}: restore it, or delete it to have a new one made")]
struct BadSecret {
    path: String,
    expected: &'static str,
}

fn bad_secret(action: &'static str, path: &Path, expected: &'static str) -> StorageError {
    StorageError::failed(action, BadSecret { path: path.display().to_string(), expected })
}

impl Files {
    /// The key that artifacts are authenticated with, from `artifact.key`;
    /// made on first use.
    ///
    /// # Errors
    /// When the file can not be read or made, or is not exactly
    /// [`SECRET_BYTES`] long.
    pub fn secret_key(&self) -> Result<[u8; SECRET_BYTES], StorageError> {
        const ACTION: &str = "read the artifact key";
        let path = self.data_dir().join("artifact.key");
        let bytes = self.read_or_create(&path, ACTION, <[u8]>::to_vec)?;
        <[u8; SECRET_BYTES]>::try_from(bytes)
            .map_err(|_| bad_secret(ACTION, &path, "a key of 32 bytes"))
    }

    /// The admin API's token, from `admin.token`, without white space around
    /// it; made on first use as 64 hexadecimal digits.
    ///
    /// # Errors
    /// When the file can not be read or made, is empty, or is not one line of
    /// visible ASCII, which is what an HTTP header can carry.
    pub fn admin_token(&self) -> Result<String, StorageError> {
        const ACTION: &str = "read the admin token";
        let path = self.data_dir().join("admin.token");
        let bytes = self.read_or_create(&path, ACTION, |random| {
            format!("{}\n", hex::encode(random)).into_bytes()
        })?;
        let text = String::from_utf8(bytes).unwrap_or_default();
        let token = text.trim();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(bad_secret(ACTION, &path, "a token: one line of visible ASCII"));
        }
        Ok(token.to_owned())
    }

    fn read_or_create(
        &self,
        path: &Path,
        action: &'static str,
        content: impl FnOnce(&[u8]) -> Vec<u8>,
    ) -> Result<Vec<u8>, StorageError> {
        let failed = |error| StorageError::from_io(action, error);
        match read_secret(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            read => return read.map_err(failed),
        }
        let mut random = [0; SECRET_BYTES];
        getrandom::fill(&mut random).map_err(|error| StorageError::failed(action, error))?;
        let content = content(&random);
        match self.create_durable(path, |file| file.write_all(&content)) {
            // Another process was faster: there is one secret, and it is theirs.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                read_secret(path).map_err(failed)
            }
            created => created.map(|()| content).map_err(failed),
        }
    }
}

fn read_secret(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "others could read this secret; making it private");
        fs::set_permissions(path, fs::Permissions::from_mode(FILE_MODE))?;
    }
    let mut bytes = Vec::new();
    file.take(SECRET_FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::files::tests::{files, mode};
    use super::*;

    #[test]
    fn secrets_are_private_and_stay() {
        let (_folder, files) = files();
        assert_eq!(mode(files.data_dir()), 0o700);
        let (key, token) = (files.secret_key().unwrap(), files.admin_token().unwrap());
        assert_eq!(token.len(), 64);
        let again = Files::open(files.data_dir()).unwrap();
        assert_eq!((again.secret_key().unwrap(), again.admin_token().unwrap()), (key, token));
        let [key_path, token_path] =
            ["artifact.key", "admin.token"].map(|name| files.data_dir().join(name));
        assert_eq!((mode(&key_path), mode(&token_path)), (0o600, 0o600));

        fs::write(&token_path, "  chosen-by-hand\n").unwrap();
        fs::set_permissions(&token_path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(files.admin_token().unwrap(), "chosen-by-hand");
        assert_eq!(mode(&token_path), 0o600);
        for bad in ["", " \n", "two\nlines", "ü"] {
            fs::write(&token_path, bad).unwrap();
            assert!(files.admin_token().is_err(), "{bad:?}");
        }
        for bad in [31, 33] {
            fs::write(&key_path, vec![0; bad]).unwrap();
            assert!(files.secret_key().is_err());
            assert_eq!(fs::read(&key_path).unwrap().len(), bad, "not overwritten");
        }
    }
}
