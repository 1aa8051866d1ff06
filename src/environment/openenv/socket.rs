//! A WebSocket client (RFC 6455) with a deadline for every operation.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Error as SocketError, Message, WebSocket};

use super::super::json_text::shortened;
use crate::{Error, Result};

/// The maximum size of a server's message, in bytes.
const MAX_MESSAGE: usize = 16 << 20;
/// The maximum size of the head of the handshake's answer, in bytes.
const MAX_HEAD: usize = 16 << 10;

/// The address of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// The URL as it was given.
    pub url: String,
    /// The host and the port.
    authority: String,
    path: String,
}

impl Address {
    /// Parses `ws://host[:port][/path]`. The path defaults to `/ws`.
    pub fn new(url: &str) -> Result<Self> {
        let wrong =
            |expected: &str| Err(Error::config("openenv.url", format!("{url:?}"), expected));
        if url.starts_with("wss://") {
            return wrong("ws://host:port/ws; for TLS, put a proxy or a tunnel before the server");
        }
        let Some(rest) = url.strip_prefix("ws://") else {
            return wrong("ws://host:port/ws");
        };
        let (authority, path) = match rest.find(['/', '?']) {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '@' | '#');
        if authority.is_empty() || !rest.chars().all(plain) {
            return wrong("ws://host:port/ws, without a user and without spaces");
        }
        // The colons of an IPv6 address are in brackets.
        let has_port = authority
            .rsplit(']')
            .next()
            .is_some_and(|end| end.contains(':'));
        Ok(Self {
            url: url.into(),
            authority: match has_port {
                true => authority.into(),
                false => format!("{authority}:80"),
            },
            path: match path {
                "" | "/" => "/ws".into(),
                other if other.starts_with('?') => format!("/ws{other}"),
                other => other.into(),
            },
        })
    }
}

/// A stream that fails at its deadline, even if bytes arrive slowly.
struct Timed {
    stream: TcpStream,
    deadline: Instant,
}

impl Timed {
    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        match left.is_zero() {
            true => Err(ErrorKind::WouldBlock.into()),
            false => Ok(Some(left)),
        }
    }
}

impl Read for Timed {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(bytes)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// A connection.
pub(super) struct Socket {
    socket: WebSocket<Timed>,
    /// Messages that arrived without a request.
    early: Vec<String>,
}

impl Socket {
    /// Connects within `limit`.
    pub fn connect(address: &Address, limit: Duration) -> Result<Self, String> {
        let deadline = Instant::now() + limit;
        let hosts = address.authority.to_socket_addrs();
        let mut failure = "the host has no address".to_string();
        let mut stream = None;
        for host in hosts.map_err(|error| format!("{}: {error}", address.authority))? {
            match TcpStream::connect_timeout(&host, limit) {
                Ok(connected) => {
                    stream = Some(connected);
                    break;
                }
                Err(error) => failure = format!("{host}: {error}"),
            }
        }
        let stream = stream.ok_or(failure)?;
        // Requests are small and latency matters.
        let _ = stream.set_nodelay(true);
        let mut stream = Timed { stream, deadline };
        handshake(&mut stream, address).map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => "no answer to the WebSocket handshake in time".into(),
            _ => error.to_string(),
        })?;
        let config = WebSocketConfig::default()
            .read_buffer_size(8 << 10)
            .write_buffer_size(0)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        Ok(Self {
            socket: WebSocket::from_raw_socket(stream, Role::Client, Some(config)),
            early: Vec::new(),
        })
    }

    /// Sends a message and waits for the next one.
    pub fn request(&mut self, message: &str, limit: Duration) -> Result<String, String> {
        // An unrequested message concerns the connection: it replaces the answer.
        if let Some(early) = self.early.pop() {
            return Ok(early);
        }
        self.socket.get_mut().deadline = Instant::now() + limit;
        let sent = self.socket.send(Message::text(message));
        // A server that closed the connection may have sent the reason.
        match (self.read(), sent) {
            (Ok(Some(text)), _) => Ok(text),
            (Ok(None), _) => Err(format!("no answer within {} s", limit.as_secs_f64())),
            (Err(_), Err(error)) | (Err(error), Ok(())) => Err(lost(&error)),
        }
    }

    /// Sends a message without an answer.
    pub fn send(&mut self, message: &str, limit: Duration) {
        self.socket.get_mut().deadline = Instant::now() + limit;
        let _ = self.socket.send(Message::text(message));
    }

    /// Answers pings while no request is running.
    pub fn answer_pings(&mut self) {
        self.socket.get_mut().deadline = Instant::now() + Duration::from_millis(1);
        while let Ok(Some(text)) = self.read() {
            self.early.push(text);
        }
    }

    /// Reads the next text message; `None` if none arrives before the deadline.
    fn read(&mut self) -> Result<Option<String>, SocketError> {
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => return Ok(Some(text.to_string())),
                // Pings are answered by the next read or write.
                Ok(_) => {}
                Err(SocketError::Io(error))
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.socket.get_mut().deadline = Instant::now() + Duration::from_millis(100);
        let _ = self.socket.close(None);
        let _ = self.socket.flush();
    }
}

