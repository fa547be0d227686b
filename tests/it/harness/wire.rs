//! Either end of a connection, byte by byte.

use std::net::{Ipv4Addr, SocketAddr};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::within;

/// One end of a connection, as bytes.
pub struct Wire<S = TcpStream> {
    /// The connection.
    pub stream: S,
    read: BytesMut,
}

/// A gateway whose connections the test plays.
pub struct Raw {
    /// Where it listens.
    pub address: SocketAddr,
    listener: TcpListener,
}

// === impl Wire ===

impl Wire {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::new(TcpStream::connect(address).await.unwrap())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Over any stream.
    pub fn new(stream: S) -> Self {
        Self { stream, read: BytesMut::new() }
    }

    /// Writes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within(self.stream.write_all(bytes.as_ref())).await.unwrap();
    }

    /// Reads up to and including `end`.
    pub async fn until(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = self.read.windows(end.len()).position(|window| window == end.as_bytes()) {
                let text = self.read.split_to(at + end.len());
                return String::from_utf8(text.to_vec()).unwrap();
            }
            let got = within(self.stream.read_buf(&mut self.read)).await.unwrap();
            assert!(got > 0, "closed before {end:?}, after {:?}", String::from_utf8_lossy(&self.read));
        }
    }

    /// Reads a head, with the empty line that ends it. Names are in lower case, as we write them.
    pub async fn head(&mut self) -> String {
        self.until("\r\n\r\n").await
    }

    /// Reads exactly this many bytes.
    pub async fn take(&mut self, length: usize) -> Vec<u8> {
        while self.read.len() < length {
            let got = within(self.stream.read_buf(&mut self.read)).await.unwrap();
            assert!(got > 0, "closed after {:?}", String::from_utf8_lossy(&self.read));
        }
        self.read.split_to(length).to_vec()
    }

    /// Reads a head, or to the end if that comes before.
    pub async fn head_or_end(&mut self) -> String {
        let end = b"\r\n\r\n";
        while !self.read.windows(end.len()).any(|window| window == end)
            && within(self.stream.read_buf(&mut self.read)).await.is_ok_and(|got| got > 0)
        {}
        String::from_utf8_lossy(&self.read.split()).into_owned()
    }

    /// Reads to the end, which has to come. A reset is an end.
    pub async fn rest(&mut self) -> String {
        while within(self.stream.read_buf(&mut self.read)).await.is_ok_and(|got| got > 0) {}
        String::from_utf8_lossy(&self.read.split()).into_owned()
    }
}

// === impl Raw ===

impl Raw {
    /// Listens.
    pub async fn bind() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        Self { address: listener.local_addr().unwrap(), listener }
    }

    /// The next connection.
    pub async fn accept(&self) -> Wire {
        Wire::new(within(self.listener.accept()).await.unwrap().0)
    }
}
