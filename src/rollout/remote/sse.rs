//! A parser of event streams.

use std::io::BufRead;

use super::http::{Trouble, reading};

/// The events of a `text/event-stream` (WHATWG HTML, server-sent events) that have data.
pub(super) struct Events<R> {
    lines: R,
}

impl<R: BufRead> Events<R> {
    pub(super) fn new(lines: R) -> Self {
        Self { lines }
    }

    /// Returns the data of the next event, and `None` at the end of the stream. An incomplete event
    /// is dropped.
    pub(super) fn next(&mut self) -> Result<Option<String>, Trouble> {
        let mut data: Option<String> = None;
        let mut line = Vec::new();
        loop {
            line.clear();
            let count = self
                .lines
                .read_until(b'\n', &mut line)
                .map_err(|e| reading(&e))?;
            if count == 0 || line.last() != Some(&b'\n') {
                return Ok(None);
            }
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end_matches(['\n', '\r']);
            if text.is_empty() {
                match data.take() {
                    Some(data) => return Ok(Some(data)),
                    None => continue,
                }
            }
            if let Some(value) = text.strip_prefix("data:") {
                let value = value.strip_prefix(' ').unwrap_or(value);
                match &mut data {
                    Some(data) => {
                        data.push('\n');
                        data.push_str(value);
                    }
                    None => data = Some(value.to_string()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{self, BufReader};

    /// Returns one byte per read.
    struct Slow<'a>(&'a [u8]);

    impl io::Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.0.len().min(buffer.len()).min(1);
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    fn events(text: &str) -> Vec<String> {
        let mut events = Events::new(BufReader::with_capacity(1, Slow(text.as_bytes())));
        std::iter::from_fn(|| events.next().unwrap()).collect()
    }

    #[test]
    fn a_stream_is_split_into_the_data_of_its_events() {
        let stream = ": ping\r\n\r\ndata: {\"a\":\"ü\"}\r\n\r\nevent: x\ndata:1\ndata:  2\nid: 3\n\n\n\ndata: [DONE]\n\n";
        assert_eq!(events(stream), ["{\"a\":\"ü\"}", "1\n 2", "[DONE]"]);
        assert_eq!(events("data: whole\n\ndata: cut"), ["whole"]);
        assert_eq!(events("data: whole\n\ndata: no end\n"), ["whole"]);
        assert!(events("").is_empty());
    }
}
