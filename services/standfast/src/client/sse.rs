//! Server-sent events, read from a response (WHATWG HTML, section "Server-sent events").

use futures_util::StreamExt;
use reqwest::Response;

/// The longest event that is read; a longer one ends the stream.
const EVENT_BYTES_MAX: usize = 32 << 20;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Its name; `message` if the server gave none.
    pub name: String,
    /// Its data lines, joined.
    pub data: String,
    /// Its id, or the last one before it.
    pub id: Option<String>,
}

/// The events of a response.
pub struct Events {
    body: std::pin::Pin<Box<dyn futures_util::Stream<Item = reqwest::Result<bytes::Bytes>>>>,
    parser: Parser,
}

impl Events {
    /// Reads the body as events.
    pub fn of(response: Response) -> Self {
        Self { body: Box::pin(response.bytes_stream()), parser: Parser::default() }
    }

    /// The next event; `None` when the stream ended, however it did.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.parser.next() {
                return Some(event);
            }
            let chunk = self.body.next().await?.ok()?;
            if self.parser.unread.len() + chunk.len() > EVENT_BYTES_MAX {
                return None;
            }
            self.parser.unread.extend_from_slice(&chunk);
        }
    }
}

/// Bytes in, events out.
#[derive(Default)]
struct Parser {
    unread: Vec<u8>,
    /// How far `unread` was searched for a line end.
    searched: usize,
    event: Event,
    has_data: bool,
}

impl Parser {
    fn next(&mut self) -> Option<Event> {
        loop {
            let line = self.line()?;
            if line.is_empty() {
                if let Some(event) = self.dispatch() {
                    return Some(event);
                }
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => self.event.name = value.to_owned(),
                "data" => {
                    if std::mem::replace(&mut self.has_data, true) {
                        self.event.data.push('\n');
                    }
                    self.event.data.push_str(value);
                }
                "id" => self.event.id = Some(value.to_owned()),
                _ => {} // a comment, `retry`, or what is to come
            }
        }
    }

    fn dispatch(&mut self) -> Option<Event> {
        let id = self.event.id.clone();
        let mut event = std::mem::replace(&mut self.event, Event { id, ..Event::default() });
        if event.name.is_empty() {
            "message".clone_into(&mut event.name);
        }
        std::mem::take(&mut self.has_data).then_some(event)
    }

    /// A line without its end, which is LF or CRLF (a lone CR is not used by our servers).
    fn line(&mut self) -> Option<String> {
        let end = self.unread[self.searched..].iter().position(|byte| *byte == b'\n');
        let Some(end) = end.map(|end| end + self.searched) else {
            self.searched = self.unread.len();
            return None;
        };
        let line: Vec<u8> = self.unread.drain(..=end).collect();
        self.searched = 0;
        Some(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_however_they_are_cut() {
        let text =
            ": hello\n\nid: 7\nevent: transition\ndata: {\"a\":\ndata: 1}\n\ndata:x\r\n\r\nevent: none\n\n";
        for cut in 1..text.len() {
            let mut parser = Parser::default();
            let mut events = Vec::new();
            for chunk in text.as_bytes().chunks(cut) {
                parser.unread.extend_from_slice(chunk);
                events.extend(std::iter::from_fn(|| parser.next()));
            }
            let event =
                |name: &str, data: &str| Event { name: name.into(), data: data.into(), id: Some("7".into()) };
            assert_eq!(events, [event("transition", "{\"a\":\n1}"), event("message", "x")], "cut in {cut}");
        }
    }
}
