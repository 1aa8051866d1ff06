//! A minimal HTTP server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;

use super::{Fault, Inner, lock, routes};

/// Accepts connections on a port, or a free one for 0.
pub fn listen(inner: &Arc<Inner>, port: u16) -> (u16, JoinHandle<()>) {
    let bind = || TcpListener::bind(("127.0.0.1", port));
    let tries = (0..50).find_map(|_| match bind() {
        Ok(listener) => Some(listener),
        Err(_) => {
            thread::sleep(Duration::from_millis(50));
            None
        }
    });
    let listener = tries.expect("a port");
    let port = listener.local_addr().unwrap().port();
    inner.down.store(false, Ordering::SeqCst);
    let inner = inner.clone();
    let acceptor = thread::spawn(move || {
        for stream in listener.incoming() {
            if inner.down.load(Ordering::SeqCst) {
                break;
            }
            let Ok(stream) = stream else { continue };
            lock(&inner.connections).push(stream.try_clone().unwrap());
            let inner = inner.clone();
            thread::spawn(move || serve(&inner, stream));
        }
    });
    (port, acceptor)
}

/// Closes the port and every connection.
pub fn stop(inner: &Inner, port: u16) {
    if inner.down.swap(true, Ordering::SeqCst) {
        return;
    }
    for stream in lock(&inner.connections).drain(..) {
        let _ = stream.shutdown(Shutdown::Both);
    }
    // The acceptor checks the flag at the next connection.
    let _ = TcpStream::connect(("127.0.0.1", port));
}

/// A request.
pub struct Request {
    pub method: String,
    /// Without the query.
    pub path: String,
    pub query: String,
    pub bearer: Option<String>,
    pub body: Value,
}

/// A connection on which an answer is written.
pub struct Exchange<'a> {
    pub stream: &'a mut TcpStream,
    pub inner: &'a Inner,
    pub fault: Option<Fault>,
    /// Whether the connection is to be closed after this answer.
    pub close: bool,
}

impl Exchange<'_> {
    /// A whole answer.
    pub fn reply(&mut self, status: u16, headers: &str, body: &str) {
        let piece = lock(&self.inner.options).piece;
        let connection = if self.close {
            "Connection: close\r\n"
        } else {
            ""
        };
        let head = format!(
            "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{connection}{headers}\r\n",
            body.len()
        );
        if self.fault == Some(Fault::CloseBefore) {
            return self.hang_up();
        }
        self.write(head.as_bytes(), piece);
        if let Some(Fault::CloseInside(count)) = self.fault {
            self.write(&body.as_bytes()[..count.min(body.len() / 2)], piece);
            return self.hang_up();
        }
        self.write(body.as_bytes(), piece);
    }

    pub fn json(&mut self, status: u16, body: &Value) {
        self.reply(status, "", &body.to_string());
    }

    /// An error as vLLM writes it.
    pub fn error(&mut self, status: u16, message: &str) {
        let body = serde_json::json!({"error": {"message": message, "type": "X", "param": null, "code": status}});
        self.json(status, &body);
    }

    /// The head of an event stream.
    pub fn begin_events(&mut self) {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n";
        self.write(head.as_bytes(), 4096);
    }

    /// A chunk of an event stream, with varying line ends.
    pub fn event(&mut self, data: &str, index: usize) -> bool {
        let piece = lock(&self.inner.options).piece;
        let end = if index.is_multiple_of(2) {
            "\r\n"
        } else {
            "\n"
        };
        let text = format!(": ping{end}{end}data: {data}{end}{end}");
        let chunk = format!("{:x}\r\n{text}\r\n", text.len());
        self.write(chunk.as_bytes(), piece)
    }

    pub fn end_events(&mut self) {
        self.write(b"0\r\n\r\n", 4096);
    }

    pub fn hang_up(&mut self) {
        self.close = true;
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    fn write(&mut self, bytes: &[u8], piece: usize) -> bool {
        bytes
            .chunks(piece)
            .all(|part| self.stream.write_all(part).is_ok() && self.stream.flush().is_ok())
    }
}

/// Whether the connection is open.
pub fn is_open(stream: &TcpStream) -> bool {
    if stream.set_nonblocking(true).is_err() {
        return false;
    }
    let open = match stream.peek(&mut [0]) {
        Ok(0) => false,
        Ok(_) => true,
        Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
    };
    open && stream.set_nonblocking(false).is_ok()
}

fn serve(inner: &Inner, mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some(request) = read(&mut reader) {
        if inner.down.load(Ordering::SeqCst) {
            return;
        }
        let looks = ["/health", "/health_generate", "/weight_info", "/model_info"];
        if !looks.contains(&request.path.as_str()) {
            lock(&inner.log).push((
                format!("{}{}", request.path, request.query),
                request.body.clone(),
            ));
        }
        let fault = {
            let mut faults = lock(&inner.faults);
            let at = faults
                .iter()
                .position(|(path, ..)| request.path.starts_with(path.as_str()));
            at.map(|at| {
                let (_, fault, times) = &mut faults[at];
                let fault = fault.clone();
                *times -= 1;
                if *times == 0 {
                    faults.remove(at);
                }
                fault
            })
        };
        let close = lock(&inner.options).closes;
        let mut exchange = Exchange {
            stream: &mut stream,
            inner,
            fault,
            close,
        };
        routes::answer(&mut exchange, &request);
        if exchange.close {
            let _ = stream.shutdown(Shutdown::Both);
            return;
        }
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_string(), words.next()?.to_string());
    let (mut length, mut bearer) = (0, None);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let header = header.trim_end();
        if header.is_empty() {
            break;
        }
        let (name, value) = header.split_once(':')?;
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().ok()?,
            "authorization" => bearer = value.trim().strip_prefix("Bearer ").map(String::from),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path.to_string(), format!("?{query}")),
        None => (target, String::new()),
    };
    Some(Request {
        method,
        path,
        query,
        bearer,
        body: serde_json::from_slice(&body).unwrap_or_default(),
    })
}
