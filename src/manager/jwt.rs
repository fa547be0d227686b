//! A service-account token from a file: the proof of the sidecar's own identity at a manager.
//!
//! Read again at each login, because the kubelet replaces it, and it must look like a JWT (RFC 7519): the path may be a
//! tenant's word, and nothing else may be sent anywhere. For the same reason only a plain file is read: a pipe would hold a
//! thread for as long as nobody writes, and one's own standard output would lose what is in it.

use std::{io, path::Path};

use rustix::fs::OFlags;
use tokio::io::AsyncReadExt as _;
use zeroize::Zeroizing;

use super::{FailureClass, FetchError, session::LoginError};

/// Largest JWT file, in bytes. A service-account token has about one thousand.
const MAX_JWT: u64 = 16 * 1024;

/// Neither waits for whoever writes to a pipe, nor makes a terminal one's own.
const OPEN: OFlags = OFlags::NONBLOCK.union(OFlags::NOCTTY);

/// The token in the file at `path`, without outer white space.
///
/// # Errors
/// [`FailureClass::Unauthenticated`], an accident: no manager has looked at the identity.
pub(super) async fn read(path: &Path) -> Result<Zeroizing<String>, LoginError> {
    let read = async {
        let file = tokio::fs::OpenOptions::new().read(true).custom_flags(OPEN.bits().cast_signed()).open(path).await?;
        if !file.metadata().await?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "is not a plain file"));
        }
        let mut content = Zeroizing::new(Vec::with_capacity(MAX_JWT as usize + 1));
        file.take(MAX_JWT + 1).read_to_end(&mut content).await?;
        Ok(content)
    };
    let unreadable =
        |error: io::Error| FetchError::new(FailureClass::Unauthenticated).with_code("jwt_file").with_source(error);
    let content = read.await.map_err(|error| LoginError::accident(unreadable(error)))?;
    let jwt = std::str::from_utf8(&content).map(str::trim).ok().filter(|text| is_jwt(text));
    jwt.map(|jwt| Zeroizing::new(jwt.to_owned())).ok_or_else(|| unusable("not_a_jwt"))
}

/// Three base64url parts with dots between them. Anything else in a file is not sent anywhere.
fn is_jwt(text: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    text.len() as u64 <= MAX_JWT && text.split('.').count() == 3 && text.split('.').all(part)
}

fn unusable(code: &'static str) -> LoginError {
    LoginError::accident(FetchError::new(FailureClass::Unauthenticated).with_code(code))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn only_jwts_pass() {
        for good in ["eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrIn0.c2ln-_", "a.b.c"] {
            assert!(is_jwt(good), "{good}");
        }
        let long = format!("a.b.{}", "c".repeat(MAX_JWT as usize));
        for bad in ["", "a.b", "a..c", "a.b.c.d", "root:x:0:0", "a.b.c\nd", "a.b.c=", long.as_str()] {
            assert!(!is_jwt(bad), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_jwt_file_is_read_and_trimmed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        #[rustfmt::skip]
        let rows = [
            // content, JWT or code
            (Some("a.b.c\n"), Ok("a.b.c")),
            (Some("  a.b.c  "), Ok("a.b.c")),
            (Some("hunter2"), Err("not_a_jwt")),
            (Some(""), Err("not_a_jwt")),
            (None, Err("jwt_file")),
        ];
        for (content, expected) in rows {
            match content {
                Some(content) => std::fs::write(&path, content).unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
            let found = read(&path).await;
            let found = found.as_ref().map(|jwt| jwt.as_str()).map_err(|login| login.error.code.as_deref().unwrap());
            assert_eq!(found, expected, "{content:?}");
        }
    }

    #[tokio::test]
    async fn a_pipe_is_neither_waited_for_nor_emptied() {
        use rustix::fs::{CWD, FileType, Mode, mknodat};

        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let code = async |path: &Path| read(path).await.unwrap_err().error.code;
        assert_eq!(code(&pipe).await.as_deref(), Some("jwt_file"), "nobody writes");
        let held = std::fs::File::options().read(true).write(true).open(&pipe).unwrap();
        (&held).write_all(b"a.b.c").unwrap();
        assert_eq!(code(&pipe).await.as_deref(), Some("jwt_file"), "somebody does");
        let mut content = [0; 5];
        (&held).read_exact(&mut content).unwrap();
        assert_eq!(&content, b"a.b.c", "what was written is still there");
        assert_eq!(code(folder.path()).await.as_deref(), Some("jwt_file"), "a folder");
        assert_eq!(code(Path::new("/dev/zero")).await.as_deref(), Some("jwt_file"), "a device");
    }
}
