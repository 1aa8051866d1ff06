//! A client for the protocol methods that tools need.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::super::json_text::{JsonText, shortened};
use super::super::process::exchange::{Exchange, Unsolicited};
use super::super::process::program::Launcher;
use super::content;
use crate::{Error, Result};

/// The requested version. Versions do not differ in these methods, so the server's version is
/// accepted.
const VERSION: &str = "2025-11-25";
/// The maximum number of pages of a list of tools.
const MAX_PAGES: usize = 1000;

/// A tool as the server describes it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Definition {
    pub name: String,
    #[serde(default)]
    pub description: Option<String>,
    #[serde(rename = "inputSchema")]
    pub parameters: JsonText,
}

/// The failure of a call.
#[derive(Debug)]
pub(super) enum Failure {
    /// An error of the arguments or the tool, which the model reads.
    Refused(String),
    /// An error of the server.
    Broken(String),
}

/// A running server.
pub(super) struct Client {
    exchange: Exchange,
}

impl Client {
    /// Starts and initializes a server.
    pub fn start(launcher: &Arc<Launcher>) -> Result<Self> {
        let client = Self {
            exchange: Exchange::start(launcher, unsolicited)?,
        };
        let params = json!({
            "protocolVersion": VERSION,
            "capabilities": {},
            "clientInfo": {"name": "rlvr", "version": env!("CARGO_PKG_VERSION")},
        });
        let _: Value = client.ask("initialize", &params)?;
        client
            .exchange
            .send(json!({"jsonrpc": "2.0", "method": "notifications/initialized"}).to_string());
        Ok(client)
    }

    pub fn is_dead(&self) -> bool {
        self.exchange.is_dead()
    }

    /// All tools, in the server's order.
    pub fn tools(&self) -> Result<Vec<Definition>> {
        #[derive(Deserialize)]
        struct Page {
            tools: Vec<Definition>,
            #[serde(rename = "nextCursor")]
            next: Option<String>,
        }

        let mut tools = Vec::new();
        let mut params = json!({});
        for _ in 0..MAX_PAGES {
            let page: Page = self.ask("tools/list", &params)?;
            tools.extend(page.tools);
            match page.next {
                Some(next) => params = json!({"cursor": next}),
                None => return Ok(tools),
            }
        }
        Err(self.error(
            "tools/list",
            format!("more than {MAX_PAGES} pages"),
            "a finite list",
        ))
    }

    /// Calls a tool and returns the text of its result.
    pub fn call(&self, name: &str, arguments: &Value) -> Result<String, Failure> {
        let params = json!({"name": name, "arguments": arguments});
        let result: Value = match self.request("tools/call", &params) {
            Ok(result) => result,
            Err(Trouble::Rpc { code, message }) => {
                return Err(match code {
                    // The server did not understand the message, or has no tools.
                    -32700 | -32600 | -32601 => {
                        let program = self.exchange.program();
                        Failure::Broken(format!("{program}: tools/call: {message} ({code})"))
                    }
                    _ => Failure::Refused(message),
                });
            }
            Err(Trouble::Lost(reason)) => return Err(Failure::Broken(reason)),
        };
        let text = content::text(&result);
        match result["isError"] == true {
            true => Err(Failure::Refused(text)),
            false => Ok(text),
        }
    }

    /// Sends a request whose failure is an error of the server.
    fn ask<T: DeserializeOwned>(&self, method: &str, params: &Value) -> Result<T> {
        let expected = "an MCP server on standard input and output";
        self.request(method, params)
            .map_err(|trouble| match trouble {
                Trouble::Lost(reason) => Error::config("mcp.server", reason, expected),
                Trouble::Rpc { code, message } => {
                    self.error(method, format!("{message} ({code})"), expected)
                }
            })
    }

    fn error(&self, method: &str, reason: String, expected: &str) -> Error {
        let program = self.exchange.program();
        Error::config(
            "mcp.server",
            format!("{program}: {method}: {reason}"),
            expected,
        )
    }

    fn request<T: DeserializeOwned>(&self, method: &str, params: &Value) -> Result<T, Trouble> {
        #[derive(Deserialize)]
        struct Answer<T> {
            result: T,
        }
        #[derive(Deserialize)]
        struct Refusal {
            error: RpcError,
        }
        #[derive(Deserialize)]
        struct RpcError {
            code: i64,
            message: String,
        }

        let line = self.exchange.request(|id| {
            json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string()
        });
        let line = line.map_err(Trouble::Lost)?;
        if let Ok(Refusal { error }) = serde_json::from_str(&line) {
            return Err(Trouble::Rpc {
                code: error.code,
                message: error.message,
            });
        }
        match serde_json::from_str::<Answer<T>>(&line) {
            Ok(answer) => Ok(answer.result),
            Err(error) => Err(Trouble::Lost(format!(
                "{}: {method}: its answer {:?}: {error}",
                self.exchange.program(),
                shortened(&line, 200)
            ))),
        }
    }
}

enum Trouble {
    /// A JSON-RPC error.
    Rpc { code: i64, message: String },
    /// No readable answer.
    Lost(String),
}

/// Handles requests of the server, notifications and lines that are not messages.
fn unsolicited(line: &str) -> Unsolicited {
    #[derive(Deserialize)]
    struct Call {
        #[serde(default)]
        id: Value,
        method: String,
    }

    let Ok(call) = serde_json::from_str::<Call>(line) else {
        // Some servers print other text; it is ignored.
        tracing::warn!(line = %shortened(line, 200), "an MCP server wrote a line that is not a message");
        return Unsolicited::Ignored;
    };
    match (&call.id, call.method.as_str()) {
        (Value::Null, _) => Unsolicited::Ignored,
        (id, "ping") => {
            Unsolicited::Answered(json!({"jsonrpc": "2.0", "id": id, "result": {}}).to_string())
        }
        (id, method) => {
            let error = json!({"code": -32601, "message": format!("{method} is not supported")});
            Unsolicited::Answered(json!({"jsonrpc": "2.0", "id": id, "error": error}).to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_the_server_are_answered() {
        let answer = |line: &str| match unsolicited(line) {
            Unsolicited::Answered(answer) => answer,
            Unsolicited::Ignored => "ignored".into(),
            Unsolicited::Wrong(expected) => expected.into(),
        };
        let ping = r#"{"jsonrpc":"2.0","id":"x","method":"ping"}"#;
        assert_eq!(answer(ping), r#"{"id":"x","jsonrpc":"2.0","result":{}}"#);
        let roots = answer(r#"{"jsonrpc":"2.0","id":1,"method":"roots/list"}"#);
        assert!(
            roots.contains("-32601") && roots.contains("\"id\":1"),
            "{roots}"
        );
        let progress = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{}}"#;
        assert_eq!(answer(progress), "ignored");
        assert_eq!(answer("Listening ..."), "ignored");
    }
}
