//! Tools of other programs by the [Model Context Protocol](https://modelcontextprotocol.io), over standard input and output.
//!
//! An [`McpServer`] starts a [`Program`](super::process::Program), which may be confined, and greets it (`initialize`); its tools (`tools/list`) are
//! [`McpTool`]s, which a [`ToolSet`](super::tools::ToolSet) holds beside others. A call (`tools/call`) is one request. The protocol has no
//! reset, no reward and no end: these stay with the environment that has the tools, such as an [`McpEnvironment`].
//!
//! The version of the protocol is the server's, from 2024-11-05 to 2025-11-25. Other requests of the server than `ping` are refused, notifications
//! and lines that are no messages are passed over.

mod client;
pub(super) mod content;
mod environment;
mod server;

pub use environment::McpEnvironment;
pub use server::{McpServer, McpTool};