fn lost(error: &SocketError) -> String {
    match error {
        SocketError::ConnectionClosed | SocketError::AlreadyClosed => {
            "the server closed the connection".into()
        }
        other => format!("the connection was lost: {other}"),
    }
}

/// Performs the WebSocket handshake.
fn handshake(stream: &mut Timed, address: &Address) -> io::Result<()> {
    let key = base64(&rand::random::<[u8; 16]>());
    let (path, host) = (&address.path, &address.authority);
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n\
         Sec-WebSocket-Version: 13\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    // Byte by byte, since what follows the head belongs to the socket.
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match stream.read(&mut byte)? {
            1 if head.len() < MAX_HEAD => head.push(byte[0]),
            _ => {
                let said = String::from_utf8_lossy(&head);
                return Err(refused(&said));
            }
        }
    }
    let head = String::from_utf8_lossy(&head);
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    let is_switched = status.split(' ').nth(1) == Some("101");
    let accepted = lines
        .filter_map(|line| line.split_once(':'))
        .any(|(name, value)| {
            name.eq_ignore_ascii_case("sec-websocket-accept") && value.trim() == accept(&key)
        });
    match is_switched && accepted {
        true => Ok(()),
        false => Err(refused(status)),
    }
}

fn refused(said: &str) -> io::Error {
    let said = shortened(said.trim(), 100);
    io::Error::other(format!(
        "the server did not accept the WebSocket handshake (it answered {said:?}); check the path, which is /ws for OpenEnv"
    ))
}

/// The server's response to a key.
fn accept(key: &str) -> String {
    let mut hash = sha1_smol::Sha1::from(key);
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    base64(&hash.digest().bytes())
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for part in bytes.chunks(3) {
        let byte = |at: usize| u32::from(part.get(at).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            match digit <= part.len() {
                true => text.push(char::from(DIGITS[(bits >> (18 - 6 * digit)) as usize & 63])),
                false => text.push('='),
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_the_rfc_example_is_accepted() {
        assert_eq!(
            accept("dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
        assert_eq!(base64(b"the sample nonce"), "dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(
            (base64(b"a"), base64(b"ab")),
            ("YQ==".into(), "YWI=".into())
        );
    }

    #[test]
    fn addresses_are_parsed() {
        let read = |url: &str| Address::new(url).map(|a| (a.authority, a.path));
        let ok = |authority: &str, path: &str| (authority.to_string(), path.to_string());
        assert_eq!(read("ws://a").unwrap(), ok("a:80", "/ws"));
        assert_eq!(read("ws://a:8000/").unwrap(), ok("a:8000", "/ws"));
        assert_eq!(read("ws://a:8000?x=1").unwrap(), ok("a:8000", "/ws?x=1"));
        assert_eq!(read("ws://[::1]/e/ws").unwrap(), ok("[::1]:80", "/e/ws"));
        assert_eq!(read("ws://[::1]:9").unwrap(), ok("[::1]:9", "/ws"));
        for (url, expected) in [
            ("wss://a/ws", "for TLS"),
            ("http://a/ws", "ws://host"),
            ("ws:///ws", "ws://host"),
            ("ws://a b/ws", "without spaces"),
            ("ws://me@a/ws", "without a user"),
            ("ws://a/ws\r\nX: 1", "without spaces"),
        ] {
            let error = read(url).unwrap_err().to_string();
            assert!(error.contains(expected), "{url}: {error}");
        }
    }
}
